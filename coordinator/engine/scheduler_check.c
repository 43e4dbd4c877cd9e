/* scheduler_check.c - the invariants, looked at from outside.
 *
 * Counts everything again from the sequences and the steps in flight and compares with what the
 * scheduler believes. Linear in its size; the simulation calls it after every event.
 */
#include "coordinator/engine/scheduler_internal.h"

#include "common/base/check.h"
#include "common/base/mem.h"

#include <inttypes.h>
#include <string.h>

/* What the sequences and flights say, per lane and per sequence. */
struct census {
    const struct scheduler *scheduler;
    uint8_t *blocks;       /* [lane][block] how often it occurs, free or used */
    uint8_t *slots;        /* [lane][slot] likewise */
    uint32_t *flown;       /* [sequence] entries in flight */
    uint32_t *flown_until; /* [sequence] end of the rows in flight */
    uint32_t *sampling;    /* [sequence] entries that await a sample */
    struct lane_census {
        uint32_t reserved, used, decoding, ready;
        uint64_t prefill_rows;
    } * lanes;
};

static bool wrong(struct error *err, const char *what, uint64_t where, uint64_t is, uint64_t must)
{
    return error_set(err, ERROR_INPUT, "%s of %" PRIu64 " is %" PRIu64 ", must be %" PRIu64, what,
                     where, is, must);
}

#define SAME(what, where, is, must)                                                                \
    if ((uint64_t)(is) != (uint64_t)(must)) {                                                      \
        return wrong(err, what, where, (uint64_t)(is), (uint64_t)(must));                          \
    }

static bool blocks_count(const struct census *census, uint32_t lane, const uint32_t *blocks,
                         uint32_t count, struct error *err)
{
    uint32_t total = census->scheduler->config.kv_block_count;

    for (uint32_t i = 0; i < count; i++) {
        if (blocks[i] >= total) {
            return wrong(err, "block number on lane", lane, blocks[i], total);
        }
        SAME("owners of a block on lane", lane, ++census->blocks[lane * total + blocks[i]], 1)
    }
    return true;
}

static bool slot_count(const struct census *census, uint32_t lane, uint32_t slot, struct error *err)
{
    uint32_t total = census->scheduler->config.slot_count;

    if (lane >= census->scheduler->config.lane_count || slot >= total) {
        return wrong(err, "slot on lane", lane, slot, total);
    }
    SAME("owners of a slot on lane", lane, ++census->slots[lane * total + slot], 1)
    return true;
}

static bool admitted_check(const struct census *census, const struct sequence *sequence,
                           struct error *err)
{
    struct lane_census *lane = &census->lanes[sequence->lane];
    uint32_t index = (uint32_t)(sequence - census->scheduler->pool.sequences);
    bool decoding = sequence->state == SEQUENCE_READY || sequence->state == SEQUENCE_IN_STEP;
    uint64_t covered = (uint64_t)sequence->block_count * PLAN_BLOCK_TOKENS;

    if (!slot_count(census, sequence->lane, sequence->slot, err) ||
        !blocks_count(census, sequence->lane, sequence->blocks, sequence->block_count, err)) {
        return false;
    }
    lane->used += sequence->block_count;
    lane->reserved += sequence->block_need - sequence->block_count;
    lane->decoding += decoding;
    lane->ready += sequence->state == SEQUENCE_READY;
    if (sequence->state == SEQUENCE_PREFILLING) {
        lane->prefill_rows += sequence->prompt_count - sequence->position;
    }
    if (covered < sequence->position ||
        covered >= (uint64_t)sequence->position + PLAN_BLOCK_TOKENS) {
        return wrong(err, "rows in blocks of sequence", sequence->id, covered, sequence->position);
    }
    SAME("steps in flight of sequence", sequence->id, sequence->steps_in_flight,
         census->flown[index])
    SAME("awaited samples of sequence", sequence->id,
         sequence->state == SEQUENCE_LEAVING ? 0 : census->sampling[index],
         sequence->state == SEQUENCE_IN_STEP)
    if (decoding) {
        SAME("rows of sequence", sequence->id,
             (uint64_t)sequence->prompt_count + sequence->generated,
             sequence->position + (sequence->state == SEQUENCE_READY ? 1 : 0))
    }
    if (census->flown_until[index] > sequence->position) {
        return wrong(err, "last row in flight of sequence", sequence->id,
                     census->flown_until[index], sequence->position);
    }
    if (sequence->state == SEQUENCE_DRAINING || sequence->state == SEQUENCE_LEAVING) {
        SAME("lost sequence", sequence->id, sequence->steps_in_flight > 0, 1)
    }
    return true;
}

static bool sequence_check(const struct census *census, uint32_t index, struct error *err)
{
    const struct scheduler *scheduler = census->scheduler;
    const struct sequence *sequence = &scheduler->pool.sequences[index];
    bool known = sequence->state != SEQUENCE_LEAVING;

    if (sequence->generated > sequence->tokens_max ||
        (uint64_t)sequence->prompt_count + sequence->tokens_max >
            scheduler->config.context_tokens_max) {
        return wrong(err, "tokens of sequence", sequence->id, sequence->generated,
                     sequence->tokens_max);
    }
    if (known) {
        SAME("index of sequence", sequence->id, sequence_pool_find(&scheduler->pool, sequence->id),
             index)
    }
    if (sequence->state == SEQUENCE_WAITING) {
        SAME("steps in flight of waiting sequence", sequence->id, census->flown[index], 0)
        return true;
    }
    return admitted_check(census, sequence, err);
}

static bool list_check(const struct scheduler *scheduler, const struct sequence_list *list,
                       enum sequence_state state, struct error *err)
{
    uint32_t count = 0;
    uint32_t previous = SEQUENCE_NONE;

    for (uint32_t i = list->head; i != SEQUENCE_NONE; i = scheduler->pool.sequences[i].next) {
        const struct sequence *sequence = &scheduler->pool.sequences[i];

        SAME("list state of sequence", sequence->id, sequence->state, state)
        SAME("list link of sequence", sequence->id, sequence->previous, previous)
        previous = i;
        if (++count > list->count) {
            break;
        }
    }
    SAME("list tail in state", state, list->tail, previous)
    SAME("list length in state", state, list->count, count)
    return true;
}

static bool flight_check(const struct census *census, const struct flight *flight,
                         struct error *err)
{
    const struct scheduler *scheduler = census->scheduler;
    uint32_t rows = 0;
    uint32_t decoding = 0;

    for (uint32_t i = 0; i < flight->entry_count; i++) {
        const struct flight_entry *entry = &flight->entries[i];
        const struct sequence *sequence = &scheduler->pool.sequences[entry->sequence];

        if (sequence->state == SEQUENCE_FREE || sequence->id != entry->id) {
            return wrong(err, "sequence in step", flight->step, sequence->id, entry->id);
        }
        /* A later step may be back before an earlier one, so gaps are sound, overlaps are not. */
        if (entry->position < census->flown_until[entry->sequence]) {
            return wrong(err, "first row in flight of sequence", entry->id, entry->position,
                         census->flown_until[entry->sequence]);
        }
        census->flown[entry->sequence]++;
        census->flown_until[entry->sequence] = entry->position + entry->token_count;
        census->sampling[entry->sequence] += entry->wants_sample;
        rows += entry->token_count;
        decoding += entry->position >= sequence->prompt_count;
    }
    SAME("rows of step", flight->step, flight->row_count, rows)
    if (rows == 0 || rows > scheduler->config.step_rows_max ||
        (scheduler->config.batch_max > 0 && decoding > scheduler->config.batch_max) ||
        flight->outstanding_count == 0) {
        return wrong(err, "rows of step", flight->step, rows, scheduler->config.step_rows_max);
    }
    return true;
}

static bool lane_check(const struct census *census, uint32_t index, struct error *err)
{
    const struct scheduler *scheduler = census->scheduler;
    const struct lane *lane = &scheduler->lanes[index];
    const struct lane_census *counted = &census->lanes[index];

    if (!list_check(scheduler, &lane->ready, SEQUENCE_READY, err) ||
        !blocks_count(census, index, lane->blocks_free, lane->blocks_free_count, err)) {
        return false;
    }
    for (uint32_t i = 0; i < lane->slots_free_count; i++) {
        if (!slot_count(census, index, lane->slots_free[i], err)) {
            return false;
        }
    }
    SAME("blocks of lane", index, lane->blocks_free_count + counted->used, lane->block_count)
    SAME("reserved blocks of lane", index, lane->blocks_reserved, counted->reserved)
    if (lane->blocks_reserved > lane->blocks_free_count) {
        return wrong(err, "reserved blocks of lane", index, lane->blocks_reserved,
                     lane->blocks_free_count);
    }
    SAME("decoding sequences of lane", index, lane->decoding_count, counted->decoding)
    SAME("ready sequences of lane", index, lane->ready.count, counted->ready)
    SAME("prefill rows of lane", index, lane->prefill_rows, counted->prefill_rows)
    return true;
}

static bool slots_complete(const struct census *census, struct error *err)
{
    const struct scheduler_config *config = &census->scheduler->config;

    for (uint32_t i = 0; i < config->lane_count * config->slot_count; i++) {
        SAME("owners of slot", i, census->slots[i], 1)
    }
    return true;
}

static bool census_take(const struct census *census, struct error *err)
{
    const struct scheduler *scheduler = census->scheduler;
    uint32_t live = 0;

    if (scheduler->deck.count > scheduler->config.steps_in_flight_max) {
        return wrong(err, "steps in flight", 0, scheduler->deck.count,
                     scheduler->config.steps_in_flight_max);
    }
    for (uint32_t i = 0; i < scheduler->deck.count; i++) {
        if (!flight_check(census, flight_deck_at(&scheduler->deck, i), err)) {
            return false;
        }
    }
    for (uint32_t i = 0; i < scheduler->pool.capacity; i++) {
        if (scheduler->pool.sequences[i].state == SEQUENCE_FREE) {
            continue;
        }
        live++;
        if (!sequence_check(census, i, err)) {
            return false;
        }
    }
    SAME("sequences", 0, scheduler->pool.live_count, live)
    for (uint32_t i = 0; i < scheduler->config.lane_count; i++) {
        if (!lane_check(census, i, err)) {
            return false;
        }
    }
    return slots_complete(census, err) &&
           list_check(scheduler, &scheduler->waiting, SEQUENCE_WAITING, err) &&
           list_check(scheduler, &scheduler->prefilling, SEQUENCE_PREFILLING, err);
}

bool scheduler_check(const struct scheduler *scheduler, struct error *err)
{
    const struct scheduler_config *config = &scheduler->config;
    size_t lanes = config->lane_count;
    uint32_t *counts = mem_new_array(uint32_t, 3 * (size_t)scheduler->pool.capacity);
    struct census census = {
        .scheduler = scheduler,
        .blocks = mem_new_array(uint8_t, lanes * config->kv_block_count),
        .slots = mem_new_array(uint8_t, lanes * config->slot_count),
        .flown = counts,
        .flown_until = counts + scheduler->pool.capacity,
        .sampling = counts + 2 * (size_t)scheduler->pool.capacity,
        .lanes = mem_new_array(struct lane_census, lanes),
    };
    bool sound = census_take(&census, err);

    mem_free(census.blocks);
    mem_free(census.slots);
    mem_free(census.flown);
    mem_free(census.lanes);
    return sound;
}
