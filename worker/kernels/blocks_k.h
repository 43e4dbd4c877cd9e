#ifndef SHOAL_KERNELS_BLOCKS_K_H
#define SHOAL_KERNELS_BLOCKS_K_H

/* Blocks of 256 values in sub-blocks of 16 or 32 with integer scales; formats in
 * common/model/quant.h. */
#include "worker/kernels/blocks_legacy.h"

/* Byte `index` of the bytes that begin with word `first`, in the low bits; what is above stays. */
BLOCK_INLINE struct words block_byte(const char *block, uint32_t first, uint32_t index)
{
    return words_right(block_word(block, first + index / 4), 8 * (index % 4));
}

BLOCK_INLINE struct words low_bits(struct words a, uint32_t mask)
{
    return words_and(a, words_set(mask));
}

/* In Q2_K and Q3_K a byte holds two bits of values 32 apart, in each half of the block. */
BLOCK_INLINE struct words two_bits(const char *block, uint32_t first, uint32_t sub, uint32_t word)
{
    struct words four = block_word(block, first + sub / 8 * 8 + sub % 2 * 4 + word);

    return low_bits(words_right(four, sub % 8 / 2 * 2), 0x03030303);
}

BLOCK_INLINE void unpack_q2_k(const char *block, uint32_t sub, struct sub_block *out)
{
    struct words both = block_byte(block, 0, sub);

    for (uint32_t i = 0; i < 4; i++) {
        out->codes[i] = two_bits(block, 4, sub, i);
    }
    out->scale = low_bits(both, 15);
    out->min = low_bits(words_right(both, 4), 15);
}

BLOCK_INLINE void floats_q2_k(const char *block, struct block_floats *out)
{
    floats_of_word(block, 20, out);
}

BLOCK_INLINE void unpack_q3_k(const char *block, uint32_t sub, struct sub_block *out)
{
    struct words low = words_right(block_byte(block, 24, sub % 8), sub / 8 * 4);
    struct words high = words_right(block_byte(block, 24, 8 + sub % 4), sub / 4 * 2);

    for (uint32_t i = 0; i < 4; i++) {
        struct words third = words_right(block_word(block, sub % 2 * 4 + i), sub / 2);

        third = words_left(low_bits(third, 0x01010101), 2);
        out->codes[i] = words_or(two_bits(block, 8, sub, i), third);
    }
    out->scale = words_or(low_bits(low, 15), words_left(low_bits(high, 3), 4));
    out->scale = words_sub(out->scale, words_set(32));
}

BLOCK_INLINE void floats_q3_k(const char *block, struct block_floats *out)
{
    floats_of_half(block, 27, out);
}

/* Eight pairs of six bits in words 1 to 3: those of sub-blocks 4 to 7 keep their upper bits in
 * what the first four leave free. */
BLOCK_INLINE void unpack_pair(const char *block, uint32_t sub, struct sub_block *out)
{
    struct words scale = block_byte(block, 1, sub % 4);
    struct words min = block_byte(block, 1, 4 + sub % 4);
    struct words third = block_byte(block, 1, 8 + sub % 4);

    if (sub < 4) {
        out->scale = low_bits(scale, 63);
        out->min = low_bits(min, 63);
        return;
    }
    scale = words_left(low_bits(words_right(scale, 6), 3), 4);
    min = words_left(low_bits(words_right(min, 6), 3), 4);
    out->scale = words_or(low_bits(third, 15), scale);
    out->min = words_or(low_bits(words_right(third, 4), 15), min);
}

BLOCK_INLINE struct words nibble_of(const char *block, uint32_t first, uint32_t sub, uint32_t word)
{
    struct words both = block_word(block, first + sub / 2 * 8 + word);

    return low_bits(words_right(both, sub % 2 * 4), NIBBLES);
}

BLOCK_INLINE void unpack_q4_k(const char *block, uint32_t sub, struct sub_block *out)
{
    for (uint32_t i = 0; i < 8; i++) {
        out->codes[i] = nibble_of(block, 4, sub, i);
    }
    unpack_pair(block, sub, out);
}

BLOCK_INLINE void unpack_q5_k(const char *block, uint32_t sub, struct sub_block *out)
{
    for (uint32_t i = 0; i < 8; i++) {
        struct words fifth = low_bits(words_right(block_word(block, 4 + i), sub), 0x01010101);

        out->codes[i] = words_or(nibble_of(block, 12, sub, i), words_left(fifth, 4));
    }
    unpack_pair(block, sub, out);
}

/* Sub-blocks of 16; each half of the block has 64 bytes of low and 32 of upper bits. */
BLOCK_INLINE void unpack_q6_k(const char *block, uint32_t sub, struct sub_block *out)
{
    const uint32_t half = sub / 8, group = sub % 8 / 2, part = sub % 2;

    for (uint32_t i = 0; i < 4; i++) {
        struct words low = block_word(block, half * 16 + group % 2 * 8 + part * 4 + i);
        struct words high = block_word(block, 32 + half * 8 + part * 4 + i);

        low = low_bits(words_right(low, group / 2 * 4), NIBBLES);
        high = words_left(low_bits(words_right(high, group * 2), 0x03030303), 4);
        out->codes[i] = words_or(low, high);
    }
    out->scale = words_left(block_word(block, 48 + sub / 4), 24 - sub % 4 * 8);
    out->scale = words_right_signed(out->scale, 24);
}

BLOCK_INLINE void floats_q6_k(const char *block, struct block_floats *out)
{
    floats_of_half(block, 52, out);
}

/* Sums of `words` words times their largest code times 127 stay below 2^15: 4 * 4 * 15 * 127 in
 * Q4_K, where all of a sub-block would not; 2 * 4 * 32 * 127 in Q6_K. */
#define FORM_256(subs, codes, bias, mins, words, factor)                                           \
    {                                                                                              \
        subs, 64 / (subs), codes, bias, SCALES_INTEGER, mins, words, factor                        \
    }
#define FORM_Q2_K FORM_256(16, CODES_UNSIGNED, 0, MINS_TAKEN, 4, 1.0f)
#define FORM_Q3_K FORM_256(16, CODES_UNSIGNED, 4, MINS_NONE, 4, 1.0f)
#define FORM_Q4_K FORM_256(8, CODES_UNSIGNED, 0, MINS_TAKEN, 4, 1.0f)
#define FORM_Q5_K FORM_256(8, CODES_UNSIGNED, 0, MINS_TAKEN, 0, 1.0f)
#define FORM_Q6_K FORM_256(16, CODES_UNSIGNED, 32, MINS_NONE, 2, 1.0f)
static const struct block_form form_q2_k = FORM_Q2_K;
static const struct block_form form_q3_k = FORM_Q3_K;
static const struct block_form form_q4_k = FORM_Q4_K;
static const struct block_form form_q5_k = FORM_Q5_K;
static const struct block_form form_q6_k = FORM_Q6_K;
BLOCK_FORM(q2_k)
BLOCK_FORM(q3_k)
BLOCK_FORM(q4_k)
BLOCK_FORM(q5_k)
BLOCK_FORM(q6_k)

static const struct block_type type_q2_k = {FORM_Q2_K, unpack_q2_k, floats_q2_k, 84 * PANEL_ROWS};
static const struct block_type type_q3_k = {FORM_Q3_K, unpack_q3_k, floats_q3_k, 110 * PANEL_ROWS};
static const struct block_type type_q4_k = {FORM_Q4_K, unpack_q4_k, floats_q4_1, 144 * PANEL_ROWS};
static const struct block_type type_q5_k = {FORM_Q5_K, unpack_q5_k, floats_q4_1, 176 * PANEL_ROWS};
static const struct block_type type_q6_k = {FORM_Q6_K, unpack_q6_k, floats_q6_k, 210 * PANEL_ROWS};
BLOCK_LEAVES(q2_k)
BLOCK_LEAVES(q3_k)
BLOCK_LEAVES(q4_k)
BLOCK_LEAVES(q5_k)
BLOCK_LEAVES(q6_k)

#endif
