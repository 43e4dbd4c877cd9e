/* scheduler.c - life cycle of the scheduler and of its sequences, outcomes, figures.
 *
 * Everything that steps need is allocated here, once, or with the request that needs it (its prompt
 * and block table); the path from a report to the next step allocates nothing but room for outcomes
 * that the caller has not fetched.
 */
#include "coordinator/engine/scheduler.h"

#include "common/base/check.h"
#include "common/base/mem.h"
#include "coordinator/engine/scheduler_internal.h"

#include <inttypes.h>
#include <string.h>

#define OUTCOMES_FIRST 256 /* capacity; a power of two */

static uint32_t *array_copy(const uint32_t *from, uint32_t count)
{
    uint32_t *copy = mem_new_array(uint32_t, count);

    if (count > 0) {
        memcpy(copy, from, count * sizeof(*copy));
    }
    return copy;
}

static void config_copy(struct scheduler *scheduler, const struct scheduler_config *config)
{
    scheduler->config = *config;
    scheduler->eos_ids = array_copy(config->eos_ids, config->eos_count);
    scheduler->member_counts = mem_new_array(uint32_t, config->stage_count);
    for (uint32_t i = 0; i < config->stage_count; i++) {
        scheduler->member_counts[i] =
            config->member_counts != NULL ? config->member_counts[i] : config->lane_count;
        ASSERT(scheduler->member_counts[i] > 0);
    }
    scheduler->config.eos_ids = scheduler->eos_ids;
    scheduler->config.member_counts = scheduler->member_counts;
}

struct scheduler *scheduler_create(const struct scheduler_config *config)
{
    struct scheduler *scheduler = mem_new(struct scheduler);
    uint32_t slots = config->lane_count * config->slot_count;

    ASSERT(config->lane_count > 0 && config->stage_count > 0 && config->slot_count > 0);
    ASSERT(config->kv_block_count > 0 && config->context_tokens_max > 0);
    ASSERT(config->step_rows_max > 0 && config->steps_in_flight_max > 0 && config->queue_max > 0);
    config_copy(scheduler, config);
    scheduler->entries_max = slots < config->step_rows_max ? slots : config->step_rows_max;
    sequence_pool_init(&scheduler->pool, slots + config->queue_max);
    sequence_list_init(&scheduler->waiting);
    sequence_list_init(&scheduler->prefilling);
    scheduler->lanes = mem_new_array(struct lane, config->lane_count);
    for (uint32_t i = 0; i < config->lane_count; i++) {
        lane_init(&scheduler->lanes[i], config->slot_count, config->kv_block_count);
    }
    flight_deck_init(&scheduler->deck, config->steps_in_flight_max, scheduler->entries_max,
                     config->stage_count, scheduler->member_counts);
    pace_init(&scheduler->pace, config->stage_count, config->steps_in_flight_max);
    scheduler->outcomes.capacity = OUTCOMES_FIRST;
    scheduler->outcomes.outcomes = mem_new_array(struct outcome, OUTCOMES_FIRST);
    scheduler->step_next = 1;
    scheduler->entries = mem_new_array(struct step_entry, scheduler->entries_max);
    scheduler->tokens = mem_new_array(uint32_t, config->step_rows_max);
    scheduler->blocks = mem_new_array(uint32_t, config->step_rows_max);
    scheduler->lane_rows = mem_new_array(uint32_t, config->lane_count);
    return scheduler;
}

void scheduler_destroy(struct scheduler *scheduler)
{
    if (scheduler == NULL) {
        return;
    }
    for (uint32_t i = 0; i < scheduler->config.lane_count; i++) {
        lane_deinit(&scheduler->lanes[i]);
    }
    sequence_pool_deinit(&scheduler->pool);
    flight_deck_deinit(&scheduler->deck);
    pace_deinit(&scheduler->pace);
    mem_free(scheduler->lanes);
    mem_free(scheduler->outcomes.outcomes);
    mem_free(scheduler->entries);
    mem_free(scheduler->tokens);
    mem_free(scheduler->blocks);
    mem_free(scheduler->lane_rows);
    mem_free(scheduler->member_counts);
    mem_free(scheduler->eos_ids);
    mem_free(scheduler);
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

void scheduler_finish(struct scheduler *scheduler, uint32_t index, enum finish_reason reason)
{
    scheduler_emit(scheduler, &(struct outcome){.kind = OUTCOME_FINISHED,
                                                .sequence = scheduler->pool.sequences[index].id,
                                                .reason = reason});
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
    sequence_pool_remove(&scheduler->pool, index);
}

void scheduler_unlist(struct scheduler *scheduler, uint32_t index)
{
    struct sequence *sequence = &scheduler->pool.sequences[index];
    struct lane *lane = &scheduler->lanes[sequence->lane];

    switch (sequence->state) {
    case SEQUENCE_WAITING:
        sequence_list_remove(&scheduler->pool, &scheduler->waiting, index);
        break;
    case SEQUENCE_PREFILLING:
        sequence_list_remove(&scheduler->pool, &scheduler->prefilling, index);
        lane->prefill_rows -= sequence->prompt_count - sequence->position;
        break;
    case SEQUENCE_READY:
        sequence_list_remove(&scheduler->pool, &lane->ready, index);
        lane->decoding_count--;
        break;
    case SEQUENCE_IN_STEP:
        lane->decoding_count--;
        break;
    case SEQUENCE_FREE:
    case SEQUENCE_DRAINING:
    case SEQUENCE_LEAVING:
        break;
    }
}

/* What a request takes, cut to the context. */
struct demand {
    uint32_t tokens_max;
    uint32_t block_need;
};

static bool demand_of(const struct scheduler *scheduler, const struct scheduler_request *request,
                      struct demand *out, struct error *err)
{
    const struct scheduler_config *config = &scheduler->config;
    uint32_t context = config->context_tokens_max;
    uint32_t least = request->tokens_max > 0 ? 1 : 0;
    uint32_t tokens_max = request->tokens_max;
    uint64_t tokens, blocks;

    if (request->prompt_count == 0 || (uint64_t)request->prompt_count + least > context) {
        return error_set(err, ERROR_USAGE, "the prompt has %u tokens%s, the context holds %u",
                         request->prompt_count, least > 0 ? " and wants an answer" : "", context);
    }
    if (tokens_max > context - request->prompt_count) {
        tokens_max = context - request->prompt_count;
    }
    tokens = (uint64_t)request->prompt_count + tokens_max;
    blocks = (tokens + PLAN_BLOCK_TOKENS - 1) / PLAN_BLOCK_TOKENS;
    if (blocks > config->kv_block_count) {
        return error_set(err, ERROR_USAGE,
                         "prompt of %u tokens and up to %u new ones need %" PRIu64
                         " KV blocks of %u tokens, there are %u",
                         request->prompt_count, tokens_max, blocks, PLAN_BLOCK_TOKENS,
                         config->kv_block_count);
    }
    *out = (struct demand){.tokens_max = tokens_max, .block_need = (uint32_t)blocks};
    return true;
}

bool scheduler_submit(struct scheduler *scheduler, const struct scheduler_request *request,
                      int64_t now_ns, struct error *err)
{
    struct demand demand;
    struct sequence *sequence;
    uint32_t *memory;
    uint32_t index;

    (void)now_ns;
    if (!demand_of(scheduler, request, &demand, err)) {
        return false;
    }
    if (sequence_pool_find(&scheduler->pool, request->sequence) != SEQUENCE_NONE) {
        return error_set(err, ERROR_USAGE, "sequence %" PRIu64 " is in use", request->sequence);
    }
    if (scheduler->waiting.count >= scheduler->config.queue_max) {
        return error_set(err, ERROR_LIMIT, "the queue is full: %u requests are waiting",
                         scheduler->waiting.count);
    }
    memory = mem_try_array(uint32_t, (size_t)request->prompt_count + demand.block_need, err);
    if (memory == NULL) {
        return error_wrap(err, "prompt");
    }
    index = sequence_pool_add(&scheduler->pool, request->sequence);
    sequence = &scheduler->pool.sequences[index];
    memcpy(memory, request->prompt, request->prompt_count * sizeof(*memory));
    sequence->state = SEQUENCE_WAITING;
    sequence->prompt = memory;
    sequence->prompt_count = request->prompt_count;
    sequence->blocks = memory + request->prompt_count;
    sequence->block_need = demand.block_need;
    sequence->tokens_max = demand.tokens_max;
    sequence->ignore_eos = request->ignore_eos;
    sequence->wants = request->wants & ~(uint32_t)WANT_SAMPLE;
    sequence->sampling = request->sampling;
    sequence_list_append(&scheduler->pool, &scheduler->waiting, index);
    return true;
}

void scheduler_cancel(struct scheduler *scheduler, seq_id id, int64_t now_ns)
{
    uint32_t index = sequence_pool_find(&scheduler->pool, id);
    struct sequence *sequence;
    bool waiting;

    (void)now_ns;
    if (index == SEQUENCE_NONE) {
        return;
    }
    sequence = &scheduler->pool.sequences[index];
    waiting = sequence->state == SEQUENCE_WAITING;
    scheduler_unlist(scheduler, index);
    scheduler_finish(scheduler, index, FINISH_CANCELLED);
    if (waiting) {
        sequence_pool_remove(&scheduler->pool, index);
    } else if (sequence->steps_in_flight == 0) {
        scheduler_release(scheduler, index);
    } else {
        sequence->state = SEQUENCE_LEAVING;
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

int64_t scheduler_retry_after_ns(const struct scheduler *scheduler, int64_t now_ns)
{
    (void)now_ns;
    return scheduler->waiting.count < scheduler->config.queue_max ? 0 : 1000000000;
}

void scheduler_stats(const struct scheduler *scheduler, struct scheduler_stats *out)
{
    *out = scheduler->stats;
    out->waiting = scheduler->waiting.count;
    out->running = scheduler->pool.live_count - scheduler->waiting.count;
    out->steps_in_flight = scheduler->deck.count;
    for (uint32_t i = 0; i < scheduler->config.lane_count; i++) {
        const struct lane *lane = &scheduler->lanes[i];

        out->decoding += lane->decoding_count;
        out->kv_blocks_used += lane->block_count - lane_room(lane);
        out->kv_blocks_total += lane->block_count;
    }
}
