/* scheduler_step.c - who is admitted, and whose rows go into the next step.
 *
 * With F steps to be in flight, k in flight and D decoding sequences, R of them ready, a step takes
 * at most ceil(D / F) of them, so that no step grows at the cost of the others and uneven steps
 * even out: what a full step leaves behind joins the next one. It also takes no more than ceil(R /
 * (F - k)), so that ready sequences are shared by the steps that may still be issued now. The same
 * bound ceil(D / F) holds inside each lane, because the members of a stage work in lockstep and a
 * step lasts as long as its fullest lane. Nothing is held back: while fewer than F steps are in
 * flight and any row is ready, a step is issued.
 *
 * Prompt rows fill what decoding leaves. They too are shared among the stages, in chunks that are
 * worth a pass over the weights, and dealt to the lanes as evenly as their prompts allow.
 */
#include "coordinator/engine/scheduler_internal.h"

#include "common/base/check.h"

#include <string.h>

/* Rows per lane below which a prompt is not cut to keep further stages busy. */
#define PREFILL_ROWS_MIN 64

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint64_t divide_up(uint64_t a, uint64_t b)
{
    return (a + b - 1) / b;
}

/* The lane with the most unpromised blocks among those with a free slot; lane_count: none. */
static uint32_t lane_choose(const struct scheduler *scheduler, uint32_t block_need)
{
    uint32_t chosen = scheduler->config.lane_count;

    for (uint32_t i = 0; i < scheduler->config.lane_count; i++) {
        const struct lane *lane = &scheduler->lanes[i];
        const struct lane *best = &scheduler->lanes[chosen];

        if (lane->slots_free_count == 0 || lane_room(lane) < block_need) {
            continue;
        }
        if (chosen == scheduler->config.lane_count || lane_room(lane) > lane_room(best) ||
            (lane_room(lane) == lane_room(best) &&
             lane->slots_free_count > best->slots_free_count)) {
            chosen = i;
        }
    }
    return chosen;
}

/* First come, first served: a head that finds no room keeps the rest waiting, so it gets its turn.
 */
static void sequences_admit(struct scheduler *scheduler)
{
    while (scheduler->waiting.count > 0) {
        uint32_t index = scheduler->waiting.head;
        struct sequence *sequence = &scheduler->pool.sequences[index];
        uint32_t lane = lane_choose(scheduler, sequence->block_need);

        if (lane == scheduler->config.lane_count) {
            return;
        }
        sequence_list_remove(&scheduler->pool, &scheduler->waiting, index);
        sequence->lane = lane;
        lane_admit(&scheduler->lanes[lane], sequence);
        scheduler->lanes[lane].prefill_rows += sequence->prompt_count;
        sequence->state = SEQUENCE_PREFILLING;
        sequence_list_append(&scheduler->pool, &scheduler->prefilling, index);
    }
}

/* The step under construction. */
struct draft {
    struct flight *flight;
    uint32_t steps_wanted; /* in flight, with this one */
    uint32_t steps_others; /* in flight now */
    uint32_t token_count;
    uint32_t block_count;
};

/* Adds the sequence's next `count` rows; `tokens` are copied. */
static void draft_add(struct scheduler *scheduler, struct draft *draft, uint32_t index,
                      const uint32_t *tokens, uint32_t count)
{
    struct sequence *sequence = &scheduler->pool.sequences[index];
    struct flight *flight = draft->flight;
    struct step_entry *entry = &scheduler->entries[flight->entry_count];
    uint32_t block_begin = sequence->block_count;
    bool samples = sequence->tokens_max > 0 && sequence->position + count >= sequence->prompt_count;

    ASSERT(flight->entry_count < scheduler->entries_max);
    lane_extend(&scheduler->lanes[sequence->lane], sequence, sequence->position + count);
    *entry = (struct step_entry){
        .sequence = sequence->id,
        .lane = sequence->lane,
        .slot = sequence->slot,
        .position = sequence->position,
        .token_count = count,
        .tokens = &scheduler->tokens[draft->token_count],
        .next_token = STEP_TOKEN_NONE,
        .generated_begin = sequence->prompt_count,
        .block_begin = block_begin,
        .block_count = sequence->block_count - block_begin,
        .blocks = &scheduler->blocks[draft->block_count],
        .wants = sequence->wants | (samples ? WANT_SAMPLE : 0u),
        .sampling = sequence->sampling,
    };
    memcpy(&scheduler->tokens[draft->token_count], tokens, count * sizeof(*tokens));
    memcpy(&scheduler->blocks[draft->block_count], &sequence->blocks[block_begin],
           entry->block_count * sizeof(*scheduler->blocks));
    draft->token_count += count;
    draft->block_count += entry->block_count;
    flight->entries[flight->entry_count++] = (struct flight_entry){
        .id = sequence->id,
        .sequence = index,
        .position = sequence->position,
        .token_count = count,
        .wants_sample = samples,
    };
    flight->row_count += count;
    flight->sample_wanted_count += samples;
    sequence->position += count;
    sequence->steps_in_flight++;
}

/* Rows of decoding sequences that the next step may have. */
static uint32_t decode_rows_max(const struct scheduler *scheduler, const struct draft *draft)
{
    const struct scheduler_config *config = &scheduler->config;
    uint64_t decoding = 0;
    uint64_t ready = 0;
    uint64_t rows;

    for (uint32_t i = 0; i < config->lane_count; i++) {
        decoding += scheduler->lanes[i].decoding_count;
        ready += scheduler->lanes[i].ready.count;
    }
    rows = divide_up(ready, draft->steps_wanted - draft->steps_others);
    if (rows > divide_up(decoding, draft->steps_wanted)) {
        rows = divide_up(decoding, draft->steps_wanted);
    }
    if (config->batch_max > 0 && rows > config->batch_max) {
        rows = config->batch_max;
    }
    return rows < config->step_rows_max ? (uint32_t)rows : config->step_rows_max;
}

/* The lane whose head is next: fewest rows so far, then the one that `turn` comes to first, so that
 * no lane is always last when there are fewer rows than lanes. lane_count: none may have more. */
static uint32_t decode_lane(const struct scheduler *scheduler, uint32_t steps_wanted)
{
    uint32_t lane_count = scheduler->config.lane_count;
    uint32_t turn = (uint32_t)(scheduler->step_next % lane_count);
    uint32_t chosen = lane_count;

    for (uint32_t i = 0; i < lane_count; i++) {
        uint32_t index = (turn + i) % lane_count;
        const struct lane *lane = &scheduler->lanes[index];

        if (lane->ready.count == 0 ||
            scheduler->lane_rows[index] >= divide_up(lane->decoding_count, steps_wanted)) {
            continue;
        }
        if (chosen == lane_count || scheduler->lane_rows[index] < scheduler->lane_rows[chosen]) {
            chosen = index;
        }
    }
    return chosen;
}

static void decode_add(struct scheduler *scheduler, struct draft *draft)
{
    uint32_t rows_max = decode_rows_max(scheduler, draft);

    memset(scheduler->lane_rows, 0, scheduler->config.lane_count * sizeof(*scheduler->lane_rows));
    while (draft->flight->row_count < rows_max) {
        uint32_t lane = decode_lane(scheduler, draft->steps_wanted);
        uint32_t index;
        struct sequence *sequence;

        if (lane == scheduler->config.lane_count) {
            return;
        }
        index = scheduler->lanes[lane].ready.head;
        sequence = &scheduler->pool.sequences[index];
        sequence_list_remove(&scheduler->pool, &scheduler->lanes[lane].ready, index);
        draft_add(scheduler, draft, index, &sequence->last_token, 1);
        sequence->state = SEQUENCE_IN_STEP;
        scheduler->lane_rows[lane]++;
    }
}

/* Rows of prompts that the next step may have, over all lanes. */
static uint32_t prefill_rows_max(const struct scheduler *scheduler, const struct draft *draft)
{
    uint32_t lane_count = scheduler->config.lane_count;
    uint32_t rows_left = scheduler->config.step_rows_max - draft->flight->row_count;
    uint32_t steps = min_u32(draft->steps_wanted, scheduler->config.stage_count);
    uint64_t pending = 0;
    uint64_t share;

    for (uint32_t i = 0; i < lane_count; i++) {
        pending += scheduler->lanes[i].prefill_rows;
    }
    share = divide_up(pending, steps > draft->steps_others ? steps - draft->steps_others : 1);
    if (share < (uint64_t)PREFILL_ROWS_MIN * lane_count) {
        share = (uint64_t)PREFILL_ROWS_MIN * lane_count;
    }
    return share < rows_left ? (uint32_t)share : rows_left;
}

/* Deals `rows` to the lanes, none more than its prompts have, as evenly as that allows. */
static void prefill_deal(struct scheduler *scheduler, uint32_t rows)
{
    uint32_t lane_count = scheduler->config.lane_count;
    uint32_t *quota = scheduler->lane_rows;
    uint32_t open = 0;

    memset(quota, 0, lane_count * sizeof(*quota));
    for (uint32_t i = 0; i < lane_count; i++) {
        open += scheduler->lanes[i].prefill_rows > 0;
    }
    while (rows > 0 && open > 0) {
        uint32_t share = (uint32_t)divide_up(rows, open);

        open = 0;
        for (uint32_t i = 0; i < lane_count; i++) {
            uint64_t missing = scheduler->lanes[i].prefill_rows - quota[i];
            uint32_t given = min_u32(share, rows);

            given = missing < given ? (uint32_t)missing : given;
            quota[i] += given;
            rows -= given;
            open += missing > given;
        }
    }
}

static uint32_t chunk_rows(const struct scheduler *scheduler, const struct sequence *sequence)
{
    uint32_t rows =
        min_u32(sequence->prompt_count - sequence->position, scheduler->lane_rows[sequence->lane]);

    if ((sequence->wants & WANT_LOGITS) != 0 && scheduler->config.logits_rows_max > 0) {
        rows = min_u32(rows, scheduler->config.logits_rows_max);
    }
    return rows;
}

static void prefill_add(struct scheduler *scheduler, struct draft *draft)
{
    uint32_t next;

    prefill_deal(scheduler, prefill_rows_max(scheduler, draft));
    for (uint32_t index = scheduler->prefilling.head; index != SEQUENCE_NONE; index = next) {
        struct sequence *sequence = &scheduler->pool.sequences[index];
        struct lane *lane = &scheduler->lanes[sequence->lane];
        uint32_t rows = chunk_rows(scheduler, sequence);

        next = sequence->next;
        if (rows == 0) {
            continue;
        }
        draft_add(scheduler, draft, index, &sequence->prompt[sequence->position], rows);
        lane->prefill_rows -= rows;
        scheduler->lane_rows[sequence->lane] -= rows;
        scheduler->stats.prompt_tokens += rows;
        if (sequence->position == sequence->prompt_count) {
            sequence_list_remove(&scheduler->pool, &scheduler->prefilling, index);
            sequence->state = sequence->tokens_max > 0 ? SEQUENCE_IN_STEP : SEQUENCE_DRAINING;
            sequence->reason = FINISH_LENGTH;
            lane->decoding_count += sequence->tokens_max > 0;
        }
    }
}

/* Overdue counts from now for all that is in flight, as the step waits behind the others. */
static void deadline_set(struct scheduler *scheduler, struct flight *flight, int64_t now_ns)
{
    int64_t expected = 0;
    uint64_t rows = 0;

    flight->expected_ns = pace_expected_ns(&scheduler->pace, flight->row_count);
    for (uint32_t i = 0; i < scheduler->deck.count; i++) {
        expected += flight_deck_at(&scheduler->deck, i)->expected_ns;
        rows += flight_deck_at(&scheduler->deck, i)->row_count;
    }
    flight->deadline_ns = now_ns + pace_patience_ns(&scheduler->pace, expected, rows);
}

static bool rows_ready(const struct scheduler *scheduler)
{
    if (scheduler->prefilling.count > 0) {
        return true;
    }
    for (uint32_t i = 0; i < scheduler->config.lane_count; i++) {
        if (scheduler->lanes[i].ready.count > 0) {
            return true;
        }
    }
    return false;
}

/* How many steps the rows of all decoding sequences and the waiting prompts are worth. */
static uint32_t steps_wanted(const struct scheduler *scheduler)
{
    struct step_load shared = {0};
    struct step_load each = {0};
    uint64_t prompt_rows = 0;

    for (uint32_t i = 0; i < scheduler->config.lane_count; i++) {
        shared.rows += scheduler->lanes[i].decoding_count;
        prompt_rows += scheduler->lanes[i].prefill_rows;
    }
    for (uint32_t i = 0; i < scheduler->pool.capacity; i++) {
        const struct sequence *sequence = &scheduler->pool.sequences[i];

        if (sequence->state == SEQUENCE_READY || sequence->state == SEQUENCE_IN_STEP) {
            shared.attended += sequence->position + 1;
        }
    }
    shared.sampled = shared.rows;
    if (prompt_rows > 0) {
        each.rows = prompt_rows < scheduler->config.step_rows_max ? (uint32_t)prompt_rows
                                                                  : scheduler->config.step_rows_max;
        each.attended = (uint64_t)each.rows * (each.rows + 1) / 2;
    }
    return pace_steps_in_flight(&scheduler->pace, &shared, &each);
}

bool scheduler_next(struct scheduler *scheduler, int64_t now_ns, struct step *out)
{
    struct draft draft = {
        .steps_wanted = steps_wanted(scheduler),
        .steps_others = scheduler->deck.count,
    };

    sequences_admit(scheduler);
    if (draft.steps_others >= draft.steps_wanted || !rows_ready(scheduler)) {
        return false;
    }
    draft.flight = flight_deck_add(&scheduler->deck, scheduler->step_next, now_ns);
    decode_add(scheduler, &draft);
    prefill_add(scheduler, &draft);
    ASSERT(draft.flight->row_count > 0);
    deadline_set(scheduler, draft.flight, now_ns);
    scheduler->stats.steps++;
    scheduler->stats.rows += draft.flight->row_count;
    *out = (struct step){
        .epoch = scheduler->config.epoch,
        .number = scheduler->step_next++,
        .entry_count = draft.flight->entry_count,
        .entries = scheduler->entries,
    };
    return true;
}
