#ifndef SHOAL_MODEL_ARCH_H
#define SHOAL_MODEL_ARCH_H

/* What a model computes, as data: read from config.json, it drives the one forward pass.
 *
 * Field names follow the published configs. Everything is checked when it is read (no zero
 * dimension, groups divide experts, chosen experts fit into the kept groups, …), so that users of
 * the struct need not. Unknown architectures are refused by name. Plain values; copy freely.
 */
#include "common/base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARCH_EOS_MAX  8
#define ARCH_NO_TOKEN UINT32_MAX

enum attention_kind {
    ATTENTION_MLA, /* multi-head latent attention, DeepSeek-V2 report (arXiv:2405.04434) section 2.1
                    */
    ATTENTION_GQA, /* grouped queries: head h reads key and value head h / (heads / kv_heads) */
};

/* How a checkpoint holds kv_b_proj of MLA. */
enum kv_b_layout {
    KV_B_JOINED, /* as published */
    KV_B_SPLIT,  /* keys and values apart: what GGUF files have since 2025, see catalog.h */
};

/* Projections that add a vector to their product. */
enum attention_bias { BIAS_QKV = 1, BIAS_OUT = 2 };

enum router_scoring { ROUTER_SOFTMAX, ROUTER_SIGMOID };

enum router_method {
    ROUTER_GREEDY,               /* top-k over all experts */
    ROUTER_GROUP_LIMITED_GREEDY, /* V2: a group scores its maximum */
    ROUTER_NOAUX_TC,             /* V3: bias for the choice; a group scores its two largest */
};

enum rope_scaling {
    ROPE_PLAIN,
    ROPE_YARN,     /* arXiv:2309.00071; without mscale_all_dim it scales cos and sin by m(mscale) */
    ROPE_LINEAR,   /* every frequency divided by factor */
    ROPE_LLAMA3,   /* long waves divided by factor, short ones kept, a ramp between */
    ROPE_DIVISORS, /* every frequency divided by its own number: Llama 3's scaling in GGUF files */
};
#define ROPE_DIVISORS_MAX 256

enum rope_style {
    ROPE_ADJACENT, /* rotates (x0,x1), (x2,x3), … */
    ROPE_HALVES,   /* rotates (x0,x[d/2]), (x1,x[d/2+1]), … */
};

/* Fields beside the scaling's own are not read; see rope.h for the tables. */
struct rope_config {
    enum rope_scaling scaling;
    enum rope_style style;
    double theta;
    double factor;
    double low_freq_factor; /* llama3 */
    double high_freq_factor;
    double beta_fast;
    double beta_slow;
    double mscale;
    double mscale_all_dim;
    uint32_t original_context;         /* original_max_position_embeddings */
    float divisors[ROPE_DIVISORS_MAX]; /* of the qk_rope_dim / 2 frequencies; else zeros */
};

struct router_config {
    enum router_scoring scoring;
    enum router_method method;
    uint32_t expert_count;       /* n_routed_experts; 0: every layer is dense */
    uint32_t chosen_count;       /* num_experts_per_tok */
    uint32_t group_count;        /* n_group, at least 1 */
    uint32_t group_chosen_count; /* topk_group; group_count when there are no groups */
    bool normalise;              /* norm_topk_prob */
    float scale;                 /* routed_scaling_factor */
};

struct arch {
    char name[32]; /* model_type, "deepseek_v3" */
    enum attention_kind attention;
    uint32_t layer_count;       /* main layers, without the draft layers */
    uint32_t draft_layer_count; /* num_nextn_predict_layers: model.layers.<layer_count> … */
    uint32_t dense_layer_count; /* first_k_dense_replace: layers below it have a plain MLP */
    uint32_t hidden;
    uint32_t vocab;
    uint32_t context_tokens_max; /* max_position_embeddings */
    float norm_eps;
    float latent_norm_eps; /* q_a_layernorm, kv_a_layernorm: 1e-6 whatever the config says */

    uint32_t head_count;
    uint32_t kv_head_count; /* GQA: divides head_count; MLA: 1, its latent */
    uint32_t q_lora_rank;   /* 0: the query is projected in one piece */
    uint32_t kv_lora_rank;  /* MLA */
    /* GQA rotates whole heads: nope is 0, rope and v are both head_dim. */
    uint32_t qk_nope_dim;
    uint32_t qk_rope_dim;
    uint32_t v_head_dim;
    enum kv_b_layout kv_b_layout;
    uint32_t attention_bias; /* of enum attention_bias */
    bool qk_norm;            /* query and key heads are normed (norm_eps) before their rotation */
    struct rope_config rope;

    uint32_t dense_width;  /* intermediate_size */
    uint32_t expert_width; /* moe_intermediate_size */
    uint32_t shared_width; /* n_shared_experts * moe_intermediate_size; 0: none */
    struct router_config router;

    bool tied_embedding; /* the head reads the embedding's rows */
    uint32_t bos_id;     /* ARCH_NO_TOKEN: none */
    uint32_t eos_count;
    uint32_t eos_ids[ARCH_EOS_MAX];
};

/* Reads <directory>/config.json, then adds the eos ids of generation_config.json if it is there. */
bool arch_read(const char *directory, struct arch *out, struct error *err) MUST_CHECK;
/* The same from text; `name` is for messages. */
bool arch_parse(const char *text, size_t length, const char *name, struct arch *out,
                struct error *err) MUST_CHECK;

bool arch_layer_is_moe(const struct arch *arch, uint32_t layer); /* draft layers: true */
/* Router groups of the combine tree: group_count, or 8 ranges when that is 1 (DESIGN, Experts). */
uint32_t arch_combine_group_count(const struct arch *arch);
uint32_t arch_combine_group(const struct arch *arch, uint32_t expert);
/* Values that one token adds to the cache of one layer: kv_lora_rank + qk_rope_dim, or all key
 * heads and then all value heads. */
uint32_t arch_kv_values(const struct arch *arch);
/* YaRN's m(s) = 0.1 s ln(factor) + 1 gives (nope + rope)^-0.5 * m(mscale_all_dim)^2. */
float arch_softmax_scale(const struct arch *arch);
bool arch_is_eos(const struct arch *arch, uint32_t token);

#endif
