/* quant_check.c - scales that are no numbers, found before they spread.
 *
 * Codes can be anything; only a block's f16 fields can hold NaN or an infinity, and one such block
 * spoils every product that it takes part in.
 */
#include "common/model/quant.h"

#include "common/base/check.h"
#include "common/model/quant_internal.h"

#define NONE 0xff

/* Byte offsets of the f16 fields of a block. */
static const struct {
    uint8_t d, min;
} fields[QUANT_TYPE_COUNT] = {
    [QUANT_Q4_0] = {0, NONE},   [QUANT_Q4_1] = {0, 2},      [QUANT_Q5_0] = {0, NONE},
    [QUANT_Q5_1] = {0, 2},      [QUANT_Q8_0] = {0, NONE},   [QUANT_Q2_K] = {80, 82},
    [QUANT_Q3_K] = {108, NONE}, [QUANT_Q4_K] = {0, 2},      [QUANT_Q5_K] = {0, 2},
    [QUANT_Q6_K] = {208, NONE}, [QUANT_IQ1_S] = {0, NONE},  [QUANT_IQ2_XXS] = {0, NONE},
    [QUANT_IQ2_XS] = {0, NONE}, [QUANT_IQ2_S] = {0, NONE},  [QUANT_IQ3_XXS] = {0, NONE},
    [QUANT_IQ3_S] = {0, NONE},  [QUANT_IQ4_NL] = {0, NONE}, [QUANT_IQ4_XS] = {0, NONE},
};

static bool half_is_finite(uint32_t half)
{
    return (half & 0x7c00) != 0x7c00;
}

static bool block_is_finite(enum quant_type type, const uint8_t *block)
{
    if (type == QUANT_IQ1_M) { /* the exponent lies in the two upper quarters */
        return half_is_finite((uint32_t)(block[55] & 0xf0) << 8 | (uint32_t)(block[53] & 0xf0)
                                                                      << 4);
    }
    return half_is_finite(field_u16(block + fields[type].d)) &&
           (fields[type].min == NONE || half_is_finite(field_u16(block + fields[type].min)));
}

bool quant_scales_are_finite(enum quant_type type, const void *blocks, uint64_t block_count)
{
    const struct quant_traits *traits = quant_traits(type);
    const uint8_t *block = blocks;

    ASSERT(traits != NULL && traits->block_values > 1);
    for (uint64_t i = 0; i < block_count; i++) {
        if (!block_is_finite(type, block + i * traits->block_bytes)) {
            return false;
        }
    }
    return true;
}
