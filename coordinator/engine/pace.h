#ifndef SHOAL_ENGINE_PACE_H
#define SHOAL_ENGINE_PACE_H

/* How fast the cluster is, measured from the steps that came back; from it follow the number of
 * steps in flight and when a step is overdue. */
#include <stdint.h>

struct pace {
    uint32_t stage_count;
    uint32_t steps_in_flight_max;
    uint64_t measured;      /* steps */
    double *stage_ns;       /* [stage_count] running means of compute time */
    int64_t *stage_free_ns; /* [stage_count] when the model's stage has done all measured steps */
    double overhead_ns;     /* running mean of hops and the coordinator's turn, per step */
    double round_trip_ns;   /* running mean, waiting behind other steps included */
    double row_ns;          /* round trip per row of the cheapest steps, slowly forgotten */
};

void pace_init(struct pace *pace, uint32_t stage_count, uint32_t steps_in_flight_max);
void pace_deinit(struct pace *pace);
/* A step has come back, in the order of their return; compute_ns[stage_count]. */
void pace_measure(struct pace *pace, int64_t issued_ns, int64_t done_ns, uint32_t row_count,
                  const int64_t *compute_ns);
/* Steps in flight to aim at. */
uint32_t pace_steps_in_flight(const struct pace *pace);
/* The round trip that a step with so many rows will take; 0: nothing measured. */
int64_t pace_expected_ns(const struct pace *pace, uint32_t row_count);
/* How long a step may take when it and those before it have so many rows and are expected to take
 * `expected_ns`. */
int64_t pace_patience_ns(const struct pace *pace, int64_t expected_ns, uint64_t row_count);

#endif
