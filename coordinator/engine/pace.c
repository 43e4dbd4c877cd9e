/* pace.c - measuring stages, hops and turns.
 *
 * A step's round trip holds the time it waited behind earlier steps, which must not count as hop
 * time: more steps in flight would look like slower hops and ask for still more steps. So every
 * returned step is replayed on a model of the pipeline without hops, where stage s works on step k
 * from max(its end on stage s - 1, the end of step k - 1 on stage s). What the real step took
 * beyond the model's is its hops and the coordinator's turn, waiting excluded.
 *
 * Steps in flight = ceil((stages + overhead) / slowest stage), DESIGN.md's rule, with SLACK of a
 * step cut off: with one stage any overhead at all would otherwise split the batch in two, and two
 * half batches read the weights twice.
 */
#include "coordinator/engine/pace.h"

#include "common/base/check.h"
#include "common/base/mem.h"

#include <math.h>

#define MEAN_WEIGHT     0.125
#define FORGET_WEIGHT   (1.0 / 64)
#define SLACK           0.15
#define MEASURED_ENOUGH 8 /* steps until the measured times set deadlines */
#define PATIENCE_FACTOR 10
#define PATIENCE_MIN_NS 2000000000ll
/* Nothing is known yet, and a large model on few cores takes its time for every row. */
#define PATIENCE_NEW_NS     60000000000ll
#define PATIENCE_NEW_ROW_NS 4000000000ll
#define EXPECTED_NS_MAX     3600e9

void pace_init(struct pace *pace, uint32_t stage_count, uint32_t steps_in_flight_max)
{
    *pace = (struct pace){
        .stage_count = stage_count,
        .steps_in_flight_max = steps_in_flight_max,
        .stage_ns = mem_new_array(double, stage_count),
        .stage_free_ns = mem_new_array(int64_t, stage_count),
    };
}

void pace_deinit(struct pace *pace)
{
    mem_free(pace->stage_ns);
    mem_free(pace->stage_free_ns);
}

static void mean_move(const struct pace *pace, double *mean, double sample)
{
    *mean = pace->measured == 0 ? sample : *mean + MEAN_WEIGHT * (sample - *mean);
}

/* When the model without hops has finished the step. */
static int64_t model_run(struct pace *pace, int64_t issued_ns, int64_t done_ns,
                         const int64_t *compute_ns)
{
    int64_t end = issued_ns;

    for (uint32_t stage = 0; stage < pace->stage_count; stage++) {
        int64_t begin = pace->stage_free_ns[stage] > end ? pace->stage_free_ns[stage] : end;

        end = begin + compute_ns[stage];
        pace->stage_free_ns[stage] = end < done_ns ? end : done_ns; /* never ahead of the truth */
    }
    return end;
}

void pace_measure(struct pace *pace, int64_t issued_ns, int64_t done_ns, uint32_t row_count,
                  const int64_t *compute_ns)
{
    int64_t model_end = model_run(pace, issued_ns, done_ns, compute_ns);
    double round_trip = (double)(done_ns - issued_ns);
    double row_ns = round_trip / (row_count > 0 ? row_count : 1);

    for (uint32_t stage = 0; stage < pace->stage_count; stage++) {
        mean_move(pace, &pace->stage_ns[stage], (double)compute_ns[stage]);
    }
    mean_move(pace, &pace->overhead_ns, done_ns > model_end ? (double)(done_ns - model_end) : 0);
    mean_move(pace, &pace->round_trip_ns, round_trip);
    if (pace->measured == 0 || row_ns < pace->row_ns) {
        pace->row_ns = row_ns;
    } else {
        pace->row_ns += FORGET_WEIGHT * (row_ns - pace->row_ns);
    }
    pace->measured++;
}

uint32_t pace_steps_in_flight(const struct pace *pace)
{
    double slowest = 0;
    double all = pace->overhead_ns;
    double steps = pace->stage_count;

    for (uint32_t stage = 0; stage < pace->stage_count; stage++) {
        slowest = fmax(slowest, pace->stage_ns[stage]);
        all += pace->stage_ns[stage];
    }
    if (slowest > 0) {
        steps = fmax(steps, ceil(all / slowest - SLACK));
    }
    return (uint32_t)fmin(steps, pace->steps_in_flight_max);
}

int64_t pace_expected_ns(const struct pace *pace, uint32_t row_count)
{
    return (int64_t)fmin(fmax(pace->round_trip_ns, pace->row_ns * row_count), EXPECTED_NS_MAX);
}

int64_t pace_patience_ns(const struct pace *pace, int64_t expected_ns, uint64_t row_count)
{
    int64_t min = pace->measured < MEASURED_ENOUGH
                      ? PATIENCE_NEW_NS + (int64_t)row_count * PATIENCE_NEW_ROW_NS
                      : PATIENCE_MIN_NS;
    int64_t patience = PATIENCE_FACTOR * expected_ns;

    return patience > min ? patience : min;
}
