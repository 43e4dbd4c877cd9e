#ifndef SHOAL_KERNELS_LANES_REF_H
#define SHOAL_KERNELS_LANES_REF_H

/* Sixteen lanes in plain C: the definition of what lanes_avx2.h and lanes_avx512.h must compute.
 *
 * A source includes exactly one lanes header and then the arithmetic written over it
 * (float_chain.h, row_math.h, attend.h), so that every level runs the same formula.
 */
#include "common/base/half.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LANE_COUNT 16
/* Register block of a chain: rows × panels; for one row more panels keep more chains going, and for
 * one panel more rows. */
#define CHAIN_ROWS          1
#define CHAIN_ROWS_TALL     1
#define CHAIN_PANELS        1
#define CHAIN_PANELS_SINGLE 1
#define CHAIN_ROWS_SINGLE   1

struct lanes {
    float v[LANE_COUNT];
};

#define LANES_EACH(expression)                                                                     \
    struct lanes out;                                                                              \
    for (size_t i = 0; i < LANE_COUNT; i++) {                                                      \
        out.v[i] = (expression);                                                                   \
    }                                                                                              \
    return out

static inline struct lanes lanes_set(float value)
{
    LANES_EACH(value);
}

static inline struct lanes lanes_load(const float *values)
{
    struct lanes out;

    memcpy(out.v, values, sizeof(out.v));
    return out;
}

static inline void lanes_store(float *values, struct lanes a)
{
    memcpy(values, a.v, sizeof(a.v));
}

/* Loads of weights and cache entries: 16 values of a type, widened exactly. */
static inline struct lanes lanes_load_f32(const void *values)
{
    return lanes_load(values);
}

static inline struct lanes lanes_load_bf16(const void *values)
{
    uint16_t bits[LANE_COUNT];

    memcpy(bits, values, sizeof(bits));
    LANES_EACH(float_of_bf16(bits[i]));
}

static inline struct lanes lanes_load_f16(const void *values)
{
    uint16_t bits[LANE_COUNT];

    memcpy(bits, values, sizeof(bits));
    LANES_EACH(float_of_f16(bits[i]));
}

static inline struct lanes lanes_load_i8(const void *values)
{
    int8_t codes[LANE_COUNT];

    memcpy(codes, values, sizeof(codes));
    LANES_EACH((float)codes[i]);
}

/* Of 16 pairs of bf16 side by side: the first of each, the second. */
static inline struct lanes lanes_load_bf16_even(const void *values)
{
    uint16_t bits[2 * LANE_COUNT];

    memcpy(bits, values, sizeof(bits));
    LANES_EACH(float_of_bf16(bits[2 * i]));
}

static inline struct lanes lanes_load_bf16_odd(const void *values)
{
    uint16_t bits[2 * LANE_COUNT];

    memcpy(bits, values, sizeof(bits));
    LANES_EACH(float_of_bf16(bits[2 * i + 1]));
}

/* A group of e4m3 codes (packed.h) as f16, [4 columns][16], each as its value / 256: the fields
 * only move. */
static inline void lanes_f16_of_f8(void *out, const void *codes)
{
    const uint8_t *in = codes;
    uint16_t bits[4 * LANE_COUNT];

    for (size_t i = 0; i < 4 * LANE_COUNT; i++) {
        uint8_t code = in[i % (2 * LANE_COUNT) * 2 + i / (2 * LANE_COUNT)];

        bits[i] = (uint16_t)((code & 0x80) << 8 | (code & 0x7f) << 7);
    }
    memcpy(out, bits, sizeof(bits));
}

/* Stores 16 values as a type, nearest even. */
static inline void lanes_store_bf16(void *values, struct lanes a)
{
    uint16_t bits[LANE_COUNT];

    for (size_t i = 0; i < LANE_COUNT; i++) {
        bits[i] = bf16_of_float(a.v[i]);
    }
    memcpy(values, bits, sizeof(bits));
}

static inline void lanes_store_f16(void *values, struct lanes a)
{
    uint16_t bits[LANE_COUNT];

    for (size_t i = 0; i < LANE_COUNT; i++) {
        bits[i] = f16_of_float(a.v[i]);
    }
    memcpy(values, bits, sizeof(bits));
}

static inline struct lanes lanes_fma(struct lanes a, struct lanes b, struct lanes c)
{
    LANES_EACH(fmaf(a.v[i], b.v[i], c.v[i]));
}

static inline struct lanes lanes_add(struct lanes a, struct lanes b)
{
    LANES_EACH(a.v[i] + b.v[i]);
}

static inline struct lanes lanes_sub(struct lanes a, struct lanes b)
{
    LANES_EACH(a.v[i] - b.v[i]);
}

static inline struct lanes lanes_mul(struct lanes a, struct lanes b)
{
    LANES_EACH(a.v[i] * b.v[i]);
}

static inline struct lanes lanes_div(struct lanes a, struct lanes b)
{
    LANES_EACH(a.v[i] / b.v[i]);
}

/* The larger; b when they are equal or one is not a number. */
static inline struct lanes lanes_max(struct lanes a, struct lanes b)
{
    LANES_EACH(a.v[i] > b.v[i] ? a.v[i] : b.v[i]);
}

/* a < b ? x : y */
static inline struct lanes lanes_select_less(struct lanes a, struct lanes b, struct lanes x,
                                             struct lanes y)
{
    LANES_EACH(a.v[i] < b.v[i] ? x.v[i] : y.v[i]);
}

/* 2^n for t = n + 1.5 * 2^23, n an integer in -126 … 127; any bits for other t. */
static inline struct lanes lanes_pow2(struct lanes t)
{
    LANES_EACH(float_of_bits((float_bits(t.v[i]) << 23) + 0x3f800000));
}

/* The even or odd ones of 32 values. */
static inline struct lanes lanes_evens(struct lanes low, struct lanes high)
{
    LANES_EACH(i < 8 ? low.v[2 * i] : high.v[2 * i - LANE_COUNT]);
}

static inline struct lanes lanes_odds(struct lanes low, struct lanes high)
{
    LANES_EACH(i < 8 ? low.v[2 * i + 1] : high.v[2 * i + 1 - LANE_COUNT]);
}

/* Pairs (a, b) with (c, s) become fma(a, c, -(b * s)), fma(a, s, b * c). */
static inline struct lanes lanes_rotate(struct lanes x, struct lanes cos_sin)
{
    struct lanes out;

    for (size_t i = 0; i < LANE_COUNT; i += 2) {
        out.v[i] = fmaf(x.v[i], cos_sin.v[i], -(x.v[i + 1] * cos_sin.v[i + 1]));
        out.v[i + 1] = fmaf(x.v[i], cos_sin.v[i + 1], x.v[i + 1] * cos_sin.v[i]);
    }
    return out;
}

/* Lane i takes lane i + 8, then 4, 2, 1. */
static inline float lanes_fold_add(struct lanes a)
{
    for (size_t half = LANE_COUNT / 2; half > 0; half /= 2) {
        for (size_t i = 0; i < half; i++) {
            a.v[i] = a.v[i] + a.v[i + half];
        }
    }
    return a.v[0];
}

static inline float lanes_fold_max(struct lanes a)
{
    for (size_t half = LANE_COUNT / 2; half > 0; half /= 2) {
        for (size_t i = 0; i < half; i++) {
            a.v[i] = a.v[i] > a.v[i + half] ? a.v[i] : a.v[i + half];
        }
    }
    return a.v[0];
}

/* out[column][row] = in[row][column] for an 8 × 8 block; strides count values. */
static inline void lanes_transpose_8x8(const float *in, size_t in_stride, float *out,
                                       size_t out_stride)
{
    for (size_t row = 0; row < 8; row++) {
        for (size_t column = 0; column < 8; column++) {
            out[column * out_stride + row] = in[row * in_stride + column];
        }
    }
}

#undef LANES_EACH
#endif
