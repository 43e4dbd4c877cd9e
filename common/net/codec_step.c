/* codec_step.c - steps: what travels to every worker while tokens flow.
 *
 * Tokens and blocks are packed arrays that the decoded message points at where protobuf-c put them;
 * nothing is copied twice.
 */
#include "common/net/codec.h"

#include <math.h>

#define WANTS_ALL                                                                                  \
    ((uint32_t)(WANT_SAMPLE | WANT_LOGITS | WANT_ROUTING | WANT_HIDDEN | WANT_DRAFT_LOGITS))
#define BIASES_MAX 65536u

static void sampling_encode(const struct sampling_params *in, struct arena *arena,
                            Shoal__Sampling *out)
{
    shoal__sampling__init(out);
    out->temperature = in->temperature;
    out->top_p = in->top_p;
    out->min_p = in->min_p;
    out->top_k = in->top_k;
    out->choice = in->choice;
    out->seed = in->seed;
    out->repetition_penalty = in->repetition_penalty;
    out->presence_penalty = in->presence_penalty;
    out->frequency_penalty = in->frequency_penalty;
    out->logprobs = in->logprobs;
    out->prompt_logprobs = in->prompt_logprobs;
    out->n_bias_tokens = in->bias_count;
    out->n_biases = in->bias_count;
    out->bias_tokens = arena_new_array(arena, uint32_t, in->bias_count);
    out->biases = arena_new_array(arena, float, in->bias_count);
    for (uint32_t i = 0; i < in->bias_count; i++) {
        out->bias_tokens[i] = in->biases[i].token;
        out->biases[i] = in->biases[i].bias;
    }
}

static void entry_encode(const struct step_entry *in, struct arena *arena, Shoal__StepEntry *out)
{
    shoal__step_entry__init(out);
    out->sequence = in->sequence;
    out->lane = in->lane;
    out->slot = in->slot;
    out->position = in->position;
    out->n_tokens = in->token_count;
    out->tokens = codec_array(in->tokens);
    out->generated_begin = in->generated_begin;
    out->block_begin = in->block_begin;
    out->n_blocks = in->block_count;
    out->blocks = codec_array(in->blocks);
    out->wants = in->wants;
    out->sampling = arena_new(arena, Shoal__Sampling);
    sampling_encode(&in->sampling, arena, out->sampling);
    out->draft_count = in->draft_count;
    out->following_token = in->next_token == STEP_TOKEN_NONE ? 0 : in->next_token + 1;
    out->propose_max = in->propose_max;
}

void codec_step_encode(const struct step *in, struct arena *arena, Shoal__Step *out)
{
    shoal__step__init(out);
    out->epoch = in->epoch;
    out->number = in->number;
    out->attempt = in->attempt;
    out->n_entries = in->entry_count;
    out->entries =
        (Shoal__StepEntry **)codec_list(arena, in->entry_count, sizeof(Shoal__StepEntry));
    for (uint32_t i = 0; i < in->entry_count; i++) {
        entry_encode(&in->entries[i], arena, out->entries[i]);
    }
}

static bool check_finite(const char *field, double value, struct error *err)
{
    if (!isfinite(value)) {
        return error_set(err, ERROR_INPUT, "%s: %g is not a number", field, value);
    }
    return true;
}

static bool sampling_check(const Shoal__Sampling *in, struct error *err)
{
    return codec_check_amount("sampling.temperature", (double)in->temperature, err) &&
           codec_check_amount("sampling.top_p", (double)in->top_p, err) &&
           codec_check_amount("sampling.min_p", (double)in->min_p, err) &&
           codec_check_amount("sampling.repetition_penalty", (double)in->repetition_penalty, err) &&
           check_finite("sampling.presence_penalty", (double)in->presence_penalty, err) &&
           check_finite("sampling.frequency_penalty", (double)in->frequency_penalty, err) &&
           codec_check_count("sampling.logprobs", in->logprobs, STEP_LOGPROBS_MAX, err) &&
           codec_check_count("sampling.prompt_logprobs", in->prompt_logprobs, STEP_LOGPROBS_MAX,
                             err) &&
           codec_check_count("sampling.biases", in->n_biases, BIASES_MAX, err);
}

static bool biases_decode(const Shoal__Sampling *in, struct arena *arena,
                          struct sampling_params *out, struct error *err)
{
    struct token_bias *biases = arena_new_array(arena, struct token_bias, in->n_biases);

    if (in->n_bias_tokens != in->n_biases) {
        return error_set(err, ERROR_INPUT, "sampling: %zu biases for %zu tokens", in->n_biases,
                         in->n_bias_tokens);
    }
    for (size_t i = 0; i < in->n_biases; i++) {
        if (!check_finite("sampling.biases", (double)in->biases[i], err)) {
            return false;
        }
        if (i > 0 && in->bias_tokens[i] <= in->bias_tokens[i - 1]) {
            return error_set(err, ERROR_INPUT, "sampling.bias_tokens[%zu]: %u after %u", i,
                             in->bias_tokens[i], in->bias_tokens[i - 1]);
        }
        biases[i] = (struct token_bias){.token = in->bias_tokens[i], .bias = in->biases[i]};
    }
    out->bias_count = (uint32_t)in->n_biases;
    out->biases = biases;
    return true;
}

static bool sampling_decode(const Shoal__Sampling *in, struct arena *arena,
                            struct sampling_params *out, struct error *err)
{
    if (in == NULL) {
        return error_set(err, ERROR_INPUT, "sampling: missing");
    }
    if (!sampling_check(in, err)) {
        return false;
    }
    *out = (struct sampling_params){.temperature = in->temperature,
                                    .top_p = in->top_p,
                                    .min_p = in->min_p,
                                    .top_k = in->top_k,
                                    .choice = in->choice,
                                    .seed = in->seed,
                                    .repetition_penalty = in->repetition_penalty,
                                    .presence_penalty = in->presence_penalty,
                                    .frequency_penalty = in->frequency_penalty,
                                    .logprobs = in->logprobs,
                                    .prompt_logprobs = in->prompt_logprobs};
    return biases_decode(in, arena, out, err);
}

static bool entry_decode(const Shoal__StepEntry *in, struct arena *arena, struct step_entry *out,
                         struct error *err)
{
    if (!codec_check_count("tokens", in->n_tokens, CODEC_ROWS_MAX, err) ||
        !codec_check_count("position + tokens", (uint64_t)in->position + in->n_tokens, UINT32_MAX,
                           err) ||
        !codec_check_count("blocks", in->n_blocks, CODEC_ROWS_MAX, err) ||
        !codec_check_count("block_begin + blocks", (uint64_t)in->block_begin + in->n_blocks,
                           UINT32_MAX, err)) {
        return false;
    }
    if (in->draft_count > 0 && in->draft_count >= in->n_tokens) {
        return error_set(err, ERROR_INPUT, "draft_count: %u of %zu tokens", in->draft_count,
                         in->n_tokens);
    }
    if ((in->wants & ~WANTS_ALL) != 0) {
        return error_set(err, ERROR_INPUT, "wants: unknown bits in %u", in->wants);
    }
    *out = (struct step_entry){.sequence = in->sequence,
                               .lane = in->lane,
                               .slot = in->slot,
                               .position = in->position,
                               .token_count = (uint32_t)in->n_tokens,
                               .tokens = in->tokens,
                               .draft_count = in->draft_count,
                               .next_token = in->following_token - 1, /* 0: STEP_TOKEN_NONE */
                               .propose_max = in->propose_max,
                               .generated_begin = in->generated_begin,
                               .block_begin = in->block_begin,
                               .block_count = (uint32_t)in->n_blocks,
                               .blocks = in->blocks,
                               .wants = in->wants};
    return sampling_decode(in->sampling, arena, &out->sampling, err);
}

bool codec_step_decode(const Shoal__Step *in, struct arena *arena, struct step *out,
                       struct error *err)
{
    uint64_t rows = 0;

    if (!codec_check_count("entries", in->n_entries, CODEC_ENTRIES_MAX, err)) {
        return false;
    }
    *out = (struct step){.epoch = in->epoch,
                         .number = in->number,
                         .attempt = in->attempt,
                         .entry_count = (uint32_t)in->n_entries};
    out->entries = arena_new_array(arena, struct step_entry, in->n_entries);
    for (size_t i = 0; i < in->n_entries; i++) {
        if (!entry_decode(in->entries[i], arena, &out->entries[i], err)) {
            return error_wrap(err, "entries[%zu]", i);
        }
        rows += in->entries[i]->n_tokens;
    }
    return codec_check_count("tokens of all entries", rows, CODEC_ROWS_MAX, err);
}
