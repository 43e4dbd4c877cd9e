/* draft.c - the draft layer, behind the samples of a step.
 *
 * A row's next token is the one behind it in the entry, the entry's next_token, or its sample; rows
 * of drafts that do not stand have none and are left alone: the next step overwrites their cache
 * entries, as it does those that proposing itself leaves behind the sequence's end.
 *
 * The first proposal comes from the main model's hidden state, each further one from the layer's
 * own output and the token proposed before: one more round of the layer. A group's members run
 * the rounds in lockstep. How many there are, and who may have rows in each, follows from the step
 * alone; a member whose rows fell away sends empty frames. Frames of round r carry layer number
 * layer_count + r.
 */
#include "worker/stage/draft.h"

#include "worker/stage/answer_state.h"

#include <string.h>

#define PROPOSAL_NONE UINT32_MAX
#define BLOCK_TOKENS  64

/* Rows of the layer, with their states in the same order: first those that only store their cache
 * entries, then those that run. */
struct draft {
    struct forward_row *rows; /* [step_rows_max]; the token is the row's next one */
    uint32_t *sources;        /* [step_rows_max]: row of the hidden state */
    uint32_t *entries;        /* [step_rows_max]: index into the step's entries */
    uint32_t *entry_rows;     /* [step_rows_max]: inside the entry */
    uint32_t *proposals;      /* [step_rows_max]: index into the result's, or PROPOSAL_NONE */
    uint32_t *best;           /* [step_rows_max]: token of the highest logit */
    uint32_t round;
    uint32_t *member_rows; /* [members]: the most that each may run in this round */
    uint32_t store_count;  /* rows that only store */
    uint32_t run_count;    /* rows behind them */
};

uint64_t draft_bytes(const struct seat *seat)
{
    uint64_t rows = seat->placement->step_rows_max;

    return seat->has_draft ? rows * (sizeof(struct forward_row) + 5 * sizeof(uint32_t)) : 0;
}

struct draft *draft_create(const struct seat *seat, struct arena *arena)
{
    struct draft *draft = arena_new(arena, struct draft);
    uint32_t rows = seat->placement->step_rows_max;

    *draft = (struct draft){
        .rows = arena_new_array(arena, struct forward_row, rows),
        .sources = arena_new_array(arena, uint32_t, rows),
        .entries = arena_new_array(arena, uint32_t, rows),
        .entry_rows = arena_new_array(arena, uint32_t, rows),
        .proposals = arena_new_array(arena, uint32_t, rows),
        .best = arena_new_array(arena, uint32_t, rows),
        .member_rows = arena_new_array(arena, uint32_t, seat->member_count),
    };
    return draft;
}

/* --- what the step asks for, on every lane --- */

static bool wants_all_rows(const struct step_entry *entry)
{
    return (entry->wants & WANT_DRAFT_LOGITS) != 0;
}

static uint32_t proposals_wanted(const struct step_entry *entry)
{
    return (entry->wants & WANT_SAMPLE) != 0 ? entry->propose_max : 0;
}

static uint32_t rounds_of(const struct step *step)
{
    uint32_t rounds = 0;

    for (uint32_t i = 0; i < step->entry_count; i++) {
        uint32_t wanted = proposals_wanted(&step->entries[i]);

        wanted = wanted == 0 && wants_all_rows(&step->entries[i]) ? 1 : wanted;
        rounds = wanted > rounds ? wanted : rounds;
    }
    return rounds;
}

static void count_member_rows(const struct stage *stage, const struct step *step)
{
    uint32_t round = stage->draft->round;
    uint32_t *member_rows = stage->draft->member_rows;

    memset(member_rows, 0, stage->seat->member_count * sizeof(*member_rows));
    for (uint32_t i = 0; i < step->entry_count; i++) {
        const struct step_entry *entry = &step->entries[i];
        uint32_t rows = proposals_wanted(entry) > round ? 1 : 0;

        rows = round == 0 && wants_all_rows(entry) ? entry->token_count : rows;
        member_rows[seat_lane_member(stage->seat, stage->seat->stage, entry->lane)] += rows;
    }
}

/* --- own rows --- */

/* The samples of an entry that wants them, index after index; the result's stand by entry. */
static const struct step_sample *samples_of(const struct step_result *result, uint32_t entry)
{
    uint32_t begin = 0;
    uint32_t end = result->sample_count;

    while (begin < end) {
        uint32_t middle = begin + (end - begin) / 2;

        if (result->samples[middle].entry < entry) {
            begin = middle + 1;
        } else {
            end = middle;
        }
    }
    ASSERT(begin < result->sample_count && result->samples[begin].entry == entry);
    return &result->samples[begin];
}

/* The rows of an entry whose next token is known are its first ones. */
struct known {
    uint32_t rows;
    uint32_t last_token; /* behind the last of them */
};

static struct known known_of(const struct step_result *result, const struct step_entry *entry,
                             uint32_t index)
{
    uint32_t undrafted = entry->token_count - entry->draft_count;
    const struct step_sample *samples;
    uint32_t standing = 0; /* samples that stand */
    struct known known = {.rows = entry->token_count, .last_token = entry->next_token};
    uint32_t token;

    if ((entry->wants & WANT_SAMPLE) == 0) {
        known.rows -= entry->next_token == STEP_TOKEN_NONE ? 1 : 0;
        known.last_token =
            known.rows < entry->token_count ? entry->tokens[known.rows] : entry->next_token;
        return known;
    }
    samples = samples_of(result, index);
    do {
        token = samples[standing].token;
        standing++;
    } while (standing <= entry->draft_count && entry->tokens[undrafted + standing - 1] == token);
    known.last_token = token;
    known.rows = undrafted + standing - 1;
    return known;
}

static uint32_t proposal_add(struct stage_job *job, uint32_t entry)
{
    struct step_result *result = &job->result;
    uint32_t count = job->step.entries[entry].propose_max;

    result->proposals[result->proposal_count] = (struct step_proposal){
        .entry = entry,
        .tokens = arena_new_array(&job->arena, uint32_t, count),
    };
    return result->proposal_count++;
}

/* Lists an entry's rows of one kind; `first` is its first row among the own ones. */
static void list_entry(struct stage *stage, struct stage_job *job, uint32_t first, bool running)
{
    struct draft *draft = stage->draft;
    uint32_t index = stage->map.entries[first];
    const struct step_entry *entry = &job->step.entries[index];
    struct known known = known_of(&job->result, entry, index);

    for (uint32_t i = 0; i < known.rows; i++) {
        bool proposes = i + 1 == known.rows && proposals_wanted(entry) > 0;
        uint32_t at = draft->store_count + draft->run_count;

        if ((wants_all_rows(entry) || proposes) != running) {
            continue;
        }
        draft->rows[at] = stage->map.rows[first + i];
        draft->rows[at].token = i + 1 < known.rows ? entry->tokens[i + 1] : known.last_token;
        draft->rows[at].token_class = TOKEN_GENERATED; /* as drafts have it */
        draft->sources[at] = first + i;
        draft->entries[at] = index;
        draft->entry_rows[at] = i;
        draft->proposals[at] = proposes ? proposal_add(job, index) : PROPOSAL_NONE;
        draft->store_count += running ? 0 : 1;
        draft->run_count += running ? 1 : 0;
    }
}

static void list_rows(struct stage *stage, struct stage_job *job)
{
    struct draft *draft = stage->draft;
    uint32_t entry_count = job->step.entry_count;
    const struct row_map *map = &stage->map;

    draft->store_count = 0;
    draft->run_count = 0;
    job->result.proposals = arena_new_array(&job->arena, struct step_proposal, entry_count);
    for (int running = 0; running <= 1; running++) {
        for (uint32_t row = 0; row < map->count; row++) {
            if (row == 0 || map->entries[row] != map->entries[row - 1]) {
                list_entry(stage, job, row, running == 1);
            }
        }
    }
}

/* --- a round --- */

/* The rows that run, as they lie in the arrays and in x. */
static float *running_x(const struct stage *stage)
{
    return stage->x + (size_t)stage->draft->store_count * stage->arch->hidden;
}

static enum stage_outcome run_layer(struct stage *stage, struct exchange *frames,
                                    const struct step *step, struct error *err)
{
    struct draft *draft = stage->draft;
    uint32_t layer = stage->seat->layer_end;
    struct expert_layer experts = {
        .forward = stage->forward,
        .team = stage->team,
        .frames = frames,
        .step = step,
        .row_count = draft->run_count,
        .member_rows = draft->member_rows,
        .layer = layer,
        .frame_layer = layer + draft->round,
        .x = running_x(stage),
    };

    count_member_rows(stage, step);
    if (draft->run_count > 0) {
        forward_attention(stage->forward, layer, draft->rows + draft->store_count, draft->run_count,
                          running_x(stage));
    }
    return expert_exchange_run(stage->experts, &experts, err);
}

/* Of rows that all are wanted for their logits. */
static void record_routing(const struct stage *stage, struct stage_job *job)
{
    const struct draft *draft = stage->draft;
    const struct expert_choice *choices = expert_exchange_choices(stage->experts);
    uint32_t chosen = stage->arch->router.chosen_count;

    for (uint32_t i = 0; i < draft->run_count; i++) {
        uint32_t at = draft->store_count + i;
        const struct step_entry *entry = &job->step.entries[draft->entries[at]];

        if (wants_all_rows(entry) && (entry->wants & WANT_ROUTING) != 0) {
            answer_record(job, choices + (size_t)i * chosen, chosen,
                          (struct step_routing){.entry = draft->entries[at],
                                                .row = draft->entry_rows[at],
                                                .layer = stage->seat->layer_end});
        }
    }
}

/* Rows of an entry come one after the other, the first one opens the entry's record. */
static void keep_logits(const struct stage *stage, struct stage_job *job, uint32_t at,
                        const float *logits)
{
    const struct draft *draft = stage->draft;
    struct step_result *result = &job->result;
    float *values = answer_floats_take(job, stage->arch->vocab);

    if (draft->entry_rows[at] == 0) {
        result->draft_logits[result->draft_logits_count++] = (struct step_rows){
            .entry = draft->entries[at], .columns = stage->arch->vocab, .values = values};
    }
    memcpy(values, logits, stage->arch->vocab * sizeof(float));
    result->draft_logits[result->draft_logits_count - 1].row_count++;
}

struct best_work {
    const struct kernels *kernels;
    const float *logits;
    uint32_t vocab;
    uint32_t *best;
};

/* The lowest id among equals; STEP_TOKEN_NONE if a logit is not finite. */
static void find_best(void *context, size_t row, uint32_t thread)
{
    const struct best_work *work = context;
    const float *logits = work->logits + row * work->vocab;

    (void)thread;
    work->best[row] = answer_is_finite(logits, work->vocab)
                          ? sampling_greedy(work->kernels, logits, work->vocab)
                          : STEP_TOKEN_NONE;
}

/* The best token of rows [begin, begin + count) of those that run. */
static bool run_head(struct stage *stage, struct stage_job *job, uint32_t begin, uint32_t count,
                     struct error *err)
{
    struct draft *draft = stage->draft;
    uint32_t vocab = stage->arch->vocab;
    struct best_work work = {stage->kernels, stage->logits, vocab, draft->best + begin};

    for (uint32_t i = 0; i < count; i++) {
        stage->logits_indexes[i] = begin + i;
    }
    forward_draft_logits(stage->forward, running_x(stage), stage->logits_indexes, count,
                         stage->logits);
    team_run(stage->team, find_best, &work, count);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = draft->store_count + begin + i;

        if (work.best[i] == STEP_TOKEN_NONE) {
            return error_set(err, ERROR_INPUT, "layer %u: logits are not finite",
                             stage->seat->layer_end);
        }
        if (draft->round == 0 && wants_all_rows(&job->step.entries[draft->entries[at]])) {
            keep_logits(stage, job, at, stage->logits + (size_t)i * vocab);
        }
    }
    return true;
}

static bool run_heads(struct stage *stage, struct stage_job *job, struct error *err)
{
    uint32_t run_count = stage->draft->run_count;

    for (uint32_t begin = 0; begin < run_count; begin += stage->logits_rows_max) {
        uint32_t count = run_count - begin;

        count = count < stage->logits_rows_max ? count : stage->logits_rows_max;
        if (!run_head(stage, job, begin, count, err)) {
            return false;
        }
    }
    return true;
}

/* Whether the sequence has a block for the position behind the row. A table may be longer than the
 * sequence, with blocks of an earlier one: only what the entry names counts. */
static bool has_room(const struct stage *stage, const struct step_entry *entry,
                     const struct forward_row *row)
{
    uint64_t blocks = (uint64_t)entry->block_begin + entry->block_count;

    return (uint64_t)row->position + 1 < blocks * BLOCK_TOKENS &&
           kv_cache_covers(stage->cache, row->lane, row->slot, row->position + 2);
}

/* Takes the best tokens as proposals; those rows that shall propose more become the next round's:
 * one position on, with the proposal as their token. */
static void propose(struct stage *stage, struct stage_job *job)
{
    struct draft *draft = stage->draft;
    uint32_t kept = draft->store_count;

    for (uint32_t i = 0; i < draft->run_count; i++) {
        uint32_t at = draft->store_count + i;
        uint32_t index = draft->proposals[at];
        const struct step_entry *entry = &job->step.entries[draft->entries[at]];
        struct forward_row row = draft->rows[at];
        struct step_proposal *proposal;

        if (index == PROPOSAL_NONE) {
            continue;
        }
        proposal = &job->result.proposals[index];
        ((uint32_t *)(uintptr_t)proposal->tokens)[proposal->count++] = draft->best[i];
        if (proposal->count == entry->propose_max || !has_room(stage, entry, &row)) {
            continue;
        }
        row.position++;
        row.token = draft->best[i];
        draft->rows[kept] = row;
        draft->sources[kept] = i;
        draft->entries[kept] = draft->entries[at];
        draft->proposals[kept++] = index;
    }
    draft->run_count = kept - draft->store_count;
}

static enum stage_outcome run_round(struct stage *stage, struct exchange *frames,
                                    struct stage_job *job, struct error *err)
{
    struct draft *draft = stage->draft;
    struct draft_input input = {
        .rows = draft->rows + draft->store_count,
        .sources = draft->sources + draft->store_count,
        .row_count = draft->run_count,
        .hidden = DRAFT_HIDDEN_OWN,
    };
    enum stage_outcome outcome;

    if (frames->ops->is_abandoned(frames)) {
        return STAGE_ABANDONED;
    }
    if (draft->round > 0) {
        forward_draft_input(stage->forward, &input, running_x(stage));
    }
    outcome = run_layer(stage, frames, &job->step, err);
    if (outcome != STAGE_DONE) {
        return outcome;
    }
    if (draft->round == 0) {
        record_routing(stage, job);
    }
    if (!run_heads(stage, job, err)) {
        return STAGE_FAILED;
    }
    propose(stage, job);
    return STAGE_DONE;
}

enum stage_outcome draft_run(struct stage *stage, struct exchange *frames, struct stage_job *job,
                             struct error *err)
{
    struct draft *draft = stage->draft;
    uint32_t rounds = rounds_of(&job->step);
    struct draft_input input = {
        .rows = draft->rows, .sources = draft->sources, .hidden = DRAFT_HIDDEN_MAIN};
    enum stage_outcome outcome = STAGE_DONE;

    list_rows(stage, job);
    input.row_count = draft->store_count + draft->run_count;
    forward_draft_input(stage->forward, &input, stage->x);
    forward_store(stage->forward, stage->seat->layer_end, draft->rows, draft->store_count,
                  stage->x);
    for (draft->round = 0; draft->round < rounds && outcome == STAGE_DONE; draft->round++) {
        outcome = run_round(stage, frames, job, err);
    }
    if (outcome == STAGE_FAILED) {
        error_wrap(err, "draft layer");
    }
    return outcome;
}
