#ifndef SHOAL_LAYERS_WEIGHTS_INTERNAL_H
#define SHOAL_LAYERS_WEIGHTS_INTERNAL_H

/* Between weights.c and weights_dummy.c. */
#include "common/base/arena.h"
#include "worker/layers/weights.h"

/* A pointer of the weights that is set once there is memory. */
struct binding {
    void **pointer;
    uint64_t offset; /* in the region of all weights */
    uint64_t bytes;
    const struct tensor *tensor;        /* NULL: zeros */
    const struct packed_matrix *matrix; /* NULL: a vector of f32, or the embedding's rows */
    uint32_t tensor_part;               /* numbers the matrices that a tensor becomes */
    uint32_t part;                      /* index into the weights' parts */
};

/* Everything that weights_plan makes, the weights included: weights->plan_memory. */
struct plan {
    struct arena arena;
    const struct catalog *catalog;
    const struct weights_share *share;
    struct weights *weights;
    uint32_t binding_count;
    uint32_t binding_max;
    uint32_t piece_max;
    uint32_t part_max;
    struct binding *bindings;
    struct error *err;
};

#endif
