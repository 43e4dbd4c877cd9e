/* planner.c - a placement from facts about model and workers.
 *
 * Fills in what the request leaves open, puts the workers in order (islands together), lets
 * partition.c find the layer borders, and takes the KV budget from what the tightest worker has
 * left. planner_placement.c writes the outcome down; what does not fit is refused by
 * planner_refusal.c.
 */
#include "common/plan/planner.h"

#include "common/base/check.h"
#include "common/plan/partition.h"
#include "common/plan/planner_placement.h"
#include "common/plan/planner_refusal.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_DEFAULT     64
#define STEP_ROWS_DEFAULT 512
#define STEPS_EXTRA       2 /* in flight, beyond one for each stage */

static int compare_u64(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

/* Islands together, workers without one last; then rank, the seats that were held, host, id. */
static int worker_compare(const void *left, const void *right)
{
    const struct planner_worker *a = *(const struct planner_worker *const *)left;
    const struct planner_worker *b = *(const struct planner_worker *const *)right;
    int order = compare_u64(a->island - 1, b->island - 1); /* none, 0, becomes the largest */

    if (order == 0 && a->island != 0) {
        order = compare_u64(a->rank, b->rank);
    }
    if (order == 0) {
        order = compare_u64(a->held_seat - 1, b->held_seat - 1); /* as above */
    }
    if (order == 0) {
        order = strncmp(a->host, b->host, sizeof(a->host));
    }
    return order != 0 ? order : compare_u64(a->id, b->id);
}

static const struct planner_worker **workers_order(const struct planner_request *request,
                                                   struct arena *arena)
{
    const struct planner_worker **order =
        arena_new_array(arena, const struct planner_worker *, request->worker_count);

    for (uint32_t i = 0; i < request->worker_count; i++) {
        order[i] = &request->workers[i];
    }
    qsort(order, request->worker_count, sizeof(*order), worker_compare);
    return order;
}

static bool workers_check(const struct planner_request *request, struct error *err)
{
    for (uint32_t i = 0; i < request->worker_count; i++) {
        const struct planner_worker *worker = &request->workers[i];

        if (!isfinite(worker->read_bytes_per_s) || worker->read_bytes_per_s <= 0) {
            return error_set(err, ERROR_USAGE, "worker %u has no measured read rate", worker->id);
        }
        for (uint32_t j = 0; j < i; j++) {
            if (request->workers[j].id == worker->id) {
                return error_set(err, ERROR_USAGE, "two workers have the id %u", worker->id);
            }
        }
    }
    return true;
}

static bool layout_check(const struct planner_request *request, struct error *err)
{
    uint32_t group = request->group_size > 0 ? request->group_size : 1;

    if ((uint64_t)request->stage_count * group > request->worker_count) {
        return error_set(err, ERROR_USAGE, "layout %ux%u needs %" PRIu64 " workers, there are %u",
                         request->stage_count, group, (uint64_t)request->stage_count * group,
                         request->worker_count);
    }
    if (request->stage_count == 0) {
        return error_set(err, ERROR_USAGE, "stages of %u workers need as many, there are %u", group,
                         request->worker_count);
    }
    if (request->stage_count > request->layer_count) {
        return error_set(err, ERROR_USAGE, "%u stages are more than the model's %u layers",
                         request->stage_count, request->layer_count);
    }
    return true;
}

static uint64_t blocks_of(uint64_t tokens)
{
    return (tokens + PLAN_BLOCK_TOKENS - 1) / PLAN_BLOCK_TOKENS;
}

/* Blocks that a lane can use at most: every slot with a full context. */
static uint64_t kv_blocks_useful(const struct planner_request *request)
{
    return blocks_of(request->context_tokens_max) * request->slot_count;
}

/* The request with everything that it left open, but the final KV budget: kv_tokens is what has to
 * fit, in whole blocks. */
static struct planner_request request_complete(const struct planner_request *request)
{
    struct planner_request full = *request;
    uint64_t kv_blocks;

    full.slot_count = full.slot_count > 0 ? full.slot_count : SLOTS_DEFAULT;
    full.step_rows_max = full.step_rows_max > 0 ? full.step_rows_max : STEP_ROWS_DEFAULT;
    if (full.stage_count == 0) {
        uint32_t group = full.group_size > 0 ? full.group_size : 1;
        uint32_t stages = full.worker_count / group;

        full.stage_count = stages < full.layer_count ? stages : full.layer_count;
    }
    if (full.steps_in_flight_max == 0) {
        full.steps_in_flight_max = full.stage_count + STEPS_EXTRA;
    }
    if (full.expert_group_count == 0) {
        full.expert_group_count = 1;
    }
    kv_blocks = blocks_of(full.kv_tokens > 0 ? full.kv_tokens : full.context_tokens_max);
    if (kv_blocks > kv_blocks_useful(&full)) {
        kv_blocks = kv_blocks_useful(&full);
    }
    full.kv_tokens = kv_blocks * PLAN_BLOCK_TOKENS;
    return full;
}

/* KV blocks per lane that a worker of the placement could hold beside its weights. */
static uint64_t kv_blocks_fitting(const struct partition *partition,
                                  const struct partition_stage *stage, uint32_t member,
                                  const uint32_t *expert_counts)
{
    struct partition_need need = partition_need(partition, stage, member, expert_counts[member]);
    uint64_t divided = partition_divided_bytes(partition, stage, expert_counts);
    uint64_t memory = partition->workers[stage->worker_begin + member]->memory_bytes;
    uint64_t block_bytes =
        PLAN_BLOCK_TOKENS * partition_token_bytes(partition, stage) *
        partition_lanes(partition, member, stage->worker_end - stage->worker_begin);

    if (block_bytes == 0) {
        return UINT64_MAX;
    }
    return (memory - (need.total_bytes - need.kv_bytes) - divided) / block_bytes;
}

static uint64_t kv_blocks_choose(const struct partition *partition,
                                 const struct partition_stage *stages, struct arena *arena)
{
    uint32_t *counts = arena_new_array(arena, uint32_t, partition->lane_count);
    uint64_t blocks = kv_blocks_useful(partition->request);

    for (uint32_t i = 0; i < partition->stage_count; i++) {
        ASSERT(partition_experts(partition, &stages[i], counts));
        for (uint32_t m = 0; m < stages[i].worker_end - stages[i].worker_begin; m++) {
            uint64_t fitting = kv_blocks_fitting(partition, &stages[i], m, counts);

            blocks = fitting < blocks ? fitting : blocks;
        }
    }
    return blocks < UINT32_MAX ? blocks : UINT32_MAX - 1;
}

static bool request_check(const struct planner_request *request, struct error *err)
{
    if (request->layer_count == 0 || request->worker_count == 0 ||
        request->context_tokens_max == 0) {
        return error_set(err, ERROR_USAGE, "%u layers, %u workers, a context of %u: none may be 0",
                         request->layer_count, request->worker_count, request->context_tokens_max);
    }
    if (!(request->prompt_share >= 0 && request->prompt_share <= 1)) {
        return error_set(err, ERROR_USAGE, "prompt share %g is not between 0 and 1",
                         request->prompt_share);
    }
    if (strlen(request->numerics_id) >= sizeof(((struct placement *)NULL)->numerics_id)) {
        return error_set(err, ERROR_USAGE, "numerics id %s is too long", request->numerics_id);
    }
    return workers_check(request, err);
}

/* What planner_make decides on, from a request that has passed the checks. */
struct setup {
    struct planner_request full;
    struct partition partition;
    struct partition_stage *stages;
};

static bool setup_make(struct setup *setup, const struct planner_request *request,
                       struct arena *arena, struct error *err)
{
    if (!request_check(request, err)) {
        return false;
    }
    setup->full = request_complete(request);
    if (!layout_check(&setup->full, err)) {
        return false;
    }
    setup->stages = arena_new_array(arena, struct partition_stage, setup->full.stage_count);
    partition_init(&setup->partition, &setup->full, workers_order(&setup->full, arena), arena);
    return true;
}

struct placement *planner_try(const struct planner_request *request, struct arena *arena,
                              struct error *err)
{
    struct setup setup;
    struct placement *placement;
    uint64_t kv_blocks;

    if (!setup_make(&setup, request, arena, err)) {
        return NULL;
    }
    if (!partition_solve(&setup.partition, PARTITION_TIME, setup.stages)) {
        (void)error_set(err, ERROR_LIMIT, "the model does not fit");
        return NULL;
    }
    kv_blocks = request->kv_tokens > 0 ? setup.full.kv_tokens / PLAN_BLOCK_TOKENS
                                       : kv_blocks_choose(&setup.partition, setup.stages, arena);
    placement = planner_placement(&setup.partition, setup.stages, PARTITION_TIME, kv_blocks, arena);
    return placement_check(placement, err) ? placement : NULL;
}

struct placement *planner_make(const struct planner_request *request, struct arena *arena,
                               struct error *err)
{
    struct placement *placement = planner_try(request, arena, err);
    char text[sizeof(err->message)];

    if (placement == NULL && err->code == ERROR_LIMIT) {
        (void)error_set(
            err, ERROR_LIMIT, "%s",
            planner_refusal_write(planner_refusal_of(request, arena), text, sizeof(text)));
    }
    return placement;
}

struct planner_refusal *planner_refusal_of(const struct planner_request *request,
                                           struct arena *arena)
{
    struct setup setup;
    struct error err;

    ASSERT(setup_make(&setup, request, arena, &err));
    return planner_refusal_find(&setup.partition, arena);
}
