/* lane.c - the accounting of slots and KV blocks.
 *
 * Free ones are stacks: what was given back last is handed out first, while caches may still know
 * it. Every change is O(blocks of one sequence).
 */
#include "coordinator/engine/lane.h"

#include "common/base/check.h"
#include "common/base/mem.h"
#include "common/plan/placement.h"

static uint32_t *stack_full(uint32_t count)
{
    uint32_t *stack = mem_new_array(uint32_t, count);

    for (uint32_t i = 0; i < count; i++) {
        stack[i] = count - 1 - i; /* 0 is taken first */
    }
    return stack;
}

void lane_init(struct lane *lane, uint32_t slot_count, uint32_t block_count)
{
    *lane = (struct lane){
        .block_count = block_count,
        .blocks_free_count = block_count,
        .blocks_free = stack_full(block_count),
        .slot_count = slot_count,
        .slots_free_count = slot_count,
        .slots_free = stack_full(slot_count),
    };
    sequence_list_init(&lane->ready);
}

void lane_deinit(struct lane *lane)
{
    mem_free(lane->blocks_free);
    mem_free(lane->slots_free);
}

uint32_t lane_room(const struct lane *lane)
{
    return lane->blocks_free_count - lane->blocks_reserved;
}

void lane_admit(struct lane *lane, struct sequence *sequence)
{
    ASSERT(lane->slots_free_count > 0 && lane_room(lane) >= sequence->block_need);
    sequence->slot = lane->slots_free[--lane->slots_free_count];
    lane->blocks_reserved += sequence->block_need;
}

void lane_extend(struct lane *lane, struct sequence *sequence, uint32_t token_count)
{
    while ((uint64_t)sequence->block_count * PLAN_BLOCK_TOKENS < token_count) {
        ASSERT(sequence->block_count < sequence->block_need);
        sequence->blocks[sequence->block_count++] = lane->blocks_free[--lane->blocks_free_count];
        lane->blocks_reserved--;
    }
}

void lane_release(struct lane *lane, struct sequence *sequence)
{
    lane->blocks_reserved -= sequence->block_need - sequence->block_count;
    while (sequence->block_count > 0) {
        lane->blocks_free[lane->blocks_free_count++] = sequence->blocks[--sequence->block_count];
    }
    lane->slots_free[lane->slots_free_count++] = sequence->slot;
    ASSERT(lane->blocks_free_count <= lane->block_count &&
           lane->slots_free_count <= lane->slot_count);
}
