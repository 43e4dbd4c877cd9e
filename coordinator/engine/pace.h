#ifndef SHOAL_ENGINE_PACE_H
#define SHOAL_ENGINE_PACE_H

/* How fast the cluster is, measured from the steps that came back; from it follow what a step will
 * take, how many rows one may have, the number of steps in flight and when a step is overdue. */
#include "coordinator/engine/stage_cost.h"

#include <stdint.h>

struct pace {
    uint32_t stage_count;
    uint32_t steps_in_flight_max;
    uint64_t measured;        /* steps */
    struct stage_cost *costs; /* [stage_count] */
    int64_t *stage_free_ns;   /* [stage_count] when the model's stage has done all measured steps */
    double overhead_ns;       /* running mean of hops and the coordinator's turn, per step */
    double round_trip_ns;     /* running mean, waiting behind other steps included */
    double row_ns;            /* round trip per row of the cheapest steps, slowly forgotten */
};

void pace_init(struct pace *pace, uint32_t stage_count, uint32_t steps_in_flight_max);
void pace_deinit(struct pace *pace);
/* A step has come back, in the order of their return; load and compute_ns[stage_count] are
 * borrowed. */
void pace_measure(struct pace *pace, int64_t issued_ns, int64_t done_ns,
                  const struct step_load *load, const int64_t *compute_ns);
/* What the slowest stage will compute for such a step; 0: unknown yet. */
double pace_step_ns(const struct pace *pace, const struct step_load *load);
/* The time in which `steps` such steps, always in flight (>= 1), each come back once: steps x the
 * slowest stage, but no less than all stages, hops and the coordinator's turn together; 0: unknown
 * yet. */
double pace_cycle_ns(const struct pace *pace, const struct step_load *load, uint32_t steps);
/* The most prompt rows, the first at position `context`, that can join `base` while the predicted
 * pace_step_ns stays at or below limit_ns; none of them is counted as sampled. rows_max while
 * nothing is known; grows with limit_ns. */
uint32_t pace_rows_max(const struct pace *pace, const struct step_load *base, uint64_t context,
                       uint32_t rows_max, int64_t limit_ns);
/* Rows of a step, at most rows_max and no fewer than rows_least, with which `rows` (>= 1) of
 * prompts are through all stages soonest: many steps keep all stages at work from early on till
 * late, few steps read the weights seldom. While nothing is known a pass over the weights counts as
 * much as the arithmetic of 32 rows. */
uint32_t pace_chunk_rows(const struct pace *pace, uint64_t rows, uint32_t rows_least,
                         uint32_t rows_max);
/* Steps in flight to aim at.
 *   shared  what they divide among them: every decoding sequence's next row, in a step or ready
 *   each    what every one of them carries besides: a prompt chunk (all 0: no prompt waits)
 * The fewest steps whose predicted rows per second are within 2 % of the best number's. While
 * nothing is known: the number of stages. At least 1, at most steps_in_flight_max. */
uint32_t pace_steps_in_flight(const struct pace *pace, const struct step_load *shared,
                              const struct step_load *each);
/* The round trip that a step with so many rows will take; 0: nothing measured. */
int64_t pace_expected_ns(const struct pace *pace, uint32_t row_count);
/* How long a step may take when it and those before it have so many rows and are expected to take
 * `expected_ns`. */
int64_t pace_patience_ns(const struct pace *pace, int64_t expected_ns, uint64_t row_count);

#endif
