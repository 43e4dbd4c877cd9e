/* grids.c - the packed grids of quant_tables.h, expanded once. */
#include "worker/kernels/grids.h"

#include "common/model/quant_tables.h"

#include <pthread.h>
#include <stddef.h>

struct grids grids;

/* Four values of `bits`-bit indices, times `factor`, the first in the lowest byte. */
static uint32_t four_values(uint32_t indices, uint32_t bits, const int8_t *values, int factor)
{
    uint32_t word = 0;

    for (uint32_t i = 0; i < 4; i++) {
        int value = factor * values[indices >> bits * i & ((1u << bits) - 1)];

        word |= (uint32_t)(uint8_t)value << 8 * i;
    }
    return word;
}

static void expand_eights(uint32_t *out, const uint16_t *rows, size_t row_count,
                          const int8_t *values, int factor)
{
    for (size_t i = 0; i < row_count; i++) {
        out[2 * i] = four_values(rows[i], 2, values, factor);
        out[2 * i + 1] = four_values(rows[i] >> 8, 2, values, factor);
    }
}

static void expand_fours(uint32_t *out, const uint16_t *rows, size_t row_count,
                         const int8_t *values)
{
    for (size_t i = 0; i < row_count; i++) {
        out[i] = four_values(rows[i] & 0x7777, 4, values, 1);
    }
}

static void expand(void)
{
    expand_eights(grids.iq2xxs, quant_grid_iq2xxs, 256, quant_grid_values_iq2, 1);
    expand_eights(grids.iq2xs, quant_grid_iq2xs, 512, quant_grid_values_iq2, 1);
    expand_eights(grids.iq2s, quant_grid_iq2s, 1024, quant_grid_values_iq2, 1);
    expand_eights(grids.iq1, quant_grid_iq1, 2048, quant_grid_values_iq1, 8);
    expand_fours(grids.iq3xxs, quant_grid_iq3xxs, 256, quant_grid_values_iq3xxs);
    expand_fours(grids.iq3s, quant_grid_iq3s, 512, quant_grid_values_iq3s);
}

void grids_expand(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    (void)pthread_once(&once, expand);
}
