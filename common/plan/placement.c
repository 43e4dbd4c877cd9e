/* placement.c - questions to a placement, and its invariants.
 *
 * A placement comes from the planner, from a file or over the wire; the last two are foreign, so
 * placement_check bounds every count before it follows an array. The array lengths themselves are
 * what the decoder allocated for these counts. Pure: nothing here changes a placement.
 */
#include "common/plan/placement.h"

#include "common/base/check.h"

#include <string.h>

/* Far beyond any real cluster; they keep products of counts inside 64 bits and loops short. */
#define LAYERS_MAX          4096
#define DRAFT_LAYERS_MAX    1
#define EXPERTS_MAX         65536
#define WORKERS_MAX         4096
#define LANES_MAX           4096
#define SLOTS_MAX           65536
#define STEP_ROWS_MAX       (1u << 20)
#define STEPS_IN_FLIGHT_MAX 1024

static size_t expert_index(const struct placement *placement, uint32_t layer, uint32_t expert)
{
    return (size_t)layer * placement->expert_count + expert;
}

static size_t replica_offset_count(const struct placement *placement)
{
    return (size_t)placement_layers(placement) * placement->expert_count + 1;
}

uint32_t placement_layers(const struct placement *placement)
{
    return placement->layer_count + placement->draft_layer_count;
}

bool placement_seat_of(const struct placement *placement, uint32_t worker,
                       struct placement_seat *out)
{
    for (uint32_t stage = 0; stage < placement->stage_count; stage++) {
        const struct placement_stage *members = &placement->stages[stage];

        for (uint32_t member = 0; member < members->member_count; member++) {
            if (members->workers[member] == worker) {
                out->stage = stage;
                out->member = member;
                return true;
            }
        }
    }
    return false;
}

uint32_t placement_stage_of_layer(const struct placement *placement, uint32_t layer)
{
    uint32_t stage = 0;

    ASSERT(layer < placement_layers(placement));
    while (stage + 1 < placement->stage_count && layer >= placement->stages[stage].layer_end) {
        stage++;
    }
    return stage;
}

uint32_t placement_stage_layers(const struct placement *placement, uint32_t stage)
{
    bool is_last = stage + 1 == placement->stage_count;

    ASSERT(stage < placement->stage_count);
    return placement->stages[stage].layer_end - placement->stages[stage].layer_begin +
           (is_last ? placement->draft_layer_count : 0);
}

uint32_t placement_lane_worker(const struct placement *placement, uint32_t stage, uint32_t lane)
{
    ASSERT(stage < placement->stage_count && lane < placement->lane_count);
    return placement->stages[stage]
        .workers[placement->lane_member[(size_t)stage * placement->lane_count + lane]];
}

bool placement_owns(const struct placement *placement, uint32_t layer, uint32_t expert,
                    uint32_t member)
{
    size_t index = expert_index(placement, layer, expert);

    ASSERT(layer < placement_layers(placement) && expert < placement->expert_count);
    for (uint32_t i = placement->replica_offset[index]; i < placement->replica_offset[index + 1];
         i++) {
        if (placement->replica_member[i] == member) {
            return true;
        }
    }
    return false;
}

uint32_t placement_expert_member(const struct placement *placement, uint32_t layer, uint32_t expert,
                                 uint32_t member)
{
    size_t index = expert_index(placement, layer, expert);
    uint32_t begin = placement->replica_offset[index];
    uint32_t end = placement->replica_offset[index + 1];

    ASSERT(layer < placement_layers(placement) && expert < placement->expert_count);
    ASSERT(begin < end);
    for (uint32_t i = begin; i < end; i++) {
        if (placement->replica_member[i] >= member) {
            return placement->replica_member[i];
        }
    }
    return placement->replica_member[begin];
}

uint32_t placement_worker_count(const struct placement *placement)
{
    uint32_t count = 0;

    for (uint32_t stage = 0; stage < placement->stage_count; stage++) {
        count += placement->stages[stage].member_count;
    }
    return count;
}

struct bound {
    const char *name;
    uint32_t value;
    uint32_t min;
    uint32_t max;
};

static bool counts_check(const struct placement *placement, struct error *err)
{
    const struct bound bounds[] = {
        {"layer_count", placement->layer_count, 1, LAYERS_MAX},
        {"expert_count", placement->expert_count, 0, EXPERTS_MAX},
        {"dense_layer_count", placement->dense_layer_count, 0, placement->layer_count},
        {"draft_layer_count", placement->draft_layer_count, 0,
         placement->expert_count > 0 ? DRAFT_LAYERS_MAX : 0},
        {"stage_count", placement->stage_count, 1, placement->layer_count},
        {"lane_count", placement->lane_count, 1, LANES_MAX},
        {"kv_type", (uint32_t)placement->kv_type, 0, KV_TYPE_COUNT - 1},
        {"kv_block_count", placement->kv_block_count, 1, UINT32_MAX - 1},
        {"slot_count", placement->slot_count, 1, SLOTS_MAX},
        {"context_tokens_max", placement->context_tokens_max, 1, UINT32_MAX / 2},
        {"step_rows_max", placement->step_rows_max, 1, STEP_ROWS_MAX},
        {"steps_in_flight_max", placement->steps_in_flight_max, 1, STEPS_IN_FLIGHT_MAX},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(bounds); i++) {
        const struct bound *bound = &bounds[i];

        if (bound->value < bound->min || bound->value > bound->max) {
            return error_set(err, ERROR_INPUT, "%s is %u, must be %u to %u", bound->name,
                             bound->value, bound->min, bound->max);
        }
    }
    if (memchr(placement->numerics_id, 0, sizeof(placement->numerics_id)) == NULL ||
        placement->numerics_id[0] == 0) {
        return error_set(err, ERROR_INPUT, "numerics_id is empty or not terminated");
    }
    return true;
}

/* The first seat that a worker takes is the only one. */
static bool seat_check(const struct placement *placement, uint32_t stage, uint32_t member,
                       struct error *err)
{
    uint32_t worker = placement->stages[stage].workers[member];
    struct placement_seat first = {0};

    if (worker == PLACEMENT_NONE) {
        return error_set(err, ERROR_INPUT, "stage %u member %u is no worker", stage, member);
    }
    if (!placement_seat_of(placement, worker, &first) || first.stage != stage ||
        first.member != member) {
        return error_set(err, ERROR_INPUT, "worker %u has two seats, in stages %u and %u", worker,
                         first.stage, stage);
    }
    return true;
}

static bool layers_check(const struct placement *placement, struct error *err)
{
    uint32_t layer = 0;
    uint64_t workers = 0;

    for (uint32_t i = 0; i < placement->stage_count; i++) {
        const struct placement_stage *stage = &placement->stages[i];

        if (stage->layer_begin != layer || stage->layer_end <= layer) {
            return error_set(err, ERROR_INPUT, "stage %u has layers %u to %u, must begin at %u", i,
                             stage->layer_begin, stage->layer_end, layer);
        }
        workers += stage->member_count;
        if (stage->member_count == 0 || workers > WORKERS_MAX || stage->workers == NULL) {
            return error_set(err, ERROR_INPUT, "stage %u has %u members, must be 1 to %u", i,
                             stage->member_count, WORKERS_MAX);
        }
        layer = stage->layer_end;
    }
    if (layer != placement->layer_count) {
        return error_set(err, ERROR_INPUT, "stages end at layer %u of %u", layer,
                         placement->layer_count);
    }
    return true;
}

static bool stages_check(const struct placement *placement, struct error *err)
{
    if (placement->stages == NULL) {
        return error_set(err, ERROR_INPUT, "no stages");
    }
    if (!layers_check(placement, err)) {
        return false;
    }
    for (uint32_t stage = 0; stage < placement->stage_count; stage++) {
        for (uint32_t member = 0; member < placement->stages[stage].member_count; member++) {
            if (!seat_check(placement, stage, member, err)) {
                return false;
            }
        }
    }
    return true;
}

static bool lanes_check(const struct placement *placement, struct error *err)
{
    if (placement->lane_member == NULL) {
        return error_set(err, ERROR_INPUT, "no lanes");
    }
    for (uint32_t stage = 0; stage < placement->stage_count; stage++) {
        for (uint32_t lane = 0; lane < placement->lane_count; lane++) {
            uint32_t member = placement->lane_member[(size_t)stage * placement->lane_count + lane];

            if (member >= placement->stages[stage].member_count) {
                return error_set(err, ERROR_INPUT, "lane %u: stage %u has no member %u", lane,
                                 stage, member);
            }
        }
    }
    return true;
}

/* Before an owner is read: no list reaches beyond the last offset, the array's length. */
static bool offsets_check(const struct placement *placement, struct error *err)
{
    size_t count = replica_offset_count(placement);

    if (placement->replica_offset == NULL || placement->replica_member == NULL ||
        placement->replica_offset[0] != 0) {
        return error_set(err, ERROR_INPUT, "owners of experts are missing");
    }
    for (size_t i = 1; i < count; i++) {
        if (placement->replica_offset[i] < placement->replica_offset[i - 1]) {
            return error_set(err, ERROR_INPUT, "replica_offset falls from %u to %u at %zu",
                             placement->replica_offset[i - 1], placement->replica_offset[i], i);
        }
    }
    return true;
}

/* One expert's owners: present exactly in MoE layers, ascending, members of the stage. */
static bool owners_check(const struct placement *placement, uint32_t layer, uint32_t expert,
                         struct error *err)
{
    size_t index = expert_index(placement, layer, expert);
    uint32_t begin = placement->replica_offset[index];
    uint32_t end = placement->replica_offset[index + 1];
    uint32_t stage = placement_stage_of_layer(placement, layer);
    uint32_t member_count = placement->stages[stage].member_count;
    bool dense = layer < placement->dense_layer_count;

    if (end - begin > member_count || (end > begin) == dense) {
        return error_set(err, ERROR_INPUT, "layer %u expert %u has %u owners%s", layer, expert,
                         end - begin, dense ? ", the layer is dense" : "");
    }
    for (uint32_t i = begin; i < end; i++) {
        uint32_t member = placement->replica_member[i];

        if (member >= member_count || (i > begin && member <= placement->replica_member[i - 1])) {
            return error_set(err, ERROR_INPUT,
                             "layer %u expert %u: owner %u is out of order or not one of the "
                             "stage's %u members",
                             layer, expert, member, member_count);
        }
    }
    return true;
}

static bool experts_check(const struct placement *placement, struct error *err)
{
    if (placement->expert_count == 0) {
        return true;
    }
    if (!offsets_check(placement, err)) {
        return false;
    }
    for (uint32_t layer = 0; layer < placement_layers(placement); layer++) {
        for (uint32_t expert = 0; expert < placement->expert_count; expert++) {
            if (!owners_check(placement, layer, expert, err)) {
                return false;
            }
        }
    }
    return true;
}

bool placement_check(const struct placement *placement, struct error *err)
{
    return counts_check(placement, err) && stages_check(placement, err) &&
           lanes_check(placement, err) && experts_check(placement, err);
}

static uint32_t *array_copy(struct arena *arena, const uint32_t *from, size_t count)
{
    uint32_t *copy = arena_new_array(arena, uint32_t, count);

    if (count > 0) {
        memcpy(copy, from, count * sizeof(*copy));
    }
    return copy;
}

struct placement *placement_copy(const struct placement *placement, struct arena *arena)
{
    struct placement *copy = arena_new(arena, struct placement);

    *copy = *placement;
    copy->stages = arena_new_array(arena, struct placement_stage, placement->stage_count);
    for (uint32_t i = 0; i < placement->stage_count; i++) {
        copy->stages[i] = placement->stages[i];
        copy->stages[i].workers =
            array_copy(arena, placement->stages[i].workers, placement->stages[i].member_count);
    }
    copy->lane_member = array_copy(arena, placement->lane_member,
                                   (size_t)placement->stage_count * placement->lane_count);
    if (placement->expert_count > 0) {
        size_t count = replica_offset_count(placement);

        copy->replica_offset = array_copy(arena, placement->replica_offset, count);
        copy->replica_member =
            array_copy(arena, placement->replica_member, placement->replica_offset[count - 1]);
    }
    return copy;
}
