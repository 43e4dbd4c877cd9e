/* attention_expanded.c - latent attention of prompts inside a segment, in its expanded form.
 *
 * A cached latent becomes a key and a value of each head, k = [W_UK c, rotated key] and v = W_UV c
 * (DeepSeek-V2 report, arXiv:2405.04434, section 2.1.2), which many queries then meet at less than
 * a third of the absorbed form's cost. What a row takes in which form depends on its position
 * alone: its own segment of ATTENTION_SEGMENT_TOKENS here, earlier ones absorbed
 * (attention_latent.c). So a chunk that begins inside a segment expands the earlier keys of the
 * segment again, from the cache, to the same bits.
 *
 * A tile is one head of an item: it goes through the segment's blocks once, and all rows of the
 * item meet each block while it is in the thread's cache. Tiles of the same head follow each other,
 * so that its matrices are widened once.
 */
#include "worker/layers/attention.h"

#include <math.h>
#include <string.h>

#define EXPAND_ROWS     512 /* of a tile, at most */
#define EXPAND_ROWS_MIN 64  /* not less for the sake of more tiles */

struct expand_scratch {
    float *kernel;
    float *uk, *uv; /* the head's W_UK transposed and W_UV, packed f32 */
    float *panel;   /* [nope][16] */
    float *entries; /* [64][kv_lora + rope] */
    float *natural; /* [64][nope + rope] */
    float *keys;    /* [nope + rope][64] */
    float *values;  /* [64][v] */
    float *query;   /* [rows][nope + rope] */
    float *acc;     /* [rows][v] */
    float *max, *sum;
};

static float *floats_take(float *base, uint64_t *used, uint64_t count)
{
    float *taken = base == NULL ? NULL : base + *used;

    *used += (count + 15) / 16 * 16;
    return taken;
}

static uint64_t scratch_lay_out(const struct arch *arch, uint32_t rows_max, float *base,
                                struct expand_scratch *out)
{
    uint32_t dim = arch->qk_nope_dim + arch->qk_rope_dim;
    uint32_t widest = dim > arch->v_head_dim ? dim : arch->v_head_dim;
    uint64_t rows = rows_max < EXPAND_ROWS ? rows_max : EXPAND_ROWS;
    uint64_t lora = arch->kv_lora_rank;
    uint64_t used = 0;

    out->kernel = floats_take(base, &used, attend_scratch_values(widest, ATTEND_QUERIES));
    out->uk = floats_take(base, &used, packed_panel_count(arch->qk_nope_dim) * PANEL_ROWS * lora);
    out->uv = floats_take(base, &used, packed_panel_count(arch->v_head_dim) * PANEL_ROWS * lora);
    out->panel = floats_take(base, &used, (uint64_t)arch->qk_nope_dim * PANEL_ROWS);
    out->entries = floats_take(base, &used, KV_BLOCK_TOKENS * (lora + arch->qk_rope_dim));
    out->natural = floats_take(base, &used, KV_BLOCK_TOKENS * (uint64_t)dim);
    out->keys = floats_take(base, &used, attend_turned_values(dim, KV_BLOCK_TOKENS));
    out->values = floats_take(base, &used, KV_BLOCK_TOKENS * (uint64_t)arch->v_head_dim);
    out->query = floats_take(base, &used, rows * dim);
    out->acc = floats_take(base, &used, rows * arch->v_head_dim);
    out->max = floats_take(base, &used, rows);
    out->sum = floats_take(base, &used, rows);
    return used;
}

uint64_t attention_expanded_values(const struct arch *arch, uint32_t rows_max)
{
    struct expand_scratch measured;

    return scratch_lay_out(arch, rows_max, NULL, &measured);
}

/* One head of an item. */
struct expand_tile {
    const struct forward_row *rows;
    uint32_t row; /* the first, in the step */
    uint32_t row_count;
    uint32_t head;
    struct expand_scratch scratch;
    struct packed_matrix uk, uv;
};

/* The head's matrices, unless the thread has them from its tile before. */
static void tile_weights(const struct attention_work *work, struct expand_tile *tile,
                         uint32_t thread)
{
    const struct forward *forward = work->forward;
    const struct arch *arch = forward->config.arch;
    const struct kernels *kernels = forward->config.kernels;
    const struct packed_matrix *uk = &work->weights->w_uk[tile->head];
    const struct packed_matrix *uv = &work->weights->w_uv[tile->head];
    uint32_t *widened = &forward->attention.widened_heads[thread];
    bool is_f32 = uv->type == WEIGHT_F32;

    tile->uk =
        (struct packed_matrix){WEIGHT_F32, arch->qk_nope_dim, arch->kv_lora_rank, tile->scratch.uk};
    tile->uv = (struct packed_matrix){WEIGHT_F32, arch->v_head_dim, arch->kv_lora_rank,
                                      is_f32 ? uv->data : tile->scratch.uv};
    if (*widened == tile->head + 1) {
        return;
    }
    kernels->widen_transposed(uk, tile->scratch.panel, tile->scratch.uk);
    if (!is_f32) {
        kernels->widen(uv, tile->scratch.uv);
    }
    *widened = tile->head + 1;
}

/* Queries, their rope parts rotated, and fresh states. */
static void tile_begin(const struct attention_work *work, const struct expand_tile *tile)
{
    const struct forward *forward = work->forward;
    const struct arch *arch = forward->config.arch;
    const struct attention_buffers *buffers = &forward->attention;
    size_t dim = arch->qk_nope_dim + arch->qk_rope_dim;
    const float *from = buffers->q + (tile->row * (size_t)arch->head_count + tile->head) * dim;
    const float *cos_sin = buffers->cos_sin + tile->row * (size_t)arch->qk_rope_dim;

    for (uint32_t r = 0; r < tile->row_count; r++) {
        float *query = tile->scratch.query + r * dim;

        memcpy(query, from + r * arch->head_count * dim, dim * sizeof(float));
        attention_rotate(forward, query + arch->qk_nope_dim, cos_sin + r * arch->qk_rope_dim);
        tile->scratch.max[r] = -INFINITY;
        tile->scratch.sum[r] = 0.0f;
    }
    memset(tile->scratch.acc, 0, (size_t)tile->row_count * arch->v_head_dim * sizeof(float));
}

/* The first `count` entries of the block that begins at position `key`, as f32. */
static void entries_read(const struct attention_work *work, const struct expand_tile *tile,
                         uint32_t key, uint32_t count)
{
    const struct kernels *kernels = work->forward->config.kernels;
    const struct kv_cache *cache = work->forward->config.cache;
    const struct kv_layout *layout = &kv_cache_config(cache)->layout;
    const char *block = kv_cache_block(cache, work->layer, tile->rows->lane, tile->rows->slot, key);
    const float *scales = (const void *)(block + layout->scale_begin);
    size_t width = layout->key_width, latent = layout->value_width;

    if (layout->type != KV_Q8) {
        kernels->kv_load(tile->scratch.entries, block, layout->type, count * width);
        return;
    }
    for (uint32_t t = 0; t < count; t++) {
        const int8_t *codes = (const int8_t *)block + t * width;
        float *entry = tile->scratch.entries + t * width;

        kernels->kv_load_q8(entry, codes, scales[t], latent);
        kernels->kv_load_q8(entry + latent, codes + latent, scales[KV_BLOCK_TOKENS + t],
                            width - latent);
    }
}

/* The head's keys, dimension by dimension, and values of the block's first `count` tokens. */
static void block_expand(const struct attention_work *work, const struct expand_tile *tile,
                         uint32_t key, uint32_t count)
{
    const struct arch *arch = work->forward->config.arch;
    const struct kernels *kernels = work->forward->config.kernels;
    const struct expand_scratch *scratch = &tile->scratch;
    size_t width = arch->kv_lora_rank + arch->qk_rope_dim;
    size_t dim = arch->qk_nope_dim + arch->qk_rope_dim;
    struct rows_view latents = {scratch->entries, width};

    entries_read(work, tile, key, count);
    kernels->matmul_exact(&tile->uk, 0, packed_panel_count(tile->uk.rows), latents, count,
                          (struct rows_out){scratch->natural, dim});
    kernels->matmul_exact(&tile->uv, 0, packed_panel_count(tile->uv.rows), latents, count,
                          (struct rows_out){scratch->values, arch->v_head_dim});
    for (uint32_t t = 0; t < count; t++) {
        memcpy(scratch->natural + t * dim + arch->qk_nope_dim,
               scratch->entries + t * width + arch->kv_lora_rank,
               arch->qk_rope_dim * sizeof(float));
    }
    kernels->attend_turn(scratch->natural, KV_BLOCK_TOKENS, dim, scratch->keys);
}

/* The tile's rows meet the block, some at a time. */
static void block_attend(const struct attention_work *work, const struct expand_tile *tile,
                         uint32_t key)
{
    const struct arch *arch = work->forward->config.arch;
    const struct expand_scratch *scratch = &tile->scratch;
    uint32_t dim = arch->qk_nope_dim + arch->qk_rope_dim;
    uint32_t token_counts[ATTEND_QUERIES];
    struct attend_block_args args = {
        .head_count = 1,
        .token_counts = token_counts,
        .key_width = dim,
        .value_width = arch->v_head_dim,
        .scale = work->softmax_scale,
        .type = KV_F32,
        .keys = scratch->keys,
        .values = scratch->values,
        .scratch = scratch->kernel,
    };

    for (uint32_t row = 0; row < tile->row_count; row += args.row_count) {
        uint32_t left = tile->row_count - row;

        args.row_count = left < ATTEND_QUERIES ? left : ATTEND_QUERIES;
        for (uint32_t r = 0; r < args.row_count; r++) {
            uint32_t seen = tile->rows[row + r].position + 1;

            seen = seen > key ? seen - key : 0;
            token_counts[r] = seen < KV_BLOCK_TOKENS ? seen : KV_BLOCK_TOKENS;
        }
        if (token_counts[args.row_count - 1] == 0) {
            continue; /* all rows end before the block */
        }
        args.query = scratch->query + (size_t)row * dim;
        args.max = scratch->max + row;
        args.sum = scratch->sum + row;
        args.acc = scratch->acc + (size_t)row * arch->v_head_dim;
        work->forward->config.kernels->attend_block(&args);
    }
}

/* Behind the state over earlier segments, where there is one, and divided by the sum. */
static void tile_end(const struct attention_work *work, const struct expand_tile *tile)
{
    const struct forward *forward = work->forward;
    const struct arch *arch = forward->config.arch;
    const struct attention_buffers *buffers = &forward->attention;
    const struct expand_scratch *scratch = &tile->scratch;
    uint32_t width = arch->v_head_dim;
    bool is_first = tile->rows->position < ATTENTION_SEGMENT_TOKENS;

    for (uint32_t r = 0; r < tile->row_count; r++) {
        size_t at = (size_t)(tile->row + r) * arch->head_count + tile->head;
        float *out = buffers->attended + at * width;
        const float *acc = scratch->acc + (size_t)r * width;

        if (is_first) {
            forward->config.kernels->scale(acc, 1.0f / scratch->sum[r], width, out);
            continue;
        }
        forward->config.kernels->attend_join(&buffers->earlier_max[at], &buffers->earlier_sum[at],
                                             out, scratch->max[r], scratch->sum[r], acc, width);
        forward->config.kernels->scale(out, 1.0f / buffers->earlier_sum[at], width, out);
    }
}

static void expand_run(void *context, size_t index, uint32_t thread)
{
    const struct attention_work *work = context;
    const struct forward *forward = work->forward;
    const struct attention_buffers *buffers = &forward->attention;
    const struct expand_item *item = &buffers->expand_items[index % work->expand_item_count];
    struct expand_tile tile = {
        .rows = work->rows + item->row,
        .row = item->row,
        .row_count = item->row_count,
        .head = (uint32_t)(index / work->expand_item_count),
    };
    uint32_t end = tile.rows[tile.row_count - 1].position + 1;

    scratch_lay_out(forward->config.arch, forward->config.rows_max,
                    buffers->scratch + thread * buffers->scratch_values, &tile.scratch);
    tile_weights(work, &tile, thread);
    tile_begin(work, &tile);
    for (uint32_t key = tile.rows->position / ATTENTION_SEGMENT_TOKENS * ATTENTION_SEGMENT_TOKENS;
         key < end; key += KV_BLOCK_TOKENS) {
        block_expand(work, &tile, key, end - key < KV_BLOCK_TOKENS ? end - key : KV_BLOCK_TOKENS);
        block_attend(work, &tile, key);
    }
    tile_end(work, &tile);
}

static bool meet_same_keys(const struct forward_row *a, const struct forward_row *b)
{
    return b->token_class == TOKEN_PROMPT && a->lane == b->lane && a->slot == b->slot &&
           a->position / ATTENTION_SEGMENT_TOKENS == b->position / ATTENTION_SEGMENT_TOKENS;
}

/* The prompt rows, cut by sequence, segment and the rows of a tile. */
static void items_list(struct attention_work *work, uint32_t row_count)
{
    const struct forward_row *rows = work->rows;
    uint32_t count;

    work->expand_item_count = 0;
    for (uint32_t row = 0; row < row_count; row += count) {
        count = 1;
        if (rows[row].token_class != TOKEN_PROMPT) {
            continue;
        }
        while (row + count < row_count && count < work->expand_rows &&
               meet_same_keys(&rows[row], &rows[row + count])) {
            count++;
        }
        work->forward->attention.expand_items[work->expand_item_count++] =
            (struct expand_item){.row = row, .row_count = count};
    }
}

void attention_expanded(struct attention_work *work, uint32_t row_count)
{
    struct forward *forward = work->forward;
    size_t head_count = forward->config.arch->head_count;
    uint32_t before;

    memset(forward->attention.widened_heads, 0, forward->thread_count * sizeof(uint32_t));
    work->expand_rows = EXPAND_ROWS;
    items_list(work, row_count);
    do { /* as many rows as there are, but enough tiles for the team */
        before = work->expand_rows;
        if (work->expand_item_count * head_count < 2 * (size_t)forward->thread_count &&
            before > EXPAND_ROWS_MIN) {
            work->expand_rows /= 2;
            items_list(work, row_count);
        }
    } while (work->expand_item_count > 0 && work->expand_rows != before);
    team_run(forward->config.team, expand_run, work, work->expand_item_count * head_count);
}
