#ifndef SHOAL_ENGINE_LANE_H
#define SHOAL_ENGINE_LANE_H

/* Slots and KV blocks of one lane.
 *
 *   block_count = blocks in use + blocks_reserved + blocks that may be promised (lane_room)
 *
 * A sequence reserves at admission all blocks it can ever need and takes them when rows reach them,
 * so that a running sequence never waits for memory. The same block numbers are valid on every
 * stage.
 */
#include "coordinator/engine/sequence.h"

struct lane {
    uint32_t block_count;
    uint32_t blocks_free_count; /* reserved ones among them */
    uint32_t blocks_reserved;
    uint32_t *blocks_free; /* stack */
    uint32_t slot_count;
    uint32_t slots_free_count;
    uint32_t *slots_free; /* stack */

    struct sequence_list ready; /* longest waiting first */
    uint32_t decoding_count;    /* ready, or their sample is awaited */
    uint64_t prefill_rows;      /* prompt rows of admitted sequences that are not issued yet */
};

void lane_init(struct lane *lane, uint32_t slot_count, uint32_t block_count);
void lane_deinit(struct lane *lane);
/* Blocks that are neither used nor promised. */
uint32_t lane_room(const struct lane *lane);
/* Takes a slot and reserves the sequence's blocks; the lane must have both. */
void lane_admit(struct lane *lane, struct sequence *sequence);
/* Hands out reserved blocks until the sequence's table covers `token_count` positions. */
void lane_extend(struct lane *lane, struct sequence *sequence, uint32_t token_count);
/* Slot, blocks and reservation go back. */
void lane_release(struct lane *lane, struct sequence *sequence);

#endif
