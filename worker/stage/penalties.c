/* penalties.c - biases and penalties on one row of logits.
 *
 * The history is walked twice: once to count each token, once to apply what it earned and to set
 * its count back to zero, so that nothing of the vocabulary's size is cleared. A count's upper bit
 * says that the token was seen, the others how often in the answer.
 */
#include "worker/stage/penalties.h"

#include "common/base/check.h"

#include <float.h>
#include <stdbool.h>
#include <string.h>

#define SEEN 0x80000000u

static bool has_repetition(const struct sampling_params *params)
{
    return params->repetition_penalty > 0.0f && params->repetition_penalty != 1.0f;
}

static bool has_penalties(const struct sampling_params *params)
{
    return has_repetition(params) || params->presence_penalty != 0.0f ||
           params->frequency_penalty != 0.0f;
}

static float rounded(double value)
{
    if (value > (double)FLT_MAX) {
        return FLT_MAX;
    }
    return value < -(double)FLT_MAX ? -FLT_MAX : (float)value;
}

/* --- the history, block by block --- */

typedef void (*tokens_fn)(struct sampler *sampler, const struct sampling_params *params,
                          const uint32_t *tokens, uint32_t count, uint32_t counted);

/* Calls fn for runs of tokens that lie side by side; counted: what each adds to its count. */
static void walk(struct sampler *sampler, const struct sampling_params *params,
                 const struct token_history *history, tokens_fn fn)
{
    uint32_t position = 0;

    while (position < history->token_count) {
        bool is_generated = position >= history->generated_begin;
        uint32_t end = (position / KV_BLOCK_TOKENS + 1) * KV_BLOCK_TOKENS;

        end = end < history->token_count ? end : history->token_count;
        end = is_generated || end < history->generated_begin ? end : history->generated_begin;
        fn(sampler, params, kv_cache_token(history->cache, history->lane, history->slot, position),
           end - position, is_generated ? 1 : 0);
        position = end;
    }
}

static void count_tokens(struct sampler *sampler, const struct sampling_params *params,
                         const uint32_t *tokens, uint32_t count, uint32_t counted)
{
    (void)params;
    for (uint32_t i = 0; i < count; i++) {
        sampler->counts[tokens[i]] = (sampler->counts[tokens[i]] + counted) | SEEN;
    }
}

static float penalised(float logit, const struct sampling_params *params, uint32_t count)
{
    double value = (double)logit;

    if (has_repetition(params)) {
        value = value > 0.0 ? value / (double)params->repetition_penalty
                            : value * (double)params->repetition_penalty;
    }
    if (count > 0) {
        value -= (double)params->frequency_penalty * count;
        value -= (double)params->presence_penalty;
    }
    return rounded(value);
}

static void penalise_tokens(struct sampler *sampler, const struct sampling_params *params,
                            const uint32_t *tokens, uint32_t count, uint32_t counted)
{
    (void)counted;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t token = tokens[i];

        if (sampler->counts[token] != 0) { /* the first time in this walk */
            sampler->adjusted[token] =
                penalised(sampler->adjusted[token], params, sampler->counts[token] & ~SEEN);
            sampler->counts[token] = 0;
        }
    }
}

const float *penalties_apply(struct sampler *sampler, const float *logits,
                             const struct sampling_params *params,
                             const struct token_history *history)
{
    if (params->bias_count == 0 && !has_penalties(params)) {
        return logits;
    }
    memcpy(sampler->adjusted, logits, sampler->vocab * sizeof(float));
    for (uint32_t i = 0; i < params->bias_count; i++) {
        uint32_t token = params->biases[i].token;

        ASSERT(token < sampler->vocab);
        sampler->adjusted[token] =
            rounded((double)sampler->adjusted[token] + (double)params->biases[i].bias);
    }
    if (has_penalties(params)) {
        walk(sampler, params, history, count_tokens);
        walk(sampler, params, history, penalise_tokens);
    }
    return sampler->adjusted;
}
