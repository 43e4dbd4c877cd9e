#ifndef SHOAL_KERNELS_BLOCKS_IQ_H
#define SHOAL_KERNELS_BLOCKS_IQ_H

/* Blocks of 256 values that are looked up in grids, or in a list of levels; formats in
 * common/model/quant.h. Fractions are multiplied out: a scale of s + 1/2 becomes 2 s + 1 under half
 * of d, a shift by an eighth becomes 8 grid +- 1 under an eighth of d. */
#include "worker/kernels/blocks_k.h"
#include "worker/kernels/grids.h"

/* Bit i of the lowest four turns byte i negative. */
BLOCK_INLINE struct words with_signs(struct words values, struct words signs)
{
    struct words ones = bits_to_bytes(low_bits(signs, 15));
    struct words mask = words_sub(words_left(ones, 8), ones); /* 0x00 or 0xff */

    return words_sub_bytes(words_xor(values, mask), mask);
}

/* The eighth sign makes their number even. */
BLOCK_INLINE struct words eight_signs(struct words seven_bits)
{
    struct words parity = low_bits(seven_bits, 127);
    struct words seven = parity;

    parity = words_xor(parity, words_right(parity, 4));
    parity = words_xor(parity, words_right(parity, 2));
    parity = words_xor(parity, words_right(parity, 1));
    return words_or(seven, words_left(low_bits(parity, 1), 7));
}

BLOCK_INLINE struct words odd_scale(struct words scale)
{
    return words_or(words_left(scale, 1), words_set(1));
}

/* A row of eight values with their signs becomes two words. */
BLOCK_INLINE void signed_eight(const uint32_t *grid, struct words row, struct words signs,
                               struct words *out)
{
    struct words at = words_left(row, 1);

    out[0] = with_signs(words_gather(grid, at), signs);
    out[1] = with_signs(words_gather(grid + 1, at), words_right(signs, 4));
}

BLOCK_INLINE void unpack_iq2_xxs(const char *block, uint32_t sub, struct sub_block *out)
{
    const struct words rows = block_word(block, 2 * sub);
    const struct words packed = block_word(block, 2 * sub + 1);

    for (uint32_t g = 0; g < 4; g++) {
        signed_eight(grids.iq2xxs, low_bits(words_right(rows, 8 * g), 255),
                     eight_signs(words_right(packed, 7 * g)), &out->codes[2 * g]);
    }
    out->scale = odd_scale(words_right(packed, 28));
}

BLOCK_INLINE void floats_iq2_xxs(const char *block, struct block_floats *out)
{
    floats_of_half(block, 16, out);
}

BLOCK_INLINE struct words nibble_scale(const char *block, uint32_t first, uint32_t sub)
{
    return low_bits(words_right(block_word(block, first + sub / 8), sub % 8 * 4), 15);
}

BLOCK_INLINE void unpack_iq2_xs(const char *block, uint32_t sub, struct sub_block *out)
{
    const struct words packed = block_word(block, sub);

    for (uint32_t g = 0; g < 2; g++) {
        struct words row = words_right(packed, 16 * g);

        signed_eight(grids.iq2xs, low_bits(row, 511), eight_signs(words_right(row, 9)),
                     &out->codes[2 * g]);
    }
    out->scale = odd_scale(nibble_scale(block, 16, sub));
}

BLOCK_INLINE void floats_iq2_xs(const char *block, struct block_floats *out)
{
    floats_of_half(block, 18, out);
}

BLOCK_INLINE void unpack_iq2_s(const char *block, uint32_t sub, struct sub_block *out)
{
    for (uint32_t g = 0; g < 2; g++) {
        uint32_t eight = 2 * sub + g;
        struct words upper = words_right(block_word(block, 16 + eight / 16), eight % 16 * 2);
        struct words row =
            words_or(low_bits(block_byte(block, 0, eight), 255), words_left(low_bits(upper, 3), 8));

        signed_eight(grids.iq2s, row, block_byte(block, 8, eight), &out->codes[2 * g]);
    }
    out->scale = odd_scale(nibble_scale(block, 18, sub));
}

BLOCK_INLINE void floats_iq2_s(const char *block, struct block_floats *out)
{
    floats_of_half(block, 20, out);
}

BLOCK_INLINE void unpack_iq3_xxs(const char *block, uint32_t sub, struct sub_block *out)
{
    const struct words packed = block_word(block, 16 + sub);

    for (uint32_t i = 0; i < 8; i++) {
        struct words row = low_bits(block_byte(block, 2 * sub, i), 255);
        struct words signs = eight_signs(words_right(packed, i / 2 * 7));

        out->codes[i] = with_signs(words_gather(grids.iq3xxs, row), words_right(signs, i % 2 * 4));
    }
    out->scale = odd_scale(words_right(packed, 28));
}

BLOCK_INLINE void floats_iq3_xxs(const char *block, struct block_floats *out)
{
    floats_of_half(block, 24, out);
}

BLOCK_INLINE void unpack_iq3_s(const char *block, uint32_t sub, struct sub_block *out)
{
    const struct words ninth = block_byte(block, 16, sub);
    const struct words signs = block_word(block, 18 + sub);

    for (uint32_t i = 0; i < 8; i++) {
        struct words row = words_or(low_bits(block_byte(block, 2 * sub, i), 255),
                                    words_left(low_bits(words_right(ninth, i), 1), 8));

        out->codes[i] = with_signs(words_gather(grids.iq3s, row), words_right(signs, 4 * i));
    }
    out->scale = odd_scale(nibble_scale(block, 26, sub));
}

BLOCK_INLINE void floats_iq3_s(const char *block, struct block_floats *out)
{
    floats_of_half(block, 27, out);
}

/* A row of eight values times 8, plus or (bit 0 of `negative`) minus one. */
BLOCK_INLINE void shifted_eight(struct words row, struct words negative, struct words *out)
{
    struct words at = words_left(row, 1);
    struct words shift = words_sub(words_set(0), low_bits(negative, 1));

    shift = words_or(shift, words_set(0x01010101)); /* bytes of 1 or -1 */
    out[0] = words_add_bytes(words_gather(grids.iq1, at), shift);
    out[1] = words_add_bytes(words_gather(grids.iq1 + 1, at), shift);
}

BLOCK_INLINE void unpack_iq1_s(const char *block, uint32_t sub, struct sub_block *out)
{
    const struct words packed = words_right(block_word(block, 8 + sub / 2), sub % 2 * 16);

    for (uint32_t g = 0; g < 4; g++) {
        struct words row = words_or(low_bits(block_byte(block, sub, g), 255),
                                    words_left(low_bits(words_right(packed, 3 * g), 7), 8));

        shifted_eight(row, words_right(packed, 15), &out->codes[2 * g]);
    }
    out->scale = odd_scale(low_bits(words_right(packed, 12), 7));
}

BLOCK_INLINE void floats_iq1_s(const char *block, struct block_floats *out)
{
    floats_of_half(block, 12, out);
}

BLOCK_INLINE void unpack_iq1_m(const char *block, uint32_t sub, struct sub_block *out)
{
    const uint32_t at = sub / 4 % 2 * 16 + sub % 4 * 3;

    for (uint32_t g = 0; g < 2; g++) {
        uint32_t eight = 2 * sub + g;
        struct words upper = words_right(block_word(block, 8 + eight / 8), eight % 8 * 4);
        struct words row =
            words_or(low_bits(block_byte(block, 0, eight), 255), words_left(low_bits(upper, 7), 8));

        shifted_eight(row, words_right(upper, 3), &out->codes[2 * g]);
    }
    out->scale = odd_scale(low_bits(words_right(block_word(block, 12 + sub / 8), at), 7));
}

/* A quarter of d in the highest bits of each of four u16. */
BLOCK_INLINE void floats_iq1_m(const char *block, struct block_floats *out)
{
    struct words first = block_word(block, 12), second = block_word(block, 13);
    struct words d =
        words_or(low_bits(words_right(first, 12), 15), words_left(words_right(first, 28), 4));

    d = words_or(d, words_left(low_bits(words_right(second, 12), 15), 8));
    d = words_or(d, words_left(words_right(second, 28), 12));
    out->d = words_half_lanes(d);
    out->min = lanes_set(0.0f);
}

/* Word 0 holds d and the upper bits of the scales, word 1 their lower ones. */
BLOCK_INLINE void unpack_iq4_xs(const char *block, uint32_t sub, struct sub_block *out)
{
    struct words low = low_bits(words_right(block_word(block, 1), 4 * sub), 15);
    struct words high = low_bits(words_right(block_word(block, 0), 16 + 2 * sub), 3);

    unpack_nibbles(block, 2 + 4 * sub, out);
    look_up_levels(out);
    out->scale = words_sub(words_or(low, words_left(high, 4)), words_set(32));
}

#define FORM_IQ(subs, factor) FORM_256(subs, CODES_SIGNED, 0, MINS_NONE, 0, factor)
static const struct block_form form_signed_8 = FORM_IQ(8, 1.0f);
static const struct block_form form_signed_16 = FORM_IQ(16, 1.0f);
BLOCK_FORM(signed_8)
BLOCK_FORM(signed_16)

static const struct block_type type_iq1_s = {FORM_IQ(8, 0.125f), unpack_iq1_s, floats_iq1_s,
                                             50 * PANEL_ROWS};
static const struct block_type type_iq1_m = {FORM_IQ(16, 0.125f), unpack_iq1_m, floats_iq1_m,
                                             56 * PANEL_ROWS};
static const struct block_type type_iq2_xxs = {FORM_IQ(8, 0.125f), unpack_iq2_xxs, floats_iq2_xxs,
                                               66 * PANEL_ROWS};
static const struct block_type type_iq2_xs = {FORM_IQ(16, 0.125f), unpack_iq2_xs, floats_iq2_xs,
                                              74 * PANEL_ROWS};
static const struct block_type type_iq2_s = {FORM_IQ(16, 0.125f), unpack_iq2_s, floats_iq2_s,
                                             82 * PANEL_ROWS};
static const struct block_type type_iq3_xxs = {FORM_IQ(8, 0.25f), unpack_iq3_xxs, floats_iq3_xxs,
                                               98 * PANEL_ROWS};
static const struct block_type type_iq3_s = {FORM_IQ(8, 1.0f), unpack_iq3_s, floats_iq3_s,
                                             110 * PANEL_ROWS};
static const struct block_type type_iq4_xs = {FORM_IQ(8, 1.0f), unpack_iq4_xs, floats_q4_1,
                                              136 * PANEL_ROWS};
BLOCK_LEAVES(iq1_s)
BLOCK_LEAVES(iq1_m)
BLOCK_LEAVES(iq2_xxs)
BLOCK_LEAVES(iq2_xs)
BLOCK_LEAVES(iq2_s)
BLOCK_LEAVES(iq3_xxs)
BLOCK_LEAVES(iq3_s)
BLOCK_LEAVES(iq4_xs)

/* All block types of a level. */
#define BLOCK_KERNELS                                                                              \
    {                                                                                              \
        [WEIGHT_Q4_0] = BLOCK_KERNEL(q4_0, 32_less_8),                                             \
        [WEIGHT_Q4_1] = BLOCK_KERNEL(q4_1, 32_mins),                                               \
        [WEIGHT_Q5_0] = BLOCK_KERNEL(q5_0, 32_less_16),                                            \
        [WEIGHT_Q5_1] = BLOCK_KERNEL(q5_1, 32_mins),                                               \
        [WEIGHT_Q8_0] = BLOCK_KERNEL(q8_0, 32_signed),                                             \
        [WEIGHT_IQ4_NL] = BLOCK_KERNEL(iq4_nl, 32_signed),                                         \
        [WEIGHT_Q2_K] = BLOCK_KERNEL(q2_k, q2_k), [WEIGHT_Q3_K] = BLOCK_KERNEL(q3_k, q3_k),        \
        [WEIGHT_Q4_K] = BLOCK_KERNEL(q4_k, q4_k), [WEIGHT_Q5_K] = BLOCK_KERNEL(q5_k, q5_k),        \
        [WEIGHT_Q6_K] = BLOCK_KERNEL(q6_k, q6_k), [WEIGHT_IQ1_S] = BLOCK_KERNEL(iq1_s, signed_8),  \
        [WEIGHT_IQ1_M] = BLOCK_KERNEL(iq1_m, signed_16),                                           \
        [WEIGHT_IQ2_XXS] = BLOCK_KERNEL(iq2_xxs, signed_8),                                        \
        [WEIGHT_IQ2_XS] = BLOCK_KERNEL(iq2_xs, signed_16),                                         \
        [WEIGHT_IQ2_S] = BLOCK_KERNEL(iq2_s, signed_16),                                           \
        [WEIGHT_IQ3_XXS] = BLOCK_KERNEL(iq3_xxs, signed_8),                                        \
        [WEIGHT_IQ3_S] = BLOCK_KERNEL(iq3_s, signed_8),                                            \
        [WEIGHT_IQ4_XS] = BLOCK_KERNEL(iq4_xs, signed_8),                                          \
    }

#endif
