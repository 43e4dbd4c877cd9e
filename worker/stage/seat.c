/* seat.c - what a placement means for one worker.
 *
 * Pools are sized by the worst step: each hidden frame may carry all rows of the step, a dispatch
 * every row with all its experts, a combine the most parts that any row can yield at one owner.
 * That last bound looks at the placement: an owner of whole router groups answers one row per
 * group, which is why the planner prefers them and R1 needs at most 4 rows instead of 8.
 */
#include "worker/stage/seat.h"

#include "common/plan/step.h"
#include "worker/stage/dispatch.h"

#include <stdlib.h>

/* Frames of one kind to one peer that the transport may hold while the next is filled. */
#define EXCHANGE_FRAMES_PER_PEER 2
/* Router groups beyond which the bound on parts is the number of chosen experts. */
#define GROUPS_COUNTED_MAX 64

uint32_t seat_lane_member(const struct seat *seat, uint32_t stage, uint32_t lane)
{
    const struct placement *placement = seat->placement;

    ASSERT(stage < placement->stage_count && lane < placement->lane_count);
    return placement->lane_member[(size_t)stage * placement->lane_count + lane];
}

uint32_t seat_member_worker(const struct seat *seat, uint32_t member)
{
    ASSERT(member < seat->member_count);
    return seat->placement->stages[seat->stage].workers[member];
}

static void find_lanes(struct seat *seat, struct arena *arena)
{
    const struct placement *placement = seat->placement;

    seat->lane_index = arena_new_array(arena, uint32_t, placement->lane_count);
    for (uint32_t lane = 0; lane < placement->lane_count; lane++) {
        seat->lane_index[lane] = PLACEMENT_NONE;
        if (seat_lane_member(seat, seat->stage, lane) == seat->member) {
            seat->lane_index[lane] = seat->lane_count++;
        }
    }
}

static void find_share(struct seat *seat, struct arena *arena)
{
    const struct placement *placement = seat->placement;
    uint32_t experts = placement->expert_count;
    uint32_t layers = seat->held_end - seat->layer_begin;
    uint8_t *owned = arena_new_array(arena, uint8_t, (size_t)layers * experts);

    for (uint32_t layer = 0; layer < layers; layer++) {
        uint32_t absolute = seat->layer_begin + layer;

        for (uint32_t expert = 0; expert < experts && absolute >= placement->dense_layer_count;
             expert++) {
            owned[(size_t)layer * experts + expert] =
                placement_owns(placement, absolute, expert, seat->member) ? 1 : 0;
        }
    }
    seat->share = (struct weights_share){
        .layer_begin = seat->layer_begin,
        .layer_end = seat->layer_end,
        .has_embedding = seat->is_first || seat->has_draft,
        .has_head = seat->is_last,
        .has_draft = seat->has_draft,
        .owned_experts = experts > 0 ? owned : NULL,
    };
}

struct seat *seat_create(const struct placement *placement, uint32_t worker, struct arena *arena)
{
    struct seat *seat = arena_new(arena, struct seat);
    struct placement_seat place = {0};
    const struct placement_stage *stage;
    bool has_seat = placement_seat_of(placement, worker, &place);

    ASSERT(has_seat);
    stage = &placement->stages[place.stage];
    seat->placement = placement;
    seat->worker = worker;
    seat->stage = place.stage;
    seat->member = place.member;
    seat->layer_begin = stage->layer_begin;
    seat->layer_end = stage->layer_end;
    seat->member_count = stage->member_count;
    seat->is_first = place.stage == 0;
    seat->is_last = place.stage + 1 == placement->stage_count;
    seat->held_end = stage->layer_begin + placement_stage_layers(placement, place.stage);
    seat->has_draft = seat->held_end > seat->layer_end;
    seat->exchanges_experts = stage->member_count > 1 && placement->expert_count > 0 &&
                              seat->held_end > placement->dense_layer_count;
    find_lanes(seat, arena);
    find_share(seat, arena);
    return seat;
}

/* Members of a neighbour stage that share a lane with this worker; marks them. */
static uint32_t mark_neighbours(const struct seat *seat, uint32_t stage, struct arena *arena,
                                uint8_t **marks)
{
    const struct placement *placement = seat->placement;
    uint32_t count = 0;

    *marks = arena_new_array(arena, uint8_t, placement->stages[stage].member_count);
    for (uint32_t lane = 0; lane < placement->lane_count; lane++) {
        uint32_t member = seat_lane_member(seat, stage, lane);

        if (seat->lane_index[lane] != PLACEMENT_NONE && (*marks)[member] == 0) {
            (*marks)[member] = 1;
            count++;
        }
    }
    return count;
}

static void add_peers(struct traffic *out, const struct placement_stage *stage,
                      const uint8_t *marks, uint32_t self)
{
    for (uint32_t member = 0; member < stage->member_count; member++) {
        if ((marks == NULL || marks[member] != 0) && stage->workers[member] != self) {
            out->peers[out->peer_count++] = stage->workers[member];
        }
    }
}

static int compare_ids(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a;
    uint32_t right = *(const uint32_t *)b;

    return (left > right) - (left < right);
}

static int compare_descending(const void *a, const void *b)
{
    return compare_ids(b, a);
}

/* The most rows of one combine frame per dispatched row, from `owner` to `sender` in one layer. */
static uint32_t parts_of_layer(const struct seat *seat, const struct arch *arch, uint32_t layer,
                               uint32_t sender, uint32_t owner)
{
    uint32_t groups = arch_combine_group_count(arch);
    uint32_t costs[GROUPS_COUNTED_MAX] = {0};
    uint32_t sizes[GROUPS_COUNTED_MAX] = {0};
    uint32_t parts = 0;
    uint32_t kept = arch->router.group_count > 1 ? arch->router.group_chosen_count : groups;

    if (groups > GROUPS_COUNTED_MAX) {
        return arch->router.chosen_count;
    }
    for (uint32_t expert = 0; expert < arch->router.expert_count; expert++) {
        uint32_t group = arch_combine_group(arch, expert);

        sizes[group]++;
        costs[group] +=
            placement_expert_member(seat->placement, layer, expert, sender) == owner ? 1 : 0;
    }
    for (uint32_t group = 0; group < groups; group++) {
        costs[group] = costs[group] == sizes[group] ? 1 : costs[group];
    }
    qsort(costs, groups, sizeof(costs[0]), compare_descending);
    for (uint32_t i = 0; i < kept && i < groups; i++) {
        parts += costs[i];
    }
    return parts < arch->router.chosen_count ? parts : arch->router.chosen_count;
}

/* Over all layers and peers, in both directions. */
static uint32_t parts_max(const struct seat *seat, const struct arch *arch)
{
    uint32_t most = 0;

    for (uint32_t layer = seat->layer_begin; layer < seat->held_end; layer++) {
        if (!arch_layer_is_moe(arch, layer)) {
            continue;
        }
        for (uint32_t peer = 0; peer < seat->member_count; peer++) {
            uint32_t out = parts_of_layer(seat, arch, layer, peer, seat->member);
            uint32_t in = parts_of_layer(seat, arch, layer, seat->member, peer);

            if (peer != seat->member) {
                most = out > most ? out : most;
                most = in > most ? in : most;
            }
        }
    }
    return most;
}

static void plan_experts(const struct seat *seat, const struct arch *arch, struct traffic *out)
{
    uint32_t rows = seat->placement->step_rows_max;
    uint32_t count = EXCHANGE_FRAMES_PER_PEER * (seat->member_count - 1);
    size_t row_bytes = (size_t)arch->hidden * sizeof(float);

    out->sends[FRAME_DISPATCH] = (struct frame_need){
        .count = count,
        .payload_bytes = dispatch_bytes(rows, rows * arch->router.chosen_count, arch->hidden),
    };
    out->sends[FRAME_COMBINE] = (struct frame_need){
        .count = count,
        .payload_bytes = (size_t)rows * parts_max(seat, arch) * row_bytes,
    };
    /* All members' dispatches together carry each row at most once per owner; the combines of the
     * own rows come from every other member. Both of one layer, while early ones of the next come.
     */
    out->receive_bytes += 2 * (out->sends[FRAME_DISPATCH].payload_bytes +
                               out->sends[FRAME_COMBINE].payload_bytes * (seat->member_count - 1));
}

static void finish(const struct seat *seat, struct traffic *out)
{
    uint32_t under_way = 0;
    uint32_t rounds = seat->layer_end - seat->layer_begin;

    qsort(out->peers, out->peer_count, sizeof(out->peers[0]), compare_ids);
    for (uint32_t kind = 0; kind < FRAME_KIND_COUNT; kind++) {
        under_way += out->sends[kind].count;
        if (out->sends[kind].payload_bytes > out->frame_bytes_max) {
            out->frame_bytes_max = out->sends[kind].payload_bytes;
        }
    }
    out->frames_per_link_max = under_way;
    /* From each peer: the hidden frames of all steps in flight, and empty dispatches of a member
     * that needs nothing from us and so runs ahead. Once more of each for steps issued again. */
    rounds += seat->has_draft ? STEP_PROPOSE_MAX : 0;
    out->frames_early_per_peer = 2 * (seat->placement->steps_in_flight_max * (2 + rounds) + 8);
    out->frames_early_max = out->peer_count * out->frames_early_per_peer;
}

void traffic_plan(const struct seat *seat, const struct arch *arch, struct arena *arena,
                  struct traffic *out)
{
    const struct placement *placement = seat->placement;
    size_t hidden_bytes = (size_t)placement->step_rows_max * arch->hidden * sizeof(float);
    uint8_t *marks;

    *out = (struct traffic){
        .peers = arena_new_array(arena, uint32_t, placement_worker_count(placement))};
    if (!seat->is_first) {
        (void)mark_neighbours(seat, seat->stage - 1, arena, &marks);
        add_peers(out, &placement->stages[seat->stage - 1], marks, seat->worker);
        out->receive_bytes += placement->steps_in_flight_max * (uint64_t)hidden_bytes;
        out->frame_bytes_max = hidden_bytes;
    }
    if (!seat->is_last) {
        uint32_t targets = mark_neighbours(seat, seat->stage + 1, arena, &marks);

        add_peers(out, &placement->stages[seat->stage + 1], marks, seat->worker);
        out->sends[FRAME_HIDDEN] = (struct frame_need){
            .count = targets * (placement->steps_in_flight_max + 1),
            .payload_bytes = hidden_bytes,
        };
    }
    if (seat->exchanges_experts) {
        add_peers(out, &placement->stages[seat->stage], NULL, seat->worker);
        plan_experts(seat, arch, out);
    }
    finish(seat, out);
}

uint64_t traffic_bytes(const struct traffic *traffic)
{
    uint64_t bytes = traffic->receive_bytes;

    for (uint32_t kind = 0; kind < FRAME_KIND_COUNT; kind++) {
        if (traffic->sends[kind].count > 0) {
            bytes +=
                frame_pool_bytes(traffic->sends[kind].count, traffic->sends[kind].payload_bytes);
        }
    }
    return bytes;
}
