#ifndef SHOAL_MODEL_CATALOG_H
#define SHOAL_MODEL_CATALOG_H

/* Every tensor of a checkpoint: role, layer, expert, type, shape, file, offset; from headers alone.
 *
 * Sources: safetensors format (8-byte little-endian header length, JSON header, data), one file
 * (model.safetensors) or shards named by model.safetensors.index.json; GGUF (gguf.h), where the
 * stacked experts of a layer become a tensor each. Every length is checked against the file before
 * use: header within the file, offsets inside, lengths equal to what shape and type take, no
 * overlap, no duplicate name. catalog_open then checks the set against the architecture: each
 * required tensor is present once with its shape and a type that we can read, an F8_E4M3 one with
 * its scales, vectors as floats; what is unknown is listed as unused. Draft
 * layers are optional as a set: with none of their tensors there, catalog->arch.draft_layer_count
 * is 0; an incomplete set is an error. DRAFT_EMBEDDING and DRAFT_HEAD may be left out of it: the
 * main ones serve then.
 *
 * Immutable after catalog_open; any thread may read it.
 */
#include "common/base/error.h"
#include "common/model/arch.h"
#include "common/model/numerics.h"
#include "common/model/model_path.h"
#include "common/model/weight_type.h"

#include <stddef.h>
#include <stdint.h>

#define CATALOG_NO_LAYER  UINT32_MAX
#define CATALOG_NO_EXPERT UINT32_MAX

/* What a tensor is for. Comments give the published name below model.layers.N. and the shape. */
enum tensor_role {
    ROLE_EMBEDDING,         /* model.embed_tokens.weight [vocab][hidden] */
    ROLE_FINAL_NORM,        /* model.norm.weight [hidden] */
    ROLE_HEAD,              /* lm_head.weight [vocab][hidden] */
    ROLE_INPUT_NORM,        /* input_layernorm.weight [hidden] */
    ROLE_POST_NORM,         /* post_attention_layernorm.weight [hidden] */
    ROLE_Q,                 /* self_attn.q_proj.weight [heads * (nope + rope)][hidden] */
    ROLE_Q_A,               /* self_attn.q_a_proj.weight [q_lora][hidden] */
    ROLE_Q_A_NORM,          /* self_attn.q_a_layernorm.weight [q_lora] */
    ROLE_Q_B,               /* self_attn.q_b_proj.weight [heads * (nope + rope)][q_lora] */
    ROLE_KV_A,              /* self_attn.kv_a_proj_with_mqa.weight [kv_lora + rope][hidden] */
    ROLE_KV_A_NORM,         /* self_attn.kv_a_layernorm.weight [kv_lora] */
    ROLE_KV_B,              /* self_attn.kv_b_proj.weight [heads * (nope + v)][kv_lora] */
    ROLE_K_B,               /* KV_B_SPLIT, instead of it: of each head the transpose of its nope
                               rows, [heads * kv_lora][nope] */
    ROLE_V_B,               /* and of each head its v rows, [heads * v][kv_lora] */
    ROLE_K,                 /* self_attn.k_proj.weight [kv_heads * head][hidden] */
    ROLE_V,                 /* self_attn.v_proj.weight [kv_heads * head][hidden] */
    ROLE_Q_BIAS,            /* self_attn.q_proj.bias [heads * head] */
    ROLE_K_BIAS,            /* self_attn.k_proj.bias [kv_heads * head] */
    ROLE_V_BIAS,            /* self_attn.v_proj.bias [kv_heads * head] */
    ROLE_Q_NORM,            /* self_attn.q_norm.weight [head] */
    ROLE_K_NORM,            /* self_attn.k_norm.weight [head] */
    ROLE_ATTENTION_OUT,     /* self_attn.o_proj.weight [hidden][heads * v] */
    ROLE_OUT_BIAS,          /* self_attn.o_proj.bias [hidden] */
    ROLE_GATE,              /* mlp.gate_proj.weight [dense_width][hidden] */
    ROLE_UP,                /* mlp.up_proj.weight [dense_width][hidden] */
    ROLE_DOWN,              /* mlp.down_proj.weight [hidden][dense_width] */
    ROLE_ROUTER,            /* mlp.gate.weight [experts][hidden] */
    ROLE_ROUTER_BIAS,       /* mlp.gate.e_score_correction_bias [experts] */
    ROLE_EXPERT_GATE,       /* mlp.experts.E.gate_proj.weight [expert_width][hidden] */
    ROLE_EXPERT_UP,         /* mlp.experts.E.up_proj.weight */
    ROLE_EXPERT_DOWN,       /* mlp.experts.E.down_proj.weight [hidden][expert_width] */
    ROLE_SHARED_GATE,       /* mlp.shared_experts.gate_proj.weight [shared_width][hidden] */
    ROLE_SHARED_UP,         /* mlp.shared_experts.up_proj.weight */
    ROLE_SHARED_DOWN,       /* mlp.shared_experts.down_proj.weight [hidden][shared_width] */
    ROLE_DRAFT_EMBEDDING,   /* of a draft layer: embed_tokens.weight [vocab][hidden] */
    ROLE_DRAFT_TOKEN_NORM,  /* enorm.weight [hidden] */
    ROLE_DRAFT_HIDDEN_NORM, /* hnorm.weight [hidden] */
    ROLE_DRAFT_PROJECTION,  /* eh_proj.weight [hidden][2 * hidden] */
    ROLE_DRAFT_FINAL_NORM,  /* shared_head.norm.weight [hidden] */
    ROLE_DRAFT_HEAD,        /* shared_head.head.weight [vocab][hidden] */
    ROLE_COUNT
};

/* <name>_scale_inv: f32 [ceil(rows / 128)][ceil(columns / 128)], row-major. */
struct tensor_scales {
    uint32_t file;
    uint64_t offset;
    uint64_t bytes; /* counted beside the tensor's own */
};

struct tensor {
    const char *name; /* as published, one of stacked experts with its number: "x.weight[7]"; lent
                         by the catalog */
    enum tensor_role role;
    enum weight_type type;
    uint32_t layer;  /* CATALOG_NO_LAYER for embedding, final norm, head */
    uint32_t expert; /* CATALOG_NO_EXPERT unless a routed expert's */
    uint32_t rows;   /* outputs; 1 for vectors */
    uint32_t columns;
    uint32_t file;   /* index into catalog->files */
    uint64_t offset; /* of the first byte, from the start of the file */
    uint64_t bytes;
    struct tensor_scales scales; /* of an F8_E4M3 tensor; else bytes 0 */
};

struct catalog_file {
    const char *path; /* lent by the catalog */
    uint64_t bytes;
};

/* Where the values come from. */
enum weights_source {
    WEIGHTS_PUBLISHED, /* the checkpoint's files */
    WEIGHTS_DUMMY,     /* nowhere: plausible random ones, made by the workers from the seed */
};
struct weights_choice {
    enum weights_source source;
    uint64_t seed; /* of dummy weights; else 0 */
};
#define WEIGHTS_CHOICE_BYTES 32 /* of its text, NUL included */

struct catalog {
    struct arch arch;
    enum model_format format;
    struct weights_choice weights;
    uint32_t file_count;
    struct catalog_file *files;
    uint32_t tensor_count; /* sorted by layer, role, expert; layerless ones last */
    struct tensor *tensors;
    uint32_t unused_count; /* names that no role claims */
    const char **unused;
    uint64_t total_bytes; /* of all tensors listed in `tensors`, scales included */
    void *memory;         /* owns all of the above */
};

/* `path` is a Hugging Face model directory or a GGUF file (the first split of several). NULL on
 * failure; err names file and tensor. */
struct catalog *catalog_open(const char *path, struct error *err) MUST_CHECK;
/* With dummy weights a config.json is enough: `path` is that file or its directory. Every tensor of
 * the architecture is listed with the type that it is published in: F8_E4M3 with scales where
 * quantization_config says so, else BF16; file_count is 0. */
struct catalog *catalog_open_weights(const char *path, const struct weights_choice *weights,
                                     struct error *err) MUST_CHECK;
void catalog_close(struct catalog *catalog); /* NULL is legal */

/* "dummy" (seed 0), "dummy:SEED"; "" for published ones. */
bool weights_choice_parse(const char *text, struct weights_choice *out,
                          struct error *err) MUST_CHECK;
const char *weights_choice_write(const struct weights_choice *weights,
                                 char text[WEIGHTS_CHOICE_BYTES]);

/* int8 where a tensor is of a block type, else exact. */
enum numerics catalog_numerics(const struct catalog *catalog);

/* NULL if there is none. Layer and expert as in struct tensor. */
const struct tensor *catalog_find(const struct catalog *catalog, enum tensor_role role,
                                  uint32_t layer, uint32_t expert);

const char *tensor_role_name(enum tensor_role role); /* "experts.gate", for tables */

/* The parser alone, for tests and the fuzzer: checks one safetensors header. `file_bytes` is the
 * size of the whole file; visits every tensor, in the header's order, once all are checked. Borrows
 * all; an entry lives for its visit. */
struct safetensors_entry {
    const char *name;
    const char *dtype; /* as written, "BF16" */
    uint32_t dimension_count;
    uint64_t dimensions[8];
    uint64_t offset; /* from the start of the file */
    uint64_t bytes;
};
typedef bool (*safetensors_visit_fn)(void *context, const struct safetensors_entry *entry,
                                     struct error *err);
bool safetensors_parse_header(const char *json, size_t json_bytes, uint64_t file_bytes,
                              safetensors_visit_fn visit, void *context,
                              struct error *err) MUST_CHECK;

#endif
