#ifndef SHOAL_CLUSTER_MODEL_BYTES_H
#define SHOAL_CLUSTER_MODEL_BYTES_H

/* What a model's parts weigh in the workers' memory, from the catalog alone: matrices in panels of
 * 16 rows of their published type, vectors as f32, the embedding as published, every piece on a
 * multiple of 64 bytes, what is kept or given up as one on whole pages. The same figures as
 * worker/layers/weights.c, which has the last word in its ledger; a test compares both. Pure.
 */
#include "common/model/catalog.h"
#include "common/plan/planner.h"

/* layers: [arch.layer_count], filled. */
void model_bytes_layers(const struct catalog *catalog, struct planner_layer *layers);
/* The draft layer that a share holds, its joint projection and norms included, without copies of
 * embedding and head; zeros when the model has none. */
struct planner_layer model_bytes_draft(const struct catalog *catalog);
uint64_t model_bytes_embedding(const struct catalog *catalog);
uint64_t model_bytes_head(const struct catalog *catalog); /* with the final norm */

/* What shapes a worker's buffers. */
struct model_step_shape {
    uint32_t rows_max;
    uint32_t steps_in_flight_max;
    uint32_t group_size; /* members of the stage */
    uint32_t context_tokens_max, slot_count;
    uint32_t thread_count;
};
/* Upper bounds, not far above, of what a worker needs beside weights and KV blocks. The worker's
 * own ledger is exact. */
struct model_fixed_bytes {
    uint64_t buffer_bytes;  /* activations of a step, block tables */
    uint64_t frame_bytes;   /* to and from other workers, members holding whole router groups */
    uint64_t divided_bytes; /* to and from other workers, more if they do not */
    uint64_t program_bytes; /* code, libraries, staging of the readers */
};
struct model_fixed_bytes model_bytes_fixed(const struct arch *arch,
                                           const struct model_step_shape *shape);

#endif
