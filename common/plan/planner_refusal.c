/* planner_refusal.c - why a model does not fit, and what would.
 *
 * The partition that asks least of its worst worker is the one to show: its figures say by how much
 * it fails. Then two questions are put to the same optimiser: how many KV tokens would fit on these
 * workers, and how many more workers like the largest would carry the request as it is. That
 * partition itself answers a third: how much memory as many workers would need. Its answer is all
 * that is left where a layer is larger than every worker.
 */
#include "common/plan/planner_refusal.h"

#include "common/base/check.h"
#include "common/base/units.h"
#include "common/plan/planner_placement.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define WORKERS_MORE_MAX 64

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

/* The worst worker's figures, and the sum of what is missing. */
static void ledgers_read(struct planner_refusal *refusal)
{
    const struct planner_request *request = &refusal->request;

    for (uint32_t i = 0; i < refusal->nearest->stage_count; i++) {
        const struct placement_stage *stage = &refusal->nearest->stages[i];

        for (uint32_t m = 0; m < stage->member_count; m++) {
            struct planner_ledger ledger =
                planner_ledger_of(request, refusal->nearest, stage->workers[m]);
            double load = (double)ledger.total_bytes / ((double)ledger.limit_bytes + 1);

            if (load > refusal->overload) {
                refusal->overload = load;
                refusal->tightest = stage->workers[m];
            }
            if (ledger.total_bytes > ledger.limit_bytes) {
                refusal->missing_bytes += ledger.total_bytes - ledger.limit_bytes;
            }
            if (ledger.total_bytes > refusal->memory_bytes) {
                refusal->memory_bytes = ledger.total_bytes;
            }
        }
    }
}

struct planner_refusal *planner_refusal_find(const struct partition *partition, struct arena *arena)
{
    struct planner_refusal *refusal = arena_new(arena, struct planner_refusal);
    const struct planner_worker *like = worker_largest(partition->request);
    struct partition_stage *stages =
        arena_new_array(arena, struct partition_stage, partition->stage_count);

    ASSERT(partition_solve(partition, PARTITION_MEMORY, stages));
    refusal->request = *partition->request;
    refusal->nearest = planner_placement(partition, stages, PARTITION_MEMORY,
                                         partition->kv_tokens / PLAN_BLOCK_TOKENS, arena);
    ledgers_read(refusal);
    refusal->kv_tokens = kv_tokens_fitting(partition, arena);
    refusal->workers_more = workers_more(partition, like, arena);
    refusal->workers_like = like->id;
    return refusal;
}

const char *planner_remedy_write(const struct planner_refusal *refusal, char *text,
                                 size_t text_bytes)
{
    uint32_t count = refusal->request.worker_count;
    char fewer_text[64] = "";
    char more_text[96] = "";

    if (refusal->kv_tokens > 0) {
        (void)snprintf(fewer_text, sizeof(fewer_text), "a context of %" PRIu64 " tokens",
                       refusal->kv_tokens);
    }
    if (refusal->workers_more > 0) {
        (void)snprintf(more_text, sizeof(more_text), "%u more worker%s like worker %u",
                       refusal->workers_more, refusal->workers_more == 1 ? "" : "s",
                       refusal->workers_like);
    }
    if (refusal->kv_tokens == 0 && refusal->workers_more == 0) {
        /* Three digits are shown; rounded up, so that what they say does fit. */
        uint64_t bytes = refusal->memory_bytes + refusal->memory_bytes / 200;
        struct units_text most;

        (void)snprintf(text, text_bytes, "%u worker%s with %s each would fit", count,
                       count == 1 ? "" : "s", units_bytes(&most, bytes));
        return text;
    }
    (void)snprintf(text, text_bytes, "%s%s%s would fit", fewer_text,
                   fewer_text[0] != '\0' && more_text[0] != '\0' ? ", or " : "", more_text);
    return text;
}

static const char *host_of(const struct planner_request *request, uint32_t id)
{
    for (uint32_t i = 0; i < request->worker_count; i++) {
        if (request->workers[i].id == id && request->workers[i].host[0] != '\0') {
            return request->workers[i].host;
        }
    }
    return "local";
}

const char *planner_refusal_write(const struct planner_refusal *refusal, char *text,
                                  size_t text_bytes)
{
    const struct planner_request *request = &refusal->request;
    uint32_t id = refusal->tightest;
    struct planner_ledger ledger = planner_ledger_of(request, refusal->nearest, id);
    uint32_t lanes = planner_share_of(request, refusal->nearest, id).lane_count;
    struct units_text weights, kv, fixed, total, memory;
    char remedy[192];

    (void)snprintf(
        text, text_bytes,
        "worker %u (%.63s): weights %s + kv %s (%" PRIu64 " tokens, %u lane%s) + fixed %s = %s, "
        "but it has %s; %s",
        id, host_of(request, id), units_bytes(&weights, ledger.weight_bytes),
        units_bytes(&kv, ledger.kv_bytes),
        (uint64_t)refusal->nearest->kv_block_count * PLAN_BLOCK_TOKENS, lanes,
        lanes == 1 ? "" : "s",
        units_bytes(&fixed, ledger.total_bytes - ledger.weight_bytes - ledger.kv_bytes),
        units_bytes(&total, ledger.total_bytes), units_bytes(&memory, ledger.limit_bytes),
        planner_remedy_write(refusal, remedy, sizeof(remedy)));
    return text;
}
