#ifndef SHOAL_STAGE_SAMPLING_H
#define SHOAL_STAGE_SAMPLING_H

/* One token from one row of logits, to which biases and penalties (penalties.h) were applied.
 *
 * Temperature 0: the largest logit, the lowest id among equals. Else, in this order: logits are
 * divided by the temperature; top-k keeps the k largest; top-p keeps, of what is left, the fewest
 * largest whose probabilities (softmax over what is left) reach p, at least one; min-p drops
 * tokens less probable than min_p times the most probable. Among equal logits the lower id counts
 * as larger throughout. Of the tokens that remain the one with the largest logit / T + noise wins
 * (Gumbel-max: as likely as its probability).
 *
 * Noise is a pure function of (seed, choice, position, token id), where position is that of the
 * token being sampled; log and exp are our own. So a sample depends on nothing but the row and
 * these numbers: not on batch, layout, machine or what was sampled before. All in double; sums run
 * in an order that the row alone decides. deploy/docs/sampling.md compares with other servers.
 */
#include "common/plan/step.h"
#include "worker/kernels/kernels.h"

#include <stddef.h>
#include <stdint.h>

struct sampling_candidate {
    double weight; /* exp((logit - the largest logit) / temperature) */
    float logit;
    uint32_t token;
};

/* What one thread needs for it: the kernels of its CPU and memory for one vocabulary. */
struct sampler {
    const struct kernels *kernels;
    uint32_t vocab;
    struct sampling_candidate *candidates; /* [vocab] */
    float *adjusted;                       /* [vocab] logits with penalties, see penalties.h */
    uint32_t *counts;                      /* [vocab] all 0 between two calls */
};
uint64_t sampler_bytes(uint32_t vocab);
/* memory: sampler_bytes(vocab) zeros, 64-byte aligned; borrowed as long as the sampler is used. */
void sampler_init(struct sampler *sampler, const struct kernels *kernels, uint32_t vocab,
                  void *memory);

/* logits [vocab] are finite. */
uint32_t sampling_choose(struct sampler *sampler, const float *logits,
                         const struct sampling_params *params, uint32_t position);

/* The largest of finite logits, the lowest id among equals. */
uint32_t sampling_greedy(const struct kernels *kernels, const float *logits, uint32_t vocab);

/* The parts, for tests. sampler->candidates become what top-k, top-p and min-p leave, in any
 * order; returns their number. */
uint32_t sampling_truncate(struct sampler *sampler, const float *logits,
                           const struct sampling_params *params);
double sampling_noise(const struct sampling_params *params, uint32_t position, uint32_t token);

#endif
