#ifndef SHOAL_STAGE_LOGPROBS_H
#define SHOAL_STAGE_LOGPROBS_H

/* Log-probabilities of tokens by the model's own logits: before biases, penalties and temperature.
 *
 *   logprob(t) = (l[t] - m) - log(sum over i of exp(l[i] - m)),  m = max l
 *
 * in double with our own exp and log and one order of additions (kernels->exp_total), rounded to
 * f32: the same bits on every CPU. Equal logits give equal values and a larger one never a smaller
 * value, so the most likely token's value is the maximum of any list that it is in.
 */
#include "common/plan/step.h"
#include "worker/kernels/kernels.h"

/* A row and what all of its tokens share. */
struct logprobs_row {
    const struct kernels *kernels;
    const float *logits; /* [vocab], finite; borrowed */
    uint32_t vocab;
    double max;
    double log_total;
};
void logprobs_row_init(struct logprobs_row *row, const struct kernels *kernels, const float *logits,
                       uint32_t vocab);
float logprobs_value(const struct logprobs_row *row, uint32_t token);
/* 1 + how many tokens are more likely; among equals the lower id counts as more likely. */
uint32_t logprobs_rank(const struct logprobs_row *row, uint32_t token);
/* The `count` most likely, best first; 0 <= count <= vocab. */
void logprobs_top(const struct logprobs_row *row, uint32_t count, uint32_t *tokens, float *values);

#endif
