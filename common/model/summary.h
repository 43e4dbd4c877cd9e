#ifndef SHOAL_MODEL_SUMMARY_H
#define SHOAL_MODEL_SUMMARY_H

/* What a model weighs, for people: parameters from the shapes, bytes from a catalog. Pure. */
#include "common/model/arch.h"
#include "common/model/catalog.h"
#include "common/model/kv_type.h"

/* Numbers of weights, norms and router biases included. */
struct parameter_counts {
    uint64_t total; /* the main model: embedding, layers, final norm, head; no draft layers */
    /* What one token's pass through the main model reads: all of attention, norms, routers, dense
     * and shared MLPs and the head, the chosen routed experts, and one row of the embedding.
     * DeepSeek-R1: 36.6 G (37.6 G with the whole embedding table). */
    uint64_t active;
    uint64_t embedding;
    uint64_t head;      /* 0 when tied */
    uint64_t attention; /* of one layer, its latent norms included */
    uint64_t dense_mlp; /* of one dense layer */
    uint64_t router;    /* of one MoE layer, bias included */
    uint64_t expert;    /* one routed expert */
    uint64_t shared;    /* the shared expert of one MoE layer */
    uint64_t draft;     /* all draft layers as published, copies of embedding and head included */
    uint64_t draft_unique; /* without those copies */
};

struct parameter_counts arch_param_counts(const struct arch *arch);

enum summary_part {
    PART_ATTENTION, /* projections and latent norms */
    PART_ROUTER,
    PART_EXPERTS, /* routed */
    PART_SHARED,
    PART_DENSE,
    PART_NORMS,
    PART_EMBEDDING, /* of a draft layer: its copy */
    PART_HEAD,      /* likewise */
    PART_DRAFT,     /* projection and norms that only a draft layer has */
    PART_COUNT
};

struct layer_summary {
    uint64_t bytes[PART_COUNT];
    uint64_t total_bytes;
};

struct summary {
    struct parameter_counts parameters;
    uint64_t total_bytes;
    uint64_t active_bytes;                     /* of the weights counted by parameters.active */
    uint64_t bytes_of_type[WEIGHT_TYPE_COUNT]; /* block scales count as F32 */
    uint32_t tensors_of_type[WEIGHT_TYPE_COUNT];
    uint64_t bytes_of_part[PART_COUNT]; /* over everything, draft layers included */
    uint64_t expert_bytes_min;          /* of one routed expert; both 0 without MoE layers */
    uint64_t expert_bytes_max;
    uint32_t kv_values_token_layer;         /* values that a token adds to the cache of one layer */
    uint64_t kv_values_token;               /* over the main layers */
    uint64_t kv_bytes_token[KV_TYPE_COUNT]; /* likewise, scales included */
    uint32_t unused_count;
    uint32_t layer_count; /* main layers, then draft layers */
    struct layer_summary *layers;
};

/* Borrows the catalog for the call. Never NULL; end it with summary_destroy. */
struct summary *summary_create(const struct catalog *catalog);
void summary_destroy(struct summary *summary); /* NULL is legal */

/* Of one routed expert of a MoE layer; all of a layer are alike in what is published. */
uint64_t summary_expert_bytes(const struct catalog *catalog, const struct summary *summary,
                              uint32_t layer);
const char *summary_part_name(enum summary_part part); /* "attention" */

#endif
