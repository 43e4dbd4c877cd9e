/* weight_type.c - one row for each type of weights. */
#include "common/model/weight_type.h"

#include "common/base/check.h"

#include <string.h>

/* F8_E4M3 has no number in GGUF files. */
#define NO_QUANT QUANT_TYPE_COUNT

static const enum quant_type quants[WEIGHT_TYPE_COUNT] = {
    [WEIGHT_F32] = QUANT_F32,         [WEIGHT_F16] = QUANT_F16,
    [WEIGHT_BF16] = QUANT_BF16,       [WEIGHT_F8_E4M3] = NO_QUANT,
    [WEIGHT_Q4_0] = QUANT_Q4_0,       [WEIGHT_Q4_1] = QUANT_Q4_1,
    [WEIGHT_Q5_0] = QUANT_Q5_0,       [WEIGHT_Q5_1] = QUANT_Q5_1,
    [WEIGHT_Q8_0] = QUANT_Q8_0,       [WEIGHT_IQ4_NL] = QUANT_IQ4_NL,
    [WEIGHT_Q2_K] = QUANT_Q2_K,       [WEIGHT_Q3_K] = QUANT_Q3_K,
    [WEIGHT_Q4_K] = QUANT_Q4_K,       [WEIGHT_Q5_K] = QUANT_Q5_K,
    [WEIGHT_Q6_K] = QUANT_Q6_K,       [WEIGHT_IQ1_S] = QUANT_IQ1_S,
    [WEIGHT_IQ1_M] = QUANT_IQ1_M,     [WEIGHT_IQ2_XXS] = QUANT_IQ2_XXS,
    [WEIGHT_IQ2_XS] = QUANT_IQ2_XS,   [WEIGHT_IQ2_S] = QUANT_IQ2_S,
    [WEIGHT_IQ3_XXS] = QUANT_IQ3_XXS, [WEIGHT_IQ3_S] = QUANT_IQ3_S,
    [WEIGHT_IQ4_XS] = QUANT_IQ4_XS,
};

static const struct quant_traits *traits_of(enum weight_type type)
{
    static const struct quant_traits f8 = {"F8_E4M3", 1, 1, NULL};

    ASSERT(type < WEIGHT_TYPE_COUNT);
    return quants[type] == NO_QUANT ? &f8 : quant_traits(quants[type]);
}

const char *weight_type_name(enum weight_type type)
{
    return traits_of(type)->name;
}

bool weight_type_find(const char *name, enum weight_type *out)
{
    for (int i = 0; i < WEIGHT_TYPE_COUNT; i++) {
        if (strcmp(weight_type_name((enum weight_type)i), name) == 0) {
            *out = (enum weight_type)i;
            return true;
        }
    }
    return false;
}

enum weight_type weight_type_of_quant(enum quant_type quant)
{
    for (int i = 0; i < WEIGHT_TYPE_COUNT; i++) {
        if (quants[i] == quant) {
            return (enum weight_type)i;
        }
    }
    check_failed("the type has a row in quant_traits", __FILE__, __LINE__, __func__);
}

bool weight_type_is_blocks(enum weight_type type)
{
    ASSERT(type < WEIGHT_TYPE_COUNT);
    return type >= WEIGHT_Q4_0;
}

uint32_t weight_type_bytes(enum weight_type type)
{
    ASSERT(!weight_type_is_blocks(type));
    return traits_of(type)->block_bytes;
}

uint32_t weight_type_block_values(enum weight_type type)
{
    return traits_of(type)->block_values;
}

uint64_t weight_row_bytes(enum weight_type type, uint32_t columns)
{
    const struct quant_traits *traits = traits_of(type);

    ASSERT(columns % traits->block_values == 0);
    return (uint64_t)columns / traits->block_values * traits->block_bytes;
}

bool weight_scales_are_finite(enum weight_type type, const void *values, uint64_t count)
{
    ASSERT(weight_type_is_blocks(type));
    return quant_scales_are_finite(quants[type], values, count / weight_type_block_values(type));
}

void weight_values_widen(float *out, enum weight_type type, const void *values, uint64_t count)
{
    ASSERT(type != WEIGHT_F8_E4M3);
    quant_decode(out, quants[type], values, count);
}

uint32_t scale_block_count(uint32_t values)
{
    return values / SCALE_BLOCK + (values % SCALE_BLOCK != 0);
}
