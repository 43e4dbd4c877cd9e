#ifndef SHOAL_STAGE_SEAT_H
#define SHOAL_STAGE_SEAT_H

/* Where this worker stands in a placement, worked out once per epoch: its stage and neighbours, its
 * lanes, and whom it exchanges frames with.
 *
 * Frames go to the members of the next stage that share a lane with this worker, come from those
 * of the previous stage that do, and in stages with routed experts travel between all members.
 */
#include "common/model/arch.h"
#include "common/net/frame.h"
#include "common/plan/placement.h"
#include "worker/layers/weights.h"

struct seat {
    const struct placement *placement; /* borrowed */
    uint32_t worker;
    uint32_t stage, member;
    uint32_t layer_begin, layer_end; /* main layers */
    uint32_t held_end;               /* layer_end, or behind the draft layer */
    uint32_t member_count;
    bool is_first, is_last; /* of the pipeline's stages */
    bool has_draft;         /* holds the draft layer, number layer_end: on the last stage */
    bool exchanges_experts; /* more than one member, and a layer with routed experts */
    uint32_t lane_count;    /* own */
    uint32_t *lane_index;   /* [placement->lane_count] own lane index, or PLACEMENT_NONE */
    struct weights_share share;
};

/* A checked placement in which the worker has a seat (both asserted); memory from the arena. */
struct seat *seat_create(const struct placement *placement, uint32_t worker, struct arena *arena);
/* Member number that serves a lane in another stage. */
uint32_t seat_lane_member(const struct seat *seat, uint32_t stage, uint32_t lane);
uint32_t seat_member_worker(const struct seat *seat, uint32_t member);

/* What an epoch's frames need, so that nothing is allocated once it runs. */
struct frame_need {
    uint32_t count;       /* frames out at the same time */
    size_t payload_bytes; /* of one */
};
struct traffic {
    uint32_t peer_count;
    uint32_t *peers;                           /* worker ids, ascending */
    struct frame_need sends[FRAME_KIND_COUNT]; /* by kind; count 0: none */
    size_t frame_bytes_max;                    /* the largest payload, sent or received */
    uint64_t receive_bytes;                    /* bound of what peers may have sent us */
    uint32_t frames_per_link_max;              /* frames under way to one peer */
    uint32_t frames_early_per_peer;            /* frames of one peer that may wait here */
    uint32_t frames_early_max;                 /* of all peers */
};
void traffic_plan(const struct seat *seat, const struct arch *arch, struct arena *arena,
                  struct traffic *out);
/* Pools and receive bound, for the ledger. */
uint64_t traffic_bytes(const struct traffic *traffic);

#endif
