#ifndef SHOAL_API_HISTOGRAM_H
#define SHOAL_API_HISTOGRAM_H

/* Durations counted by size, for /metrics. Zero it to begin; any number of threads may observe. */
#include "common/base/buffer.h"

#include <stdatomic.h>
#include <stdint.h>

#define HISTOGRAM_BOUNDS 18 /* from 20 us to 10 s, in steps of about two */

struct histogram {
    _Atomic uint64_t counts[HISTOGRAM_BOUNDS + 1]; /* the last: above all bounds */
    _Atomic uint64_t sum_ns;
};

void histogram_observe(struct histogram *histogram, int64_t duration_ns);
/* Appends the family in Prometheus' text format, in seconds. */
void histogram_write(const struct histogram *histogram, const char *name, const char *help,
                     struct buffer *out);

#endif
