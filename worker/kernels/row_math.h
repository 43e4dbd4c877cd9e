#ifndef SHOAL_KERNELS_ROW_MATH_H
#define SHOAL_KERNELS_ROW_MATH_H

/* exp, sigmoid, SiLU, softmax and norms over rows, for one level: written over a lanes header that
 * the including source chose before. Tails run through padded lanes, so the formula of an element
 * never depends on its place. deploy/docs/arithmetic.md states what is computed here.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define EXP_ARGUMENT_MIN (-87.0f) /* below it exp is 0: no denormal results */
#define EXP_ARGUMENT_MAX 88.0f    /* above it exp is infinite */

/* The first `count` < 16 lanes; the others are `fill`. */
static inline struct lanes lanes_load_part(const float *values, size_t count, float fill)
{
    float buffer[LANE_COUNT];

    for (size_t i = count; i < LANE_COUNT; i++) {
        buffer[i] = fill;
    }
    memcpy(buffer, values, count * sizeof(float));
    return lanes_load(buffer);
}

static inline void lanes_store_part(float *values, size_t count, struct lanes a)
{
    float buffer[LANE_COUNT];

    lanes_store(buffer, a);
    memcpy(values, buffer, count * sizeof(float));
}

/* exp(x) = 2^n * p(r): n = x / ln 2 to the nearest even, r = x - n ln 2, with ln 2 in two parts,
 * p = 1 + r + r^2 q(r), q of degree 4 by interpolation at Chebyshev nodes (1.1e-8 relative).
 * What the roundings of r and of 1 + r lose is kept in `low`, which brings p within 0.6 ulp. */
static inline struct lanes lanes_exp(struct lanes x)
{
    const struct lanes shift = lanes_set(0x1.8p23f);
    const struct lanes one = lanes_set(1.0f);
    const struct lanes t = lanes_fma(x, lanes_set(0x1.715476p+0f), shift);
    const struct lanes n = lanes_sub(t, shift);
    const struct lanes near = lanes_fma(n, lanes_set(-0x1.62e430p-1f), x); /* exact */
    const struct lanes r = lanes_fma(n, lanes_set(0x1.05c610p-29f), near);
    const struct lanes sum = lanes_add(one, r);
    struct lanes low = lanes_fma(n, lanes_set(0x1.05c610p-29f), lanes_sub(near, r));
    struct lanes q = lanes_set(0x1.6d113cp-10f);
    struct lanes p;

    low = lanes_add(low, lanes_sub(r, lanes_sub(sum, one)));
    q = lanes_fma(q, r, lanes_set(0x1.120ba2p-7f));
    q = lanes_fma(q, r, lanes_set(0x1.55551ap-5f));
    q = lanes_fma(q, r, lanes_set(0x1.5554dcp-3f));
    q = lanes_fma(q, r, lanes_set(0x1p-1f));
    p = lanes_add(sum, lanes_fma(lanes_mul(r, r), q, low));
    p = lanes_mul(p, lanes_pow2(t));
    p = lanes_select_less(x, lanes_set(EXP_ARGUMENT_MIN), lanes_set(0.0f), p);
    return lanes_select_less(lanes_set(EXP_ARGUMENT_MAX), x, lanes_set(INFINITY), p);
}

static inline float exp_of(float x)
{
    float out[LANE_COUNT];

    lanes_store(out, lanes_exp(lanes_set(x)));
    return out[0];
}

/* With e = exp(-|x|): 1 / (1 + e) for x >= 0, e / (1 + e) below. The quotient is corrected once by
 * its remainder, the rounding of 1 + e included, so that exp's error is nearly all that is left. */
static inline struct lanes lanes_sigmoid(struct lanes x)
{
    const struct lanes zero = lanes_set(0.0f);
    const struct lanes one = lanes_set(1.0f);
    const struct lanes e = lanes_exp(lanes_sub(zero, lanes_max(x, lanes_sub(zero, x))));
    const struct lanes above = lanes_select_less(x, zero, e, one);
    const struct lanes below = lanes_add(one, e);
    const struct lanes below_low = lanes_sub(e, lanes_sub(below, one));
    const struct lanes inverse = lanes_div(one, below);
    const struct lanes quotient = lanes_mul(above, inverse);
    const struct lanes negative = lanes_sub(zero, quotient);
    const struct lanes remainder =
        lanes_fma(negative, below_low, lanes_fma(negative, below, above));

    return lanes_fma(remainder, inverse, quotient);
}

static inline struct lanes lanes_silu_mul(struct lanes gate, struct lanes up)
{
    return lanes_mul(lanes_mul(gate, lanes_sigmoid(gate)), up);
}

/* out[i] = silu(gate[i]) * up[i]; count is a multiple of 16. */
static inline void silu_mul(const float *gate, const float *up, size_t count, float *out)
{
    for (size_t i = 0; i < count; i += LANE_COUNT) {
        lanes_store(out + i, lanes_silu_mul(lanes_load(gate + i), lanes_load(up + i)));
    }
}

static inline void row_sigmoid(float *x, size_t count)
{
    size_t i = 0;

    for (; i + LANE_COUNT <= count; i += LANE_COUNT) {
        lanes_store(x + i, lanes_sigmoid(lanes_load(x + i)));
    }
    if (i < count) {
        struct lanes tail = lanes_load_part(x + i, count - i, 0.0f);
        lanes_store_part(x + i, count - i, lanes_sigmoid(tail));
    }
}

static inline void row_add(float *x, const float *y, size_t count)
{
    size_t i = 0;

    for (; i + LANE_COUNT <= count; i += LANE_COUNT) {
        lanes_store(x + i, lanes_add(lanes_load(x + i), lanes_load(y + i)));
    }
    for (; i < count; i++) {
        x[i] = x[i] + y[i];
    }
}

static inline void row_scale(const float *x, float scale, size_t count, float *out)
{
    size_t i = 0;

    for (; i + LANE_COUNT <= count; i += LANE_COUNT) {
        lanes_store(out + i, lanes_mul(lanes_load(x + i), lanes_set(scale)));
    }
    for (; i < count; i++) {
        out[i] = x[i] * scale;
    }
}

static inline float row_max(const float *x, size_t count)
{
    struct lanes max = lanes_set(-INFINITY);
    size_t i = 0;

    for (; i + LANE_COUNT <= count; i += LANE_COUNT) {
        max = lanes_max(max, lanes_load(x + i));
    }
    if (i < count) {
        max = lanes_max(max, lanes_load_part(x + i, count - i, -INFINITY));
    }
    return lanes_fold_max(max);
}

/* x[i] = exp(x[i] - max); returns their sum. */
static inline float row_exp_sum(float *x, size_t count, float max)
{
    struct lanes sum = lanes_set(0.0f);
    size_t i = 0;

    for (; i + LANE_COUNT <= count; i += LANE_COUNT) {
        struct lanes p = lanes_exp(lanes_sub(lanes_load(x + i), lanes_set(max)));
        lanes_store(x + i, p);
        sum = lanes_add(sum, p);
    }
    if (i < count) {
        struct lanes tail = lanes_load_part(x + i, count - i, -INFINITY);
        struct lanes p = lanes_exp(lanes_sub(tail, lanes_set(max)));
        lanes_store_part(x + i, count - i, p);
        sum = lanes_add(sum, p);
    }
    return lanes_fold_add(sum);
}

static inline void row_softmax(float *x, size_t count)
{
    const struct lanes sum = lanes_set(row_exp_sum(x, count, row_max(x, count)));
    size_t i = 0;

    for (; i + LANE_COUNT <= count; i += LANE_COUNT) {
        lanes_store(x + i, lanes_div(lanes_load(x + i), sum));
    }
    if (i < count) {
        struct lanes tail = lanes_load_part(x + i, count - i, 0.0f);
        lanes_store_part(x + i, count - i, lanes_div(tail, sum));
    }
}

static inline float row_sum_squares(const float *x, size_t count)
{
    struct lanes sum = lanes_set(0.0f);
    size_t i = 0;

    for (; i + LANE_COUNT <= count; i += LANE_COUNT) {
        struct lanes a = lanes_load(x + i);
        sum = lanes_fma(a, a, sum);
    }
    if (i < count) {
        struct lanes a = lanes_load_part(x + i, count - i, 0.0f);
        sum = lanes_fma(a, a, sum);
    }
    return lanes_fold_add(sum);
}

static inline void row_rms_norm(const float *x, const float *weight, uint32_t count, float eps,
                                float *out)
{
    const float mean = row_sum_squares(x, count) / (float)count;
    const float inverse = 1.0f / sqrtf(mean + eps);
    size_t i = 0;

    for (; i + LANE_COUNT <= count; i += LANE_COUNT) {
        struct lanes normed = lanes_mul(lanes_load(x + i), lanes_set(inverse));
        lanes_store(out + i, lanes_mul(normed, lanes_load(weight + i)));
    }
    for (; i < count; i++) {
        out[i] = x[i] * inverse * weight[i];
    }
}

/* Products are rounded, then joined by one fma: y0 = x0 c - (x1 s), y1 = x0 s + (x1 c). Eight pairs
 * at a time, then one by one. */
static inline void row_rope(float *x, const float *cos_sin, uint32_t pair_count)
{
    const size_t count = 2 * (size_t)pair_count;
    size_t i = 0;

    for (; i + LANE_COUNT <= count; i += LANE_COUNT) {
        lanes_store(x + i, lanes_rotate(lanes_load(x + i), lanes_load(cos_sin + i)));
    }
    for (; i < count; i += 2) {
        const float cosine = cos_sin[i], sine = cos_sin[i + 1];
        const float a = x[i], b = x[i + 1];

        x[i] = fmaf(a, cosine, -(b * sine));
        x[i + 1] = fmaf(a, sine, b * cosine);
    }
}

/* The same operations on the pairs (x[i], x[pair_count + i]). */
static inline void row_rope_halves(float *x, const float *cos_sin, uint32_t pair_count)
{
    float *y = x + pair_count;
    size_t i = 0;

    for (; i + LANE_COUNT <= pair_count; i += LANE_COUNT) {
        const struct lanes a = lanes_load(x + i), b = lanes_load(y + i);
        const struct lanes low = lanes_load(cos_sin + 2 * i);
        const struct lanes high = lanes_load(cos_sin + 2 * i + LANE_COUNT);
        const struct lanes cosine = lanes_evens(low, high), sine = lanes_odds(low, high);

        lanes_store(x + i, lanes_fma(a, cosine, lanes_sub(lanes_set(-0.0f), lanes_mul(b, sine))));
        lanes_store(y + i, lanes_fma(a, sine, lanes_mul(b, cosine)));
    }
    for (; i < pair_count; i++) {
        const float cosine = cos_sin[2 * i], sine = cos_sin[2 * i + 1];
        const float a = x[i], b = y[i];

        x[i] = fmaf(a, cosine, -(b * sine));
        y[i] = fmaf(a, sine, b * cosine);
    }
}

#endif
