/* answer_samples.c - logits of the rows that need them, and the tokens sampled from them.
 *
 * Rows that are sampled, answered or asked for log-probabilities share one buffer of logits, a
 * chunk of rows at a time, so that the head's weights are read once for many sequences and the
 * buffer stays small beside a large vocabulary. A row's sample is a function of the row alone: a
 * draft's row is sampled as if its token had come in a step of its own.
 */
#include "worker/stage/answer_state.h"

#include "worker/stage/penalties.h"

#include <string.h>

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

/* --- which rows --- */

/* The first row of an entry that is sampled; token_count: none is. */
static uint32_t first_sampled(const struct step_entry *entry)
{
    return (entry->wants & WANT_SAMPLE) != 0 ? entry->token_count - 1 - entry->draft_count
                                             : entry->token_count;
}

static struct step_sample *sample_take(struct stage_job *job, uint32_t entry, uint32_t index)
{
    struct step_sample *sample = &job->result.samples[job->result.sample_count++];

    *sample = (struct step_sample){.entry = entry, .index = index};
    return sample;
}

static float *logits_take(struct stage_job *job, uint32_t entry, uint32_t vocab)
{
    uint32_t rows = job->step.entries[entry].token_count;
    float *values = answer_floats_take(job, (uint64_t)rows * vocab);

    job->result.logits[job->result.logits_count++] =
        (struct step_rows){.entry = entry, .row_count = rows, .columns = vocab, .values = values};
    return values;
}

/* Appends the entry's rows whose logits are needed to out; returns their number. */
static uint32_t list_entry(const struct stage *stage, struct stage_job *job, uint32_t index,
                           uint32_t row_begin, struct answer_row *out)
{
    const struct step_entry *entry = &job->step.entries[index];
    uint32_t vocab = stage->arch->vocab;
    uint32_t sampled = first_sampled(entry);
    float *logits = (entry->wants & WANT_LOGITS) != 0 ? logits_take(job, index, vocab) : NULL;
    uint32_t count = 0;

    for (uint32_t i = 0; i < entry->token_count; i++) {
        struct answer_row row = {.row = row_begin + i, .entry = index, .entry_row = i};

        row.sample = i >= sampled ? sample_take(job, index, i - sampled) : NULL;
        row.logits = logits != NULL ? logits + (size_t)i * vocab : NULL;
        answer_logprobs_take(stage, job, &row);
        if (row.sample != NULL || row.logits != NULL || row.logprobs != NULL) {
            out[count++] = row;
        }
    }
    return count;
}

static uint32_t list_rows(const struct stage *stage, struct stage_job *job)
{
    uint32_t row = 0;
    uint32_t count = 0;

    for (uint32_t i = 0; i < job->step.entry_count; i++) {
        const struct step_entry *entry = &job->step.entries[i];

        if (answer_is_own(stage, entry)) {
            count += list_entry(stage, job, i, row, stage->answer_rows + count);
            row += entry->token_count;
        }
    }
    return count;
}

/* --- their logits --- */

struct rows_work {
    const struct stage *stage;
    const struct step *step;
    struct answer_row *rows;
    const float *logits; /* [rows][vocab] */
};

/* By the history up to the row itself. */
static uint32_t choose_token(const struct stage *stage, const struct step_entry *entry,
                             uint32_t entry_row, const float *logits, struct sampler *sampler)
{
    const struct token_history history = {
        .cache = stage->cache,
        .lane = stage->seat->lane_index[entry->lane],
        .slot = entry->slot,
        .token_count = entry->position + entry_row + 1,
        .generated_begin = entry->generated_begin,
    };

    logits = penalties_apply(sampler, logits, &entry->sampling, &history);
    return sampling_choose(sampler, logits, &entry->sampling, history.token_count);
}

static void answer_row(void *context, size_t index, uint32_t thread)
{
    const struct rows_work *work = context;
    const struct stage *stage = work->stage;
    uint32_t vocab = stage->arch->vocab;
    struct answer_row *row = &work->rows[index];
    const struct step_entry *entry = &work->step->entries[row->entry];
    const float *logits = work->logits + index * vocab;

    row->is_finite = answer_is_finite(logits, vocab);
    if (!row->is_finite) {
        return;
    }
    if (row->logits != NULL) {
        memcpy(row->logits, logits, vocab * sizeof(float));
    }
    if (row->sample != NULL) {
        row->sample->token =
            choose_token(stage, entry, row->entry_row, logits, &stage->samplers[thread]);
    }
    if (row->logprobs != NULL) {
        answer_logprobs_fill(stage, entry, row, logits);
    }
}

/* At most logits_rows_max rows. */
static bool answer_chunk(struct stage *stage, struct stage_job *job, struct answer_row *rows,
                         uint32_t count, struct error *err)
{
    struct rows_work work = {stage, &job->step, rows, stage->logits};

    for (uint32_t i = 0; i < count; i++) {
        stage->logits_indexes[i] = rows[i].row;
    }
    forward_logits(stage->forward, stage->x, stage->logits_indexes, count, stage->logits);
    if (count == 1) {
        answer_row(&work, 0, 0);
    } else {
        team_run(stage->team, answer_row, &work, count);
    }
    meter_lap(stage->meter, OPERATION_NO_LAYER, OPERATION_SAMPLING, count);
    for (uint32_t i = 0; i < count; i++) {
        if (!rows[i].is_finite) {
            return error_set(err, ERROR_INPUT, "after layer %u: logits are not finite",
                             stage->seat->layer_end - 1);
        }
    }
    return true;
}

bool answer_logits(struct stage *stage, struct stage_job *job, struct error *err)
{
    uint32_t count = list_rows(stage, job);

    for (uint32_t begin = 0; begin < count; begin += stage->logits_rows_max) {
        uint32_t rows = count - begin;

        rows = rows < stage->logits_rows_max ? rows : stage->logits_rows_max;
        if (!answer_chunk(stage, job, stage->answer_rows + begin, rows, err)) {
            return false;
        }
    }
    return true;
}
