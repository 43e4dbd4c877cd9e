/* pace.c - measuring stages, hops and turns.
 *
 * A step's round trip holds the time it waited behind earlier steps, which must not count as hop
 * time: more steps in flight would look like slower hops and ask for still more steps. So every
 * returned step is replayed on a model of the pipeline without hops, where stage s works on step k
 * from max(its end on stage s - 1, the end of step k - 1 on stage s). What the real step took
 * beyond the model's is its hops and the coordinator's turn, waiting excluded.
 *
 * The number of steps in flight is DESIGN.md's rule, (stages + overhead) / slowest stage, with the
 * times taken at the load that a step has when so many share the rows: a further step hides
 * overhead and makes all steps smaller, but every stage reads its weights once more.
 */
#include "coordinator/engine/pace.h"

#include "common/base/check.h"
#include "common/base/mem.h"

#include <math.h>
#include <stdbool.h>

#define MEAN_WEIGHT     0.125
#define FORGET_WEIGHT   (1.0 / 64)
#define NEARLY_BEST     0.98
#define MEASURED_ENOUGH 8 /* steps until the measured times predict and set deadlines */
#define PATIENCE_FACTOR 10
#define PATIENCE_MIN_NS 2000000000ll
/* Nothing is known yet, and a large model on few cores takes its time for every row. */
#define PATIENCE_NEW_NS     60000000000ll
#define PATIENCE_NEW_ROW_NS 4000000000ll
#define EXPECTED_NS_MAX     3600e9
#define FIXED_ROWS_GUESS    32.0
#define CHUNKS_MORE         64   /* than the fewest are tried, */
#define CHUNKS_WORSE        1.05 /* and none beyond one that takes so much longer */

void pace_init(struct pace *pace, uint32_t stage_count, uint32_t steps_in_flight_max)
{
    *pace = (struct pace){
        .stage_count = stage_count,
        .steps_in_flight_max = steps_in_flight_max,
        .costs = mem_new_array(struct stage_cost, stage_count),
        .stage_free_ns = mem_new_array(int64_t, stage_count),
    };
    for (uint32_t stage = 0; stage < stage_count; stage++) {
        stage_cost_init(&pace->costs[stage]);
    }
}

void pace_deinit(struct pace *pace)
{
    for (uint32_t stage = 0; stage < pace->stage_count; stage++) {
        stage_cost_deinit(&pace->costs[stage]);
    }
    mem_free(pace->costs);
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

void pace_measure(struct pace *pace, int64_t issued_ns, int64_t done_ns,
                  const struct step_load *load, const int64_t *compute_ns)
{
    int64_t model_end = model_run(pace, issued_ns, done_ns, compute_ns);
    double round_trip = (double)(done_ns - issued_ns);
    double row_ns = round_trip / (load->rows > 0 ? load->rows : 1);

    for (uint32_t stage = 0; stage < pace->stage_count; stage++) {
        stage_cost_measure(&pace->costs[stage], load, compute_ns[stage]);
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

double pace_step_ns(const struct pace *pace, const struct step_load *load)
{
    double slowest = 0;

    if (pace->measured < MEASURED_ENOUGH) {
        return 0;
    }
    for (uint32_t stage = 0; stage < pace->stage_count; stage++) {
        slowest = fmax(slowest, stage_cost_ns(&pace->costs[stage], load));
    }
    return slowest;
}

/* A step's way through all stages and back, nothing before it. */
static double passage_ns(const struct pace *pace, const struct step_load *load)
{
    double all = pace->overhead_ns;

    for (uint32_t stage = 0; stage < pace->stage_count; stage++) {
        all += stage_cost_ns(&pace->costs[stage], load);
    }
    return all;
}

double pace_cycle_ns(const struct pace *pace, const struct step_load *load, uint32_t steps)
{
    if (pace->measured < MEASURED_ENOUGH) {
        return 0;
    }
    return fmax(steps * pace_step_ns(pace, load), passage_ns(pace, load));
}

static struct step_load load_join(const struct step_load *base, uint64_t context, uint32_t rows)
{
    return (struct step_load){
        .rows = base->rows + rows,
        .attended = base->attended + rows * context + (uint64_t)rows * (rows + 1ull) / 2,
        .sampled = base->sampled,
    };
}

uint32_t pace_rows_max(const struct pace *pace, const struct step_load *base, uint64_t context,
                       uint32_t rows_max, int64_t limit_ns)
{
    struct step_load all = load_join(base, context, rows_max);
    uint32_t fits = 0; /* or none does */
    uint32_t above = rows_max;

    if (pace->measured < MEASURED_ENOUGH || pace_step_ns(pace, &all) <= (double)limit_ns) {
        return rows_max;
    }
    while (fits + 1 < above) {
        uint32_t middle = fits + (above - fits) / 2;
        struct step_load load = load_join(base, context, middle);

        if (pace_step_ns(pace, &load) <= (double)limit_ns) {
            fits = middle;
        } else {
            above = middle;
        }
    }
    return fits;
}

/* The time that `rows` of prompts take through the pipeline in so many equal steps: one passes all
 * stages, and the slowest stage does the others, too. */
static double prompt_ns(const struct pace *pace, uint64_t rows, uint64_t steps)
{
    struct step_load load = {.rows = (uint32_t)((rows + steps - 1) / steps),
                             .attended = rows * (rows + 1) / 2 / steps};

    if (pace->measured < MEASURED_ENOUGH) {
        return (FIXED_ROWS_GUESS + load.rows) * (double)(pace->stage_count + steps - 1);
    }
    return passage_ns(pace, &load) + (double)(steps - 1) * pace_step_ns(pace, &load);
}

uint32_t pace_chunk_rows(const struct pace *pace, uint64_t rows, uint32_t rows_least,
                         uint32_t rows_max)
{
    uint64_t fewest = (rows + rows_max - 1) / rows_max;
    uint64_t most = rows / rows_least;
    uint64_t chosen = fewest;
    double best = prompt_ns(pace, rows, fewest);

    if (pace->stage_count == 1) {
        return rows < rows_max ? (uint32_t)rows : rows_max; /* nobody would wait */
    }
    for (uint64_t steps = fewest + 1; steps <= most && steps <= fewest + CHUNKS_MORE; steps++) {
        double time = prompt_ns(pace, rows, steps);

        if (time < best) {
            chosen = steps;
            best = time;
        } else if (time > CHUNKS_WORSE * best) {
            break;
        }
    }
    return (uint32_t)((rows + chosen - 1) / chosen);
}

struct share_rate {
    double rows_per_ns;
    bool saturated; /* the slowest stage never waits */
};

/* What comes of dividing `shared` among so many steps. */
static struct share_rate share_rate(const struct pace *pace, const struct step_load *shared,
                                    const struct step_load *each, uint32_t steps)
{
    struct step_load fullest = {
        .rows = (shared->rows + steps - 1) / steps + each->rows,
        .attended = (shared->attended + steps - 1) / steps + each->attended,
        .sampled = (shared->sampled + steps - 1) / steps + each->sampled,
    };
    struct step_load all = {
        .rows = shared->rows + steps * each->rows,
        .attended = shared->attended + steps * each->attended,
        .sampled = shared->sampled + steps * each->sampled,
    };
    double passage = passage_ns(pace, &fullest);
    double slowest = 0;

    for (uint32_t stage = 0; stage < pace->stage_count; stage++) {
        const struct stage_cost *cost = &pace->costs[stage];

        slowest = fmax(slowest, stage_cost_ns(cost, &all) + (steps - 1) * cost->ns[0]);
    }
    return (struct share_rate){all.rows / fmax(slowest, passage), slowest >= passage};
}

uint32_t pace_steps_in_flight(const struct pace *pace, const struct step_load *shared,
                              const struct step_load *each)
{
    uint32_t steps_max = pace->steps_in_flight_max;
    uint32_t chosen = 1;
    double best = 0;

    if (pace->measured < MEASURED_ENOUGH || shared->rows + each->rows == 0) {
        return pace->stage_count < steps_max ? pace->stage_count : steps_max;
    }
    if (each->rows == 0 && shared->rows < steps_max) {
        steps_max = shared->rows;
    }
    for (uint32_t steps = 1; steps <= steps_max; steps++) {
        best = fmax(best, share_rate(pace, shared, each, steps).rows_per_ns);
    }
    for (uint32_t steps = 1; steps <= steps_max; steps++) {
        struct share_rate rate = share_rate(pace, shared, each, steps);

        if (rate.rows_per_ns >= NEARLY_BEST * best) {
            chosen = steps;
            if (rate.saturated) {
                break;
            }
        }
    }
    return chosen;
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
