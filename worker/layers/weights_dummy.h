#ifndef SHOAL_LAYERS_WEIGHTS_DUMMY_H
#define SHOAL_LAYERS_WEIGHTS_DUMMY_H

/* Weights of any shape in little memory, for trying a model's messages and schedule without it.
 *
 * Matrices of one type and width are views of one small block of random values, mapped again and
 * again; where a view begins follows from the seed and the tensor's place in the model, so a
 * tensor has the same values on every worker and in every layout. Vectors are real. Rows repeat
 * within a matrix much larger than a block (an embedding, a head).
 */
#include "worker/layers/weights.h"

struct weights_dummy;

/* Instead of memory for the weights: which blocks they need. Allocates nothing large. */
struct weights_dummy *weights_dummy_plan(const struct weights *weights, uint64_t seed);
/* What they take: blocks, vectors, page tables; for the ledger. */
uint64_t weights_dummy_bytes(const struct weights_dummy *dummy);
/* Makes the values and sets all pointers of the same weights; nothing is to be read then. */
bool weights_dummy_bind(struct weights_dummy *dummy, struct weights *weights,
                        struct error *err) MUST_CHECK;
void weights_dummy_destroy(struct weights_dummy *dummy); /* NULL is legal */

#endif
