/* scheduler.c - life cycle of the scheduler and of its sequences, outcomes, figures.
 *
 * Everything that steps need is allocated here, once, or with the request that needs it (its prompt
 * and block table); the path from a report to the next step allocates nothing but room for the
 * tokens of sequences and for outcomes that the caller has not fetched.
 */
#include "coordinator/engine/scheduler.h"

#include "common/base/check.h"
#include "common/base/mem.h"
#include "coordinator/engine/scheduler_internal.h"

#include <inttypes.h>
#include <string.h>

#define OUTCOMES_FIRST    256 /* capacity; a power of two */
#define FINISH_GAP_WEIGHT 0.125

struct scheduler *scheduler_create(const struct scheduler_config *config)
{
    struct scheduler *scheduler = mem_new(struct scheduler);

    sequence_pool_init(&scheduler->pool,
                       config->lane_count * config->slot_count + config->queue_max);
    for (uint32_t i = 0; i < REQUEST_CLASSES; i++) {
        sequence_list_init(&scheduler->waiting[i]);
    }
    scheduler->outcomes.capacity = OUTCOMES_FIRST;
    scheduler->outcomes.outcomes = mem_new_array(struct outcome, OUTCOMES_FIRST);
    scheduler->step_next = 1;
    scheduler_epoch_begin(scheduler, config);
    return scheduler;
}

void scheduler_destroy(struct scheduler *scheduler)
{
    if (scheduler == NULL) {
        return;
    }
    scheduler_epoch_end(scheduler);
    sequence_pool_deinit(&scheduler->pool);
    mem_free(scheduler->outcomes.outcomes);
    mem_free(scheduler);
}

uint32_t scheduler_waiting_count(const struct scheduler *scheduler)
{
    return scheduler->waiting[REQUEST_INTERACTIVE].count + scheduler->waiting[REQUEST_BATCH].count;
}

void scheduler_emit(struct scheduler *scheduler, const struct outcome *outcome)
{
    struct outcome_queue *queue = &scheduler->outcomes;

    if (queue->count == queue->capacity) {
        queue->outcomes =
            mem_resize(queue->outcomes, (size_t)queue->capacity * 2, sizeof(*queue->outcomes));
        memcpy(queue->outcomes + queue->capacity, queue->outcomes,
               queue->head * sizeof(*queue->outcomes)); /* what had wrapped around */
        queue->capacity *= 2;
    }
    queue->outcomes[(queue->head + queue->count) & (queue->capacity - 1)] = *outcome;
    queue->count++;
}

bool scheduler_outcome(struct scheduler *scheduler, struct outcome *out)
{
    struct outcome_queue *queue = &scheduler->outcomes;

    if (queue->count == 0) {
        return false;
    }
    *out = queue->outcomes[queue->head];
    queue->head = (queue->head + 1) & (queue->capacity - 1);
    queue->count--;
    return true;
}

/* How fast places become free while others wait for them. */
static void finish_gap_measure(struct scheduler *scheduler)
{
    double gap_ns = (double)(scheduler->now_ns - scheduler->finish_ns);

    if (scheduler_waiting_count(scheduler) == 0) {
        scheduler->finish_ns = 0;
        return;
    }
    if (scheduler->finish_ns != 0) {
        scheduler->finish_gap_ns += scheduler->finish_gap_ns > 0
                                        ? FINISH_GAP_WEIGHT * (gap_ns - scheduler->finish_gap_ns)
                                        : gap_ns;
    }
    scheduler->finish_ns = scheduler->now_ns;
}

void scheduler_finish(struct scheduler *scheduler, uint32_t index, enum finish_reason reason)
{
    const struct sequence *sequence = &scheduler->pool.sequences[index];

    scheduler_emit(scheduler, &(struct outcome){.kind = OUTCOME_FINISHED,
                                                .sequence = sequence->id,
                                                .reason = reason,
                                                .cached_tokens = sequence->cached_tokens});
    if (reason != FINISH_FAILED && sequence->admissions > 0) {
        finish_gap_measure(scheduler);
    }
    scheduler->stats.finished += reason == FINISH_STOP || reason == FINISH_LENGTH;
    scheduler->stats.cancelled += reason == FINISH_CANCELLED;
    scheduler->stats.failed += reason == FINISH_FAILED;
    sequence_pool_forget(&scheduler->pool, index);
}

void scheduler_release(struct scheduler *scheduler, uint32_t index)
{
    struct sequence *sequence = &scheduler->pool.sequences[index];

    ASSERT(sequence->steps_in_flight == 0);
    lane_release(&scheduler->lanes[sequence->lane], sequence);
    scheduler->batch_admitted -= sequence->request_class == REQUEST_BATCH;
    sequence_pool_remove(&scheduler->pool, index);
}

void scheduler_unlist(struct scheduler *scheduler, uint32_t index)
{
    struct sequence *sequence = &scheduler->pool.sequences[index];
    struct lane *lane;

    if (sequence->state == SEQUENCE_WAITING) {
        sequence_list_remove(&scheduler->pool, &scheduler->waiting[sequence->request_class], index);
        return;
    }
    lane = &scheduler->lanes[sequence->lane];
    switch (sequence->state) {
    case SEQUENCE_PREFILLING:
        sequence_list_remove(&scheduler->pool, &lane->prefilling, index);
        lane->prefill_rows -= sequence->token_count - sequence->position;
        break;
    case SEQUENCE_READY:
        lane_ready_remove(&scheduler->pool, lane, index);
        lane_decode_end(lane, sequence);
        break;
    case SEQUENCE_IN_STEP:
        lane_decode_end(lane, sequence);
        break;
    case SEQUENCE_FREE:
    case SEQUENCE_WAITING:
    case SEQUENCE_DRAINING:
    case SEQUENCE_YIELDING:
    case SEQUENCE_LEAVING:
        break;
    }
}

bool scheduler_step_entry(const struct scheduler *scheduler, uint64_t step, uint32_t entry,
                          seq_id *sequence, uint32_t *position)
{
    uint32_t place = flight_deck_find(&scheduler->deck, step);
    const struct flight *flight;

    if (place == scheduler->deck.count) {
        return false;
    }
    flight = flight_deck_at(&scheduler->deck, place);
    if (entry >= flight->entry_count) {
        return false;
    }
    *sequence = flight->entries[entry].id;
    *position = flight->entries[entry].position;
    return true;
}

void scheduler_stats(const struct scheduler *scheduler, struct scheduler_stats *out)
{
    *out = scheduler->stats;
    out->waiting = scheduler_waiting_count(scheduler);
    out->running = scheduler->pool.live_count - out->waiting;
    out->steps_in_flight = scheduler->deck.count;
    for (uint32_t i = 0; i < scheduler->config.lane_count; i++) {
        const struct lane *lane = &scheduler->lanes[i];

        out->decoding += lane->decoding_count;
        out->kv_blocks_used += lane->pool.block_count - lane_room(lane);
        out->kv_blocks_total += lane->pool.block_count;
    }
}
