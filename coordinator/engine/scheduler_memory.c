/* scheduler_memory.c - KV blocks on demand.
 *
 * A block is taken when a row reaches it: a free one, else the prefix cache's longest idle one,
 * else the youngest sequence that ranks behind the one in need (batch before interactive) is
 * preempted. It keeps its tokens, goes back into the queue at the place of its arrival and is
 * computed again, as prompt and generated rows just as the first time. Blocks that a step in flight
 * touches are not given to others before all workers have answered it; so a victim with steps in
 * flight gets no more rows, and who needs its blocks waits meanwhile, without a further victim.
 *
 * No deadlock: the admitted sequence that ranks first in its lane can preempt all others there, and
 * no request is accepted that the lane's blocks could not hold alone. The order of ranks is total
 * and changes only by promotion, so whoever is preempted for it sees it finish.
 */
#include "coordinator/engine/scheduler_internal.h"

#include "common/base/check.h"

static bool runs(const struct sequence *sequence)
{
    return sequence->state == SEQUENCE_PREFILLING || sequence->state == SEQUENCE_READY ||
           sequence->state == SEQUENCE_IN_STEP;
}

uint32_t scheduler_victim(const struct scheduler *scheduler, const struct lane *lane,
                          const struct sequence *sequence)
{
    uint32_t victim = SEQUENCE_NONE;

    for (uint32_t slot = 0; slot < lane->slot_count; slot++) {
        uint32_t index = lane->owners[slot];
        const struct sequence *candidate = &scheduler->pool.sequences[index];

        if (index == SEQUENCE_NONE || !runs(candidate) ||
            (sequence != NULL ? candidate->block_count == 0 || !sequence_before(sequence, candidate)
                              : candidate->request_class != REQUEST_BATCH)) {
            continue;
        }
        if (victim == SEQUENCE_NONE ||
            sequence_before(&scheduler->pool.sequences[victim], candidate)) {
            victim = index;
        }
    }
    return victim;
}

bool scheduler_blocks_return(const struct scheduler *scheduler, const struct lane *lane)
{
    for (uint32_t slot = 0; slot < lane->slot_count; slot++) {
        uint32_t index = lane->owners[slot];

        if (index != SEQUENCE_NONE && !runs(&scheduler->pool.sequences[index])) {
            return true;
        }
    }
    return false;
}

void scheduler_requeue(struct scheduler *scheduler, uint32_t index)
{
    struct sequence *sequence = &scheduler->pool.sequences[index];

    ASSERT(sequence->state == SEQUENCE_YIELDING && sequence->steps_in_flight == 0);
    if (sequence->position > sequence->answered) {
        sequence->answered = sequence->position;
    }
    lane_release(&scheduler->lanes[sequence->lane], sequence);
    scheduler->batch_admitted -= sequence->request_class == REQUEST_BATCH;
    sequence->state = SEQUENCE_WAITING;
    sequence->position = 0;
    sequence->block_told = BUG(18) ? sequence->block_told : 0;
    sequence->node_count = 0;
    sequence->nodes_end = false;
    sequence->draft_count = 0;
    sequence_list_insert(&scheduler->pool, &scheduler->waiting[sequence->request_class], index);
}

void scheduler_preempt(struct scheduler *scheduler, uint32_t index)
{
    struct sequence *sequence = &scheduler->pool.sequences[index];

    ASSERT(runs(sequence));
    scheduler_unlist(scheduler, index);
    sequence->state = SEQUENCE_YIELDING;
    scheduler->stats.preemptions++;
    if (sequence->steps_in_flight == 0) {
        scheduler_requeue(scheduler, index);
    }
}

/* Whether the lane has a block for the sequence, after a preemption perhaps. */
static bool room_make(struct scheduler *scheduler, struct lane *lane,
                      const struct sequence *sequence)
{
    while (lane_room(lane) == 0) {
        uint32_t victim = SEQUENCE_NONE;

        if (!scheduler_blocks_return(scheduler, lane)) {
            victim = scheduler_victim(scheduler, lane, sequence);
        }
        if (victim == SEQUENCE_NONE) {
            return false;
        }
        scheduler_preempt(scheduler, victim);
    }
    return true;
}

bool scheduler_blocks_get(struct scheduler *scheduler, uint32_t index, uint32_t token_count)
{
    struct sequence *sequence = &scheduler->pool.sequences[index];
    struct lane *lane = &scheduler->lanes[sequence->lane];

    while (sequence->block_count < lane_blocks_of(token_count)) {
        if (!room_make(scheduler, lane, sequence)) {
            return false;
        }
        scheduler->stats.evictions += lane_extend(lane, sequence);
    }
    return true;
}
