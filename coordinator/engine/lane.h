#ifndef SHOAL_ENGINE_LANE_H
#define SHOAL_ENGINE_LANE_H

/* Slots, KV blocks and the running sequences of one lane. The same block numbers are valid on every
 * stage.
 *
 *   block_count = free + idle in the prefix tree + held by sequences
 *   claimed     = of the first two, what admitted sequences are about to take: what their known
 *                 tokens miss, and one block more for each that may grow beyond
 *
 * Blocks are taken when rows reach them. Nothing is reserved: the claim only keeps admission from
 * letting in more than will go well for a while.
 */
#include "coordinator/engine/block_pool.h"
#include "coordinator/engine/prefix_tree.h"
#include "coordinator/engine/sequence.h"

struct lane {
    struct block_pool pool;
    struct prefix_tree tree; /* empty if nothing is shared */
    bool shares;
    uint32_t claimed;
    uint32_t slot_count;
    uint32_t slots_free_count;
    uint32_t *slots_free; /* stack */
    uint32_t *owners;     /* [slot_count] sequences, or SEQUENCE_NONE */

    struct sequence_list ready;      /* longest waiting first */
    struct sequence_list prefilling; /* by rank */
    uint32_t decoding_count;         /* ready, or their sample is awaited */
    uint64_t decoding_context;       /* sum of their tokens */
    uint64_t ready_context;          /* of those that are ready */
    uint64_t prefill_rows;           /* of prefilling sequences, not issued yet */

    /* While a step is made. */
    uint32_t cursor;  /* the ready sequence to be looked at next */
    double cost;      /* of the lane's decoding rows so far */
    double cost_goal; /* its even share */
    uint32_t quota;   /* prompt rows that it may add */
};

void lane_init(struct lane *lane, uint32_t slot_count, uint32_t block_count, bool shares);
void lane_deinit(struct lane *lane);
/* Blocks that can be had without taking them from a sequence. */
uint32_t lane_room(const struct lane *lane);
/* Blocks that so many tokens take. */
uint32_t lane_blocks_of(uint32_t token_count);
/* Takes a slot; the lane must have one. */
void lane_admit(struct lane *lane, struct sequence *sequence, uint32_t index);
/* The sequence holds a node of the prefix tree as its next block. */
void lane_share(struct lane *lane, struct sequence *sequence, uint32_t node);
/* One more block for the sequence, an idle one of the prefix tree if none is free. Returns the
 * number of evicted blocks (0, 1). lane_room must not be 0. */
uint32_t lane_extend(struct lane *lane, struct sequence *sequence);
/* Slot and blocks go back; shared ones stay cached. */
void lane_release(struct lane *lane, struct sequence *sequence);

/* Nothing is cached any more; no sequence may hold a block. */
void lane_forget(struct lane *lane);

/* The sequence decodes from now on, or no longer. */
void lane_decode_begin(struct lane *lane, struct sequence *sequence);
void lane_decode_end(struct lane *lane, struct sequence *sequence);
/* In and out of the ready list. */
void lane_ready_append(struct sequence_pool *pool, struct lane *lane, uint32_t index);
void lane_ready_remove(struct sequence_pool *pool, struct lane *lane, uint32_t index);

#endif
