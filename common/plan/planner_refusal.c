/* planner_refusal.c - why a model does not fit, and what would.
 *
 * The partition that asks least of its worst worker is the one to show: its figures say by how much
 * it fails. Then two questions are put to the same optimiser: how many KV tokens would fit on these
 * workers, and how many more workers like the largest would carry the request as it is. Where
 * neither helps, as when a layer is larger than every worker, that partition answers a third: how
 * much memory as many workers would need.
 */
#include "common/plan/planner_refusal.h"

#include "common/base/check.h"
#include "common/base/units.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define WORKERS_MORE_MAX 64

struct tightest {
    const struct planner_worker *worker;
    struct partition_need need;
    uint32_t lanes;
    uint64_t most_bytes; /* that any worker needs, this one or another */
};

static struct tightest tightest_find(const struct partition *partition, struct arena *arena)
{
    uint32_t *counts = arena_new_array(arena, uint32_t, partition->lane_count);
    struct partition_stage *stages =
        arena_new_array(arena, struct partition_stage, partition->stage_count);
    struct tightest tightest = {0};
    double worst = -1;

    ASSERT(partition_solve(partition, PARTITION_MEMORY, stages));
    for (uint32_t i = 0; i < partition->stage_count; i++) {
        uint32_t member_count = stages[i].worker_end - stages[i].worker_begin;

        partition_experts_spread(partition, &stages[i], counts);
        for (uint32_t m = 0; m < member_count; m++) {
            const struct planner_worker *worker = partition->workers[stages[i].worker_begin + m];
            struct partition_need need = partition_need(partition, &stages[i], m, counts[m]);
            double load = (double)need.total_bytes / ((double)worker->memory_bytes + 1);

            if (need.total_bytes > tightest.most_bytes) {
                tightest.most_bytes = need.total_bytes;
            }
            if (load > worst) {
                worst = load;
                tightest.worker = worker;
                tightest.need = need;
                tightest.lanes = partition_lanes(partition, m, member_count);
            }
        }
    }
    return tightest;
}

/* The largest number of KV tokens per lane that fits, in whole blocks; 0: none. */
static uint64_t kv_tokens_fitting(const struct partition *partition, struct arena *arena)
{
    struct partition_stage *stages =
        arena_new_array(arena, struct partition_stage, partition->stage_count);
    struct partition smaller = *partition;
    uint64_t fits = 0;
    uint64_t fails = partition->kv_tokens / PLAN_BLOCK_TOKENS;

    while (fits + 1 < fails) {
        uint64_t middle = fits + (fails - fits) / 2;

        smaller.kv_tokens = middle * PLAN_BLOCK_TOKENS;
        if (partition_solve(&smaller, PARTITION_TIME, stages)) {
            fits = middle;
        } else {
            fails = middle;
        }
    }
    return fits * PLAN_BLOCK_TOKENS;
}

static const struct planner_worker *worker_largest(const struct planner_request *request)
{
    const struct planner_worker *largest = &request->workers[0];

    for (uint32_t i = 1; i < request->worker_count; i++) {
        if (request->workers[i].memory_bytes > largest->memory_bytes) {
            largest = &request->workers[i];
        }
    }
    return largest;
}

/* Does it fit with `more` copies of a worker at the end of the order? Groups of a given size make
 * stages; otherwise a stage for each, as long as there are layers. */
static bool fits_with_more(const struct partition *partition, uint32_t more,
                           const struct planner_worker *like, struct arena *arena)
{
    struct planner_request request = *partition->request;
    const struct planner_worker **workers =
        arena_new_array(arena, const struct planner_worker *, (size_t)request.worker_count + more);
    struct partition_stage *stages;
    struct partition larger;

    memcpy(workers, partition->workers, request.worker_count * sizeof(*workers));
    for (uint32_t i = 0; i < more; i++) {
        workers[request.worker_count + i] = like;
    }
    request.worker_count += more;
    request.stage_count += request.group_size > 0 ? more / request.group_size : more;
    if (request.stage_count > request.layer_count) {
        return false;
    }
    stages = arena_new_array(arena, struct partition_stage, request.stage_count);
    partition_init(&larger, &request, workers, arena);
    return partition_solve(&larger, PARTITION_TIME, stages);
}

/* 0: not with up to WORKERS_MORE_MAX. */
static uint32_t workers_more(const struct partition *partition, const struct planner_worker *like,
                             struct arena *arena)
{
    uint32_t group = partition->request->group_size > 0 ? partition->request->group_size : 1;

    for (uint32_t more = group; more <= WORKERS_MORE_MAX; more += group) {
        if (fits_with_more(partition, more, like, arena)) {
            return more;
        }
    }
    return 0;
}

static void remedy_write(const struct partition *partition, const struct tightest *tightest,
                         struct arena *arena, char *text, size_t text_bytes)
{
    const struct planner_worker *like = worker_largest(partition->request);
    uint64_t tokens = kv_tokens_fitting(partition, arena);
    uint32_t more = workers_more(partition, like, arena);
    char fewer_text[64] = "";
    char more_text[96] = "";

    if (tokens > 0) {
        (void)snprintf(fewer_text, sizeof(fewer_text), "a context of %" PRIu64 " tokens", tokens);
    }
    if (more > 0) {
        (void)snprintf(more_text, sizeof(more_text), "%u more worker%s like worker %u", more,
                       more == 1 ? "" : "s", like->id);
    }
    if (tokens == 0 && more == 0) {
        /* Three digits are shown; rounded up, so that what they say does fit. */
        uint64_t bytes = tightest->most_bytes + tightest->most_bytes / 200;
        struct units_text most;

        (void)snprintf(text, text_bytes, "%u worker%s with %s each would fit",
                       partition->request->worker_count,
                       partition->request->worker_count == 1 ? "" : "s", units_bytes(&most, bytes));
        return;
    }
    (void)snprintf(text, text_bytes, "%s%s%s would fit", fewer_text,
                   tokens > 0 && more > 0 ? ", or " : "", more_text);
}

void planner_refuse(const struct partition *partition, struct arena *arena, struct error *err)
{
    struct tightest tightest = tightest_find(partition, arena);
    struct units_text weights, kv, fixed, total, memory;
    char remedy[192];

    remedy_write(partition, &tightest, arena, remedy, sizeof(remedy));
    (void)error_set(err, ERROR_LIMIT,
                    "worker %u (%.63s): weights %s + kv %s (%" PRIu64 " tokens, %u lane%s) + fixed "
                    "%s = %s, but it has %s; %s",
                    tightest.worker->id, tightest.worker->host[0] ? tightest.worker->host : "local",
                    units_bytes(&weights, tightest.need.weight_bytes),
                    units_bytes(&kv, tightest.need.kv_bytes), partition->kv_tokens, tightest.lanes,
                    tightest.lanes == 1 ? "" : "s",
                    units_bytes(&fixed, partition->request->fixed_bytes),
                    units_bytes(&total, tightest.need.total_bytes),
                    units_bytes(&memory, tightest.worker->memory_bytes), remedy);
}
