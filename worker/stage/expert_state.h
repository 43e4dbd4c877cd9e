#ifndef SHOAL_STAGE_EXPERT_STATE_H
#define SHOAL_STAGE_EXPERT_STATE_H

/* What expert_exchange.c (own rows) and expert_serve.c (rows of others) share. Private to this
 * room.
 */
#include "common/base/arena.h"
#include "worker/stage/dispatch.h"
#include "worker/stage/expert_exchange.h"

struct member_state {
    uint32_t sent_rows, sent_parts;    /* of the own dispatch to it */
    uint32_t combine_rows;             /* what it will answer */
    uint32_t combine_next;             /* the next of them to be used */
    uint32_t dispatch_next, part_next; /* while the dispatch is written */
    struct frame *combine;             /* its answer */
    struct frame *dispatch;            /* what it asked of us */
    struct dispatch asked;
    uint32_t outputs_begin; /* of its parts in outputs */
    struct dispatch sending;
};

struct expert_exchange {
    const struct seat *seat;
    uint32_t hidden, chosen_count;
    const struct arch *arch;
    uint32_t pairs_max;            /* (row, expert) pairs of one step, all members together */
    struct expert_choice *choices; /* [rows][chosen] */
    uint32_t *owners;              /* [rows][chosen] member that computes it */
    struct expert_job *jobs;       /* [pairs_max]; the first own_jobs are of own rows */
    uint32_t own_jobs, job_count;
    uint32_t *own_outputs;      /* [rows][chosen] index into outputs, for own pairs */
    float *outputs;             /* [pairs_max][hidden] */
    float *shared;              /* [rows][hidden] */
    struct combine_part *parts; /* [rows][chosen] */
    uint32_t *part_counts;      /* [rows] */
    const float **group_rows;   /* [chosen] */
    struct member_state *members;
    uint64_t outputs_bytes, shared_bytes;
    struct arena arena;
};

/* An empty frame with the step's header fields; NULL: abandoned. */
struct frame *expert_frame_take(const struct expert_layer *layer, enum frame_kind kind,
                                const struct seat *seat);
/* Waits for the dispatches of all members with rows, computes them, answers. */
enum stage_outcome expert_serve_members(struct expert_exchange *exchange,
                                        const struct expert_layer *layer, struct error *err);

#endif
