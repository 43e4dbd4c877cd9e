/* lane.c - the accounting of slots, KV blocks and running sequences.
 *
 * Free slots are a stack: what was given back last is handed out first, while caches may still know
 * it. Every change is O(blocks of one sequence).
 */
#include "coordinator/engine/lane.h"

#include "common/base/check.h"
#include "common/base/mem.h"
#include "common/plan/placement.h"
#include "coordinator/engine/bug.h"

void lane_init(struct lane *lane, uint32_t slot_count, uint32_t block_count, bool shares)
{
    *lane = (struct lane){
        .shares = shares,
        .slot_count = slot_count,
        .slots_free_count = slot_count,
        .slots_free = mem_new_array(uint32_t, slot_count),
        .owners = mem_new_array(uint32_t, slot_count),
    };
    for (uint32_t i = 0; i < slot_count; i++) {
        lane->slots_free[i] = slot_count - 1 - i; /* 0 is taken first */
        lane->owners[i] = SEQUENCE_NONE;
    }
    block_pool_init(&lane->pool, block_count);
    if (shares) {
        prefix_tree_init(&lane->tree, block_count);
    }
    sequence_list_init(&lane->ready);
    sequence_list_init(&lane->prefilling);
}

void lane_deinit(struct lane *lane)
{
    block_pool_deinit(&lane->pool);
    prefix_tree_deinit(&lane->tree);
    mem_free(lane->slots_free);
    mem_free(lane->owners);
}

uint32_t lane_room(const struct lane *lane)
{
    return lane->pool.free_count + lane->tree.idle_count;
}

uint32_t lane_blocks_of(uint32_t token_count)
{
    return (uint32_t)(((uint64_t)token_count + PLAN_BLOCK_TOKENS - 1) / PLAN_BLOCK_TOKENS);
}

static void claim_update(struct lane *lane, struct sequence *sequence)
{
    uint32_t soon = lane_blocks_of(sequence->admitted_count);

    soon = sequence->block_count > soon ? sequence->block_count : soon;
    lane->claimed -= sequence->claim;
    sequence->claim = soon - sequence->block_count + (soon < sequence->block_need);
    lane->claimed += sequence->claim;
}

void lane_admit(struct lane *lane, struct sequence *sequence, uint32_t index)
{
    ASSERT(lane->slots_free_count > 0 && sequence->block_count == 0);
    sequence->slot = lane->slots_free[--lane->slots_free_count];
    ASSERT(lane->owners[sequence->slot] == SEQUENCE_NONE);
    lane->owners[sequence->slot] = index;
    sequence->admitted_count = sequence->token_count;
    claim_update(lane, sequence);
}

void lane_share(struct lane *lane, struct sequence *sequence, uint32_t node)
{
    ASSERT(sequence->block_count < sequence->block_need);
    if (block_pool_acquire(&lane->pool, node) == 1) {
        prefix_tree_wake(&lane->tree, node);
    }
    sequence->blocks[sequence->block_count++] = node;
    claim_update(lane, sequence);
}

uint32_t lane_extend(struct lane *lane, struct sequence *sequence)
{
    uint32_t evicted = lane->pool.free_count == 0;

    ASSERT(sequence->block_count < sequence->block_need);
    if (evicted) {
        block_pool_free(&lane->pool, prefix_tree_evict(&lane->tree));
    }
    sequence->blocks[sequence->block_count++] = block_pool_take(&lane->pool);
    claim_update(lane, sequence);
    return evicted;
}

void lane_release(struct lane *lane, struct sequence *sequence)
{
    while (sequence->block_count > 0) {
        uint32_t block = sequence->blocks[--sequence->block_count]; /* the deepest first */

        if (block_pool_release(&lane->pool, block) > 0 && !BUG(8)) {
            continue;
        }
        if (prefix_tree_holds(&lane->tree, block)) {
            prefix_tree_rest(&lane->tree, block);
        } else {
            block_pool_free(&lane->pool, block);
        }
    }
    lane->claimed -= sequence->claim;
    sequence->claim = 0;
    ASSERT(lane->slots_free_count < lane->slot_count);
    lane->owners[sequence->slot] = SEQUENCE_NONE;
    lane->slots_free[lane->slots_free_count++] = sequence->slot;
}

void lane_forget(struct lane *lane)
{
    while (lane->tree.idle_count > 0) {
        block_pool_free(&lane->pool, prefix_tree_evict(&lane->tree));
    }
    ASSERT(lane->pool.free_count == lane->pool.block_count);
}

void lane_decode_begin(struct lane *lane, struct sequence *sequence)
{
    sequence->context_counted = sequence->token_count;
    lane->decoding_context += sequence->context_counted;
    lane->decoding_count++;
}

void lane_decode_end(struct lane *lane, struct sequence *sequence)
{
    lane->decoding_context -= sequence->context_counted;
    lane->decoding_count--;
}

void lane_ready_append(struct sequence_pool *pool, struct lane *lane, uint32_t index)
{
    struct sequence *sequence = &pool->sequences[index];

    lane->decoding_context += sequence->token_count - sequence->context_counted;
    sequence->context_counted = sequence->token_count;
    lane->ready_context += sequence->context_counted;
    sequence_list_append(pool, &lane->ready, index);
}

void lane_ready_remove(struct sequence_pool *pool, struct lane *lane, uint32_t index)
{
    lane->ready_context -= pool->sequences[index].context_counted;
    sequence_list_remove(pool, &lane->ready, index);
}
