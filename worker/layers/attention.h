#ifndef SHOAL_LAYERS_ATTENTION_H
#define SHOAL_LAYERS_ATTENTION_H

/* What both kinds of attention share: rows are cut into chunks, a row's keys into splits, and the
 * online softmax over them is the same; what differs is where queries, cache entries and values
 * come from. Private to worker/layers. */
#include "worker/layers/forward_state.h"

struct attention_form;

/* One call, and inside it one chunk of at most ATTEND_ROWS rows. */
struct attention_work {
    struct forward *forward;
    const struct attention_form *form;
    const struct attention_weights *weights;
    const struct forward_row *rows;
    uint32_t layer;
    uint32_t row_begin; /* the chunk's */
    uint32_t row_count;
    const float *query; /* [row of the chunk][heads][key_width] */
    float softmax_scale;

    struct attend_shape shape;
    uint32_t row_blocks; /* of the tiles that go over heads and rows */
    uint32_t item_count; /* of the batch at hand */
    uint32_t pair_count; /* its rows of later splits */
    uint32_t heads_per_tile;

    uint32_t expand_item_count;
    uint32_t expand_rows; /* of one tile, at most */
};

struct attention_form {
    /* Queries and cache entries of all rows, from the normed input; stores the entries. */
    void (*project)(struct attention_work *work, uint32_t row_count);
    /* The chunk's queries as they meet the keys: sets work->query. */
    void (*queries)(struct attention_work *work);
    /* The chunk's states become rows of `attended`. */
    void (*values)(struct attention_work *work);
    /* Prompt rows meet their own segment in a form of its own, after the others. NULL: they don't.
     */
    void (*segments)(struct attention_work *work, uint32_t row_count);
};
extern const struct attention_form attention_latent;
extern const struct attention_form attention_grouped;

/* The entries alone: of latent attention. */
void attention_latent_store(struct attention_work *work, uint32_t row_count);
/* Expanded latent attention of the prompt rows (attention_expanded.c), and its scratch of a thread,
 * in floats. */
void attention_expanded(struct attention_work *work, uint32_t row_count);
uint64_t attention_expanded_values(const struct arch *arch, uint32_t rows_max);

/* cos and sin of a position, for attention_rotate. */
void attention_cos_sin(const struct forward *forward, uint32_t position, float *out);
/* Store cache entries, from buffers->entries, as the cache's type: one row's of latent attention;
 * all rows' of grouped attention, over the team (uses the threads' scratch). */
void attention_store_latent(const struct attention_work *work, size_t row);
void attention_store_grouped(const struct attention_work *work, uint32_t row_count);
/* Rotates qk_rope_dim values. */
void attention_rotate(const struct forward *forward, float *x, const float *cos_sin);

#endif
