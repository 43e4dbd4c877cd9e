/* scheduler_admission.c - who leaves the queue, and for which lane.
 *
 * Interactive requests come first, then batch ones; inside a class it is first come, first served,
 * and a preempted sequence stands at the place of its arrival. The head waits for room and nothing
 * overtakes it, so it gets its turn. An interactive head that finds no room takes that of the
 * youngest batch sequence.
 *
 * Aging: once in batch_age_ns the oldest batch request that has got no new row for so long becomes
 * an interactive one, for good. So the n-th oldest batch request is one after about n times
 * batch_age_ns, and from then on only older requests come before it, while interactive requests
 * give way to one batch request in that time at most.
 *
 * Room: a free slot, and blocks for all known tokens of the sequence, beyond what the admitted ones
 * are about to take (lane.claimed, one block of growth for each among it). That is the watermark
 * against thrashing: a sequence is not let in to be thrown out again a few tokens later. A lane
 * without sequences takes any.
 *
 * Lane: the one where computing the prompt's uncached tokens and the tokens that the lane already
 * holds or is about to hold are fewest together. A long cached beginning attracts, until the lane
 * is fuller than others by as much.
 */
#include "coordinator/engine/scheduler_internal.h"

#include "common/base/check.h"

#define BATCH_AGE_NS 30000000000ll
#define AGING_CHECKS 16 /* looks in batch_age_ns */

static int64_t batch_age_ns(const struct scheduler *scheduler)
{
    return scheduler->config.batch_age_ns > 0 ? scheduler->config.batch_age_ns : BATCH_AGE_NS;
}

/* --- aging --- */

static bool stalls(const struct scheduler *scheduler, const struct sequence *sequence)
{
    return sequence->request_class == REQUEST_BATCH &&
           (sequence->state == SEQUENCE_WAITING || sequence->state == SEQUENCE_PREFILLING ||
            sequence->state == SEQUENCE_READY) &&
           scheduler->now_ns - sequence->progress_ns >= batch_age_ns(scheduler);
}

static void promote(struct scheduler *scheduler, uint32_t index)
{
    struct sequence *sequence = &scheduler->pool.sequences[index];

    if (sequence->state == SEQUENCE_WAITING) {
        sequence_list_remove(&scheduler->pool, &scheduler->waiting[REQUEST_BATCH], index);
        sequence->request_class = REQUEST_INTERACTIVE;
        sequence_list_insert(&scheduler->pool, &scheduler->waiting[REQUEST_INTERACTIVE], index);
        return;
    }
    scheduler->batch_admitted--;
    sequence->request_class = REQUEST_INTERACTIVE;
    if (sequence->state == SEQUENCE_PREFILLING) {
        struct sequence_list *list = &scheduler->lanes[sequence->lane].prefilling;

        sequence_list_remove(&scheduler->pool, list, index);
        sequence_list_insert(&scheduler->pool, list, index);
    }
}

static void batch_age(struct scheduler *scheduler)
{
    uint32_t oldest = SEQUENCE_NONE;

    if (scheduler->now_ns < scheduler->aging_ns || BUG(10) ||
        scheduler->waiting[REQUEST_BATCH].count + scheduler->batch_admitted == 0) {
        return;
    }
    for (uint32_t i = 0; i < scheduler->pool.capacity; i++) {
        const struct sequence *sequence = &scheduler->pool.sequences[i];

        if (stalls(scheduler, sequence) &&
            (oldest == SEQUENCE_NONE ||
             sequence->arrival < scheduler->pool.sequences[oldest].arrival)) {
            oldest = i;
        }
    }
    if (oldest == SEQUENCE_NONE) {
        scheduler->aging_ns = scheduler->now_ns + batch_age_ns(scheduler) / AGING_CHECKS;
        return;
    }
    promote(scheduler, oldest);
    scheduler->aging_ns = scheduler->now_ns + batch_age_ns(scheduler);
}

/* --- lanes --- */

static bool lane_fits(const struct lane *lane, const struct sequence *sequence, uint64_t *cost)
{
    uint32_t held = lane->pool.block_count - lane_room(lane);
    uint32_t known = lane_blocks_of(sequence->token_count);
    uint32_t cached, idle;

    if (lane->slots_free_count == 0) {
        return false;
    }
    cached = scheduler_prefix_find(lane, sequence, &idle);
    *cost = ((uint64_t)held + lane->claimed) * PLAN_BLOCK_TOKENS + sequence->token_count -
            cached * PLAN_BLOCK_TOKENS;
    return lane->slots_free_count == lane->slot_count ||
           (uint64_t)lane_room(lane) >=
               (uint64_t)lane->claimed + idle + (known - cached) + (known < sequence->block_need);
}

/* lane_count: none has room. */
static uint32_t lane_choose(const struct scheduler *scheduler, const struct sequence *sequence)
{
    uint32_t chosen = scheduler->config.lane_count;
    uint64_t cost_least = 0;

    for (uint32_t i = 0; i < scheduler->config.lane_count; i++) {
        const struct lane *lane = &scheduler->lanes[i];
        uint64_t cost;

        if (!lane_fits(lane, sequence, &cost)) {
            continue;
        }
        if (chosen == scheduler->config.lane_count || cost < cost_least ||
            (cost == cost_least &&
             lane->slots_free_count > scheduler->lanes[chosen].slots_free_count)) {
            chosen = i;
            cost_least = cost;
        }
    }
    return chosen;
}

/* --- admission --- */

static void sequence_admit(struct scheduler *scheduler, uint32_t index, uint32_t lane_index)
{
    struct sequence *sequence = &scheduler->pool.sequences[index];
    struct lane *lane = &scheduler->lanes[lane_index];

    sequence_list_remove(&scheduler->pool, &scheduler->waiting[sequence->request_class], index);
    sequence->lane = lane_index;
    sequence->admissions++;
    sequence->state = SEQUENCE_PREFILLING;
    lane_admit(lane, sequence, index);
    lane->prefill_rows += sequence->token_count;
    sequence_list_insert(&scheduler->pool, &lane->prefilling, index);
    scheduler->batch_admitted += sequence->request_class == REQUEST_BATCH;
    if (sequence->admissions == 1 && lane->shares) {
        scheduler->stats.prefix_query_tokens += sequence->prompt_count;
    }
    scheduler_prefix_take(scheduler, index);
}

/* Takes the place of a batch sequence. False: there is none, or places become free anyway. */
static bool way_make(struct scheduler *scheduler)
{
    uint32_t victim = SEQUENCE_NONE;

    if (scheduler->batch_admitted == 0) {
        return false;
    }
    for (uint32_t i = 0; i < scheduler->config.lane_count; i++) {
        uint32_t candidate = scheduler_victim(scheduler, &scheduler->lanes[i], NULL);

        if (scheduler_blocks_return(scheduler, &scheduler->lanes[i])) {
            return false;
        }
        if (candidate != SEQUENCE_NONE &&
            (victim == SEQUENCE_NONE || sequence_before(&scheduler->pool.sequences[victim],
                                                        &scheduler->pool.sequences[candidate]))) {
            victim = candidate;
        }
    }
    if (victim == SEQUENCE_NONE) {
        return false;
    }
    scheduler_preempt(scheduler, victim);
    return scheduler->pool.sequences[victim].state == SEQUENCE_WAITING;
}

void scheduler_admit(struct scheduler *scheduler)
{
    struct sequence_list *waiting = scheduler->waiting;

    batch_age(scheduler);
    while (waiting[REQUEST_INTERACTIVE].count + waiting[REQUEST_BATCH].count > 0) {
        bool interactive = waiting[REQUEST_INTERACTIVE].count > 0;
        uint32_t index = waiting[interactive ? REQUEST_INTERACTIVE : REQUEST_BATCH].head;
        uint32_t lane = lane_choose(scheduler, &scheduler->pool.sequences[index]);

        if (lane < scheduler->config.lane_count) {
            sequence_admit(scheduler, index, lane);
        } else if (!interactive || !way_make(scheduler)) {
            return;
        }
    }
}
