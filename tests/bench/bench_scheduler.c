/* bench_scheduler.c - what the scheduler costs for each step, beside everything else.
 *
 * 256 sequences over 4 lanes decode on a cluster that answers at once; printed is the time of
 * scheduler_next plus the reports of all workers and the outcomes, per step.
 */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/plan/placement.h"
#include "coordinator/engine/scheduler.h"

#include <inttypes.h>
#include <stdio.h>

#define SEQUENCES 256
#define LANES     4
#define STEPS     20000

struct bench {
    struct scheduler *scheduler;
    uint32_t stage_count;
    struct step_sample samples[LANES][SEQUENCES];
};

static void fill(struct bench *bench, uint64_t *next_id)
{
    uint32_t prompt[64] = {0};
    struct scheduler_stats stats;
    struct error err;

    scheduler_stats(bench->scheduler, &stats);
    for (uint32_t live = stats.running + stats.waiting; live < SEQUENCES; live++) {
        struct scheduler_request request = {.sequence = (*next_id)++,
                                            .prompt = prompt,
                                            .prompt_count = 64,
                                            .tokens_max = 400 + (uint32_t)(*next_id % 200)};

        ASSERT(scheduler_submit(bench->scheduler, &request, 0, &err));
    }
}

static void answer(struct bench *bench, const struct step *step, int64_t now_ns)
{
    uint32_t counts[LANES] = {0};
    struct error err;

    for (uint32_t i = 0; i < step->entry_count; i++) {
        uint32_t lane = step->entries[i].lane;

        if ((step->entries[i].wants & WANT_SAMPLE) != 0) {
            bench->samples[lane][counts[lane]++] = (struct step_sample){.entry = i, .token = 9};
        }
    }
    for (uint32_t stage = 0; stage < bench->stage_count; stage++) {
        for (uint32_t member = 0; member < LANES; member++) {
            struct step_report report = {
                .step = step->number, .stage = stage, .member = member, .compute_ns = 1000};

            if (stage + 1 == bench->stage_count) {
                report.sample_count = counts[member];
                report.samples = bench->samples[member];
            }
            ASSERT(scheduler_report(bench->scheduler, &report, now_ns, &err));
        }
    }
}

static void measure(uint32_t stage_count)
{
    struct scheduler_config config = {
        .lane_count = LANES,
        .stage_count = stage_count,
        .slot_count = SEQUENCES / LANES,
        .kv_block_count = SEQUENCES / LANES * 16,
        .context_tokens_max = 1024,
        .step_rows_max = 512,
        .steps_in_flight_max = stage_count + 2,
        .queue_max = SEQUENCES,
    };
    struct bench *bench = mem_new(struct bench);
    struct scheduler_stats stats;
    struct outcome outcome;
    struct step step;
    uint64_t next_id = 0;
    int64_t spent_ns = 0;

    bench->scheduler = scheduler_create(&config);
    bench->stage_count = stage_count;
    for (uint32_t i = 0; i < STEPS; i++) {
        int64_t begin_ns;

        fill(bench, &next_id);
        begin_ns = clock_monotonic_ns();
        ASSERT(scheduler_next(bench->scheduler, i * 1000000ll, &step));
        answer(bench, &step, i * 1000000ll + 500000);
        while (scheduler_outcome(bench->scheduler, &outcome)) {
        }
        spent_ns += clock_monotonic_ns() - begin_ns;
    }
    scheduler_stats(bench->scheduler, &stats);
    printf("{\"stages\":%u,\"sequences\":%u,\"lanes\":%u,\"rows_per_step\":%.1f,"
           "\"us_per_step\":%.2f}\n",
           stage_count, SEQUENCES, LANES, (double)stats.rows / STEPS,
           (double)spent_ns / STEPS / 1000);
    scheduler_destroy(bench->scheduler);
    mem_free(bench);
}

int main(void)
{
    measure(1);
    measure(4);
    return 0;
}
