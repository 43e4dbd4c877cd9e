#ifndef SHOAL_KERNELS_INT8_CODES_H
#define SHOAL_KERNELS_INT8_CODES_H

/* Values as int8 codes under one scale: scale = max|x| / 127 and code = x * (127 / max|x|) to the
 * nearest even, both in f32. Zeros, or values so small that 127 / max is no number, have scale 0;
 * an infinity or a NaN makes it NaN, so that what is broken shows. Written over a lanes and a words
 * header and row_math.h. */
#include "common/base/half.h"
#include "worker/kernels/row_math.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INT8_TINY_BITS  0x0d800000 /* 2^-100 */
#define INT8_FINITE_MAX 0x7f7fffff

/* The bits of the largest magnitude: a NaN is larger than all. */
static inline uint32_t magnitude_bits(const float *x, size_t count)
{
    const struct words mask = words_set(0x7fffffff);
    struct words most = words_set(0);
    size_t i = 0;

    for (; i + LANE_COUNT <= count; i += LANE_COUNT) {
        most = words_max(most, words_and(words_cast(lanes_load(x + i)), mask));
    }
    if (i < count) {
        struct lanes rest = lanes_load_part(x + i, count - i, 0.0f);

        most = words_max(most, words_and(words_cast(rest), mask));
    }
    return words_fold_max(most);
}

/* Returns the scale. */
static inline float int8_codes(const float *x, size_t count, int8_t *codes)
{
    const uint32_t bits = magnitude_bits(x, count);
    const float most = float_of_bits(bits);
    struct lanes inverse;
    size_t i = 0;

    if (bits < INT8_TINY_BITS || bits > INT8_FINITE_MAX) {
        memset(codes, 0, count);
        return bits < INT8_TINY_BITS ? 0.0f : NAN;
    }
    inverse = lanes_set(127.0f / most);
    for (; i + LANE_COUNT <= count; i += LANE_COUNT) {
        words_store_bytes(codes + i, words_of_lanes(lanes_mul(lanes_load(x + i), inverse)));
    }
    if (i < count) {
        struct lanes rest = lanes_load_part(x + i, count - i, 0.0f);
        int8_t part[LANE_COUNT];

        words_store_bytes(part, words_of_lanes(lanes_mul(rest, inverse)));
        memcpy(codes + i, part, count - i);
    }
    return most / 127.0f;
}

#endif
