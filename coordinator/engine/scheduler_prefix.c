/* scheduler_prefix.c - prompt beginnings that sequences of a lane share.
 *
 * Only full blocks of prompt tokens are shared; they never change. Workers run steps in order, and
 * in each layer write the cache entries of all rows of a step before they attend; so a block may be
 * shared from the moment its last row is issued, by a later entry of the same step, too. Therefore
 * prompts are looked up again before each chunk: of many requests with one beginning that come at
 * once, each chunk of it is computed by one.
 *
 * A sequence's nodes are the first blocks of its table. If it computes a block that has become a
 * node meanwhile (it was in the middle of it, or wants something of its rows), its own copy stays
 * private, and so do its later blocks.
 */
#include "coordinator/engine/scheduler_internal.h"

#include "common/base/check.h"

/* Tokens that need not be computed if they are cached: never the last one, whose row gives the next
 * token; never rows of which something is wanted that has not been answered. */
static uint32_t readable_count(const struct sequence *sequence)
{
    uint32_t count = min_u32(sequence->prompt_count, sequence->token_count - (BUG(5) ? 0 : 1));

    return sequence_wants_rows(sequence) ? min_u32(count, sequence->answered) : count;
}

/* The node that continues the sequence's chain, whose first `count` nodes end with `parent`. */
static uint32_t node_next(const struct lane *lane, const struct sequence *sequence, uint32_t parent,
                          uint32_t count)
{
    return prefix_tree_find(&lane->tree, parent, sequence->block_hashes[count],
                            &sequence->tokens[count * PLAN_BLOCK_TOKENS]);
}

uint32_t scheduler_prefix_find(const struct lane *lane, const struct sequence *sequence,
                               uint32_t *idle)
{
    uint32_t count_max = lane->shares ? readable_count(sequence) / PLAN_BLOCK_TOKENS : 0;
    uint32_t parent = PREFIX_NONE;
    uint32_t count = 0;

    *idle = 0;
    for (; count < count_max; count++) {
        uint32_t node = node_next(lane, sequence, parent, count);

        if (node == PREFIX_NONE) {
            break;
        }
        *idle += lane->tree.nodes[node].idle;
        parent = node;
    }
    return count;
}

void scheduler_prefix_take(struct scheduler *scheduler, uint32_t index)
{
    struct sequence *sequence = &scheduler->pool.sequences[index];
    struct lane *lane = &scheduler->lanes[sequence->lane];
    uint32_t count_max = lane->shares ? readable_count(sequence) / PLAN_BLOCK_TOKENS : 0;
    uint32_t begin = sequence->position;

    ASSERT(sequence->state == SEQUENCE_PREFILLING);
    if (sequence->nodes_end || sequence->block_count != sequence->node_count ||
        sequence->position != sequence->node_count * PLAN_BLOCK_TOKENS) {
        return;
    }
    while (sequence->node_count < count_max) {
        uint32_t count = sequence->node_count;
        uint32_t parent = count > 0 ? sequence->blocks[count - 1] : PREFIX_NONE;
        uint32_t node = node_next(lane, sequence, parent, count);

        if (node == PREFIX_NONE) {
            break;
        }
        lane_share(lane, sequence, node);
        sequence->node_count++;
        sequence->position += PLAN_BLOCK_TOKENS;
    }
    lane->prefill_rows -= sequence->position - begin;
}

void scheduler_prefix_note(struct scheduler *scheduler, struct sequence *sequence)
{
    struct lane *lane = &scheduler->lanes[sequence->lane];
    uint32_t full =
        min_u32(sequence->position + BUG(7), sequence->prompt_count) / PLAN_BLOCK_TOKENS;

    if (!lane->shares) {
        return;
    }
    while (sequence->node_count < full && !sequence->nodes_end) {
        uint32_t count = sequence->node_count;
        uint32_t parent = count > 0 ? sequence->blocks[count - 1] : PREFIX_NONE;

        if (node_next(lane, sequence, parent, count) != PREFIX_NONE) {
            sequence->nodes_end = true;
            break;
        }
        prefix_tree_insert(&lane->tree, parent, sequence->block_hashes[count],
                           &sequence->tokens[count * PLAN_BLOCK_TOKENS], sequence->blocks[count]);
        sequence->node_count++;
    }
}
