/* answer.c - what a worker answers to a step.
 *
 * Sampled rows share one buffer of logits, a chunk of rows at a time, so that the head's weights
 * are read once for many sequences and the buffer stays small beside a large vocabulary. Rows of
 * floats that travel to the coordinator are mapped for the one step that wants them.
 */
#include "worker/stage/answer.h"

#include "common/base/mem.h"

#include <string.h>

#define SAMPLED_ROWS_MAX 64

static uint32_t logits_rows_of(const struct seat *seat)
{
    uint32_t rows = seat->placement->step_rows_max;

    return rows < SAMPLED_ROWS_MAX ? rows : SAMPLED_ROWS_MAX;
}

static uint64_t logits_bytes_of(const struct seat *seat, const struct arch *arch)
{
    return (uint64_t)logits_rows_of(seat) * arch->vocab * sizeof(float);
}

static uint64_t candidates_bytes_of(const struct arch *arch, uint32_t thread_count)
{
    return (uint64_t)thread_count * sampling_scratch_bytes(arch->vocab);
}

uint64_t answer_bytes(const struct seat *seat, const struct arch *arch, uint32_t thread_count)
{
    if (!seat->is_last) {
        return 0;
    }
    return logits_bytes_of(seat, arch) + candidates_bytes_of(arch, thread_count) +
           2 * sizeof(uint32_t) * (uint64_t)seat->placement->step_rows_max;
}

bool answer_create(struct stage *stage, struct error *err)
{
    uint32_t rows = stage->seat->placement->step_rows_max;

    stage->logits_rows_max = logits_rows_of(stage->seat);
    stage->logits_bytes = logits_bytes_of(stage->seat, stage->arch);
    stage->candidates_bytes = candidates_bytes_of(stage->arch, team_thread_count(stage->team));
    stage->sampled_rows = arena_new_array(&stage->arena, uint32_t, rows);
    stage->sampled_entries = arena_new_array(&stage->arena, uint32_t, rows);
    stage->logits = mem_map_pages(stage->logits_bytes, err);
    if (stage->logits == NULL) {
        return false;
    }
    stage->candidates = mem_map_pages(stage->candidates_bytes, err);
    return stage->candidates != NULL;
}

void answer_destroy(struct stage *stage)
{
    mem_unmap_pages(stage->logits, stage->logits_bytes);
    mem_unmap_pages(stage->candidates, stage->candidates_bytes);
}

/* Inf and NaN have all exponent bits set; an integer loop that the compiler vectorises. */
bool answer_is_finite(const float *values, uint64_t count)
{
    uint32_t found = 0;

    for (uint64_t i = 0; i < count; i++) {
        uint32_t bits;

        memcpy(&bits, &values[i], sizeof(bits));
        found |= (bits & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
    }
    return found == 0;
}

/* --- room for the answer --- */

struct wanted {
    uint32_t entries; /* own */
    uint32_t samples;
    uint32_t hidden_entries, logits_entries, draft_entries;
    uint64_t hidden_rows, logits_rows, draft_rows;
    uint64_t routing_rows, draft_routing_rows;
};

static bool is_own(const struct stage *stage, const struct step_entry *entry)
{
    return stage->seat->lane_index[entry->lane] != PLACEMENT_NONE;
}

static struct wanted count_wanted(const struct stage *stage, const struct step *step)
{
    struct wanted wanted = {0};

    for (uint32_t i = 0; i < step->entry_count; i++) {
        const struct step_entry *entry = &step->entries[i];

        if (!is_own(stage, entry)) {
            continue;
        }
        wanted.samples += (entry->wants & WANT_SAMPLE) != 0 ? 1 : 0;
        if ((entry->wants & WANT_HIDDEN) != 0) {
            wanted.hidden_entries++;
            wanted.hidden_rows += entry->token_count;
        }
        if ((entry->wants & WANT_LOGITS) != 0) {
            wanted.logits_entries++;
            wanted.logits_rows += entry->token_count;
        }
        if ((entry->wants & WANT_DRAFT_LOGITS) != 0) {
            wanted.draft_entries++;
            wanted.draft_rows += entry->token_count;
        }
        if ((entry->wants & WANT_ROUTING) != 0) {
            wanted.routing_rows += entry->token_count;
            wanted.draft_routing_rows +=
                (entry->wants & WANT_DRAFT_LOGITS) != 0 ? entry->token_count : 0;
        }
    }
    return wanted;
}

static uint32_t moe_layers(const struct stage *stage)
{
    uint32_t count = 0;

    for (uint32_t layer = stage->seat->layer_begin; layer < stage->seat->layer_end; layer++) {
        count += arch_layer_is_moe(stage->arch, layer) ? 1 : 0;
    }
    return count;
}

static void make_routing(const struct stage *stage, struct stage_job *job,
                         const struct wanted *wanted)
{
    uint64_t records = wanted->routing_rows * moe_layers(stage) +
                       (stage->seat->has_draft ? wanted->draft_routing_rows : 0);
    uint64_t chosen = stage->arch->router.chosen_count;

    if (records > 0) {
        job->result.routing = arena_new_array(&job->arena, struct step_routing, records);
        job->result.experts = arena_new_array(&job->arena, uint32_t, records * chosen);
        job->result.expert_weights = arena_new_array(&job->arena, float, records *chosen);
        job->result.chosen_count = stage->arch->router.chosen_count;
    }
}

/* Hidden rows first (embeddings, then outputs), then logits, then the draft layer's: job->floats in
 * that order. */
static bool make_floats(const struct stage *stage, struct stage_job *job,
                        const struct wanted *wanted, struct error *err)
{
    uint32_t passes = stage->seat->is_first ? 2 : 1;
    uint64_t values = passes * wanted->hidden_rows * stage->arch->hidden;

    job->result.hidden =
        arena_new_array(&job->arena, struct step_rows, passes * wanted->hidden_entries);
    if (stage->seat->is_last) {
        values += (wanted->logits_rows + wanted->draft_rows) * stage->arch->vocab;
        job->result.draft_logits =
            arena_new_array(&job->arena, struct step_rows, wanted->draft_entries);
        job->result.logits = arena_new_array(&job->arena, struct step_rows, wanted->logits_entries);
        job->result.samples = arena_new_array(&job->arena, struct step_sample, wanted->samples);
    }
    if (values == 0) {
        return true;
    }
    job->floats = mem_map_pages(values * sizeof(float), err);
    if (job->floats == NULL) {
        return error_wrap(err, "rows of floats that were asked for");
    }
    job->floats_bytes = values * sizeof(float);
    return true;
}

bool answer_begin(struct stage *stage, struct stage_job *job, struct error *err)
{
    struct wanted wanted = count_wanted(stage, &job->step);

    job->result = (struct step_result){
        .epoch = job->step.epoch,
        .step = job->step.number,
        .attempt = job->step.attempt,
        .worker = stage->seat->worker,
        .row_count = stage->map.count,
    };
    make_routing(stage, job, &wanted);
    return make_floats(stage, job, &wanted, err);
}

float *answer_floats_end(const struct stage_job *job)
{
    float *end = job->floats;

    for (uint32_t i = 0; i < job->result.hidden_count; i++) {
        end += (size_t)job->result.hidden[i].row_count * job->result.hidden[i].columns;
    }
    for (uint32_t i = 0; i < job->result.logits_count; i++) {
        end += (size_t)job->result.logits[i].row_count * job->result.logits[i].columns;
    }
    for (uint32_t i = 0; i < job->result.draft_logits_count; i++) {
        end += (size_t)job->result.draft_logits[i].row_count * job->result.draft_logits[i].columns;
    }
    return end;
}

/* --- hidden states and routing --- */

void answer_hidden(struct stage *stage, struct stage_job *job)
{
    size_t hidden = stage->arch->hidden;
    size_t row = 0;

    for (uint32_t i = 0; i < job->step.entry_count; i++) {
        const struct step_entry *entry = &job->step.entries[i];
        float *values;

        if (!is_own(stage, entry)) {
            continue;
        }
        if ((entry->wants & WANT_HIDDEN) != 0) {
            values = answer_floats_end(job);
            memcpy(values, stage->x + row * hidden, entry->token_count * hidden * sizeof(float));
            job->result.hidden[job->result.hidden_count++] = (struct step_rows){
                .entry = i,
                .row_count = entry->token_count,
                .columns = stage->arch->hidden,
                .values = values,
            };
        }
        row += entry->token_count;
    }
}

void answer_record(struct stage_job *job, const struct expert_choice *choices, uint32_t chosen,
                   struct step_routing where)
{
    /* The arrays were made by make_routing; const is for the result's readers. */
    uint32_t *experts = (uint32_t *)job->result.experts;
    float *weights = (float *)job->result.expert_weights;

    where.expert_begin = job->result.routing_count * chosen;
    for (uint32_t i = 0; i < chosen; i++) {
        experts[where.expert_begin + i] = choices[i].expert;
        weights[where.expert_begin + i] = choices[i].weight;
    }
    job->result.routing[job->result.routing_count++] = where;
}

void answer_routing(struct stage *stage, struct stage_job *job, uint32_t layer)
{
    const struct expert_choice *choices = expert_exchange_choices(stage->experts);
    uint32_t chosen = stage->arch->router.chosen_count;
    const struct row_map *map = &stage->map;
    uint32_t entry_row = 0;

    for (uint32_t row = 0; row < map->count; row++) {
        uint32_t entry = map->entries[row];

        entry_row = row > 0 && map->entries[row - 1] == entry ? entry_row + 1 : 0;
        if ((job->step.entries[entry].wants & WANT_ROUTING) != 0) {
            answer_record(job, choices + (size_t)row * chosen, chosen,
                          (struct step_routing){.entry = entry, .row = entry_row, .layer = layer});
        }
    }
}

/* --- logits and samples --- */

struct sample_work {
    const struct stage *stage;
    const struct step *step;
    const uint32_t *entries; /* of each row */
    const float *logits;     /* [rows][vocab] */
    struct step_sample *samples;
};

static void sample_row(void *context, size_t row, uint32_t thread)
{
    const struct sample_work *work = context;
    uint32_t vocab = work->stage->arch->vocab;
    const struct step_entry *entry = &work->step->entries[work->entries[row]];

    work->samples[row] = (struct step_sample){
        .entry = work->entries[row],
        .token = sampling_choose(work->logits + row * vocab, vocab, &entry->sampling,
                                 entry->position + entry->token_count,
                                 work->stage->candidates + (size_t)thread * vocab),
    };
}

static bool check_logits(const struct stage *stage, const float *logits, uint32_t rows,
                         struct error *err)
{
    if (!answer_is_finite(logits, (uint64_t)rows * stage->arch->vocab)) {
        return error_set(err, ERROR_INPUT, "after layer %u: logits are not finite",
                         stage->seat->layer_end - 1);
    }
    return true;
}

static void sample_rows(const struct stage *stage, struct stage_job *job, const uint32_t *entries,
                        const float *logits, uint32_t count)
{
    struct sample_work work = {
        .stage = stage,
        .step = &job->step,
        .entries = entries,
        .logits = logits,
        .samples = job->result.samples + job->result.sample_count,
    };

    if (count == 1) {
        sample_row(&work, 0, 0);
    } else {
        team_run(stage->team, sample_row, &work, count);
    }
    job->result.sample_count += count;
}

/* Every row of an entry that wants its logits, and the sample of the last one if it wants that. */
static bool answer_entry(struct stage *stage, struct stage_job *job, uint32_t index,
                         uint32_t row_begin, struct error *err)
{
    const struct step_entry *entry = &job->step.entries[index];
    uint32_t vocab = stage->arch->vocab;
    float *values = answer_floats_end(job);

    for (uint32_t i = 0; i < entry->token_count; i++) {
        stage->sampled_rows[i] = row_begin + i;
    }
    forward_logits(stage->forward, stage->x, stage->sampled_rows, entry->token_count, values);
    if (!check_logits(stage, values, entry->token_count, err)) {
        return false;
    }
    job->result.logits[job->result.logits_count++] = (struct step_rows){
        .entry = index,
        .row_count = entry->token_count,
        .columns = vocab,
        .values = values,
    };
    if ((entry->wants & WANT_SAMPLE) != 0) {
        sample_rows(stage, job, &index, values + (size_t)(entry->token_count - 1) * vocab, 1);
    }
    return true;
}

static bool answer_sampled(struct stage *stage, struct stage_job *job, uint32_t count,
                           struct error *err)
{
    for (uint32_t begin = 0; begin < count; begin += stage->logits_rows_max) {
        uint32_t rows = count - begin;

        rows = rows < stage->logits_rows_max ? rows : stage->logits_rows_max;
        forward_logits(stage->forward, stage->x, stage->sampled_rows + begin, rows, stage->logits);
        if (!check_logits(stage, stage->logits, rows, err)) {
            return false;
        }
        sample_rows(stage, job, stage->sampled_entries + begin, stage->logits, rows);
    }
    return true;
}

bool answer_logits(struct stage *stage, struct stage_job *job, struct error *err)
{
    uint32_t row = 0;
    uint32_t sampled = 0;

    for (uint32_t i = 0; i < job->step.entry_count; i++) {
        const struct step_entry *entry = &job->step.entries[i];

        if (!is_own(stage, entry)) {
            continue;
        }
        if ((entry->wants & WANT_LOGITS) != 0 && !answer_entry(stage, job, i, row, err)) {
            return false;
        }
        row += entry->token_count;
    }
    row = 0;
    for (uint32_t i = 0; i < job->step.entry_count; i++) {
        const struct step_entry *entry = &job->step.entries[i];

        if (!is_own(stage, entry)) {
            continue;
        }
        row += entry->token_count;
        if ((entry->wants & (WANT_SAMPLE | WANT_LOGITS)) == WANT_SAMPLE) {
            stage->sampled_rows[sampled] = row - 1;
            stage->sampled_entries[sampled++] = i;
        }
    }
    return answer_sampled(stage, job, sampled, err);
}
