#ifndef SHOAL_KERNELS_LATENT_H
#define SHOAL_KERNELS_LATENT_H

/* Absorbed MLA over one key block, for one level: written over a lanes header, float_chain.h,
 * row_math.h and kv_values.h. DeepSeek-V2 report (arXiv:2405.04434) section 2.1; the online softmax
 * is Milakov and Gimelshein's (arXiv:1805.02867).
 *
 * Scratch, in floats, widths rounded up to whole lanes:
 *
 *   natural     [64][width]    the entries as f32: the values, lanes across the latent
 *   transposed  [width][64]    the keys, lanes across tokens
 *   scores      [head][64]     s, then p
 *
 * Both products are then the chain of float_chain.h: q·k rises over the width, p·v over the tokens.
 */
#include "worker/kernels/kernels.h"

struct latent_tiles {
    float *natural, *transposed, *scores;
    size_t width; /* rounded up: stride of natural */
    size_t token_panels;
};

static inline struct latent_tiles latent_tiles_of(const struct latent_block_args *a)
{
    const size_t width = ((size_t)a->width + LANE_COUNT - 1) / LANE_COUNT * LANE_COUNT;
    struct latent_tiles tiles = {
        .natural = a->scratch,
        .transposed = a->scratch + width * KV_BLOCK_TOKENS,
        .scores = a->scratch + 2 * width * KV_BLOCK_TOKENS,
        .width = width,
        .token_panels = ((size_t)a->token_count + LANE_COUNT - 1) / LANE_COUNT,
    };

    return tiles;
}

/* Tokens beyond the last, up to whole lanes, and the padding of the width become zeros. */
static inline void latent_fill(const struct latent_block_args *a, const struct latent_tiles *tiles)
{
    const size_t tokens = tiles->token_panels * LANE_COUNT;
    const size_t entry_bytes = (size_t)a->width * kv_type_bytes(a->type);

    for (size_t token = 0; token < tokens; token++) {
        float *row = tiles->natural + token * tiles->width;
        size_t filled = token < a->token_count ? a->width : 0;

        if (filled > 0) {
            kv_values_load(row, (const char *)a->entries + token * entry_bytes, a->type, a->width);
        }
        memset(row + filled, 0, (tiles->width - filled) * sizeof(float));
    }
    for (size_t token = 0; token < tokens; token += 8) {
        for (size_t k = 0; k < tiles->width; k += 8) {
            lanes_transpose_8x8(tiles->natural + token * tiles->width + k, tiles->width,
                                tiles->transposed + k * KV_BLOCK_TOKENS + token, KV_BLOCK_TOKENS);
        }
    }
}

/* scores[head][token] = q · key */
static inline void latent_scores(const struct latent_block_args *a,
                                 const struct latent_tiles *tiles)
{
    const struct chain chain = {
        .w = (const char *)tiles->transposed,
        .panel_bytes = LANE_COUNT * sizeof(float),
        .step_bytes = KV_BLOCK_TOKENS * sizeof(float),
        .x = a->query,
        .x_stride = a->width,
        .k_count = a->width,
        .sums = tiles->scores,
        .sums_stride = KV_BLOCK_TOKENS,
    };

    memset(tiles->scores, 0, (size_t)a->head_count * KV_BLOCK_TOKENS * sizeof(float));
    chain_product(a->head_count, tiles->token_panels, lanes_load_f32, chain);
}

/* The head's scores become weights; its state is brought to the new maximum. */
static inline void latent_weigh(const struct latent_block_args *a, uint32_t head, float *scores)
{
    float *acc = a->acc + (size_t)head * a->latent;
    float max_before = a->max[head];
    float max, factor;

    row_scale(scores, a->scale, a->token_count, scores);
    max = row_max(scores, a->token_count);
    max = max > max_before ? max : max_before;
    factor = exp_of(max_before - max);
    a->max[head] = max;
    a->sum[head] = a->sum[head] * factor + row_exp_sum(scores, a->token_count, max);
    if (factor != 1.0f) {
        row_scale(acc, factor, a->latent, acc);
    }
}

/* acc[head][r] += p · value: whole lanes in place, the rest of the latent through a padded tile. */
static inline void latent_values(const struct latent_block_args *a,
                                 const struct latent_tiles *tiles)
{
    const size_t panels = a->latent / LANE_COUNT;
    const size_t done = panels * LANE_COUNT;
    const size_t rest = a->latent - done;
    struct chain chain = {
        .w = (const char *)tiles->natural,
        .panel_bytes = LANE_COUNT * sizeof(float),
        .step_bytes = tiles->width * sizeof(float),
        .x = tiles->scores,
        .x_stride = KV_BLOCK_TOKENS,
        .k_count = a->token_count,
        .sums = a->acc,
        .sums_stride = a->latent,
    };

    chain_product(a->head_count, panels, lanes_load_f32, chain);
    for (size_t head = 0; rest > 0 && head < a->head_count; head++) {
        float *acc = a->acc + head * a->latent + done;
        float tile[LANE_COUNT];

        lanes_store(tile, lanes_load_part(acc, rest, 0.0f));
        chain.w = (const char *)(tiles->natural + done);
        chain.x = tiles->scores + head * KV_BLOCK_TOKENS;
        chain.sums = tile;
        chain_product(1, 1, lanes_load_f32, chain);
        memcpy(acc, tile, rest * sizeof(float));
    }
}

static inline void latent_block(const struct latent_block_args *a)
{
    const struct latent_tiles tiles = latent_tiles_of(a);

    DEBUG_ASSERT(a->token_count >= 1 && a->token_count <= KV_BLOCK_TOKENS);
    DEBUG_ASSERT(a->latent <= a->width);
    latent_fill(a, &tiles);
    latent_scores(a, &tiles);
    for (uint32_t head = 0; head < a->head_count; head++) {
        latent_weigh(a, head, tiles.scores + (size_t)head * KV_BLOCK_TOKENS);
    }
    latent_values(a, &tiles);
}

static inline float latent_factor(float max_before, float max)
{
    return max_before == -INFINITY ? 0.0f : exp_of(max_before - max);
}

static inline void latent_join(float *max_a, float *sum_a, float *acc_a, float max_b, float sum_b,
                               const float *acc_b, uint32_t latent)
{
    const float max = *max_a > max_b ? *max_a : max_b;
    const float factor_a = latent_factor(*max_a, max);
    const float factor_b = latent_factor(max_b, max);

    *max_a = max;
    *sum_a = *sum_a * factor_a + sum_b * factor_b;
    for (size_t i = 0; i < latent; i++) {
        acc_a[i] = acc_a[i] * factor_a + acc_b[i] * factor_b;
    }
}

#endif
