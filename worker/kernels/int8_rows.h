#ifndef SHOAL_KERNELS_INT8_ROWS_H
#define SHOAL_KERNELS_INT8_ROWS_H

/* Activations as int8 codes (int8_codes.h), cut like the weights that they meet: each block of 32
 * or 256 values has a scale da of its own. */
#include "worker/kernels/block_kernel.h"
#include "worker/kernels/int8_codes.h"
#include "worker/kernels/kernels.h"

/* `out` holds codes without a bias yet. */
static inline void int8_sums(struct int8_chunk *out)
{
    const struct words ones = words_set(0x01010101);
    int32_t fours[CHUNK_WORDS];

    for (uint32_t i = 0; i < CHUNK_WORDS; i += PANEL_ROWS) {
        struct words codes = words_load(out->codes + (size_t)4 * i);

        words_store(fours + i, words_sum_four(codes, ones));
    }
    for (uint32_t i = 0; i < CHUNK_VALUES / 16; i++) {
        const int32_t *four = fours + (size_t)4 * i;

        out->sums_16[i] = (int16_t)(four[0] + four[1] + four[2] + four[3]);
    }
    for (uint32_t i = 0; i < CHUNK_VALUES / 32; i++) {
        out->sums_32[i] = (int16_t)(out->sums_16[2 * i] + out->sums_16[2 * i + 1]);
    }
}

/* `count` values, at most CHUNK_VALUES and whole blocks; the rest of the chunk is zero. */
static inline void int8_chunk_make(struct int8_chunk *out, const float *x, uint32_t count,
                                   uint32_t block_values)
{
    const struct words bias = words_set(WORDS_ACTIVATION_BIAS * 0x01010101);

    for (uint32_t k = 0; k < count; k += block_values) {
        out->scales[k / block_values] = int8_codes(x + k, block_values, (int8_t *)out->codes + k);
    }
    memset(out->codes + count, 0, CHUNK_VALUES - count);
    int8_sums(out);
    for (uint32_t i = 0; i < CHUNK_VALUES && WORDS_ACTIVATION_BIAS != 0; i += 4 * PANEL_ROWS) {
        words_store(out->codes + i, words_xor(words_load(out->codes + i), bias));
    }
}

static inline void int8_rows_make(enum weight_type type, uint32_t columns, struct rows_view x,
                                  uint32_t row_count, struct int8_rows out)
{
    const uint32_t block_values = weight_type_block_values(type);

    for (uint32_t row = 0; row < row_count; row++) {
        const float *values = x.values + row * x.stride;

        for (uint32_t chunk = 0; chunk < int8_chunk_count(columns); chunk++) {
            int8_chunk_make(out.chunks + chunk * out.stride + out.row + row,
                            values + (size_t)chunk * CHUNK_VALUES,
                            int8_chunk_values(columns, chunk), block_values);
        }
    }
}

#endif
