#ifndef SHOAL_KERNELS_INT8_ROWS_H
#define SHOAL_KERNELS_INT8_ROWS_H

/* Activations as int8 codes (int8_codes.h), cut like the weights that they meet: each block of 32
 * or 256 values has a scale da of its own. */
#include "worker/kernels/block_kernel.h"
#include "worker/kernels/int8_codes.h"
#include "worker/kernels/kernels.h"

#define INT8_COLUMNS 1024 /* converted at a time; a multiple of every block */

struct int8_rows {
    int8_t codes[BLOCK_ROWS][INT8_COLUMNS];
    float scales[BLOCK_ROWS][INT8_COLUMNS / 32];
    int32_t sums[BLOCK_ROWS][INT8_COLUMNS / 16];
};

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
                int8_codes(values + k, cut.block_values, &out->codes[row][k]);
        }
        int8_sums(out->codes[row], count, cut.sum_values, out->sums[row]);
    }
}

#endif
