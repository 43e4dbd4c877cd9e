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
    uint32_t *holders;     /* [lane][block] sequences that have it in their table */
    uint32_t *free;        /* [lane][block] how often it is on the stack of free ones */
    uint32_t *slots;       /* [lane][slot] how often it occurs, free or used */
    uint32_t *flown;       /* [sequence] entries in flight */
    uint32_t *flown_until; /* [sequence] end of the rows in flight */
    uint32_t *sampling;    /* [sequence] entries that await a sample */
    uint32_t batch_admitted;
    struct lane_census {
        uint32_t claimed, decoding, ready;
        uint64_t decoding_context, ready_context, prefill_rows;
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

static bool slot_count(const struct census *census, uint32_t lane, uint32_t slot, struct error *err)
{
    uint32_t total = census->scheduler->config.slot_count;

    if (lane >= census->scheduler->config.lane_count || slot >= total) {
        return wrong(err, "slot on lane", lane, slot, total);
    }
    SAME("owners of a slot on lane", lane, ++census->slots[lane * total + slot], 1)
    return true;
}

/* The first blocks are the nodes of its prompt's beginning, the others are its own. */
static bool blocks_check(const struct census *census, const struct sequence *sequence,
                         struct error *err)
{
    const struct lane *lane = &census->scheduler->lanes[sequence->lane];
    uint32_t total = lane->pool.block_count;
    uint32_t parent = PREFIX_NONE;

    if (sequence->block_count > sequence->block_need ||
        sequence->block_told > sequence->block_count ||
        sequence->node_count > sequence->block_count) {
        return wrong(err, "blocks of sequence", sequence->id, sequence->block_count,
                     sequence->block_need);
    }
    for (uint32_t i = 0; i < sequence->block_count; i++) {
        uint32_t block = sequence->blocks[i];
        bool node = i < sequence->node_count;

        if (block >= total) {
            return wrong(err, "block number on lane", sequence->lane, block, total);
        }
        census->holders[sequence->lane * total + block]++;
        SAME("node of the prefix tree in block", block, prefix_tree_holds(&lane->tree, block), node)
        if (node) {
            SAME("node of sequence", sequence->id,
                 prefix_tree_find(&lane->tree, parent, sequence->block_hashes[i],
                                  &sequence->tokens[i * PLAN_BLOCK_TOKENS]),
                 block)
        } else {
            SAME("holders of a private block of sequence", sequence->id, lane->pool.holders[block],
                 1)
        }
        parent = block;
    }
    return true;
}

static void admitted_count(struct census *census, const struct sequence *sequence)
{
    struct lane_census *lane = &census->lanes[sequence->lane];

    lane->claimed += sequence->claim;
    if (sequence->state == SEQUENCE_READY || sequence->state == SEQUENCE_IN_STEP) {
        lane->decoding++;
        lane->decoding_context += sequence->context_counted;
    }
    if (sequence->state == SEQUENCE_READY) {
        lane->ready++;
        lane->ready_context += sequence->token_count;
    }
    if (sequence->state == SEQUENCE_PREFILLING) {
        lane->prefill_rows += sequence->token_count - sequence->position;
    }
    census->batch_admitted += sequence->request_class == REQUEST_BATCH;
}

static bool position_check(const struct census *census, const struct sequence *sequence,
                           uint32_t index, struct error *err)
{
    bool in_step = sequence->state == SEQUENCE_IN_STEP;

    if ((uint64_t)sequence->block_count * PLAN_BLOCK_TOKENS < sequence->position ||
        sequence->node_count * PLAN_BLOCK_TOKENS > sequence->position) {
        return wrong(err, "blocks of rows of sequence", sequence->id, sequence->block_count,
                     sequence->position);
    }
    if (sequence->state == SEQUENCE_READY) {
        SAME("position of sequence", sequence->id, sequence->position + 1, sequence->token_count)
    }
    if (in_step && sequence->position < sequence->token_count) {
        return wrong(err, "position of sequence", sequence->id, sequence->position,
                     sequence->token_count);
    }
    if (sequence->state == SEQUENCE_PREFILLING && sequence->position >= sequence->token_count) {
        return wrong(err, "position of sequence", sequence->id, sequence->position,
                     sequence->token_count);
    }
    if (sequence->state != SEQUENCE_DRAINING && census->flown_until[index] > sequence->position) {
        return wrong(err, "last row in flight of sequence", sequence->id,
                     census->flown_until[index], sequence->position);
    }
    return true;
}

static bool admitted_check(struct census *census, const struct sequence *sequence,
                           struct error *err)
{
    uint32_t index = (uint32_t)(sequence - census->scheduler->pool.sequences);
    uint32_t sampling = census->sampling[index];

    if (!slot_count(census, sequence->lane, sequence->slot, err) ||
        !blocks_check(census, sequence, err) || !position_check(census, sequence, index, err)) {
        return false;
    }
    SAME("owner of slot", sequence->slot,
         census->scheduler->lanes[sequence->lane].owners[sequence->slot], index)
    SAME("steps in flight of sequence", sequence->id, sequence->steps_in_flight,
         census->flown[index])
    if (sampling > 1 ||
        (sequence->state != SEQUENCE_LEAVING && sequence->state != SEQUENCE_YIELDING &&
         sampling != (sequence->state == SEQUENCE_IN_STEP))) {
        return wrong(err, "awaited samples of sequence", sequence->id, sampling, 1);
    }
    if (sequence->state == SEQUENCE_DRAINING || sequence->state == SEQUENCE_LEAVING ||
        sequence->state == SEQUENCE_YIELDING) {
        SAME("lost sequence", sequence->id, sequence->steps_in_flight > 0, 1)
    }
    admitted_count(census, sequence);
    return true;
}

static bool sequence_check(struct census *census, uint32_t index, struct error *err)
{
    const struct scheduler *scheduler = census->scheduler;
    const struct sequence *sequence = &scheduler->pool.sequences[index];
    bool known = sequence->state != SEQUENCE_LEAVING;

    if (sequence->token_count < sequence->prompt_count ||
        sequence_generated(sequence) > sequence->tokens_max ||
        (uint64_t)sequence->prompt_count + sequence->tokens_max >
            scheduler->config.context_tokens_max ||
        sequence->token_count + sequence->draft_count > sequence->token_capacity) {
        return wrong(err, "tokens of sequence", sequence->id, sequence->token_count,
                     sequence->tokens_max);
    }
    if (known) {
        SAME("index of sequence", sequence->id, sequence_pool_find(&scheduler->pool, sequence->id),
             index)
    }
    if (sequence->state == SEQUENCE_WAITING) {
        SAME("steps in flight of waiting sequence", sequence->id, census->flown[index], 0)
        SAME("blocks of waiting sequence", sequence->id, sequence->block_count, 0)
        return true;
    }
    return admitted_check(census, sequence, err);
}

enum list_order { BY_TIME, BY_RANK };

static bool list_check(const struct scheduler *scheduler, const struct sequence_list *list,
                       enum sequence_state state, enum list_order order, struct error *err)
{
    uint32_t count = 0;
    uint32_t previous = SEQUENCE_NONE;

    for (uint32_t i = list->head; i != SEQUENCE_NONE; i = scheduler->pool.sequences[i].next) {
        const struct sequence *sequence = &scheduler->pool.sequences[i];

        SAME("list state of sequence", sequence->id, sequence->state, state)
        SAME("list link of sequence", sequence->id, sequence->previous, previous)
        if (order == BY_RANK && previous != SEQUENCE_NONE &&
            !sequence_before(&scheduler->pool.sequences[previous], sequence)) {
            return wrong(err, "rank of sequence", sequence->id, sequence->arrival,
                         scheduler->pool.sequences[previous].arrival);
        }
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
    uint32_t samples = 0;
    uint32_t decoding = 0;

    if (flight->attempt > scheduler->attempt || flight->issue_count == 0) {
        return wrong(err, "attempt of step", flight->step, flight->attempt, scheduler->attempt);
    }
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
        decoding += entry->decodes;
        samples += entry->wants_sample ? 1 + entry->draft_count : 0;
    }
    SAME("rows of step", flight->step, flight->load.rows, rows)
    SAME("samples of step", flight->step, flight->sample_wanted_count, samples)
    if (rows == 0 || rows > scheduler->config.step_rows_max ||
        (scheduler->config.batch_max > 0 && decoding > scheduler->config.batch_max) ||
        flight->outstanding_count == 0) {
        return wrong(err, "rows of step", flight->step, rows, scheduler->config.step_rows_max);
    }
    return true;
}

/* Each block is free, held, or an idle node. */
static bool pool_check(const struct census *census, uint32_t index, struct error *err)
{
    const struct lane *lane = &census->scheduler->lanes[index];
    uint32_t total = lane->pool.block_count;
    const uint32_t *holders = &census->holders[index * total];
    uint32_t *free = &census->free[index * total];
    uint32_t idle = 0;

    for (uint32_t i = 0; i < lane->pool.free_count; i++) {
        if (lane->pool.free[i] >= total) {
            return wrong(err, "free block on lane", index, lane->pool.free[i], total);
        }
        free[lane->pool.free[i]]++;
    }
    for (uint32_t block = 0; block < total; block++) {
        bool node = prefix_tree_holds(&lane->tree, block);
        bool rests = node && lane->tree.nodes[block].idle;

        SAME("holders of block", block, lane->pool.holders[block], holders[block])
        SAME("states of block", block, free[block] + rests + (holders[block] > 0), 1)
        SAME("idleness of block", block, rests, node && holders[block] == 0)
        idle += rests;
    }
    SAME("idle blocks of lane", index, lane->tree.idle_count, idle)
    return true;
}

/* Idle nodes have idle children only, which have been idle for longer. */
static bool tree_check(const struct lane *lane, struct error *err)
{
    const struct prefix_node *nodes = lane->tree.nodes;
    uint32_t count = 0;

    for (uint32_t i = lane->tree.oldest; lane->shares && i != PREFIX_NONE; i = nodes[i].newer) {
        uint32_t children = nodes[i].child_count;

        for (uint32_t j = nodes[i].older; j != PREFIX_NONE; j = nodes[j].older) {
            children -= nodes[j].parent == i;
        }
        SAME("younger or busy children of node", i, children, 0)
        SAME("idleness of node", i, nodes[i].idle && nodes[i].present, 1)
        count++;
    }
    SAME("idle nodes of a lane with", lane->tree.node_count, count, lane->tree.idle_count)
    return true;
}

static bool lane_check(const struct census *census, uint32_t index, struct error *err)
{
    const struct scheduler *scheduler = census->scheduler;
    const struct lane *lane = &scheduler->lanes[index];
    const struct lane_census *counted = &census->lanes[index];

    if (!list_check(scheduler, &lane->ready, SEQUENCE_READY, BY_TIME, err) ||
        !list_check(scheduler, &lane->prefilling, SEQUENCE_PREFILLING, BY_RANK, err) ||
        !pool_check(census, index, err) || !tree_check(lane, err)) {
        return false;
    }
    for (uint32_t i = 0; i < lane->slots_free_count; i++) {
        if (!slot_count(census, index, lane->slots_free[i], err)) {
            return false;
        }
        SAME("owner of a free slot of lane", index, lane->owners[lane->slots_free[i]],
             SEQUENCE_NONE)
    }
    SAME("claimed blocks of lane", index, lane->claimed, counted->claimed)
    SAME("decoding sequences of lane", index, lane->decoding_count, counted->decoding)
    SAME("context of decoding sequences of lane", index, lane->decoding_context,
         counted->decoding_context)
    SAME("ready sequences of lane", index, lane->ready.count, counted->ready)
    SAME("context of ready sequences of lane", index, lane->ready_context, counted->ready_context)
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

static bool census_take(struct census *census, struct error *err)
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
    SAME("admitted batch sequences", 0, scheduler->batch_admitted, census->batch_admitted)
    for (uint32_t i = 0; i < REQUEST_CLASSES; i++) {
        if (!list_check(scheduler, &scheduler->waiting[i], SEQUENCE_WAITING, BY_RANK, err)) {
            return false;
        }
    }
    return slots_complete(census, err);
}

bool scheduler_check(const struct scheduler *scheduler, struct error *err)
{
    const struct scheduler_config *config = &scheduler->config;
    size_t blocks = (size_t)config->lane_count * config->kv_block_count;
    size_t slots = (size_t)config->lane_count * config->slot_count;
    size_t sequences = scheduler->pool.capacity;
    uint32_t *counts = mem_new_array(uint32_t, 2 * blocks + slots + 3 * sequences);
    struct census census = {
        .scheduler = scheduler,
        .holders = counts,
        .free = counts + blocks,
        .slots = counts + 2 * blocks,
        .flown = counts + 2 * blocks + slots,
        .flown_until = counts + 2 * blocks + slots + sequences,
        .sampling = counts + 2 * blocks + slots + 2 * sequences,
        .lanes = mem_new_array(struct lane_census, config->lane_count),
    };
    bool sound = census_take(&census, err);

    mem_free(counts);
    mem_free(census.lanes);
    return sound;
}
