#ifndef SHOAL_STAGE_PENALTIES_H
#define SHOAL_STAGE_PENALTIES_H

/* What the caller's wishes and the sequence's history do to a row of logits before a token is
 * chosen from it (sampling.h), in this order:
 *
 *   bias                 l += bias                             of the tokens named
 *   repetition penalty   l = l > 0 ? l / r : l * r             of tokens in prompt or answer
 *   frequency penalty    l -= f * (times in the answer)        of tokens in the answer
 *   presence penalty     l -= p                                of tokens in the answer
 *
 * as vLLM's and OpenAI's APIs define them (deploy/docs/sampling.md). In double, rounded to f32 at
 * the end, cut to the range of finite floats. A token's value depends on nothing but its logit,
 * these numbers and its counts, so the order of the history never shows.
 */
#include "common/plan/step.h"
#include "worker/kv/kv_cache.h"
#include "worker/stage/sampling.h"

/* The tokens at positions [0, token_count) of a sequence; those from generated_begin on are its
 * answer. */
struct token_history {
    const struct kv_cache *cache; /* has tokens; its table covers the positions */
    uint32_t lane, slot;          /* lane: the worker's own index */
    uint32_t token_count;
    uint32_t generated_begin;
};

/* The adjusted row: `logits` itself where nothing is asked for, else lent until the sampler's next
 * use. Tokens of biases and history are below the vocabulary (step_check). Reads the history only
 * if a penalty is asked for; O(history + vocab). */
const float *penalties_apply(struct sampler *sampler, const float *logits,
                             const struct sampling_params *params,
                             const struct token_history *history);

#endif
