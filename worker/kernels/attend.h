#ifndef SHOAL_KERNELS_ATTEND_H
#define SHOAL_KERNELS_ATTEND_H

/* Attention over one key block, for one level: written over a lanes and a words header and
 * row_math.h. The online softmax is Milakov and Gimelshein's (arXiv:1805.02867).
 * In absorbed MLA (DeepSeek-V2 report, arXiv:2405.04434, section 2.1) a value is the beginning of
 * its key; grouped heads (arXiv:2305.13245) keep both apart.
 *
 * Both products are the chain of attend_chain.h. p·v rises over the tokens, with lanes across a
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
 *   maxima, factors, seen    [query]
 */
#include "worker/kernels/attend_chain.h"
#include "worker/kernels/kernels.h"
#include "worker/kernels/kv_values.h"

#define ATTEND_DIRECT_QUERIES 6  /* at most so many read a 16-bit type themselves */
#define ATTEND_PANELS         4  /* of a piece of p·v: 16 KB of f32 for 64 tokens */
#define ATTEND_STEPS          64 /* dimensions of a piece of MLA's q·k */

/* What a product reads beside the queries: from one panel of 16 outputs to the next, from one step
 * of the chain to the next. */
struct attend_operand {
    const char *w;
    size_t panel_bytes;
    size_t step_bytes;
    enum kv_type type; /* as it is read: of f32, f16 and bf16 */
};

struct attend_tiles {
    float *natural, *keys_f32, *scores, *turned, *maxima, *factors;
    uint32_t *seen; /* [query] tokens */
    size_t width;   /* rounded up: stride of natural */
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
    tiles.seen = (uint32_t *)(void *)(tiles.factors + tiles.query_panels * LANE_COUNT);
    for (uint32_t row = 0; row < a->row_count; row++) {
        const uint32_t count = a->token_counts[row];

        tiles.token_count = count > tiles.token_count ? count : tiles.token_count;
        for (uint32_t head = 0; head < a->head_count; head++) {
            tiles.seen[row * a->head_count + head] = count;
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

/* Memory that is read next, asked for piece by piece while products run. */
struct attend_ahead {
    const char *at, *end;
};

/* What a chain of so many steps asks for: lines that it reads anyway when nothing is left. */
static inline const char *attend_ahead_take(struct attend_ahead *ahead, size_t steps,
                                            const char *otherwise)
{
    const char *taken = ahead->at;

    if (taken >= ahead->end) {
        return otherwise;
    }
    ahead->at += steps * ATTEND_LINES * ATTEND_LINE;
    return taken;
}

/* Not inlined: each type unrolls into a block for every number of rows. */
static __attribute__((noinline)) void attend_product(size_t rows, size_t panels, enum kv_type type,
                                                     const struct attend_chain *chain)
{
    switch (type) {
    case KV_F16:
        attend_chain_group(rows, panels, lanes_load_f16, ATTEND_LINES, *chain);
        break;
    case KV_BF16:
        attend_chain_group(rows, panels, lanes_load_bf16, ATTEND_LINES, *chain);
        break;
    default:
        attend_chain_group(rows, panels, lanes_load_f32, ATTEND_LINES, *chain);
        break;
    }
}

/* scores[query][token] = q · key, lanes across tokens; panels of 16 that none of a few queries sees
 * are left out. */
static inline void attend_scores_grouped(const struct attend_block_args *a,
                                         const struct attend_tiles *tiles)
{
    const struct attend_operand *keys = &tiles->keys;
    const char *values = a->values;
    struct attend_ahead ahead = {values, values + (size_t)a->value_width * KV_BLOCK_TOKENS *
                                                      kv_type_bytes(a->type)};
    size_t rows;

    for (size_t query = 0; query < tiles->query_count; query += rows) {
        size_t most = 0;
        struct attend_chain chain = {
            .w = keys->w,
            .panel_bytes = keys->panel_bytes,
            .step_bytes = keys->step_bytes,
            .x = a->query + query * a->key_width,
            .x_stride = a->key_width,
            .k_count = a->key_width,
            .sums = tiles->scores + query * KV_BLOCK_TOKENS,
            .sums_stride = KV_BLOCK_TOKENS,
            .begin = BEGIN_ZERO,
            .ahead = attend_ahead_take(&ahead, a->key_width, keys->w),
        };

        rows = tiles->query_count - query < CHAIN_ROWS ? tiles->query_count - query : CHAIN_ROWS;
        for (size_t row = 0; row < rows; row++) {
            size_t seen = tiles->seen[query + row];

            most = seen > most ? seen : most;
        }
        attend_product(rows, (most + LANE_COUNT - 1) / LANE_COUNT, keys->type, &chain);
    }
}

/* All tokens meet four panels of queries, or one. */
static __attribute__((noinline)) void attend_score_panels(const struct attend_tiles *tiles,
                                                          size_t panels, struct attend_chain chain)
{
    size_t left = tiles->token_count;

    for (; panels == 1 && left >= CHAIN_ROWS_SINGLE; left -= CHAIN_ROWS_SINGLE) {
        attend_chain_block(CHAIN_ROWS_SINGLE, 1, lanes_load_f32, 0, &chain);
        chain.x += CHAIN_ROWS_SINGLE * chain.x_stride;
        chain.sums += CHAIN_ROWS_SINGLE * chain.sums_stride;
    }
    for (size_t rows; left > 0; left -= rows) {
        rows = left < CHAIN_ROWS ? left : CHAIN_ROWS;
        attend_chain_group(rows, panels, lanes_load_f32, 0, chain);
        chain.x += rows * chain.x_stride;
        chain.sums += rows * chain.sums_stride;
    }
}

/* The same with lanes across queries: turned[token][query], then back. */
static inline void attend_scores_latent(const struct attend_block_args *a,
                                        const struct attend_tiles *tiles)
{
    const size_t stride = tiles->query_panels * LANE_COUNT;
    struct attend_chain chain = {
        .panel_bytes = LANE_COUNT * sizeof(float),
        .step_bytes = stride * sizeof(float),
        .x_stride = tiles->width,
        .sums_stride = stride,
        .begin = BEGIN_ZERO,
    };

    for (size_t k = 0; k < a->key_width; k += chain.k_count) {
        size_t taken;

        chain.k_count = a->key_width - k < ATTEND_STEPS ? a->key_width - k : ATTEND_STEPS;
        chain.x = tiles->natural + k;
        for (size_t panel = 0; panel < tiles->query_panels; panel += taken) {
            taken = tiles->query_panels - panel >= ATTEND_PANELS ? ATTEND_PANELS : 1;
            chain.w = (const char *)(a->query + k * stride + panel * LANE_COUNT);
            chain.sums = tiles->turned + panel * LANE_COUNT;
            attend_score_panels(tiles, taken, chain);
        }
        chain.begin = BEGIN_SUMS;
    }
    for (size_t query = 0; query < stride; query += 8) {
        for (size_t token = 0; token < tiles->token_panels * LANE_COUNT; token += 8) {
            lanes_transpose_8x8(tiles->turned + token * stride + query, stride,
                                tiles->scores + query * KV_BLOCK_TOKENS + token, KV_BLOCK_TOKENS);
        }
    }
}

/* Scales scores; returns their maximum. A whole block's stay in registers. */
static inline float attend_scale_max(float *scores, float scale, size_t count)
{
    struct lanes max = lanes_set(-INFINITY);

    if (count != KV_BLOCK_TOKENS) {
        row_scale(scores, scale, count, scores);
        return row_max(scores, count);
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < KV_BLOCK_TOKENS; i += LANE_COUNT) {
        struct lanes scaled = lanes_mul(lanes_load(scores + i), lanes_set(scale));

        lanes_store(scores + i, scaled);
        max = lanes_max(max, scaled);
    }
    return lanes_fold_max(max);
}

/* Scores become weights; returns their sum. */
static inline float attend_exp_sum(float *scores, size_t count, float max)
{
    struct lanes sum = lanes_set(0.0f);

    if (count != KV_BLOCK_TOKENS) {
        return row_exp_sum(scores, count, max);
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < KV_BLOCK_TOKENS; i += LANE_COUNT) {
        struct lanes p = lanes_exp(lanes_sub(lanes_load(scores + i), lanes_set(max)));

        lanes_store(scores + i, p);
        sum = lanes_add(sum, p);
    }
    return lanes_fold_add(sum);
}

/* The maximum of each query's scores and of its state, and the factor that brings its state there:
 * sixteen queries share an exp. */
static inline void attend_maxima(const struct attend_block_args *a,
                                 const struct attend_tiles *tiles)
{
    for (size_t query = 0; query < tiles->query_panels * LANE_COUNT; query++) {
        size_t count = query < tiles->query_count ? tiles->seen[query] : 0;

        tiles->maxima[query] =
            attend_scale_max(tiles->scores + query * KV_BLOCK_TOKENS, a->scale, count);
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

/* Scores become weights; maxima and sums of the states go on. */
static inline void attend_weigh(const struct attend_block_args *a, const struct attend_tiles *tiles)
{
    attend_maxima(a, tiles);
    for (size_t query = 0; query < tiles->query_count; query++) {
        const size_t count = tiles->seen[query];
        const float max = tiles->maxima[query];

        if (count == 0) {
            continue;
        }
        a->max[query] = max;
        a->sum[query] = a->sum[query] * tiles->factors[query] +
                        attend_exp_sum(tiles->scores + query * KV_BLOCK_TOKENS, count, max);
    }
}

/* A few queries that all see tokens: those that all of them see, then the rest of each. */
static inline void attend_value_group(const struct attend_tiles *tiles, size_t query, size_t rows,
                                      size_t panels, struct attend_chain chain)
{
    const char *first = chain.w;
    size_t least = KV_BLOCK_TOKENS;

    for (size_t row = 0; row < rows; row++) {
        size_t seen = tiles->seen[query + row];

        least = seen < least ? seen : least;
    }
    chain.k_count = least;
    chain.begin = BEGIN_SCALED;
    chain.factors = tiles->factors + query;
    attend_product(rows, panels, tiles->values.type, &chain);
    chain.begin = BEGIN_SUMS;
    chain.w = first + least * chain.step_bytes;
    chain.ahead = chain.w;
    chain.x += least;
    for (size_t row = 0; row < rows; row++) {
        chain.k_count = tiles->seen[query + row] - least;
        if (chain.k_count > 0) {
            attend_product(1, panels, tiles->values.type, &chain);
        }
        chain.x += chain.x_stride;
        chain.sums += chain.sums_stride;
    }
}

/* How many queries from `query` on, at most CHAIN_ROWS, see tokens. */
static inline size_t attend_group_rows(const struct attend_tiles *tiles, size_t query)
{
    size_t rows = 0;

    while (rows < CHAIN_ROWS && query + rows < tiles->query_count &&
           tiles->seen[query + rows] > 0) {
        rows++;
    }
    return rows;
}

/* acc[query][r] = acc · factor, then += p · value: whole lanes in place, a few panels at a time. */
static inline void attend_values(const struct attend_block_args *a,
                                 const struct attend_tiles *tiles)
{
    const size_t panels = a->value_width / LANE_COUNT;
    const struct attend_operand *values = &tiles->values;
    const char *next = a->next_keys;
    struct attend_ahead ahead = {next, next};

    if (next != NULL) {
        ahead.end += (size_t)a->key_width * KV_BLOCK_TOKENS * kv_type_bytes(a->type);
    }
    for (size_t panel = 0; panel < panels; panel += ATTEND_PANELS) {
        size_t taken = panels - panel < ATTEND_PANELS ? panels - panel : ATTEND_PANELS;

        for (size_t query = 0; query < tiles->query_count;) {
            size_t rows = attend_group_rows(tiles, query);
            const struct attend_chain chain = {
                .w = values->w + panel * values->panel_bytes,
                .panel_bytes = values->panel_bytes,
                .step_bytes = values->step_bytes,
                .x = tiles->scores + query * KV_BLOCK_TOKENS,
                .x_stride = KV_BLOCK_TOKENS,
                .sums = a->acc + query * a->value_width + panel * LANE_COUNT,
                .sums_stride = a->value_width,
                .ahead = attend_ahead_take(&ahead, KV_BLOCK_TOKENS, values->w),
            };

            if (rows > 0) {
                attend_value_group(tiles, query, rows, taken, chain);
            }
            query += rows > 0 ? rows : 1;
        }
    }
}

/* The dimensions behind the last whole lanes, through a padded tile. */
static inline void attend_values_rest(const struct attend_block_args *a,
                                      const struct attend_tiles *tiles)
{
    const size_t done = a->value_width / LANE_COUNT * LANE_COUNT;
    const size_t rest = a->value_width - done;
    const struct attend_operand *values = &tiles->values;

    for (size_t query = 0; rest > 0 && query < tiles->query_count; query++) {
        float *acc = a->acc + query * a->value_width + done;
        float tile[LANE_COUNT];
        const struct attend_chain chain = {
            .w = values->w + done / LANE_COUNT * values->panel_bytes,
            .step_bytes = values->step_bytes,
            .x = tiles->scores + query * KV_BLOCK_TOKENS,
            .k_count = tiles->seen[query],
            .sums = tile,
            .begin = BEGIN_SCALED,
            .factors = tiles->factors + query,
            .ahead = values->w,
        };

        if (chain.k_count > 0) {
            lanes_store(tile, lanes_load_part(acc, rest, 0.0f));
            attend_product(1, 1, values->type, &chain);
            memcpy(acc, tile, rest * sizeof(float));
        }
    }
}

static inline void attend_block(const struct attend_block_args *a)
{
    struct attend_tiles tiles = attend_tiles_of(a);

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
    attend_values(a, &tiles);
    attend_values_rest(a, &tiles);
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
