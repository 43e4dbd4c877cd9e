#ifndef SHOAL_LAYERS_FORWARD_STATE_H
#define SHOAL_LAYERS_FORWARD_STATE_H

/* What the files of the forward pass share: its buffers and the ways to spread work over the team.
 * Private to worker/layers.
 *
 * One region holds everything. `normed`, the rope table and the frequencies live as long as the
 * forward; the buffers of attention, MLP, router and experts lie over one another, because each
 * public call uses one of them and leaves nothing behind.
 */
#include "worker/layers/forward.h"

#define ATTEND_ROWS          64 /* rows whose absorbed queries are held at a time */
#define ATTEND_PAIRS         64 /* (row, later split) pairs whose states wait to be joined */
#define ATTEND_QUERIES       64 /* rows times heads of one attention tile, at most */
#define EXPERT_ROWS          64 /* rows of one expert tile, at most */
#define EXPERT_PANELS        16 /* panels of one expert tile, at most */
#define ROPE_TABLE_BYTES_MAX ((uint64_t)64 << 20)

/* How heads meet the cache: group g of heads reads key and value head g. */
struct attend_shape {
    uint32_t group_count;
    uint32_t group_heads;
    uint32_t key_width;
    uint32_t value_width;
};
struct attend_shape attend_shape_of(const struct arch *arch);

/* One online-softmax state per head, see struct attend_block_args. State i, head h is at
 * max[i * heads + h] and acc[(i * heads + h) * value_width]. */
struct attend_states {
    float *max;
    float *sum;
    float *acc;
};

/* Rows of one sequence, which meet the same keys. */
struct attend_item {
    uint32_t row; /* the first, in the chunk */
    uint32_t row_count;
    uint32_t split_begin, split_end; /* several are joined in the tile: from the first one on */
    uint32_t state;                  /* of its first row: rows stand first, pairs behind them */
};

/* Rows of one prompt in one segment, which meet its keys expanded. */
struct expand_item {
    uint32_t row; /* the first, in the step */
    uint32_t row_count;
};

struct attention_buffers {
    float *q_a;      /* [rows][q_lora] */
    float *q;        /* [rows][heads][nope + rope] */
    float *entries;  /* [rows][arch_kv_values]: the cache entries, in f32 */
    float *cos_sin;  /* [rows][rope] */
    float *attended; /* [rows][heads][v] */
    float *out;      /* [rows][hidden] */
    float *absorbed; /* MLA: [ATTEND_ROWS][heads][kv_lora + rope] */
    /* The chunk's rows first (they start as split 0), then one for each pair of a batch. */
    struct attend_states states;
    struct attend_item *items; /* [ATTEND_ROWS + ATTEND_PAIRS] */
    /* MLA: [rows][heads], of prompt rows the state over earlier segments, whose values stand in
     * `attended` */
    float *earlier_max, *earlier_sum;
    struct expand_item *expand_items; /* MLA: [rows] */
    uint32_t *widened_heads; /* MLA: [threads], the head + 1 whose matrices are in its scratch */
    /* [threads][scratch_values]: the kernel's, then a tile's queries, its states, those of a split
     * to be joined, queries turned; or
     * what attention_expanded.c lays out */
    float *scratch;
    size_t scratch_values;
    size_t kernel_values;
};

struct draft_buffers {
    float *joined; /* [rows][2 * hidden]; no rows without a draft layer */
};

struct mlp_buffers {
    float *act; /* [rows][width] */
    float *out; /* [rows][hidden] */
};

struct router_buffers {
    float *scores;     /* [rows][experts] */
    float *choice;     /* [threads][experts + groups] */
    uint8_t *excluded; /* [threads][experts + groups] */
};

/* The jobs of one expert: sorted jobs [begin, begin + count). */
struct expert_span {
    uint32_t expert;
    uint32_t begin;
    uint32_t count;
    struct rows_view input;
    size_t up_tile_begin;
    size_t down_tile_begin;
};

struct expert_buffers {
    uint32_t *order;           /* [jobs]: job indexes by expert */
    uint32_t *counts;          /* [experts + 1] */
    struct expert_span *spans; /* [experts] */
    float *gathered;           /* [jobs][hidden]; or in its place: */
    struct int8_rows input;    /* [jobs], hidden columns */
    float *act;                /* [jobs][expert_width] */
    struct int8_rows act_codes;
    float *rows; /* [threads][EXPERT_ROWS][EXPERT_PANELS * PANEL_ROWS] */
};

struct forward {
    struct forward_config config;
    uint32_t thread_count;
    char *memory;
    uint64_t memory_bytes;

    float *normed;            /* [rows][hidden] */
    double *rope_frequencies; /* [rope / 2] */
    double rope_multiplier;
    float *rope_table;       /* [rope_positions][rope] */
    uint32_t rope_positions; /* 0: too large a table; rows are made when they are needed */

    char *codes; /* activations of product_run as int8 */
    uint64_t codes_bytes;

    struct attention_buffers attention;
    struct mlp_buffers mlp;
    struct draft_buffers draft;
    struct router_buffers router;
    struct expert_buffers experts;
};

const struct layer_weights *forward_layer(const struct forward *forward, uint32_t layer);

/* The token's embedding, widened to f32 [hidden]. */
void embedding_read(const struct forward *forward, uint32_t token, float *out);
/* Runs fn for every row: on the team, or here when there are only a few. */
void rows_run(struct forward *forward, team_fn fn, void *context, uint32_t row_count);
/* out[r] = rms_norm(x[r]) over rows of `hidden` values. */
void rows_norm(struct forward *forward, const float *x, const float *weight, uint32_t row_count,
               float *out);
/* x[r] += y[r] over rows of `hidden` values. */
void rows_add(struct forward *forward, float *x, const float *y, uint32_t row_count);

enum product_activations {
    PRODUCT_BY_NUMERICS,
    PRODUCT_F32, /* in any numerics: small ones whose errors reach far */
};
/* One product of the same rows as its neighbours in a call of product_run. */
struct product {
    const struct packed_matrix *w;
    const struct packed_matrix *up; /* not NULL: out = silu(w . x) * (up . x) */
    struct rows_view x;
    struct rows_out out;
    enum product_activations activations; /* PRODUCT_F32 only without `up` */
};
/* Whether products of these weights read activations as codes; `up` may be NULL. */
bool product_is_coded(const struct forward *forward, const struct packed_matrix *w,
                      const struct packed_matrix *up);
/* Rows become codes for weights of `type`, on the team or here when they are few. */
void codes_run(struct forward *forward, enum weight_type type, uint32_t columns, struct rows_view x,
               uint32_t row_count, struct int8_rows out);
/* How many panels one tile takes: `panels`, cut to what suits the kernels; 1 … panels_max. */
uint32_t panels_rounded(size_t panels, uint32_t panels_max);
/* All products in one pass of the team: tiles of rows x panels. */
void product_run(struct forward *forward, const struct product *products, uint32_t product_count,
                 uint32_t row_count);

#endif
