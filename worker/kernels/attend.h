#ifndef SHOAL_KERNELS_ATTEND_H
#define SHOAL_KERNELS_ATTEND_H

/* Attention over one key block, for one level: written over a lanes header, float_chain.h,
 * row_math.h and kv_values.h. The online softmax is Milakov and Gimelshein's (arXiv:1805.02867).
 * In absorbed MLA (DeepSeek-V2 report, arXiv:2405.04434, section 2.1) a value is the beginning of
 * its key; grouped heads (arXiv:2305.13245) keep both apart.
 *
 * Scratch, in floats, width being the larger one, rounded up to whole lanes:
 *
 *   natural     [64][width]    keys, then values, as f32: lanes across a value's dimensions
 *   transposed  [width][64]    the keys, lanes across tokens
 *   scores      [head][64]     s, then p
 *
 * Both products are then the chain of float_chain.h: q·k rises over the width, p·v over the tokens.
 */
#include "worker/kernels/kernels.h"

struct attend_tiles {
    float *natural, *transposed, *scores;
    size_t width; /* rounded up: stride of natural */
    size_t token_panels;
};

static inline struct attend_tiles attend_tiles_of(const struct attend_block_args *a)
{
    const size_t widest = a->key_width > a->value_width ? a->key_width : a->value_width;
    const size_t width = (widest + LANE_COUNT - 1) / LANE_COUNT * LANE_COUNT;
    struct attend_tiles tiles = {
        .natural = a->scratch,
        .transposed = a->scratch + width * KV_BLOCK_TOKENS,
        .scores = a->scratch + 2 * width * KV_BLOCK_TOKENS,
        .width = width,
        .token_panels = ((size_t)a->token_count + LANE_COUNT - 1) / LANE_COUNT,
    };

    return tiles;
}

/* Tokens beyond the last, up to whole lanes, and the padding of the width become zeros. */
static inline void attend_fill(const struct attend_block_args *a, const struct attend_tiles *tiles,
                               const void *values, size_t count)
{
    const size_t tokens = tiles->token_panels * LANE_COUNT;
    const size_t stride_bytes = (size_t)a->stride * kv_type_bytes(a->type);

    for (size_t token = 0; token < tokens; token++) {
        float *row = tiles->natural + token * tiles->width;
        size_t filled = token < a->token_count ? count : 0;

        if (filled > 0) {
            kv_values_load(row, (const char *)values + token * stride_bytes, a->type, count);
        }
        memset(row + filled, 0, (tiles->width - filled) * sizeof(float));
    }
}

static inline void attend_transpose(const struct attend_tiles *tiles)
{
    for (size_t token = 0; token < tiles->token_panels * LANE_COUNT; token += 8) {
        for (size_t k = 0; k < tiles->width; k += 8) {
            lanes_transpose_8x8(tiles->natural + token * tiles->width + k, tiles->width,
                                tiles->transposed + k * KV_BLOCK_TOKENS + token, KV_BLOCK_TOKENS);
        }
    }
}

/* scores[head][token] = q · key */
static inline void attend_scores(const struct attend_block_args *a,
                                 const struct attend_tiles *tiles)
{
    const struct chain chain = {
        .w = (const char *)tiles->transposed,
        .panel_bytes = LANE_COUNT * sizeof(float),
        .step_bytes = KV_BLOCK_TOKENS * sizeof(float),
        .x = a->query,
        .x_stride = a->key_width,
        .k_count = a->key_width,
        .sums = tiles->scores,
        .sums_stride = KV_BLOCK_TOKENS,
    };

    memset(tiles->scores, 0, (size_t)a->head_count * KV_BLOCK_TOKENS * sizeof(float));
    chain_product(a->head_count, tiles->token_panels, lanes_load_f32, chain);
}

/* The head's scores become weights; its state is brought to the new maximum. */
static inline void attend_weigh(const struct attend_block_args *a, uint32_t head, float *scores)
{
    float *acc = a->acc + (size_t)head * a->value_width;
    float max_before = a->max[head];
    float max, factor;

    row_scale(scores, a->scale, a->token_count, scores);
    max = row_max(scores, a->token_count);
    max = max > max_before ? max : max_before;
    factor = exp_of(max_before - max);
    a->max[head] = max;
    a->sum[head] = a->sum[head] * factor + row_exp_sum(scores, a->token_count, max);
    if (factor != 1.0f) {
        row_scale(acc, factor, a->value_width, acc);
    }
}

/* acc[head][r] += p · value: whole lanes in place, the rest through a padded tile. */
static inline void attend_values(const struct attend_block_args *a,
                                 const struct attend_tiles *tiles)
{
    const size_t panels = a->value_width / LANE_COUNT;
    const size_t done = panels * LANE_COUNT;
    const size_t rest = a->value_width - done;
    struct chain chain = {
        .w = (const char *)tiles->natural,
        .panel_bytes = LANE_COUNT * sizeof(float),
        .step_bytes = tiles->width * sizeof(float),
        .x = tiles->scores,
        .x_stride = KV_BLOCK_TOKENS,
        .k_count = a->token_count,
        .sums = a->acc,
        .sums_stride = a->value_width,
    };

    chain_product(a->head_count, panels, lanes_load_f32, chain);
    for (size_t head = 0; rest > 0 && head < a->head_count; head++) {
        float *acc = a->acc + head * a->value_width + done;
        float tile[LANE_COUNT];

        lanes_store(tile, lanes_load_part(acc, rest, 0.0f));
        chain.w = (const char *)(tiles->natural + done);
        chain.x = tiles->scores + head * KV_BLOCK_TOKENS;
        chain.sums = tile;
        chain_product(1, 1, lanes_load_f32, chain);
        memcpy(acc, tile, rest * sizeof(float));
    }
}

static inline void attend_block(const struct attend_block_args *a)
{
    const struct attend_tiles tiles = attend_tiles_of(a);

    DEBUG_ASSERT(a->token_count >= 1 && a->token_count <= KV_BLOCK_TOKENS);
    DEBUG_ASSERT(a->values != a->keys || a->value_width <= a->key_width);
    attend_fill(a, &tiles, a->keys, a->key_width);
    attend_transpose(&tiles);
    attend_scores(a, &tiles);
    for (uint32_t head = 0; head < a->head_count; head++) {
        attend_weigh(a, head, tiles.scores + (size_t)head * KV_BLOCK_TOKENS);
    }
    if (a->values != a->keys) {
        attend_fill(a, &tiles, a->values, a->value_width);
    }
    attend_values(a, &tiles);
}

static inline float attend_factor(float max_before, float max)
{
    return max_before == -INFINITY ? 0.0f : exp_of(max_before - max);
}

static inline void attend_join(float *max_a, float *sum_a, float *acc_a, float max_b, float sum_b,
                               const float *acc_b, uint32_t value_width)
{
    const float max = *max_a > max_b ? *max_a : max_b;
    const float factor_a = attend_factor(*max_a, max);
    const float factor_b = attend_factor(max_b, max);

    *max_a = max;
    *sum_a = *sum_a * factor_a + sum_b * factor_b;
    for (size_t i = 0; i < value_width; i++) {
        acc_a[i] = acc_a[i] * factor_a + acc_b[i] * factor_b;
    }
}

#endif
