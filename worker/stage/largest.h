#ifndef SHOAL_STAGE_LARGEST_H
#define SHOAL_STAGE_LARGEST_H

/* The n largest of a row of logits; among equals the lower id is the larger one. */
#include "worker/kernels/kernels.h"

#include <stdbool.h>
#include <stdint.h>

/* Whether token a stands before token b. */
bool largest_is_before(const float *logits, uint32_t a, uint32_t b);
/* tokens[0 … count) become the ids of the largest, largest first; 1 <= count <= vocab. Logits are
 * finite. Cheap while count is small: most of a row is passed over by kernels->find_from. Pure. */
void largest_tokens(const struct kernels *kernels, const float *logits, uint32_t vocab,
                    uint32_t count, uint32_t *tokens);

#endif
