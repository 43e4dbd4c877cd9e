/* planner_share.c - what a placement asks of one worker. */
#include "common/base/check.h"
#include "common/plan/planner.h"

static void layer_add(const struct planner_request *request, const struct placement *placement,
                      uint32_t layer, uint32_t member, struct planner_share *share)
{
    const struct planner_layer *bytes =
        layer < placement->layer_count ? &request->layers[layer] : &request->draft;

    share->weight_bytes += bytes->common_bytes;
    for (uint32_t expert = 0; expert < placement->expert_count; expert++) {
        if (placement_owns(placement, layer, expert, member)) {
            share->weight_bytes += bytes->expert_bytes;
            share->expert_slots++;
        }
    }
}

struct planner_share planner_share_of(const struct planner_request *request,
                                      const struct placement *placement, uint32_t worker)
{
    struct planner_share share = {0};
    struct placement_seat seat;
    const struct placement_stage *stage;
    uint64_t token_bytes;
    uint32_t layers;
    bool has_draft;

    if (!placement_seat_of(placement, worker, &seat)) {
        return share;
    }
    stage = &placement->stages[seat.stage];
    for (uint32_t lane = 0; lane < placement->lane_count; lane++) {
        share.lane_count += placement_lane_worker(placement, seat.stage, lane) == worker;
    }
    layers = placement_stage_layers(placement, seat.stage);
    has_draft = stage->layer_begin + layers > placement->layer_count;
    share.weight_bytes = (seat.stage == 0 || has_draft ? request->embedding_bytes : 0) +
                         (stage->layer_end == placement->layer_count ? request->head_bytes : 0);
    for (uint32_t layer = stage->layer_begin; layer < stage->layer_begin + layers; layer++) {
        layer_add(request, placement, layer, seat.member, &share);
    }
    token_bytes = request->kv_entry_bytes * layers +
                  (stage->layer_end == placement->layer_count ? request->kv_token_bytes : 0);
    share.kv_bytes =
        (uint64_t)placement->kv_block_count * PLAN_BLOCK_TOKENS * token_bytes * share.lane_count;
    return share;
}

static uint64_t limit_of(const struct planner_request *request, uint32_t worker)
{
    for (uint32_t i = 0; i < request->worker_count; i++) {
        if (request->workers[i].id == worker) {
            return request->workers[i].memory_bytes;
        }
    }
    return 0;
}

/* Does each router group of a stage have the same owners throughout? */
static bool groups_are_whole(const struct planner_request *request,
                             const struct placement *placement, uint32_t stage, uint32_t member)
{
    uint64_t groups = request->expert_group_count > 0 ? request->expert_group_count : 1;
    uint32_t layer = placement->stages[stage].layer_begin;
    uint32_t layer_end = layer + placement_stage_layers(placement, stage);

    if (layer < placement->dense_layer_count) {
        layer = placement->dense_layer_count;
    }
    for (uint32_t expert = 1; layer < layer_end && expert < placement->expert_count; expert++) {
        bool same_group = groups * expert / placement->expert_count ==
                          groups * (expert - 1) / placement->expert_count;

        if (same_group && placement_owns(placement, layer, expert, member) !=
                              placement_owns(placement, layer, expert - 1, member)) {
            return false;
        }
    }
    return true;
}

/* What a stage that divides groups adds to the messages of all its members. */
static uint64_t divided_bytes(const struct planner_request *request,
                              const struct placement *placement, uint32_t worker)
{
    struct placement_seat seat;

    if (!placement_seat_of(placement, worker, &seat)) {
        return 0;
    }
    for (uint32_t m = 0; m < placement->stages[seat.stage].member_count; m++) {
        if (!groups_are_whole(request, placement, seat.stage, m)) {
            return request->divided_bytes;
        }
    }
    return 0;
}

struct planner_ledger planner_ledger_of(const struct planner_request *request,
                                        const struct placement *placement, uint32_t worker)
{
    struct planner_share share = planner_share_of(request, placement, worker);
    uint64_t divided = divided_bytes(request, placement, worker);

    ASSERT(request->buffer_bytes + request->frame_bytes <= request->fixed_bytes);
    return (struct planner_ledger){
        .weight_bytes = share.weight_bytes,
        .kv_bytes = share.kv_bytes,
        .buffer_bytes = request->buffer_bytes,
        .frame_bytes = request->frame_bytes + divided,
        .fixed_bytes = request->fixed_bytes - request->buffer_bytes - request->frame_bytes,
        .total_bytes = share.weight_bytes + share.kv_bytes + request->fixed_bytes + divided,
        .limit_bytes = limit_of(request, worker),
    };
}
