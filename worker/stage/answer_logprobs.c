/* answer_logprobs.c - which rows answer log-probabilities, and of which token.
 *
 * A sampled row's token is its sample. A prompt row's token stands in the next row; the last row's
 * comes with the step, since chunks of one prompt are cut anywhere. A draft is nobody's known
 * token.
 */
#include "worker/stage/answer_state.h"

/* The token after a row that is not sampled, or STEP_TOKEN_NONE. */
static uint32_t known_token(const struct step_entry *entry, uint32_t entry_row)
{
    uint32_t given = entry->token_count - entry->draft_count; /* rows that are no drafts */

    if (entry_row + 1 < given) {
        return entry->tokens[entry_row + 1];
    }
    return entry->draft_count == 0 ? entry->next_token : STEP_TOKEN_NONE;
}

static bool is_sampled(const struct step_entry *entry, uint32_t entry_row)
{
    return (entry->wants & WANT_SAMPLE) != 0 &&
           entry_row + entry->draft_count + 1 >= entry->token_count;
}

uint32_t answer_logprobs_wanted(const struct step_entry *entry, uint32_t entry_row)
{
    if (is_sampled(entry, entry_row)) {
        return entry->sampling.logprobs;
    }
    if (entry->position + entry_row < entry->generated_begin &&
        known_token(entry, entry_row) != STEP_TOKEN_NONE) {
        return entry->sampling.prompt_logprobs;
    }
    return 0;
}

void answer_logprobs_take(const struct stage *stage, struct stage_job *job, struct answer_row *row)
{
    uint32_t wanted = answer_logprobs_wanted(&job->step.entries[row->entry], row->entry_row);
    uint32_t top_count;

    if (wanted == 0) {
        return;
    }
    top_count = wanted - 1 < stage->arch->vocab ? wanted - 1 : stage->arch->vocab;
    row->top_tokens = arena_new_array(&job->arena, uint32_t, top_count);
    row->top_logprobs = arena_new_array(&job->arena, float, top_count);
    row->logprobs = &job->result.logprobs[job->result.logprobs_count++];
    *row->logprobs = (struct step_logprobs){
        .entry = row->entry,
        .row = row->entry_row,
        .top_count = top_count,
        .top_tokens = row->top_tokens,
        .top_logprobs = row->top_logprobs,
    };
}

void answer_logprobs_fill(const struct stage *stage, const struct step_entry *entry,
                          const struct answer_row *row, const float *logits)
{
    struct logprobs_row values;

    logprobs_row_init(&values, stage->kernels, logits, stage->arch->vocab);
    row->logprobs->token =
        row->sample != NULL ? row->sample->token : known_token(entry, row->entry_row);
    row->logprobs->logprob = logprobs_value(&values, row->logprobs->token);
    row->logprobs->rank = logprobs_rank(&values, row->logprobs->token);
    logprobs_top(&values, row->logprobs->top_count, row->top_tokens, row->top_logprobs);
}
