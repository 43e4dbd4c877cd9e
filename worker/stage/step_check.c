/* step_check.c - nothing that a coordinator sends can reach an array unchecked.
 *
 * The one thing left to the compute thread is whether the block tables cover the rows: that depends
 * on the steps before.
 */
#include "worker/stage/step_check.h"

#include <inttypes.h>
#include <math.h>

#define BLOCK_TOKENS 64

struct bound {
    const char *name;
    uint64_t value;
    uint64_t limit; /* value must be below */
};

static bool bounds_check(const struct bound *bounds, size_t count, uint32_t entry,
                         struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (bounds[i].value >= bounds[i].limit) {
            return error_set(err, ERROR_PEER, "entry %u: %s %" PRIu64 " is not below %" PRIu64,
                             entry, bounds[i].name, bounds[i].value, bounds[i].limit);
        }
    }
    return true;
}

static bool values_check(const struct step_entry *entry, const struct placement *placement,
                         uint32_t vocab, uint32_t index, struct error *err)
{
    for (uint32_t i = 0; i < entry->token_count; i++) {
        if (entry->tokens[i] >= vocab) {
            return error_set(err, ERROR_PEER, "entry %u: token %u of a vocabulary of %u", index,
                             entry->tokens[i], vocab);
        }
    }
    for (uint32_t i = 0; i < entry->block_count; i++) {
        if (entry->blocks[i] >= placement->kv_block_count) {
            return error_set(err, ERROR_PEER, "entry %u: block %u of %u", index, entry->blocks[i],
                             placement->kv_block_count);
        }
    }
    return true;
}

static bool draft_check(const struct step_entry *entry, const struct placement *placement,
                        uint32_t vocab, uint32_t index, struct error *err)
{
    if (entry->draft_count >= entry->token_count) {
        return error_set(err, ERROR_PEER, "entry %u: %u drafts in %u rows", index,
                         entry->draft_count, entry->token_count);
    }
    if (entry->next_token != STEP_TOKEN_NONE && entry->next_token >= vocab) {
        return error_set(err, ERROR_PEER, "entry %u: next token %u of a vocabulary of %u", index,
                         entry->next_token, vocab);
    }
    if (placement->draft_layer_count == 0 &&
        (entry->propose_max > 0 || (entry->wants & WANT_DRAFT_LOGITS) != 0)) {
        return error_set(err, ERROR_PEER, "entry %u: the placement has no draft layer to propose",
                         index);
    }
    return true;
}

static bool biases_check(const struct sampling_params *sampling, uint32_t vocab, uint32_t index,
                         struct error *err)
{
    for (uint32_t i = 0; i < sampling->bias_count; i++) {
        const struct token_bias *bias = &sampling->biases[i];

        if (bias->token >= vocab || (i > 0 && bias->token <= bias[-1].token)) {
            return error_set(err, ERROR_PEER,
                             "entry %u: bias %u is of token %u, must rise below %u", index, i,
                             bias->token, vocab);
        }
        if (!isfinite(bias->bias)) {
            return error_set(err, ERROR_PEER, "entry %u: bias of token %u is %g", index,
                             bias->token, (double)bias->bias);
        }
    }
    return true;
}

static bool penalties_check(const struct sampling_params *sampling, uint32_t index,
                            struct error *err)
{
    if (!(sampling->repetition_penalty >= 0.0f) || !isfinite(sampling->repetition_penalty) ||
        !isfinite(sampling->presence_penalty) || !isfinite(sampling->frequency_penalty)) {
        return error_set(
            err, ERROR_PEER,
            "entry %u: repetition penalty %g, presence penalty %g, frequency penalty %g", index,
            (double)sampling->repetition_penalty, (double)sampling->presence_penalty,
            (double)sampling->frequency_penalty);
    }
    return true;
}

static bool sampling_check(const struct step_entry *entry, uint32_t vocab, uint32_t index,
                           struct error *err)
{
    const struct sampling_params *sampling = &entry->sampling;

    if ((entry->wants & WANT_SAMPLE) == 0) {
        return true;
    }
    if (!(sampling->temperature >= 0.0f) || !isfinite(sampling->temperature) ||
        !(sampling->top_p >= 0.0f) || !(sampling->min_p >= 0.0f) || !(sampling->min_p <= 1.0f)) {
        return error_set(err, ERROR_PEER, "entry %u: temperature %g, top_p %g, min_p %g", index,
                         (double)sampling->temperature, (double)sampling->top_p,
                         (double)sampling->min_p);
    }
    return penalties_check(sampling, index, err) && biases_check(sampling, vocab, index, err);
}

static bool entry_check(const struct step_entry *entry, const struct placement *placement,
                        uint32_t vocab, uint32_t index, struct error *err)
{
    uint64_t blocks_max =
        ((uint64_t)placement->context_tokens_max + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
    const struct bound bounds[] = {
        {"lane", entry->lane, placement->lane_count},
        {"slot", entry->slot, placement->slot_count},
        {"draft count", entry->draft_count, entry->token_count},
        {"row count", entry->token_count, (uint64_t)placement->step_rows_max + 1},
        {"position", (uint64_t)entry->position + entry->token_count,
         (uint64_t)placement->context_tokens_max + 1},
        {"logprobs", entry->sampling.logprobs, STEP_LOGPROBS_MAX + 1},
        {"prompt_logprobs", entry->sampling.prompt_logprobs, STEP_LOGPROBS_MAX + 1},
        {"block table", (uint64_t)entry->block_begin + entry->block_count, blocks_max + 1},
        {"proposals", entry->propose_max, (uint64_t)STEP_PROPOSE_MAX + 1},
    };

    if (entry->token_count == 0) {
        return error_set(err, ERROR_PEER, "entry %u has no rows", index);
    }
    return bounds_check(bounds, ARRAY_LENGTH(bounds), index, err) &&
           values_check(entry, placement, vocab, index, err) &&
           draft_check(entry, placement, vocab, index, err) &&
           sampling_check(entry, vocab, index, err);
}

bool step_check(const struct step *step, const struct placement *placement, uint32_t vocab,
                struct error *err)
{
    uint64_t rows = 0;

    for (uint32_t i = 0; i < step->entry_count; i++) {
        if (!entry_check(&step->entries[i], placement, vocab, i, err)) {
            return error_wrap(err, "step %" PRIu64, step->number);
        }
        rows += step->entries[i].token_count;
    }
    if (rows == 0 || rows > placement->step_rows_max) {
        return error_set(err, ERROR_PEER, "step %" PRIu64 " has %" PRIu64 " rows, must be 1 to %u",
                         step->number, rows, placement->step_rows_max);
    }
    return true;
}
