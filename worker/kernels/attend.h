#ifndef SHOAL_KERNELS_ATTEND_H
#define SHOAL_KERNELS_ATTEND_H

/* Attention over one key block, for one level: written over a lanes and a words header,
 * float_chain.h and row_math.h. The online softmax is Milakov and Gimelshein's (arXiv:1805.02867).
 * In absorbed MLA (DeepSeek-V2 report, arXiv:2405.04434, section 2.1) a value is the beginning of
 * its key; grouped heads (arXiv:2305.13245) keep both apart.
 *
 * Both products are the chain of float_chain.h. p·v rises over the tokens, with lanes across a
 * value's dimensions. q·k rises over the key's dimensions: grouped heads, few for a key, put lanes
 * across tokens, in the order that their keys are stored in; MLA's heads, many, are the lanes
 * themselves, so that an entry, which is key and value, is never transposed. The factors of an fma
 * may change places.
 *
 * A few queries of grouped heads read the cache where it is; many widen it to f32 first, once. What
 * all queries read is taken in pieces that stay in the first cache.
 *
 * Scratch, in floats, width being the larger one, rounded up to whole lanes:
 *
 *   natural   [64][width]    a value's dimensions, or MLA's entry, side by side
 *   keys      [width][64]    grouped: a dimension's tokens side by side
 *   scores    [query][64]    s, then p
 *   turned    [64][query]    MLA: s as it is computed
 *   maxima, factors          [query]
 */
#include "worker/kernels/kernels.h"
#include "worker/kernels/kv_values.h"

#define ATTEND_DIRECT_QUERIES 6   /* at most so many read a 16-bit type themselves */
#define ATTEND_PANELS         4   /* of a piece of p·v: 16 KB of f32 for 64 tokens */
#define ATTEND_STEPS          128 /* dimensions of a piece of MLA's q·k */

/* What a product reads beside the queries: from one panel of 16 outputs to the next, from one step
 * of the chain to the next. */
struct attend_operand {
    const char *w;
    size_t panel_bytes;
    size_t step_bytes;
    enum kv_type type;
};

struct attend_tiles {
    float *natural, *keys_f32, *scores, *turned, *maxima, *factors;
    size_t width; /* rounded up: stride of natural */
    size_t query_count;
    size_t query_panels;
    size_t token_count; /* that any row sees */
    size_t token_panels;
    struct attend_operand keys, values;
};

static inline struct attend_tiles attend_tiles_of(const struct attend_block_args *a)
{
    const size_t widest = a->key_width > a->value_width ? a->key_width : a->value_width;
    const size_t width = (widest + LANE_COUNT - 1) / LANE_COUNT * LANE_COUNT;
    struct attend_tiles tiles = {
        .natural = a->scratch,
        .keys_f32 = a->scratch + width * KV_BLOCK_TOKENS,
        .scores = a->scratch + 2 * width * KV_BLOCK_TOKENS,
        .width = width,
        .query_count = (size_t)a->row_count * a->head_count,
    };

    tiles.query_panels = (tiles.query_count + LANE_COUNT - 1) / LANE_COUNT;
    tiles.turned = tiles.scores + tiles.query_panels * LANE_COUNT * KV_BLOCK_TOKENS;
    tiles.maxima = tiles.turned + tiles.query_panels * LANE_COUNT * KV_BLOCK_TOKENS;
    tiles.factors = tiles.maxima + tiles.query_panels * LANE_COUNT;
    for (uint32_t row = 0; row < a->row_count; row++) {
        if (a->token_counts[row] > tiles.token_count) {
            tiles.token_count = a->token_counts[row];
        }
    }
    tiles.token_panels = (tiles.token_count + LANE_COUNT - 1) / LANE_COUNT;
    tiles.keys = (struct attend_operand){(const char *)tiles.keys_f32, LANE_COUNT * sizeof(float),
                                         KV_BLOCK_TOKENS * sizeof(float), KV_F32};
    tiles.values = (struct attend_operand){(const char *)tiles.natural, LANE_COUNT * sizeof(float),
                                           width * sizeof(float), KV_F32};
    return tiles;
}

/* `count` values of a token into `natural`, zeros up to the width. */
static inline void attend_fill_row(const struct attend_block_args *a,
                                   const struct attend_tiles *tiles, const void *values,
                                   size_t token, size_t count)
{
    float *row = tiles->natural + token * tiles->width;
    const char *from = (const char *)values + token * count * kv_type_bytes(a->type);

    if (a->type != KV_Q8) {
        kv_values_load(row, from, a->type, count);
    } else if (a->values != NULL) {
        kv_codes_load(row, (const int8_t *)from, a->value_scales[token], count);
    } else {
        kv_codes_load(row, (const int8_t *)from, a->key_scales[token], a->value_width);
        kv_codes_load(row + a->value_width, (const int8_t *)from + a->value_width,
                      a->value_scales[token], count - a->value_width);
    }
    memset(row + count, 0, (tiles->width - count) * sizeof(float));
}

static inline void attend_fill(const struct attend_block_args *a, const struct attend_tiles *tiles,
                               const void *values, size_t count)
{
    for (size_t token = 0; token < tiles->token_count; token++) {
        attend_fill_row(a, tiles, values, token, count);
    }
}

/* Grouped keys, widened as they lie; tokens that nobody sees may hold anything. */
static inline void attend_widen_keys(const struct attend_block_args *a,
                                     const struct attend_tiles *tiles)
{
    const size_t count = (size_t)a->key_width * KV_BLOCK_TOKENS;
    const int8_t *codes = a->keys;

    if (a->type != KV_Q8) {
        kv_values_load(tiles->keys_f32, a->keys, a->type, count);
        return;
    }
    for (size_t i = 0; i < count; i += LANE_COUNT) {
        struct lanes scale = lanes_load(a->key_scales + i % KV_BLOCK_TOKENS);

        lanes_store(tiles->keys_f32 + i, lanes_mul(lanes_load_i8(codes + i), scale));
    }
}

/* Whether the products of grouped heads read the cache itself. */
static inline bool attend_is_direct(const struct attend_block_args *a,
                                    const struct attend_tiles *tiles)
{
    return a->values != NULL &&
           (a->type == KV_F32 || (a->type != KV_Q8 && tiles->query_count <= ATTEND_DIRECT_QUERIES));
}

static inline void attend_keys_prepare(const struct attend_block_args *a,
                                       struct attend_tiles *tiles)
{
    const size_t bytes = kv_type_bytes(a->type);

    if (a->values == NULL) {
        attend_fill(a, tiles, a->keys, a->key_width);
    } else if (attend_is_direct(a, tiles)) {
        tiles->keys =
            (struct attend_operand){a->keys, LANE_COUNT * bytes, KV_BLOCK_TOKENS * bytes, a->type};
    } else {
        attend_widen_keys(a, tiles);
    }
}

/* MLA's stand in `natural` since its keys were prepared. */
static inline void attend_values_prepare(const struct attend_block_args *a,
                                         struct attend_tiles *tiles)
{
    const size_t bytes = kv_type_bytes(a->type);

    if (a->values != NULL && attend_is_direct(a, tiles) && a->value_width % LANE_COUNT == 0) {
        tiles->values =
            (struct attend_operand){a->values, LANE_COUNT * bytes, a->value_width * bytes, a->type};
    } else if (a->values != NULL) {
        attend_fill(a, tiles, a->values, a->value_width);
    }
}

/* Not inlined: each type unrolls into a block for every number of rows. */
static __attribute__((noinline)) void attend_product(size_t rows, size_t panels,
                                                     const struct attend_operand *operand,
                                                     struct chain chain)
{
    chain.w = operand->w;
    chain.panel_bytes = operand->panel_bytes;
    chain.step_bytes = operand->step_bytes;
    for (size_t panel = 0; panel < panels; panel += ATTEND_PANELS) {
        size_t count = panels - panel < ATTEND_PANELS ? panels - panel : ATTEND_PANELS;

        switch (operand->type) {
        case KV_F16:
            chain_product(rows, count, lanes_load_f16, chain);
            break;
        case KV_BF16:
            chain_product(rows, count, lanes_load_bf16, chain);
            break;
        default:
            chain_product(rows, count, lanes_load_f32, chain);
            break;
        }
        chain.w += ATTEND_PANELS * chain.panel_bytes;
        chain.sums += ATTEND_PANELS * LANE_COUNT;
    }
}

/* scores[query][token] = q · key, lanes across tokens */
static inline void attend_scores_grouped(const struct attend_block_args *a,
                                         const struct attend_tiles *tiles)
{
    const struct chain chain = {
        .x = a->query,
        .x_stride = a->key_width,
        .k_count = a->key_width,
        .sums = tiles->scores,
        .sums_stride = KV_BLOCK_TOKENS,
    };

    memset(tiles->scores, 0, tiles->query_count * KV_BLOCK_TOKENS * sizeof(float));
    attend_product(tiles->query_count, tiles->token_panels, &tiles->keys, chain);
}

/* Four panels of queries at a time, or single ones. */
static __attribute__((noinline)) void attend_score_piece(const struct attend_tiles *tiles,
                                                         const struct attend_operand *queries,
                                                         struct chain chain)
{
    chain.w = queries->w;
    chain.panel_bytes = queries->panel_bytes;
    chain.step_bytes = queries->step_bytes;
    for (size_t panel = 0; panel < tiles->query_panels;) {
        size_t taken = tiles->query_panels - panel >= ATTEND_PANELS ? ATTEND_PANELS : 1;

        if (taken == ATTEND_PANELS) {
            chain_product(tiles->token_count, ATTEND_PANELS, lanes_load_f32, chain);
        } else {
            chain_single_panel(tiles->token_count, lanes_load_f32, chain);
        }
        chain.w += taken * chain.panel_bytes;
        chain.sums += taken * LANE_COUNT;
        panel += taken;
    }
}

/* The same with lanes across queries: turned[token][query], then back. */
static inline void attend_scores_latent(const struct attend_block_args *a,
                                        const struct attend_tiles *tiles)
{
    const size_t stride = tiles->query_panels * LANE_COUNT;
    struct attend_operand queries = {(const char *)a->query, LANE_COUNT * sizeof(float),
                                     stride * sizeof(float), KV_F32};
    struct chain chain = {
        .x = tiles->natural,
        .x_stride = tiles->width,
        .sums = tiles->turned,
        .sums_stride = stride,
    };

    memset(tiles->turned, 0, KV_BLOCK_TOKENS * stride * sizeof(float));
    for (size_t k = 0; k < a->key_width; k += chain.k_count) {
        chain.k_count = a->key_width - k < ATTEND_STEPS ? a->key_width - k : ATTEND_STEPS;
        attend_score_piece(tiles, &queries, chain);
        queries.w += chain.k_count * queries.step_bytes;
        chain.x += chain.k_count;
    }
    for (size_t query = 0; query < stride; query += 8) {
        for (size_t token = 0; token < tiles->token_panels * LANE_COUNT; token += 8) {
            lanes_transpose_8x8(tiles->turned + token * stride + query, stride,
                                tiles->scores + query * KV_BLOCK_TOKENS + token, KV_BLOCK_TOKENS);
        }
    }
}

static inline size_t attend_seen(const struct attend_block_args *a, size_t query)
{
    return a->token_counts[query / a->head_count];
}

/* The maximum of each query's scores and of its state, and the factor that brings its state there:
 * sixteen queries share an exp. */
static inline void attend_maxima(const struct attend_block_args *a,
                                 const struct attend_tiles *tiles)
{
    for (size_t query = 0; query < tiles->query_panels * LANE_COUNT; query++) {
        size_t count = query < tiles->query_count ? attend_seen(a, query) : 0;
        float *scores = tiles->scores + query * KV_BLOCK_TOKENS;

        row_scale(scores, a->scale, count, scores);
        tiles->maxima[query] = row_max(scores, count);
    }
    for (size_t query = 0; query < tiles->query_count; query += LANE_COUNT) {
        size_t left = tiles->query_count - query;
        struct lanes before =
            lanes_load_part(a->max + query, left < LANE_COUNT ? left : LANE_COUNT, -INFINITY);
        struct lanes max = lanes_max(lanes_load(tiles->maxima + query), before);

        lanes_store(tiles->maxima + query, max);
        lanes_store(tiles->factors + query, lanes_exp(lanes_sub(before, max)));
    }
}

/* Scores become weights; the states are brought to the new maxima. */
static inline void attend_weigh(const struct attend_block_args *a, const struct attend_tiles *tiles)
{
    attend_maxima(a, tiles);
    for (size_t query = 0; query < tiles->query_count; query++) {
        const size_t count = attend_seen(a, query);
        const float max = tiles->maxima[query], factor = tiles->factors[query];
        float *acc = a->acc + query * a->value_width;

        if (count == 0) {
            continue;
        }
        a->max[query] = max;
        a->sum[query] = a->sum[query] * factor +
                        row_exp_sum(tiles->scores + query * KV_BLOCK_TOKENS, count, max);
        if (factor != 1.0f) {
            row_scale(acc, factor, a->value_width, acc);
        }
    }
}

/* acc[query][r] += p · value for queries that see as many tokens: whole lanes in place, the rest
 * through a padded tile. */
static inline void attend_values(const struct attend_block_args *a,
                                 const struct attend_tiles *tiles, size_t query_begin,
                                 size_t query_count, size_t token_count)
{
    const size_t panels = a->value_width / LANE_COUNT;
    const size_t done = panels * LANE_COUNT;
    const size_t rest = a->value_width - done;
    struct attend_operand tail = tiles->values;
    struct chain chain = {
        .x = tiles->scores + query_begin * KV_BLOCK_TOKENS,
        .x_stride = KV_BLOCK_TOKENS,
        .k_count = token_count,
        .sums = a->acc + query_begin * a->value_width,
        .sums_stride = a->value_width,
    };

    attend_product(query_count, panels, &tiles->values, chain);
    tail.w += panels * tail.panel_bytes;
    for (size_t query = 0; rest > 0 && query < query_count; query++) {
        float *acc = a->acc + (query_begin + query) * a->value_width + done;
        float tile[LANE_COUNT];

        lanes_store(tile, lanes_load_part(acc, rest, 0.0f));
        chain.x = tiles->scores + (query_begin + query) * KV_BLOCK_TOKENS;
        chain.sums = tile;
        attend_product(1, 1, &tail, chain);
        memcpy(acc, tile, rest * sizeof(float));
    }
}

static inline void attend_block(const struct attend_block_args *a)
{
    struct attend_tiles tiles = attend_tiles_of(a);
    uint32_t row = 0;

    DEBUG_ASSERT(tiles.token_count <= KV_BLOCK_TOKENS);
    DEBUG_ASSERT(a->values != NULL || a->value_width <= a->key_width);
    if (tiles.token_count == 0) {
        return;
    }
    attend_keys_prepare(a, &tiles);
    if (a->values == NULL) {
        attend_scores_latent(a, &tiles);
    } else {
        attend_scores_grouped(a, &tiles);
    }
    attend_weigh(a, &tiles);
    attend_values_prepare(a, &tiles);
    while (row < a->row_count) {
        const uint32_t count = a->token_counts[row];
        const uint32_t begin = row;

        while (row < a->row_count && a->token_counts[row] == count) {
            row++;
        }
        if (count > 0) {
            attend_values(a, &tiles, (size_t)begin * a->head_count,
                          (size_t)(row - begin) * a->head_count, count);
        }
    }
}

/* Eight dimensions and eight queries at a time; ragged ones through a padded square. */
static inline void attend_turn(const float *queries, size_t count, size_t width, float *out)
{
    const size_t stride = (count + LANE_COUNT - 1) / LANE_COUNT * LANE_COUNT;

    for (size_t q = 0; q < stride; q += 8) {
        for (size_t k = 0; k < width; k += 8) {
            float square[8][8] = {{0}};

            if (q + 8 <= count && k + 8 <= width) {
                lanes_transpose_8x8(queries + q * width + k, width, out + k * stride + q, stride);
                continue;
            }
            for (size_t i = q; i < q + 8 && i < count; i++) {
                memcpy(square[i - q], queries + i * width + k,
                       (width - k < 8 ? width - k : 8) * sizeof(float));
            }
            lanes_transpose_8x8(square[0], 8, out + k * stride + q, stride);
        }
    }
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
