#ifndef SHOAL_KERNELS_INT8_ROWS_H
#define SHOAL_KERNELS_INT8_ROWS_H

/* Activations as int8 codes, cut like the weights that they meet: in each block of 32 or 256 values
 * da = max|x| / 127 and code = x * (127 / max|x|) to the nearest even, both in f32. A block of
 * zeros, or of values so small that 127 / max is no number, has da = 0; one with an infinity or a
 * NaN has da = NaN, so that what is broken shows. Written over a lanes and a words header. */
#include "worker/kernels/block_kernel.h"
#include "worker/kernels/kernels.h"

#include <math.h>

#define INT8_COLUMNS    1024       /* converted at a time; a multiple of every block */
#define INT8_TINY_BITS  0x0d800000 /* 2^-100 */
#define INT8_FINITE_MAX 0x7f7fffff

struct int8_rows {
    int8_t codes[BLOCK_ROWS][INT8_COLUMNS];
    float scales[BLOCK_ROWS][INT8_COLUMNS / 32];
    int32_t sums[BLOCK_ROWS][INT8_COLUMNS / 16];
};

/* The bits of the largest magnitude: a NaN is larger than all. */
static inline uint32_t magnitude_bits(const float *x, uint32_t count)
{
    const struct words mask = words_set(0x7fffffff);
    struct words most = words_set(0);

    for (uint32_t i = 0; i < count; i += LANE_COUNT) {
        most = words_max(most, words_and(words_cast(lanes_load(x + i)), mask));
    }
    return words_fold_max(most);
}

/* One block; returns da. */
static inline float int8_block(const float *x, uint32_t count, int8_t *codes)
{
    const uint32_t bits = magnitude_bits(x, count);
    struct lanes inverse;
    float most;

    if (bits < INT8_TINY_BITS || bits > INT8_FINITE_MAX) {
        memset(codes, 0, count);
        return bits < INT8_TINY_BITS ? 0.0f : NAN;
    }
    memcpy(&most, &bits, sizeof(most));
    inverse = lanes_set(127.0f / most);
    for (uint32_t i = 0; i < count; i += LANE_COUNT) {
        words_store_bytes(codes + i, words_of_lanes(lanes_mul(lanes_load(x + i), inverse)));
    }
    return most / 127.0f;
}

static inline void int8_sums(const int8_t *codes, uint32_t count, uint32_t sum_values,
                             int32_t *sums)
{
    for (uint32_t i = 0; i < count; i += sum_values) {
        int32_t sum = 0;

        for (uint32_t j = 0; j < sum_values; j++) {
            sum += codes[i + j];
        }
        sums[i / sum_values] = sum;
    }
}

/* How a weight type cuts its rows. */
struct int8_cut {
    uint32_t block_values;
    uint32_t sum_values;
};

/* `count` columns, at most INT8_COLUMNS and whole blocks, of up to BLOCK_ROWS rows. */
static inline void int8_rows_make(struct int8_rows *out, struct int8_cut cut, struct rows_view x,
                                  uint32_t row_count, uint32_t count)
{
    for (uint32_t row = 0; row < row_count; row++) {
        const float *values = x.values + row * x.stride;

        for (uint32_t k = 0; k < count; k += cut.block_values) {
            out->scales[row][k / cut.block_values] =
                int8_block(values + k, cut.block_values, &out->codes[row][k]);
        }
        int8_sums(out->codes[row], count, cut.sum_values, out->sums[row]);
    }
}

#endif
