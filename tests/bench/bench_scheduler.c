/* bench_scheduler.c - what the scheduler costs for each step, beside everything else.
 *
 * 256 sequences over 4 lanes decode on a cluster that answers at once; printed is the time of
 * scheduler_next plus the reports of all workers and the outcomes, per step: plain, and with the
 * prefix cache (prompts of 1 024 tokens, half of them shared), drafts that are right three times in
 * four, and too few KV blocks, so that blocks are evicted and sequences preempted.
 */
#include "common/base/mem.h"
#include "common/plan/placement.h"
#include "coordinator/engine/scheduler.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#define SEQUENCES 256
#define LANES     4
#define STEPS     10000
#define DRAFTS    3

struct bench_case {
    const char *name;
    uint32_t stage_count;
    uint32_t prompt_count;
    uint32_t kv_block_count; /* per lane */
    bool prefix_cache;
    enum draft_mode draft_mode;
};

struct bench {
    const struct bench_case *what;
    struct scheduler *scheduler;
    uint64_t next_id;
    struct step_sample samples[LANES][SEQUENCES * (1 + DRAFTS)];
    struct step_proposal proposals[LANES][SEQUENCES];
    uint32_t proposed[SEQUENCES][DRAFTS]; /* by entry */
    uint32_t sample_counts[LANES], proposal_counts[LANES];
};

/* Of this thread: others may be busy on the machine. */
static int64_t cpu_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void fill(struct bench *bench)
{
    uint32_t prompt[1024];
    struct scheduler_stats stats;
    struct error err;

    scheduler_stats(bench->scheduler, &stats);
    for (uint32_t live = stats.running + stats.waiting; live < SEQUENCES; live++) {
        uint64_t id = bench->next_id++;
        struct scheduler_request request = {.sequence = id,
                                            .prompt = prompt,
                                            .prompt_count = bench->what->prompt_count,
                                            .tokens_max = 400 + (uint32_t)(id % 200)};

        for (uint32_t i = 0; i < request.prompt_count; i++) {
            prompt[i] = i < request.prompt_count / 2 ? (uint32_t)(id % 8) : (uint32_t)id + i;
        }
        ASSERT(scheduler_submit(bench->scheduler, &request, 0, &err));
    }
}

/* What the model says: tokens in a circle, so that lookup finds them. */
static uint32_t model_token(const struct step_entry *entry, uint32_t row)
{
    uint32_t position = entry->position + row + 1;

    return position % 16 == 0 ? 100 + position : position % 16;
}

static void entry_answer(struct bench *bench, const struct step_entry *entry, uint32_t index)
{
    static const uint32_t wrong[DRAFTS];
    uint32_t row = entry->token_count - entry->draft_count - 1;

    for (uint32_t i = 0; i <= entry->draft_count; i++) {
        bench->samples[entry->lane][bench->sample_counts[entry->lane]++] =
            (struct step_sample){.entry = index, .index = i, .token = model_token(entry, row + i)};
    }
    if (entry->propose_max > 0) {
        uint32_t *right = bench->proposed[index];

        for (uint32_t i = 0; i < entry->propose_max; i++) {
            right[i] = model_token(entry, entry->token_count + i);
        }
        bench->proposals[entry->lane][bench->proposal_counts[entry->lane]++] =
            (struct step_proposal){.entry = index,
                                   .count = entry->propose_max,
                                   .tokens = entry->position % 4 == 0 ? wrong : right};
    }
}

/* Prepares what the workers say; not part of the scheduler's time. */
static void answers_make(struct bench *bench, const struct step *step)
{
    for (uint32_t lane = 0; lane < LANES; lane++) {
        bench->sample_counts[lane] = 0;
        bench->proposal_counts[lane] = 0;
    }
    for (uint32_t i = 0; i < step->entry_count; i++) {
        if ((step->entries[i].wants & WANT_SAMPLE) != 0) {
            entry_answer(bench, &step->entries[i], i);
        }
    }
}

static void answer(struct bench *bench, uint64_t step, uint32_t rows, int64_t now_ns)
{
    struct error err;

    for (uint32_t stage = 0; stage < bench->what->stage_count; stage++) {
        for (uint32_t member = 0; member < LANES; member++) {
            struct step_report report = {.step = step,
                                         .stage = stage,
                                         .member = member,
                                         .compute_ns = 200000 + 1000 * (int64_t)rows};

            if (stage + 1 == bench->what->stage_count) {
                report.sample_count = bench->sample_counts[member];
                report.samples = bench->samples[member];
                report.proposal_count = bench->proposal_counts[member];
                report.proposals = bench->proposals[member];
            }
            ASSERT(scheduler_report(bench->scheduler, &report, now_ns, &err));
        }
    }
}

static int64_t step_measure(struct bench *bench, int64_t now_ns)
{
    struct outcome outcome;
    struct step step;
    int64_t begin_ns, spent_ns;

    fill(bench);
    begin_ns = cpu_ns();
    ASSERT(scheduler_next(bench->scheduler, now_ns, &step));
    spent_ns = cpu_ns() - begin_ns;
    answers_make(bench, &step);
    begin_ns = cpu_ns();
    answer(bench, step.number, step_row_count(&step), now_ns + 500000);
    while (scheduler_outcome(bench->scheduler, &outcome)) {
    }
    return spent_ns + cpu_ns() - begin_ns;
}

static void print_result(const struct bench *bench, int64_t spent_ns)
{
    struct scheduler_stats stats;

    scheduler_stats(bench->scheduler, &stats);
    printf("{\"case\":\"%s\",\"stages\":%u,\"sequences\":%u,\"lanes\":%u,\"rows_per_step\":%.1f,"
           "\"tokens_per_step\":%.1f,\"cached\":%.2f,\"accepted\":%.2f,\"preemptions\":%" PRIu64
           ",\"evictions\":%" PRIu64 ",\"us_per_step\":%.2f}\n",
           bench->what->name, bench->what->stage_count, SEQUENCES, LANES,
           (double)stats.rows / STEPS, (double)stats.generated_tokens / STEPS,
           (double)stats.prefix_hit_tokens / (double)(stats.prompt_tokens + 1),
           (double)stats.accepted / (double)(stats.drafted + 1), stats.preemptions, stats.evictions,
           (double)spent_ns / STEPS / 1000);
}

static void measure(const struct bench_case *what)
{
    struct scheduler_config config = {
        .lane_count = LANES,
        .stage_count = what->stage_count,
        .slot_count = SEQUENCES / LANES,
        .kv_block_count = what->kv_block_count,
        .context_tokens_max = 2048,
        .step_rows_max = 2048,
        .steps_in_flight_max = what->stage_count + 2,
        .queue_max = SEQUENCES,
        .prefix_cache = what->prefix_cache,
        .draft_mode = what->draft_mode,
        .draft_max = DRAFTS,
    };
    struct bench *bench = mem_new(struct bench);
    int64_t spent_ns = 0;

    bench->scheduler = scheduler_create(&config);
    bench->what = what;
    for (uint32_t i = 0; i < STEPS; i++) {
        spent_ns += step_measure(bench, i * 1000000ll);
    }
    print_result(bench, spent_ns);
    scheduler_destroy(bench->scheduler);
    mem_free(bench);
}

int main(void)
{
    static const struct bench_case cases[] = {
        {"plain", 1, 64, 64 * 16, false, DRAFT_NONE},
        {"plain", 4, 64, 64 * 16, false, DRAFT_NONE},
        {"prefix cache", 4, 1024, 64 * 32, true, DRAFT_NONE},
        {"prefix cache, layer drafts", 1, 1024, 64 * 32, true, DRAFT_LAYER},
        {"prefix cache, layer drafts", 4, 1024, 64 * 32, true, DRAFT_LAYER},
        {"prefix cache, lookup drafts", 4, 1024, 64 * 32, true, DRAFT_LOOKUP},
        {"all, little memory", 4, 1024, 64 * 12, true, DRAFT_LOOKUP},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        measure(&cases[i]);
    }
    return 0;
}
