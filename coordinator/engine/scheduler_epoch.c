/* scheduler_epoch.c - one placement after another, and the sequences that outlive them.
 *
 * Lanes, steps in flight and what was measured belong to a placement and go with it. Sequences
 * stay: they are known by their tokens, so that any placement can compute them again, prompt and
 * generated rows just as the first time. Between two placements everybody waits in the queue, in
 * the order of arrival.
 */
#include "coordinator/engine/scheduler_internal.h"

#include "common/base/check.h"
#include "common/base/mem.h"

#include <string.h>

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
    if (config->draft_mode == DRAFT_NONE) {
        scheduler->config.draft_max = 0;
    }
    scheduler->config.eos_ids = scheduler->eos_ids;
    scheduler->config.member_counts = scheduler->member_counts;
}

void scheduler_epoch_begin(struct scheduler *scheduler, const struct scheduler_config *config)
{
    uint32_t slots = config->lane_count * config->slot_count;

    ASSERT(config->lane_count > 0 && config->stage_count > 0 && config->slot_count > 0);
    ASSERT(config->kv_block_count > 0 && config->context_tokens_max > 0);
    ASSERT(config->step_rows_max > 0 && config->steps_in_flight_max > 0 && config->queue_max > 0);
    ASSERT(config->draft_max <= DRAFT_POLICY_MAX);
    config_copy(scheduler, config);
    scheduler->attempt = 0;
    scheduler->retry_count = 0;
    scheduler->entries_max = slots < config->step_rows_max ? slots : config->step_rows_max;
    scheduler->entries = mem_new_array(struct step_entry, scheduler->entries_max);
    scheduler->lanes = mem_new_array(struct lane, config->lane_count);
    for (uint32_t i = 0; i < config->lane_count; i++) {
        lane_init(&scheduler->lanes[i], config->slot_count, config->kv_block_count,
                  config->prefix_cache);
    }
    flight_deck_init(&scheduler->deck,
                     &(struct flight_sizes){.capacity = config->steps_in_flight_max,
                                            .entries_max = scheduler->entries_max,
                                            .rows_max = config->step_rows_max,
                                            .draft_max = scheduler->config.draft_max,
                                            .stage_count = config->stage_count,
                                            .member_counts = scheduler->member_counts});
    pace_init(&scheduler->pace, config->stage_count, config->steps_in_flight_max);
    draft_policy_init(&scheduler->draft_policy, scheduler->config.draft_max);
}

void scheduler_epoch_end(struct scheduler *scheduler)
{
    for (uint32_t i = 0; i < scheduler->config.lane_count; i++) {
        lane_deinit(&scheduler->lanes[i]);
    }
    scheduler->config.lane_count = 0;
    flight_deck_deinit(&scheduler->deck);
    pace_deinit(&scheduler->pace);
    mem_free(scheduler->lanes);
    mem_free(scheduler->entries);
    mem_free(scheduler->member_counts);
    mem_free(scheduler->eos_ids);
    scheduler->deck = (struct flight_deck){0};
    scheduler->pace = (struct pace){0};
    scheduler->lanes = NULL;
    scheduler->entries = NULL;
    scheduler->member_counts = NULL;
    scheduler->eos_ids = NULL;
}

/* Its steps will not come back. */
static void sequence_suspend(struct scheduler *scheduler, uint32_t index)
{
    struct sequence *sequence = &scheduler->pool.sequences[index];

    if (sequence->state == SEQUENCE_FREE || sequence->state == SEQUENCE_WAITING) {
        return;
    }
    scheduler_unlist(scheduler, index);
    sequence->losses += sequence->steps_in_flight > 0;
    sequence->steps_in_flight = 0;
    if (sequence->state == SEQUENCE_LEAVING && !BUG(16)) {
        scheduler_release(scheduler, index);
    } else if (sequence->state == SEQUENCE_DRAINING && sequence->tokens_max > 0) {
        scheduler_finish(scheduler, index, sequence->reason);
        scheduler_release(scheduler, index);
    } else if (sequence->losses >= SCHEDULER_LOSSES_MAX) {
        scheduler_finish(scheduler, index, FINISH_FAILED);
        scheduler_release(scheduler, index);
    } else {
        sequence->state = SEQUENCE_YIELDING;
        scheduler_requeue(scheduler, index);
    }
}

/* What is wanted of the step's rows has not been answered. */
static void flight_lose(struct scheduler *scheduler, const struct flight *flight)
{
    for (uint32_t i = 0; i < flight->entry_count; i++) {
        const struct flight_entry *entry = &flight->entries[i];
        struct sequence *sequence = &scheduler->pool.sequences[entry->sequence];

        if (sequence->state == SEQUENCE_WAITING && sequence->answered > entry->position) {
            sequence->answered = entry->position;
        }
    }
}

void scheduler_suspend(struct scheduler *scheduler, int64_t now_ns)
{
    scheduler->now_ns = now_ns;
    for (uint32_t index = 0; index < scheduler->pool.capacity; index++) {
        sequence_suspend(scheduler, index);
    }
    for (uint32_t i = 0; i < scheduler->deck.count && !BUG(15); i++) {
        flight_lose(scheduler, flight_deck_at(&scheduler->deck, i));
    }
    scheduler_epoch_end(scheduler);
    scheduler->prompt_rows_waiting = 0;
}

/* Whether the new placement can hold the sequence, as its request was accepted. */
static bool sequence_fits(const struct scheduler *scheduler, const struct sequence *sequence)
{
    return (uint64_t)sequence->prompt_count + sequence->tokens_max <=
               scheduler->config.context_tokens_max &&
           sequence->block_need <= scheduler->config.kv_block_count;
}

void scheduler_resume(struct scheduler *scheduler, const struct scheduler_config *config,
                      int64_t now_ns)
{
    ASSERT(scheduler->config.lane_count == 0);
    scheduler->now_ns = now_ns;
    scheduler_epoch_begin(scheduler, config);
    sequence_pool_grow(&scheduler->pool,
                       config->lane_count * config->slot_count + config->queue_max);
    for (uint32_t index = 0; index < scheduler->pool.capacity; index++) {
        struct sequence *sequence = &scheduler->pool.sequences[index];

        if (sequence->state == SEQUENCE_WAITING && !sequence_fits(scheduler, sequence) &&
            !BUG(17)) {
            scheduler_unlist(scheduler, index);
            scheduler_finish(scheduler, index, FINISH_FAILED);
            sequence_pool_remove(&scheduler->pool, index);
        }
    }
}

uint32_t scheduler_context_needed(const struct scheduler *scheduler)
{
    uint32_t tokens = 0;

    for (uint32_t index = 0; index < scheduler->pool.capacity; index++) {
        const struct sequence *sequence = &scheduler->pool.sequences[index];

        if (sequence->state != SEQUENCE_FREE && sequence->state != SEQUENCE_LEAVING &&
            sequence->prompt_count + sequence->tokens_max > tokens) {
            tokens = sequence->prompt_count + sequence->tokens_max;
        }
    }
    return tokens;
}

void scheduler_fail_all(struct scheduler *scheduler, int64_t now_ns)
{
    scheduler->now_ns = now_ns;
    flight_deck_clear(&scheduler->deck);
    for (uint32_t index = 0; index < scheduler->pool.capacity; index++) {
        struct sequence *sequence = &scheduler->pool.sequences[index];
        bool waiting = sequence->state == SEQUENCE_WAITING;

        if (sequence->state == SEQUENCE_FREE) {
            continue;
        }
        scheduler_unlist(scheduler, index);
        if (sequence->state != SEQUENCE_LEAVING) {
            scheduler_finish(scheduler, index, FINISH_FAILED);
        }
        sequence->steps_in_flight = 0;
        if (waiting) {
            sequence_pool_remove(&scheduler->pool, index);
        } else {
            scheduler_release(scheduler, index);
        }
    }
    for (uint32_t i = 0; i < scheduler->config.lane_count; i++) {
        lane_forget(&scheduler->lanes[i]); /* steps that were to fill the blocks may be lost */
    }
}
