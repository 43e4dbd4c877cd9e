#ifndef SHOAL_PLAN_PLACEMENT_H
#define SHOAL_PLAN_PLACEMENT_H

/* The whole assignment: layers to stages, experts with replicas to members, lanes, KV budget.
 *
 * One immutable value, numbered by its epoch. Pure: made by the planner or read from a file, sent
 * to every worker, never changed. Workers are named by the ids that the coordinator gave them.
 */
#include "common/base/arena.h"
#include "common/base/error.h"
#include "common/model/kv_type.h"

#include <stdint.h>

#define PLACEMENT_NONE UINT32_MAX

/* Tokens of one KV block: a key block of attention, and the unit of the scheduler's accounting. */
#define PLAN_BLOCK_TOKENS 64

struct placement_stage {
    uint32_t layer_begin, layer_end;
    uint32_t member_count;
    uint32_t *workers; /* [member_count]: worker ids; the index is the member number */
};

struct placement {
    uint64_t epoch;
    char numerics_id[64];       /* "exact/f16/k1": numerics, KV type, kernel version */
    uint32_t layer_count;       /* main layers of the model */
    uint32_t expert_count;      /* routed, per MoE layer; 0: a dense model */
    uint32_t dense_layer_count; /* layers below it have no experts */
    /* 1: the last stage also holds the model's draft layer, layer number layer_count, which has
     * experts; 0: nobody does. No stage's range counts it. */
    uint32_t draft_layer_count;

    uint32_t stage_count;
    struct placement_stage *stages; /* in layer order, joined without gap from 0 to layer_count */

    uint32_t lane_count;
    uint32_t *lane_member; /* [stage][lane] → member of that stage that serves the lane */

    /* Owners of expert e of layer l are replica_member[replica_offset[l * expert_count + e]] up to
     * the next offset: member numbers in the layer's stage, ascending, at least one for each expert
     * of a MoE layer, the draft layer included. Dense layers own nothing. NULL when expert_count is
     * 0. */
    uint32_t *replica_offset; /* [placement_layers * expert_count + 1] */
    uint32_t *replica_member;

    enum kv_type kv_type;
    uint32_t kv_block_count;     /* per lane, the same number on every stage */
    uint32_t slot_count;         /* sequences per lane at a time */
    uint32_t context_tokens_max; /* per sequence */
    uint32_t step_rows_max;      /* rows of one step, all lanes together */
    uint32_t steps_in_flight_max;
};

/* Where a worker stands. */
struct placement_seat {
    uint32_t stage;
    uint32_t member;
};
/* Main layers and the draft layer, if there is one. */
uint32_t placement_layers(const struct placement *placement);
/* False if the worker has no seat in this placement. */
bool placement_seat_of(const struct placement *placement, uint32_t worker,
                       struct placement_seat *out);
uint32_t placement_stage_of_layer(const struct placement *placement, uint32_t layer);
/* Layers whose weights and cache entries a member of the stage holds: its range, on the last stage
 * the draft layer too. */
uint32_t placement_stage_layers(const struct placement *placement, uint32_t stage);
/* The worker that serves a lane in a stage. */
uint32_t placement_lane_worker(const struct placement *placement, uint32_t stage, uint32_t lane);
bool placement_owns(const struct placement *placement, uint32_t layer, uint32_t expert,
                    uint32_t member);
/* The member that computes an expert for rows of `member`: itself if it owns it, else the first
 * owner after it in member order, so that different members use different replicas. */
uint32_t placement_expert_member(const struct placement *placement, uint32_t layer, uint32_t expert,
                                 uint32_t member);
uint32_t placement_worker_count(const struct placement *placement);

/* Every invariant written above; ERROR_INPUT names the first that does not hold. Foreign
 * placements (files, wire) pass here before use; whoever decodes one has seen to it that the arrays
 * are as long as the counts say and replica_member as long as the last offset. */
bool placement_check(const struct placement *placement, struct error *err) MUST_CHECK;
struct placement *placement_copy(const struct placement *placement, struct arena *arena);

#endif
