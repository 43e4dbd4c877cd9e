/* scheduler_step.c - the forming of steps.
 *
 * Decoding rows come first, prompt rows fill what they leave; a part of the rows is kept for
 * prompts that wait, so that they progress however many sequences decode. Nothing is held back:
 * while fewer steps are in flight than pay and any row can be computed, a step is issued. Entries
 * point into the memory of their sequences, nothing is copied.
 */
#include "coordinator/engine/scheduler_internal.h"

#include "common/base/check.h"

/* Of step_rows_max, kept for prompts while sequences decode: a quarter, but no more than this. */
#define PROMPT_ROWS_KEPT 64

static struct sampling_params entry_sampling(const struct sequence *sequence, uint32_t position)
{
    struct sampling_params sampling = sequence->sampling;

    if (position < sequence->answered || position >= sequence->prompt_count) {
        sampling.prompt_logprobs = 0;
    }
    return sampling;
}

/* How many tokens the draft layer may propose to follow the entry's samples: the last token of a
 * request needs no row. */
static uint32_t propose_max(const struct scheduler *scheduler, const struct step_build *build,
                            const struct sequence *sequence)
{
    uint32_t left = sequence->tokens_max - sequence_generated(sequence);

    if (scheduler->config.draft_mode != DRAFT_LAYER || sequence->wants != 0 || left < 3) {
        return 0;
    }
    return min_u32(build->draft_depth, left - 2);
}

void scheduler_entry_fill(const struct scheduler *scheduler, const struct flight_entry *flown,
                          struct step_entry *entry)
{
    const struct sequence *sequence = &scheduler->pool.sequences[flown->sequence];
    uint32_t end = flown->position + flown->token_count;
    uint32_t wants = flown->position >= sequence->answered || BUG(9) ? sequence->wants : 0;

    *entry = (struct step_entry){
        .sequence = sequence->id,
        .lane = sequence->lane,
        .slot = sequence->slot,
        .position = flown->position,
        .token_count = flown->token_count,
        .tokens = &sequence->tokens[flown->position],
        .draft_count = flown->draft_count,
        .next_token = end < sequence->token_count ? sequence->tokens[end] : STEP_TOKEN_NONE,
        .propose_max = flown->propose_max,
        .generated_begin = BUG(6) ? sequence->admitted_count : sequence->prompt_count,
        .block_begin = flown->block_begin,
        .block_count = flown->block_end - flown->block_begin,
        .blocks = &sequence->blocks[flown->block_begin],
        .wants = wants | (flown->wants_sample ? (uint32_t)WANT_SAMPLE : 0),
        .sampling = entry_sampling(sequence, flown->position),
    };
}

/* The sequence's next rows are issued now. */
static void sequence_advance(struct scheduler *scheduler, struct sequence *sequence, uint32_t count)
{
    uint32_t begin = sequence->position;
    uint32_t prompt = sequence->prompt_count;
    uint32_t cached = min_u32(begin, prompt);
    uint32_t end;

    sequence->position += count;
    sequence->block_told = sequence->block_count;
    sequence->steps_in_flight++;
    end = min_u32(sequence->position, sequence->token_count);
    scheduler->stats.prompt_rows_computed += min_u32(end, prompt) - min_u32(begin, prompt);
    if (cached > sequence->reached) {
        sequence->cached_tokens += cached - sequence->reached;
        scheduler->stats.prefix_hit_tokens += cached - sequence->reached;
    }
    if (end > sequence->reached) {
        scheduler->stats.prompt_tokens += min_u32(end, prompt) - min_u32(sequence->reached, prompt);
        sequence->reached = end;
        sequence->progress_ns = scheduler->now_ns;
    }
    scheduler_prefix_note(scheduler, sequence);
}

void scheduler_rows_add(struct scheduler *scheduler, struct step_build *build, uint32_t index,
                        uint32_t count, uint32_t draft_count)
{
    struct sequence *sequence = &scheduler->pool.sequences[index];
    struct flight *flight = build->flight;
    struct flight_entry *flown = &flight->entries[flight->entry_count];
    uint64_t position = sequence->position;
    bool samples =
        sequence->tokens_max > 0 && position + count - draft_count >= sequence->token_count;

    ASSERT(flight->entry_count < scheduler->entries_max && count > draft_count);
    ASSERT(flight->load.rows + count <= scheduler->config.step_rows_max);
    ASSERT((uint64_t)sequence->block_count * PLAN_BLOCK_TOKENS >= position + count);
    *flown = (struct flight_entry){
        .id = sequence->id,
        .sequence = index,
        .position = sequence->position,
        .token_count = count,
        .wants_sample = samples,
        .decodes = sequence->state == SEQUENCE_READY,
        .draft_count = draft_count,
        .sample_begin = flight->sample_wanted_count,
        .propose_max = samples ? propose_max(scheduler, build, sequence) : 0,
        .block_begin = sequence->block_told,
        .block_end = sequence->block_count,
    };
    scheduler_entry_fill(scheduler, flown, &scheduler->entries[flight->entry_count++]);
    for (uint32_t i = 0; samples && i <= draft_count; i++) {
        flight->samples[flight->sample_wanted_count++].known = false;
    }
    flight->load.rows += count;
    flight->load.attended += count * position + (uint64_t)count * (count + 1) / 2;
    flight->load.sampled = flight->sample_wanted_count;
    sequence_advance(scheduler, sequence, count);
}

void scheduler_deadline_set(struct scheduler *scheduler, struct flight *flight)
{
    int64_t expected = 0;
    uint64_t rows = 0;

    flight->expected_ns = pace_expected_ns(&scheduler->pace, flight->load.rows);
    for (uint32_t i = 0; i < scheduler->deck.count; i++) {
        expected += flight_deck_at(&scheduler->deck, i)->expected_ns;
        rows += flight_deck_at(&scheduler->deck, i)->load.rows;
    }
    flight->deadline_ns = scheduler->now_ns + pace_patience_ns(&scheduler->pace, expected, rows);
}

/* How many steps the rows of all decoding sequences and the waiting prompts are worth, and how many
 * drafts. */
static void build_plan(struct scheduler *scheduler, struct step_build *build)
{
    struct step_load shared = {0};
    struct step_load each = {0};

    for (uint32_t i = 0; i < scheduler->config.lane_count; i++) {
        shared.rows += scheduler->lanes[i].decoding_count;
        shared.attended += scheduler->lanes[i].decoding_context;
    }
    shared.sampled = shared.rows;
    build->chunk_rows = scheduler_chunk_rows(scheduler);
    each.rows = build->chunk_rows;
    each.attended = (uint64_t)each.rows * each.rows / 2;
    build->steps_wanted = pace_steps_in_flight(&scheduler->pace, &shared, &each);
    if (build->steps_others < build->steps_wanted && scheduler->config.draft_max > 0) {
        struct step_load one = {
            .rows = (uint32_t)divide_up(shared.rows > 0 ? shared.rows : 1, build->steps_wanted),
            .attended = divide_up(shared.attended, build->steps_wanted),
        };

        one.sampled = one.rows;
        build->draft_depth = draft_policy_depth(&scheduler->draft_policy, &scheduler->pace, &one,
                                                build->steps_wanted);
    }
}

static bool rows_ready(const struct scheduler *scheduler)
{
    for (uint32_t i = 0; i < scheduler->config.lane_count; i++) {
        if (scheduler->lanes[i].ready.count > 0 || scheduler->lanes[i].prefilling.count > 0) {
            return true;
        }
    }
    return false;
}

/* Rows that decoding leaves to prompts. A step of a single row is for each of them in turn. */
static uint32_t prompt_rows_kept(const struct scheduler *scheduler)
{
    uint32_t rows_max = scheduler->config.step_rows_max;
    bool prompts = false;

    for (uint32_t i = 0; i < scheduler->config.lane_count; i++) {
        prompts = prompts || scheduler->lanes[i].prefilling.count > 0;
    }
    if (!prompts) {
        return 0;
    }
    if (rows_max == 1) {
        return scheduler->step_next % 2;
    }
    return min_u32(rows_max < 4 ? 1 : rows_max / 4, PROMPT_ROWS_KEPT);
}

/* False: no row can be computed now, for want of blocks that are on their way. */
static bool step_form(struct scheduler *scheduler, struct step_build *build)
{
    build->flight = flight_deck_add(&scheduler->deck, scheduler->step_next, scheduler->now_ns);
    build->decode_rows_max = scheduler->config.step_rows_max - prompt_rows_kept(scheduler);
    scheduler_decode_add(scheduler, build);
    scheduler_prefill_add(scheduler, build);
    if (build->flight->load.rows == 0) {
        build->decode_rows_max = scheduler->config.step_rows_max;
        scheduler_decode_add(scheduler, build);
    }
    if (build->flight->load.rows == 0) {
        flight_deck_remove(&scheduler->deck, scheduler->deck.count - 1);
        return false;
    }
    return true;
}

bool scheduler_next(struct scheduler *scheduler, int64_t now_ns, struct step *out)
{
    struct step_build build = {.steps_others = scheduler->deck.count};

    scheduler->now_ns = now_ns;
    if (scheduler_reissue(scheduler, out)) {
        return true;
    }
    scheduler_admit(scheduler);
    if (!rows_ready(scheduler)) {
        return false;
    }
    build_plan(scheduler, &build);
    if (build.steps_others >= build.steps_wanted || !step_form(scheduler, &build)) {
        return false;
    }
    build.flight->attempt = scheduler->attempt;
    scheduler_deadline_set(scheduler, build.flight);
    scheduler->stats.steps++;
    scheduler->stats.rows += build.flight->load.rows;
    *out = (struct step){
        .epoch = scheduler->config.epoch,
        .number = scheduler->step_next++,
        .attempt = scheduler->attempt,
        .entry_count = build.flight->entry_count,
        .entries = scheduler->entries,
    };
    return true;
}
