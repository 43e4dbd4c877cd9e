#ifndef SHOAL_LAYERS_WEIGHTS_H
#define SHOAL_LAYERS_WEIGHTS_H

/* The weights of one worker in kernel layout, and the list of what must be read to fill them.
 *
 * weights_plan decides from shapes alone which tensors a share of the model needs and where each
 * goes; nothing is allocated, so the ledger can be printed first. weights_bind then gives the plan
 * its memory; the loader executes `pieces` in any order, on any number of threads. Parts are what
 * another share of the same model may take over as they are.
 */
#include "common/base/error.h"
#include "common/model/arch.h"
#include "common/model/catalog.h"
#include "worker/kernels/packed.h"

/* The share of one worker. */
struct weights_share {
    uint32_t layer_begin, layer_end; /* of main layers */
    bool has_embedding;              /* first stage; of the last one too, for the draft layer */
    bool has_head;                   /* last stage: final norm and head */
    bool has_draft;                  /* last stage: the draft layer behind layer_end */
    /* Bit per (layer - layer_begin, expert), row-major [layers][expert_count], the draft layer's
     * row last; NULL: all experts. */
    const uint8_t *owned_experts; /* byte per expert: 0 or 1 */
};

struct mlp_weights {
    struct packed_matrix gate, up, down;
};
struct attention_weights {
    struct packed_matrix q_a, q_b; /* q_lora_rank 0: q_a.data NULL, q_b is the whole projection */
    struct packed_matrix kv_a;
    /* Per head h: w_uk[h] maps the query's nope part into the latent (rows kv_lora, columns nope);
     * w_uv[h] maps the attended latent to the head's value (rows v_head, columns kv_lora). Of
     * F8_E4M3 they are f32: code * scale, rounded once; w_uk of a joined kv_b_proj of blocks is
     * f32 too, exactly. Their products are always exact ones. */
    struct packed_matrix *w_uk, *w_uv; /* [head_count] */
    struct packed_matrix out;
    float *q_a_norm, *kv_a_norm;
    /* Grouped attention has these instead of all but `out`; NULL without biases or norms. */
    struct packed_matrix q, k, v;
    float *q_bias, *k_bias, *v_bias, *out_bias;
    float *q_norm, *k_norm;
};
struct layer_weights {
    float *input_norm, *post_norm;
    struct attention_weights attention;
    struct mlp_weights dense;    /* dense layers */
    struct mlp_weights shared;   /* MoE layers; gate.data NULL when there is none */
    struct packed_matrix router; /* MoE layers */
    float *router_bias;          /* [expert_count]; zeros when the model has none */
    struct mlp_weights *experts; /* [expert_count]; gate.data NULL: not owned */
};

/* One tensor (or part) to be read and where it goes. */
enum piece_kind {
    PIECE_PACK,  /* rows → packed matrix */
    PIECE_WIDEN, /* values → f32 vector */
    PIECE_KV_B,  /* kv_b_proj → w_uk (transposed) and w_uv of every head */
    PIECE_HEADS, /* as many rows for each head → its w_uk, or its w_uv */
    PIECE_COPY,  /* rows kept as published: the embedding */
};
struct weights_piece {
    enum piece_kind kind;
    const struct tensor *tensor; /* lent by the catalog */
    uint64_t destination;        /* byte offset in the weights' region; KV_B: of w_uk[0], HEADS:
                                    of the first head's matrix */
    uint64_t destination_bytes;
    uint32_t part; /* that it belongs to */
};

/* What a worker keeps or gives up as one: the same bytes in every share that has it. */
enum part_kind {
    PART_EMBEDDING,
    PART_LAYER,  /* all of a layer but its routed experts; of the draft layer, too */
    PART_EXPERT, /* gate, up and down of one routed expert */
    PART_DRAFT,  /* what the draft layer has beside those of a layer */
    PART_HEAD,   /* final norm and head */
};
struct weights_part {
    enum part_kind kind;
    uint32_t layer, expert; /* 0 where there is none */
    uint64_t offset;        /* in the weights' region; a multiple of 4096 */
    uint64_t bytes;         /* likewise */
    uint64_t file_bytes;    /* to be read */
    char *memory;           /* NULL before it is bound */
    bool is_filled;         /* its pieces' values are there */
};

/* What the draft layer has beside those of a layer. Its published embedding and head are copies of
 * the main ones, which serve instead. */
struct draft_weights {
    float *token_norm, *hidden_norm; /* enorm, hnorm */
    struct packed_matrix projection; /* eh_proj: [hidden][2 * hidden], embedding first */
    float *final_norm;               /* shared_head.norm */
};

struct weights {
    struct arch arch;
    uint32_t layer_begin, layer_end; /* the draft layer included */
    struct layer_weights *layers;    /* [layer_end - layer_begin] */
    const void *embedding;           /* row-major [vocab][hidden] as published, or NULL */
    enum weight_type embedding_type;
    float *final_norm;
    struct packed_matrix head;  /* data NULL without the head */
    struct draft_weights draft; /* all NULL without the draft layer */
    uint32_t piece_count;
    struct weights_piece *pieces; /* those of a part lie together */
    uint32_t part_count;
    struct weights_part *parts; /* in the order of their offsets */
    uint64_t memory_bytes;      /* of all parts: a multiple of 4096 */
    uint64_t file_bytes;        /* likewise */
    void *plan_memory;
};

/* Borrows the catalog for the weights' life. err: ERROR_INPUT names a missing tensor. */
struct weights *weights_plan(const struct catalog *catalog, const struct weights_share *share,
                             struct error *err) MUST_CHECK;
/* `memory`: weights->memory_bytes zeroed bytes, 64-byte aligned, borrowed. Parts take their places
 * in it; sets all pointers. */
void weights_bind(struct weights *weights, void *memory);
/* The same where each part has its own memory, which the caller has set. */
void weights_bind_parts(struct weights *weights);
/* Rows [begin, end) of a tensor as they are in its file. */
struct weights_rows {
    uint32_t begin, end;
    const void *values;
    const float
        *scales; /* F8_E4M3: of the block rows [begin / 128, ceil(end / 128)); else unused */
};
/* Executes these rows of a piece; row ranges of one piece that start at multiples of
 * weights_piece_granularity() may run at the same time on several threads. ERROR_INPUT names a
 * tensor with NaN codes of F8_E4M3 or scales that are not finite. */
bool weights_fill(const struct weights *weights, const struct weights_piece *piece,
                  const struct weights_rows *rows, struct error *err) MUST_CHECK;
/* What W_UK and W_UV of a joined kv_b_proj are kept as. */
enum weight_type weights_uk_type(const struct tensor *kv_b);
enum weight_type weights_uv_type(const struct tensor *kv_b);
uint32_t weights_piece_granularity(const struct weights *weights,
                                   const struct weights_piece *piece);
void weights_destroy(struct weights *weights); /* not the bound memory; NULL is legal */

#endif
