/* logprobs.c - log-probabilities of one row of logits.
 *
 * The logarithm of the sum is computed once for a row; everything else about a token is a
 * subtraction and a comparison.
 */
#include "worker/stage/logprobs.h"

#include "common/base/check.h"
#include "common/model/portable_math.h"
#include "worker/stage/largest.h"

#include <math.h>

void logprobs_row_init(struct logprobs_row *row, const struct kernels *kernels, const float *logits,
                       uint32_t vocab)
{
    float max = kernels->max(logits, vocab);

    *row = (struct logprobs_row){
        .kernels = kernels,
        .logits = logits,
        .vocab = vocab,
        .max = (double)max,
        .log_total = portable_log(kernels->exp_total(logits, vocab, max, 1.0)),
    };
}

float logprobs_value(const struct logprobs_row *row, uint32_t token)
{
    ASSERT(token < row->vocab);
    return (float)(((double)row->logits[token] - row->max) - row->log_total);
}

uint32_t logprobs_rank(const struct logprobs_row *row, uint32_t token)
{
    const float own = row->logits[token];
    /* before the token also those that equal it */
    size_t before = row->kernels->count_above(row->logits, token, nextafterf(own, -INFINITY));
    size_t behind = row->kernels->count_above(row->logits + token, row->vocab - token, own);

    ASSERT(token < row->vocab);
    return (uint32_t)(1 + before + behind);
}

void logprobs_top(const struct logprobs_row *row, uint32_t count, uint32_t *tokens, float *values)
{
    if (count == 0) {
        return;
    }
    largest_tokens(row->kernels, row->logits, row->vocab, count, tokens);
    for (uint32_t i = 0; i < count; i++) {
        values[i] = logprobs_value(row, tokens[i]);
    }
}
