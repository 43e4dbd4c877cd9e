/* planner_placement.c - a partition becomes a placement: seats, lanes, owners of experts.
 *
 * Every replica list has one owner here; the balancers add more.
 */
#include "common/plan/planner_placement.h"

#include "common/base/check.h"

#include <string.h>

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

/* Experts of each member: in a partition that need not fit, without regard to what there is. */
static void counts_of(const struct partition *partition, const struct partition_stage *stage,
                      enum partition_goal goal, uint32_t *counts)
{
    if (goal == PARTITION_MEMORY) {
        partition_experts_spread(partition, stage, counts);
    } else {
        ASSERT(partition_experts(partition, stage, counts));
    }
}

static void owners_write(const struct partition *partition, const struct partition_stage *stages,
                         enum partition_goal goal, struct placement *placement, struct arena *arena)
{
    size_t pairs = (size_t)placement_layers(placement) * placement->expert_count;
    uint32_t *counts = arena_new_array(arena, uint32_t, partition->lane_count);
    uint32_t next = 0;

    if (placement->expert_count == 0) {
        return;
    }
    placement->replica_offset = arena_new_array(arena, uint32_t, pairs + 1);
    placement->replica_member = arena_new_array(arena, uint32_t, pairs);
    for (uint32_t i = 0; i < partition->stage_count; i++) {
        uint32_t layer = stages[i].layer_begin;
        uint32_t layer_end = layer + placement_stage_layers(placement, i);

        counts_of(partition, &stages[i], goal, counts);
        for (; layer < layer_end; layer++) {
            next = owners_write_layer(placement, layer, next, counts);
        }
    }
}

struct placement *planner_placement(const struct partition *partition,
                                    const struct partition_stage *stages, enum partition_goal goal,
                                    uint64_t kv_blocks, struct arena *arena)
{
    const struct planner_request *request = partition->request;
    struct placement *placement = arena_new(arena, struct placement);

    placement->epoch = request->epoch;
    memcpy(placement->numerics_id, request->numerics_id, strlen(request->numerics_id) + 1);
    placement->layer_count = request->layer_count;
    placement->expert_count = request->expert_count;
    placement->dense_layer_count = request->dense_layer_count;
    placement->draft_layer_count = request->draft_layer_count;
    placement->kv_type = request->kv_type;
    placement->kv_block_count = (uint32_t)kv_blocks;
    placement->slot_count = request->slot_count;
    placement->context_tokens_max = request->context_tokens_max;
    placement->step_rows_max = request->step_rows_max;
    placement->steps_in_flight_max = request->steps_in_flight_max;
    stages_write(partition, stages, placement, arena);
    owners_write(partition, stages, goal, placement, arena);
    return placement;
}
