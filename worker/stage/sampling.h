#ifndef SHOAL_STAGE_SAMPLING_H
#define SHOAL_STAGE_SAMPLING_H

/* One token from one row of logits.
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
 * these numbers: not on batch, layout, machine or what was sampled before. All in double. Pure.
 */
#include "common/plan/step.h"

#include <stddef.h>
#include <stdint.h>

struct sampling_candidate {
    double scaled; /* logit / temperature */
    uint32_t token;
};
/* candidates: room for `vocab` of them (sampling_scratch_bytes); logits are finite. */
size_t sampling_scratch_bytes(uint32_t vocab);
uint32_t sampling_choose(const float *logits, uint32_t vocab, const struct sampling_params *params,
                         uint32_t position, struct sampling_candidate *candidates);

/* The parts, for tests. Keeps the candidates that top-k, top-p and min-p leave, in any order;
 * returns their number. */
uint32_t sampling_truncate(const float *logits, uint32_t vocab,
                           const struct sampling_params *params,
                           struct sampling_candidate *candidates);
double sampling_noise(const struct sampling_params *params, uint32_t position, uint32_t token);

#endif
