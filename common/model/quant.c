/* quant.c - one row for each type: its name, its block and who decodes it.
 *
 * The decoders are plain and exact: the reference for the kernels, and the path of everything that
 * is not worth a kernel. Each family has its file.
 */
#include "common/model/quant.h"

#include "common/base/check.h"
#include "common/model/quant_internal.h"

static void decode_f32(float *out, const void *blocks, size_t block_count)
{
    memcpy(out, blocks, block_count * sizeof(*out));
}

static void decode_f16(float *out, const void *blocks, size_t block_count)
{
    const uint8_t *at = blocks;

    for (size_t i = 0; i < block_count; i++) {
        out[i] = field_f16(at + 2 * i);
    }
}

static void decode_bf16(float *out, const void *blocks, size_t block_count)
{
    const uint8_t *at = blocks;

    for (size_t i = 0; i < block_count; i++) {
        out[i] = float_of_bf16(field_u16(at + 2 * i));
    }
}

static const struct quant_traits traits[QUANT_TYPE_COUNT] = {
    [QUANT_F32] = {"F32", 4, 1, decode_f32},
    [QUANT_F16] = {"F16", 2, 1, decode_f16},
    [QUANT_BF16] = {"BF16", 2, 1, decode_bf16},
    [QUANT_Q4_0] = {"Q4_0", 18, 32, quant_decode_q4_0},
    [QUANT_Q4_1] = {"Q4_1", 20, 32, quant_decode_q4_1},
    [QUANT_Q5_0] = {"Q5_0", 22, 32, quant_decode_q5_0},
    [QUANT_Q5_1] = {"Q5_1", 24, 32, quant_decode_q5_1},
    [QUANT_Q8_0] = {"Q8_0", 34, 32, quant_decode_q8_0},
    [QUANT_Q2_K] = {"Q2_K", 84, QUANT_SUPER, quant_decode_q2_k},
    [QUANT_Q3_K] = {"Q3_K", 110, QUANT_SUPER, quant_decode_q3_k},
    [QUANT_Q4_K] = {"Q4_K", 144, QUANT_SUPER, quant_decode_q4_k},
    [QUANT_Q5_K] = {"Q5_K", 176, QUANT_SUPER, quant_decode_q5_k},
    [QUANT_Q6_K] = {"Q6_K", 210, QUANT_SUPER, quant_decode_q6_k},
    [QUANT_IQ1_S] = {"IQ1_S", 50, QUANT_SUPER, quant_decode_iq1_s},
    [QUANT_IQ1_M] = {"IQ1_M", 56, QUANT_SUPER, quant_decode_iq1_m},
    [QUANT_IQ2_XXS] = {"IQ2_XXS", 66, QUANT_SUPER, quant_decode_iq2_xxs},
    [QUANT_IQ2_XS] = {"IQ2_XS", 74, QUANT_SUPER, quant_decode_iq2_xs},
    [QUANT_IQ2_S] = {"IQ2_S", 82, QUANT_SUPER, quant_decode_iq2_s},
    [QUANT_IQ3_XXS] = {"IQ3_XXS", 98, QUANT_SUPER, quant_decode_iq3_xxs},
    [QUANT_IQ3_S] = {"IQ3_S", 110, QUANT_SUPER, quant_decode_iq3_s},
    [QUANT_IQ4_NL] = {"IQ4_NL", 18, 32, quant_decode_iq4_nl},
    [QUANT_IQ4_XS] = {"IQ4_XS", 136, QUANT_SUPER, quant_decode_iq4_xs},
};

/* Types of ggml without a row above, so that a refusal can name them. */
static const char *const other_names[] = {
    [9] = "Q8_1",        [15] = "Q8_K",       [24] = "I8",         [25] = "I16",
    [26] = "I32",        [27] = "I64",        [28] = "F64",        [31] = "Q4_0_4_4",
    [32] = "Q4_0_4_8",   [33] = "Q4_0_8_8",   [34] = "TQ1_0",      [35] = "TQ2_0",
    [36] = "IQ4_NL_4_4", [37] = "IQ4_NL_4_8", [38] = "IQ4_NL_8_8", [39] = "MXFP4",
};

const struct quant_traits *quant_traits(uint32_t type)
{
    return type < QUANT_TYPE_COUNT && traits[type].name != NULL ? &traits[type] : NULL;
}

const char *quant_type_name(uint32_t type)
{
    if (quant_traits(type) != NULL) {
        return traits[type].name;
    }
    return type < ARRAY_LENGTH(other_names) && other_names[type] != NULL ? other_names[type]
                                                                         : "unknown";
}

uint64_t quant_bytes(uint32_t type, uint64_t values)
{
    const struct quant_traits *row = quant_traits(type);
    uint64_t bytes;

    if (row == NULL || values % row->block_values != 0 ||
        __builtin_mul_overflow(values / row->block_values, (uint64_t)row->block_bytes, &bytes)) {
        return 0;
    }
    return bytes;
}

void quant_decode(float *out, enum quant_type type, const void *blocks, size_t value_count)
{
    const struct quant_traits *row = quant_traits(type);

    ASSERT(row != NULL && value_count % row->block_values == 0);
    row->decode(out, blocks, value_count / row->block_values);
}
