#ifndef SHOAL_KERNELS_ROW_SCAN_H
#define SHOAL_KERNELS_ROW_SCAN_H

/* What sampling asks of a whole row of logits, for one level: the sum of a softmax in double, and
 * searches. The doubles are vectors of four that the compiler turns into the level's instructions:
 * only + - * and integer operations, so that every level gives the same bits.
 * deploy/docs/arithmetic.md states what row_exp_total computes.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SCAN_EXP_MIN                                                                               \
    (-700.0) /* smaller arguments count as this: nothing beside a sum from 1 on                    \
              */
#define SCAN_EXP_DEGREE 13
#define SCAN_STRIDE     (4 * LANE_COUNT)

typedef double scan_doubles __attribute__((vector_size(32)));
typedef int64_t scan_words __attribute__((vector_size(32)));
typedef float scan_floats __attribute__((vector_size(16)));

/* exp of four x, -700 <= x <= 0, in place: 2^n p(r), r = x - n ln 2, p the series up to
 * r^13 / 13!. Within 1 ulp. */
static inline void scan_exp(scan_doubles *x)
{
    static const double inverse_factorials[SCAN_EXP_DEGREE + 1] = {
        1.0,
        1.0,
        0.5,
        0x1.5555555555555p-3,
        0x1.5555555555555p-5,
        0x1.1111111111111p-7,
        0x1.6c16c16c16c17p-10,
        0x1.a01a01a01a01ap-13,
        0x1.a01a01a01a01ap-16,
        0x1.71de3a556c734p-19,
        0x1.27e4fb7789f5cp-22,
        0x1.ae64567f544e4p-26,
        0x1.1eed8eff8d898p-29,
        0x1.6124613a86d09p-33,
    };
    const scan_doubles t = *x * 0x1.71547652b82fep+0 + 0x1.8p52; /* rounds to an integer */
    const scan_doubles n = t - 0x1.8p52;
    const scan_doubles r = (*x - n * 0x1.62e42fee00000p-1) - n * 0x1.a39ef35793c76p-33;
    scan_doubles p = r * inverse_factorials[SCAN_EXP_DEGREE];

#pragma GCC unroll 16
    for (int i = SCAN_EXP_DEGREE - 1; i > 0; i--) {
        p = (p + inverse_factorials[i]) * r;
    }
    p = p + inverse_factorials[0];
    *x = (scan_doubles)((scan_words)p + ((scan_words)t << 52)); /* the low bits of t are n */
}

static inline void scan_clamp(scan_doubles *x)
{
    const scan_doubles least = (scan_doubles){0} + SCAN_EXP_MIN;
    const scan_words is_inside = *x > least;

    *x = (scan_doubles)(((scan_words)*x & is_inside) | ((scan_words)least & ~is_inside));
}

/* sum[lane] += exp(max((x[lane] - max) * inverse, -700)) of 16 lanes */
static inline void scan_exp_block(scan_doubles sum[4], const float *x, double max, double inverse)
{
#pragma GCC unroll 4
    for (size_t quarter = 0; quarter < 4; quarter++) {
        scan_floats values;
        scan_doubles argument;

        memcpy(&values, x + 4 * quarter, sizeof(values));
        argument = (__builtin_convertvector(values, scan_doubles) - max) * inverse;
        scan_clamp(&argument);
        scan_exp(&argument);
        sum[quarter] += argument;
    }
}

static inline void row_exp_each(double *x, size_t count)
{
    scan_doubles values = {0};

    for (size_t i = 0; i < count; i += 4) {
        const size_t bytes = (count - i < 4 ? count - i : 4) * sizeof(double);

        memcpy(&values, x + i, bytes);
        scan_clamp(&values);
        scan_exp(&values);
        memcpy(x + i, &values, bytes);
    }
}

static inline double row_exp_total(const float *x, size_t count, float max, double inverse)
{
    scan_doubles sum[4] = {{0.0}};
    double lanes[LANE_COUNT];
    float tail[LANE_COUNT];
    size_t i = 0;

    for (; i + LANE_COUNT <= count; i += LANE_COUNT) {
        scan_exp_block(sum, x + i, (double)max, inverse);
    }
    if (i < count) { /* a missing element counts exp(-700) */
        for (size_t lane = 0; lane < LANE_COUNT; lane++) {
            tail[lane] = lane < count - i ? x[i + lane] : -INFINITY;
        }
        scan_exp_block(sum, tail, (double)max, inverse);
    }
    memcpy(lanes, sum, sizeof(lanes));
    for (size_t half = LANE_COUNT / 2; half > 0; half /= 2) {
        for (size_t lane = 0; lane < half; lane++) {
            lanes[lane] += lanes[lane + half];
        }
    }
    return lanes[0];
}

static inline size_t row_find_from(const float *x, size_t begin, size_t count, float limit)
{
    size_t i = begin;

    for (; i + SCAN_STRIDE <= count; i += SCAN_STRIDE) {
        const struct lanes low = lanes_max(lanes_load(x + i), lanes_load(x + i + LANE_COUNT));
        const struct lanes high =
            lanes_max(lanes_load(x + i + 2 * LANE_COUNT), lanes_load(x + i + 3 * LANE_COUNT));

        if (lanes_fold_max(lanes_max(low, high)) >= limit) {
            break;
        }
    }
    while (i < count && !(x[i] >= limit)) {
        i++;
    }
    return i;
}

static inline size_t row_count_above(const float *x, size_t count, float limit)
{
    uint32_t found[LANE_COUNT] = {0};
    size_t total = 0;
    size_t i = 0;

    for (; i + LANE_COUNT <= count; i += LANE_COUNT) {
        for (size_t lane = 0; lane < LANE_COUNT; lane++) {
            found[lane] += x[i + lane] > limit ? 1 : 0;
        }
    }
    for (; i < count; i++) {
        total += x[i] > limit ? 1 : 0;
    }
    for (size_t lane = 0; lane < LANE_COUNT; lane++) {
        total += found[lane];
    }
    return total;
}

#endif
