/* attention.c - multi-head latent attention in its absorbed form.
 *
 * The cache keeps one latent and one rotated key per token, shared by all heads. Instead of
 * expanding them, each head's query goes into the latent space (W_UK), attends there, and the
 * attended latent becomes the head's value (W_UV): the same product, bracketed differently
 * (DeepSeek-V2 report, arXiv:2405.04434, section 2.1.3).
 *
 *   x -> norm -> q_a -> norm -> q_b -> [nope | rope] per head
 *             -> kv_a -> [latent -> norm | rotated key] -> cache
 *
 * A row's keys are cut at absolute multiples of ATTENTION_SPLIT_TOKENS, whatever the number of
 * threads: every split has its own softmax state, and the states are joined in rising order. A
 * row's state starts as split 0; later splits of all rows form batches of items, attended at once
 * over (item, heads) and then joined. Inside a split, blocks of 64 keys follow in order.
 */
#include "worker/kernels/rope.h"
#include "worker/layers/forward_state.h"

#include <math.h>
#include <string.h>

#define HEAD_ROWS 32 /* rows of one W_UK or W_UV tile */

/* One call, and inside it one chunk of at most ATTEND_ROWS rows. */
struct attention_work {
    struct forward *forward;
    const struct attention_weights *weights;
    const struct forward_row *rows;
    uint32_t layer;
    uint32_t row_begin; /* the chunk's */
    uint32_t row_count;
    uint32_t row_blocks;
    uint32_t item_count;
    uint32_t heads_per_tile;
    float softmax_scale;
};

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static void cos_sin_row(const struct forward *forward, uint32_t position, float *out)
{
    uint32_t dim = forward->config.arch->qk_rope_dim;

    if (position < forward->rope_positions) {
        memcpy(out, forward->rope_table + (size_t)position * dim, dim * sizeof(float));
        return;
    }
    rope_table_row(forward->rope_frequencies, forward->rope_multiplier, dim, position, out);
}

/* Norms the query's latent; norms and rotates the new cache entry, and stores it. */
static void entry_row(void *context, size_t row, uint32_t thread)
{
    const struct attention_work *work = context;
    const struct forward *forward = work->forward;
    const struct arch *arch = forward->config.arch;
    const struct kernels *kernels = forward->config.kernels;
    const struct attention_buffers *buffers = &forward->attention;
    const struct forward_row *at = &work->rows[row];
    uint32_t entry_values = arch->kv_lora_rank + arch->qk_rope_dim;
    float *entry = buffers->kv_a + row * entry_values;
    float *cos_sin = buffers->cos_sin + row * arch->qk_rope_dim;

    (void)thread;
    if (arch->q_lora_rank > 0) {
        float *q_a = buffers->q_a + row * arch->q_lora_rank;

        kernels->rms_norm(q_a, work->weights->q_a_norm, arch->q_lora_rank, arch->latent_norm_eps,
                          q_a);
    }
    kernels->rms_norm(entry, work->weights->kv_a_norm, arch->kv_lora_rank, arch->latent_norm_eps,
                      entry);
    cos_sin_row(forward, at->position, cos_sin);
    kernels->rope(entry + arch->kv_lora_rank, cos_sin, arch->qk_rope_dim / 2);
    kernels->kv_store(
        kv_cache_entry(forward->config.cache, work->layer, at->lane, at->slot, at->position),
        kv_cache_config(forward->config.cache)->type, entry, entry_values);
}

/* Queries and cache entries of all rows. */
static void project(struct attention_work *work, uint32_t row_count)
{
    struct forward *forward = work->forward;
    const struct arch *arch = forward->config.arch;
    const struct attention_buffers *buffers = &forward->attention;
    uint32_t q_values = arch->head_count * (arch->qk_nope_dim + arch->qk_rope_dim);
    uint32_t entry_values = arch->kv_lora_rank + arch->qk_rope_dim;
    struct rows_view x = {forward->normed, arch->hidden};
    struct rows_view q_a = {buffers->q_a, arch->q_lora_rank};
    struct rows_out q = {buffers->q, q_values};
    struct product first[] = {
        {&work->weights->kv_a, NULL, x, {buffers->kv_a, entry_values}},
        {&work->weights->q_a, NULL, x, {buffers->q_a, arch->q_lora_rank}},
    };
    struct product second = {&work->weights->q_b, NULL, q_a, q};

    if (arch->q_lora_rank == 0) {
        first[1] = (struct product){&work->weights->q_b, NULL, x, q};
    }
    product_run(forward, first, 2, row_count);
    rows_run(forward, entry_row, work, row_count);
    if (arch->q_lora_rank > 0) {
        product_run(forward, &second, 1, row_count);
    }
}

/* A tile of one head and up to HEAD_ROWS rows of the chunk. */
struct head_tile {
    uint32_t head;
    uint32_t row; /* in the chunk */
    uint32_t row_count;
};

static struct head_tile head_tile_of(const struct attention_work *work, size_t tile)
{
    uint32_t row = (uint32_t)(tile % work->row_blocks) * HEAD_ROWS;

    return (struct head_tile){
        .head = (uint32_t)(tile / work->row_blocks),
        .row = row,
        .row_count = min_u32(HEAD_ROWS, work->row_count - row),
    };
}

/* The head's queries: nope part into the latent space, rope part rotated behind it. */
static void absorb_tile(void *context, size_t tile, uint32_t thread)
{
    const struct attention_work *work = context;
    const struct forward *forward = work->forward;
    const struct arch *arch = forward->config.arch;
    const struct kernels *kernels = forward->config.kernels;
    const struct attention_buffers *buffers = &forward->attention;
    struct head_tile at = head_tile_of(work, tile);
    const struct packed_matrix *w_uk = &work->weights->w_uk[at.head];
    uint32_t width = arch->kv_lora_rank + arch->qk_rope_dim;
    uint32_t dim = arch->qk_nope_dim + arch->qk_rope_dim;
    size_t q_stride = (size_t)arch->head_count * dim;
    size_t out_stride = (size_t)arch->head_count * width;
    size_t first_row = work->row_begin + at.row;
    float *q = buffers->q + first_row * q_stride + at.head * dim;
    float *out = buffers->absorbed + at.row * out_stride + at.head * width;

    (void)thread;
    kernels->matmul(w_uk, 0, packed_panel_count(w_uk->rows), (struct rows_view){q, q_stride},
                    at.row_count, (struct rows_out){out, out_stride});
    for (uint32_t r = 0; r < at.row_count; r++) {
        const float *cos_sin = buffers->cos_sin + (first_row + r) * arch->qk_rope_dim;
        float *rotated = out + r * out_stride + arch->kv_lora_rank;

        memcpy(rotated, q + r * q_stride + arch->qk_nope_dim, arch->qk_rope_dim * sizeof(float));
        kernels->rope(rotated, cos_sin, arch->qk_rope_dim / 2);
    }
}

/* Index of head 0 of an item's state: the row itself holds split 0. */
static size_t item_state(const struct attention_work *work, uint32_t item)
{
    const struct attend_item *at = &work->forward->attention.items[item];
    size_t state = at->split == 0 ? at->row : ATTEND_ROWS + item;

    return state * work->forward->config.arch->head_count;
}

/* One (row, split) and some heads: a fresh state over the split's key blocks. */
static void attend_tile(void *context, size_t tile, uint32_t thread)
{
    const struct attention_work *work = context;
    const struct forward_config *config = &work->forward->config;
    const struct arch *arch = config->arch;
    const struct attention_buffers *buffers = &work->forward->attention;
    uint32_t tiles_per_item = (arch->head_count + work->heads_per_tile - 1) / work->heads_per_tile;
    uint32_t item = (uint32_t)(tile / tiles_per_item);
    uint32_t head = (uint32_t)(tile % tiles_per_item) * work->heads_per_tile;
    const struct attend_item *at = &buffers->items[item];
    const struct forward_row *row = &work->rows[work->row_begin + at->row];
    uint32_t begin = at->split * ATTENTION_SPLIT_TOKENS;
    uint32_t end = begin + min_u32(ATTENTION_SPLIT_TOKENS, row->position + 1 - begin);
    uint32_t width = arch->kv_lora_rank + arch->qk_rope_dim;
    size_t state = item_state(work, item) + head;
    struct attend_block_args args = {
        .query = buffers->absorbed + ((size_t)at->row * arch->head_count + head) * width,
        .head_count = min_u32(work->heads_per_tile, arch->head_count - head),
        .key_width = width,
        .value_width = arch->kv_lora_rank,
        .stride = width,
        .scale = work->softmax_scale,
        .type = kv_cache_config(config->cache)->type,
        .max = buffers->states.max + state,
        .sum = buffers->states.sum + state,
        .acc = buffers->states.acc + state * arch->kv_lora_rank,
        .scratch = buffers->scratch + thread * buffers->scratch_values,
    };

    for (uint32_t h = 0; h < args.head_count; h++) {
        args.max[h] = -INFINITY;
        args.sum[h] = 0.0f;
    }
    memset(args.acc, 0, (size_t)args.head_count * arch->kv_lora_rank * sizeof(float));
    for (uint32_t key = begin; key < end; key += KV_BLOCK_TOKENS) {
        args.keys = kv_cache_entry(config->cache, work->layer, row->lane, row->slot, key);
        args.values = args.keys;
        args.token_count = min_u32(KV_BLOCK_TOKENS, end - key);
        config->kernels->attend_block(&args);
    }
}

/* One head: joins the batch's later splits to their rows, in order. */
static void join_tile(void *context, size_t head, uint32_t thread)
{
    const struct attention_work *work = context;
    const struct forward *forward = work->forward;
    const struct arch *arch = forward->config.arch;
    const struct attend_states *states = &forward->attention.states;

    (void)thread;
    for (uint32_t i = 0; i < work->item_count; i++) {
        const struct attend_item *item = &forward->attention.items[i];
        size_t a = (size_t)item->row * arch->head_count + head;
        size_t b = item_state(work, i) + head;

        if (item->split > 0) {
            forward->config.kernels->attend_join(
                &states->max[a], &states->sum[a], states->acc + a * arch->kv_lora_rank,
                states->max[b], states->sum[b], states->acc + b * arch->kv_lora_rank,
                arch->kv_lora_rank);
        }
    }
}

/* One head's attended latents, divided by their sums, become its values. */
static void value_tile(void *context, size_t tile, uint32_t thread)
{
    const struct attention_work *work = context;
    const struct forward *forward = work->forward;
    const struct arch *arch = forward->config.arch;
    const struct kernels *kernels = forward->config.kernels;
    const struct attend_states *states = &forward->attention.states;
    struct head_tile at = head_tile_of(work, tile);
    const struct packed_matrix *w_uv = &work->weights->w_uv[at.head];
    size_t acc_stride = (size_t)arch->head_count * arch->kv_lora_rank;
    size_t out_stride = (size_t)arch->head_count * arch->v_head_dim;
    float *acc = states->acc + at.row * acc_stride + (size_t)at.head * arch->kv_lora_rank;
    float *out = forward->attention.attended + (work->row_begin + at.row) * out_stride +
                 (size_t)at.head * arch->v_head_dim;

    (void)thread;
    for (uint32_t r = 0; r < at.row_count; r++) {
        float sum = states->sum[(size_t)(at.row + r) * arch->head_count + at.head];

        kernels->scale(acc + r * acc_stride, 1.0f / sum, arch->kv_lora_rank, acc + r * acc_stride);
    }
    kernels->matmul(w_uv, 0, packed_panel_count(w_uv->rows), (struct rows_view){acc, acc_stride},
                    at.row_count, (struct rows_out){out, out_stride});
}

/* As many heads as share a block's keys well, but enough tiles for the team. */
static uint32_t heads_per_tile(const struct attention_work *work)
{
    uint32_t head_count = work->forward->config.arch->head_count;
    uint32_t heads = min_u32(ATTEND_HEADS, head_count);

    while (heads > 1 && work->item_count * (head_count / heads) < 2 * work->forward->thread_count) {
        heads = (heads + 1) / 2;
    }
    return heads;
}

static void items_attend(struct attention_work *work)
{
    struct forward *forward = work->forward;
    uint32_t head_count = forward->config.arch->head_count;
    bool later_splits = false;
    size_t tiles_per_item;

    for (uint32_t i = 0; i < work->item_count; i++) {
        later_splits = later_splits || forward->attention.items[i].split > 0;
    }
    work->heads_per_tile = heads_per_tile(work);
    tiles_per_item = (head_count + work->heads_per_tile - 1) / work->heads_per_tile;
    team_run(forward->config.team, attend_tile, work, work->item_count * tiles_per_item);
    if (later_splits) {
        team_run(forward->config.team, join_tile, work, head_count);
    }
}

/* All (row, split) pairs of the chunk, rows in order, splits rising, in batches. */
static void chunk_attend(struct attention_work *work)
{
    struct attend_item *items = work->forward->attention.items;
    struct attend_item next = {0, 0};

    while (next.row < work->row_count) {
        work->item_count = 0;
        while (next.row < work->row_count && work->item_count < ATTEND_ITEMS) {
            uint32_t position = work->rows[work->row_begin + next.row].position;

            items[work->item_count++] = next;
            next.split++;
            if (next.split > position / ATTENTION_SPLIT_TOKENS) {
                next = (struct attend_item){next.row + 1, 0};
            }
        }
        items_attend(work);
    }
}

void forward_attention(struct forward *forward, uint32_t layer, const struct forward_row *rows,
                       uint32_t row_count, float *x)
{
    const struct arch *arch = forward->config.arch;
    const struct layer_weights *weights = forward_layer(forward, layer);
    struct attention_buffers *buffers = &forward->attention;
    uint32_t value_count = arch->head_count * arch->v_head_dim;
    struct product out = {&weights->attention.out,
                          NULL,
                          {buffers->attended, value_count},
                          {buffers->out, arch->hidden}};
    struct attention_work work = {
        .forward = forward,
        .weights = &weights->attention,
        .rows = rows,
        .layer = layer,
        .softmax_scale = arch_softmax_scale(arch),
    };

    ASSERT(row_count <= forward->config.rows_max);
    if (row_count == 0) {
        return;
    }
    rows_norm(forward, x, weights->input_norm, row_count, forward->normed);
    project(&work, row_count);
    for (uint32_t begin = 0; begin < row_count; begin += ATTEND_ROWS) {
        size_t tiles;

        work.row_begin = begin;
        work.row_count = min_u32(ATTEND_ROWS, row_count - begin);
        work.row_blocks = (work.row_count + HEAD_ROWS - 1) / HEAD_ROWS;
        tiles = (size_t)arch->head_count * work.row_blocks;
        team_run(forward->config.team, absorb_tile, &work, tiles);
        chunk_attend(&work);
        team_run(forward->config.team, value_tile, &work, tiles);
    }
    product_run(forward, &out, 1, row_count);
    rows_add(forward, x, buffers->out, row_count);
}
