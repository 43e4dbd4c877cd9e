#ifndef SHOAL_STAGE_STAGE_STATE_H
#define SHOAL_STAGE_STAGE_STATE_H

/* What stage.c, draft.c and the files of the answer share. Private to this room. */
#include "worker/stage/row_map.h"
#include "worker/stage/sampling.h"
#include "worker/stage/stage.h"

struct stage {
    const struct seat *seat;
    const struct arch *arch;
    const struct weights *weights;
    const struct kernels *kernels;
    struct team *team;
    struct kv_cache *cache;
    struct meter *meter;
    struct forward *forward;
    struct expert_exchange *experts; /* NULL in a dense model */
    struct draft *draft;             /* NULL without the draft layer */
    struct row_map map;
    float *x; /* [step_rows_max][hidden] */
    struct arena arena;

    /* last stage */
    uint32_t logits_rows_max;
    float *logits; /* [logits_rows_max][vocab] */
    uint64_t logits_bytes;
    struct sampler *samplers; /* [threads] */
    char *sampler_memory;
    uint64_t sampler_memory_bytes;
    struct answer_row *answer_rows; /* [step_rows_max] whose logits are needed */
    uint32_t *logits_indexes;       /* [logits_rows_max] own rows of the chunk at hand */
};

#endif
