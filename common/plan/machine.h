#ifndef SHOAL_PLAN_MACHINE_H
#define SHOAL_PLAN_MACHINE_H

/* The machine that a worker of a described cluster runs on, as far as messages care. */
#include <stdint.h>

/* A message between machines passes both their ports: as slow as the slower one. Workers of one
 * machine talk through its memory. */
struct plan_port {
    uint32_t machine;
    double bytes_per_s;
    double latency_s; /* one way */
};

#endif
