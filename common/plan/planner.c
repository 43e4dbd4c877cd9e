/* planner.c - a placement from facts about model and workers.
 *
 * Fills in what the request leaves open, puts the workers in order (islands together), lets
 * partition.c find the layer borders, then writes the placement: seats, lanes, owners of experts,
 * and the KV budget from what the tightest worker has left. Every replica list has one owner here;
 * the balancers add more. A model that does not fit is refused by planner_refusal.c.
 */
#include "common/plan/planner.h"

#include "common/base/check.h"
#include "common/plan/partition.h"
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

/* Islands together, workers without one last; then rank, host, id. */
static int worker_compare(const void *left, const void *right)
{
    const struct planner_worker *a = *(const struct planner_worker *const *)left;
    const struct planner_worker *b = *(const struct planner_worker *const *)right;
    int order = compare_u64(a->island - 1, b->island - 1); /* none, 0, becomes the largest */

    if (order == 0 && a->island != 0) {
        order = compare_u64(a->rank, b->rank);
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

static void stages_write(const struct partition *partition, const struct partition_stage *stages,
                         struct placement *placement, struct arena *arena)
{
    uint32_t lane_count = partition->lane_count;

    placement->stage_count = partition->stage_count;
    placement->lane_count = lane_count;
    placement->stages = arena_new_array(arena, struct placement_stage, partition->stage_count);
    placement->lane_member =
        arena_new_array(arena, uint32_t, (size_t)partition->stage_count * lane_count);
    for (uint32_t i = 0; i < partition->stage_count; i++) {
        struct placement_stage *stage = &placement->stages[i];

        stage->layer_begin = stages[i].layer_begin;
        stage->layer_end = stages[i].layer_end;
        stage->member_count = stages[i].worker_end - stages[i].worker_begin;
        stage->workers = arena_new_array(arena, uint32_t, stage->member_count);
        for (uint32_t member = 0; member < stage->member_count; member++) {
            stage->workers[member] = partition->workers[stages[i].worker_begin + member]->id;
        }
        for (uint32_t lane = 0; lane < lane_count; lane++) {
            placement->lane_member[(size_t)i * lane_count + lane] = lane % stage->member_count;
        }
    }
}

/* Owners of one layer's experts: contiguous, in member order. Returns the new end of the list. */
static uint32_t owners_write_layer(struct placement *placement, uint32_t layer, uint32_t next,
                                   const uint32_t *expert_counts)
{
    uint32_t member = 0;
    uint32_t member_end = expert_counts[0];
    size_t index = (size_t)layer * placement->expert_count;

    for (uint32_t expert = 0; expert < placement->expert_count; expert++) {
        while (expert == member_end) {
            member_end += expert_counts[++member];
        }
        if (layer >= placement->dense_layer_count) {
            placement->replica_member[next++] = member;
        }
        placement->replica_offset[index + expert + 1] = next;
    }
    return next;
}

static void owners_write(const struct partition *partition, const struct partition_stage *stages,
                         struct placement *placement, struct arena *arena)
{
    size_t pairs = (size_t)placement->layer_count * placement->expert_count;
    uint32_t *counts = arena_new_array(arena, uint32_t, partition->lane_count);
    uint32_t next = 0;

    if (placement->expert_count == 0) {
        return;
    }
    placement->replica_offset = arena_new_array(arena, uint32_t, pairs + 1);
    placement->replica_member = arena_new_array(arena, uint32_t, pairs);
    for (uint32_t i = 0; i < partition->stage_count; i++) {
        ASSERT(partition_experts(partition, &stages[i], counts));
        for (uint32_t layer = stages[i].layer_begin; layer < stages[i].layer_end; layer++) {
            next = owners_write_layer(placement, layer, next, counts);
        }
    }
}

/* KV blocks per lane that a worker of the placement could hold beside its weights. */
static uint64_t kv_blocks_fitting(const struct partition *partition,
                                  const struct partition_stage *stage, uint32_t member,
                                  uint32_t expert_count)
{
    const struct planner_request *request = partition->request;
    struct partition_need need = partition_need(partition, stage, member, expert_count);
    uint64_t memory = partition->workers[stage->worker_begin + member]->memory_bytes;
    uint64_t block_bytes =
        PLAN_BLOCK_TOKENS * request->kv_entry_bytes * (stage->layer_end - stage->layer_begin) *
        partition_lanes(partition, member, stage->worker_end - stage->worker_begin);

    if (block_bytes == 0) {
        return UINT64_MAX;
    }
    return (memory - (need.total_bytes - need.kv_bytes)) / block_bytes;
}

static uint64_t kv_blocks_choose(const struct partition *partition,
                                 const struct partition_stage *stages, struct arena *arena)
{
    uint32_t *counts = arena_new_array(arena, uint32_t, partition->lane_count);
    uint64_t blocks = kv_blocks_useful(partition->request);

    for (uint32_t i = 0; i < partition->stage_count; i++) {
        ASSERT(partition_experts(partition, &stages[i], counts));
        for (uint32_t m = 0; m < stages[i].worker_end - stages[i].worker_begin; m++) {
            uint64_t fitting = kv_blocks_fitting(partition, &stages[i], m, counts[m]);

            blocks = fitting < blocks ? fitting : blocks;
        }
    }
    return blocks < UINT32_MAX ? blocks : UINT32_MAX - 1;
}

static struct placement *placement_make(const struct planner_request *request, uint64_t kv_blocks,
                                        const struct partition *partition,
                                        const struct partition_stage *stages, struct arena *arena)
{
    struct placement *placement = arena_new(arena, struct placement);

    placement->epoch = request->epoch;
    memcpy(placement->numerics_id, request->numerics_id, strlen(request->numerics_id) + 1);
    placement->layer_count = request->layer_count;
    placement->expert_count = request->expert_count;
    placement->dense_layer_count = request->dense_layer_count;
    placement->kv_type = request->kv_type;
    placement->kv_block_count = (uint32_t)kv_blocks;
    placement->slot_count = request->slot_count;
    placement->context_tokens_max = request->context_tokens_max;
    placement->step_rows_max = request->step_rows_max;
    placement->steps_in_flight_max = request->steps_in_flight_max;
    stages_write(partition, stages, placement, arena);
    owners_write(partition, stages, placement, arena);
    return placement;
}

static bool request_check(const struct planner_request *request, struct error *err)
{
    if (request->layer_count == 0 || request->worker_count == 0 ||
        request->context_tokens_max == 0) {
        return error_set(err, ERROR_USAGE, "%u layers, %u workers, a context of %u: none may be 0",
                         request->layer_count, request->worker_count, request->context_tokens_max);
    }
    if (strlen(request->numerics_id) >= sizeof(((struct placement *)NULL)->numerics_id)) {
        return error_set(err, ERROR_USAGE, "numerics id %s is too long", request->numerics_id);
    }
    return workers_check(request, err);
}

struct placement *planner_make(const struct planner_request *request, struct arena *arena,
                               struct error *err)
{
    struct planner_request full;
    struct partition partition;
    struct partition_stage *stages;
    struct placement *placement;
    uint64_t kv_blocks;

    if (!request_check(request, err)) {
        return NULL;
    }
    full = request_complete(request);
    if (!layout_check(&full, err)) {
        return NULL;
    }
    stages = arena_new_array(arena, struct partition_stage, full.stage_count);
    partition_init(&partition, &full, workers_order(&full, arena), arena);
    if (!partition_solve(&partition, PARTITION_TIME, stages)) {
        planner_refuse(&partition, arena, err);
        return NULL;
    }
    kv_blocks = request->kv_tokens > 0 ? full.kv_tokens / PLAN_BLOCK_TOKENS
                                       : kv_blocks_choose(&partition, stages, arena);
    placement = placement_make(&full, kv_blocks, &partition, stages, arena);
    return placement_check(placement, err) ? placement : NULL;
}

struct planner_share planner_share_of(const struct planner_request *request,
                                      const struct placement *placement, uint32_t worker)
{
    struct planner_share share = {0};
    struct placement_seat seat;
    const struct placement_stage *stage;
    uint64_t lanes = 0;

    if (!placement_seat_of(placement, worker, &seat)) {
        return share;
    }
    stage = &placement->stages[seat.stage];
    for (uint32_t lane = 0; lane < placement->lane_count; lane++) {
        lanes += placement_lane_worker(placement, seat.stage, lane) == worker;
    }
    share.weight_bytes = (seat.stage == 0 ? request->embedding_bytes : 0) +
                         (stage->layer_end == placement->layer_count ? request->head_bytes : 0);
    for (uint32_t layer = stage->layer_begin; layer < stage->layer_end; layer++) {
        share.weight_bytes += request->layers[layer].common_bytes;
        for (uint32_t expert = 0; expert < placement->expert_count; expert++) {
            if (placement_owns(placement, layer, expert, seat.member)) {
                share.weight_bytes += request->layers[layer].expert_bytes;
                share.expert_slots++;
            }
        }
    }
    share.kv_bytes = (uint64_t)placement->kv_block_count * PLAN_BLOCK_TOKENS *
                     request->kv_entry_bytes * (stage->layer_end - stage->layer_begin) * lanes;
    return share;
}
