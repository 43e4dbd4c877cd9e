#ifndef SHOAL_KERNELS_BLOCKS_LEGACY_H
#define SHOAL_KERNELS_BLOCKS_LEGACY_H

/* Blocks of 32 values with one scale, and perhaps one min; formats in common/model/quant.h. */
#include "common/model/quant_tables.h"
#include "worker/kernels/block_product.h"

#define NIBBLES 0x0f0f0f0f

/* Four bits, each into the lowest bit of a byte: the multiplication puts bit i at 8 i among copies
 * that the mask takes away. */
BLOCK_INLINE struct words bits_to_bytes(struct words four_bits)
{
    return words_and(words_mul(four_bits, words_set(0x00204081)), words_set(0x01010101));
}

/* 16 bytes from word `first` on: low halves are values 0 … 15, high halves 16 … 31. */
BLOCK_INLINE void unpack_nibbles(const char *block, uint32_t first, struct sub_block *out)
{
    for (uint32_t i = 0; i < 4; i++) {
        struct words both = block_word(block, first + i);

        out->codes[i] = words_and(both, words_set(NIBBLES));
        out->codes[4 + i] = words_and(words_right(both, 4), words_set(NIBBLES));
    }
}

/* The fifth bit of value j is bit j of word `at`. */
BLOCK_INLINE void add_fifth_bits(const char *block, uint32_t at, struct sub_block *out)
{
    const struct words bits = block_word(block, at);

    for (uint32_t i = 0; i < 8; i++) {
        struct words four = words_and(words_right(bits, 4 * i), words_set(15));

        out->codes[i] = words_or(out->codes[i], words_left(bits_to_bytes(four), 4));
    }
}

/* d and another f16 in one word. */
BLOCK_INLINE void floats_of_word(const char *block, uint32_t word, struct block_floats *out)
{
    struct words both = block_word(block, word);

    out->d = words_half_lanes(both);
    out->min = words_half_lanes(words_right(both, 16));
}

BLOCK_INLINE void floats_of_half(const char *block, uint32_t word_count, struct block_floats *out)
{
    out->d = block_half(block, word_count);
    out->min = lanes_set(0.0f);
}

BLOCK_INLINE void unpack_q4_0(const char *block, uint32_t sub, struct sub_block *out)
{
    (void)sub;
    unpack_nibbles(block, 0, out);
}

BLOCK_INLINE void floats_q4_0(const char *block, struct block_floats *out)
{
    floats_of_half(block, 4, out);
}

BLOCK_INLINE void unpack_q4_1(const char *block, uint32_t sub, struct sub_block *out)
{
    (void)sub;
    unpack_nibbles(block, 1, out);
    out->min = words_set(1);
}

BLOCK_INLINE void floats_q4_1(const char *block, struct block_floats *out)
{
    floats_of_word(block, 0, out);
}

BLOCK_INLINE void unpack_q5_0(const char *block, uint32_t sub, struct sub_block *out)
{
    (void)sub;
    unpack_nibbles(block, 1, out);
    add_fifth_bits(block, 0, out);
}

BLOCK_INLINE void floats_q5_0(const char *block, struct block_floats *out)
{
    floats_of_half(block, 5, out);
}

BLOCK_INLINE void unpack_q5_1(const char *block, uint32_t sub, struct sub_block *out)
{
    (void)sub;
    unpack_nibbles(block, 2, out);
    add_fifth_bits(block, 1, out);
    out->min = words_set(1);
}

BLOCK_INLINE void unpack_q8_0(const char *block, uint32_t sub, struct sub_block *out)
{
    (void)sub;
    for (uint32_t i = 0; i < 8; i++) {
        out->codes[i] = block_word(block, i);
    }
}

BLOCK_INLINE void floats_q8_0(const char *block, struct block_floats *out)
{
    floats_of_half(block, 8, out);
}

BLOCK_INLINE void look_up_levels(struct sub_block *out)
{
    for (uint32_t i = 0; i < 8; i++) {
        out->codes[i] = words_look_up(quant_levels, out->codes[i]);
    }
}

BLOCK_INLINE void unpack_iq4_nl(const char *block, uint32_t sub, struct sub_block *out)
{
    (void)sub;
    unpack_nibbles(block, 0, out);
    look_up_levels(out);
}

#define FORM_32(codes, bias, mins)                                                                 \
    {                                                                                              \
        1, 8, codes, bias, SCALES_ONE, mins, 0, 1.0f                                               \
    }
static const struct block_form form_32_less_8 = FORM_32(CODES_UNSIGNED, 8, MINS_NONE);
static const struct block_form form_32_less_16 = FORM_32(CODES_UNSIGNED, 16, MINS_NONE);
static const struct block_form form_32_mins = FORM_32(CODES_UNSIGNED, 0, MINS_ADDED);
static const struct block_form form_32_signed = FORM_32(CODES_SIGNED, 0, MINS_NONE);
BLOCK_FORM(32_less_8)
BLOCK_FORM(32_less_16)
BLOCK_FORM(32_mins)
BLOCK_FORM(32_signed)

static const struct block_type type_q4_0 = {FORM_32(CODES_UNSIGNED, 8, MINS_NONE), unpack_q4_0,
                                            floats_q4_0, 18 * PANEL_ROWS};
static const struct block_type type_q4_1 = {FORM_32(CODES_UNSIGNED, 0, MINS_ADDED), unpack_q4_1,
                                            floats_q4_1, 20 * PANEL_ROWS};
static const struct block_type type_q5_0 = {FORM_32(CODES_UNSIGNED, 16, MINS_NONE), unpack_q5_0,
                                            floats_q5_0, 22 * PANEL_ROWS};
static const struct block_type type_q5_1 = {FORM_32(CODES_UNSIGNED, 0, MINS_ADDED), unpack_q5_1,
                                            floats_q4_1, 24 * PANEL_ROWS};
static const struct block_type type_q8_0 = {FORM_32(CODES_SIGNED, 0, MINS_NONE), unpack_q8_0,
                                            floats_q8_0, 34 * PANEL_ROWS};
static const struct block_type type_iq4_nl = {FORM_32(CODES_SIGNED, 0, MINS_NONE), unpack_iq4_nl,
                                              floats_q4_0, 18 * PANEL_ROWS};
BLOCK_LEAVES(q4_0)
BLOCK_LEAVES(q4_1)
BLOCK_LEAVES(q5_0)
BLOCK_LEAVES(q5_1)
BLOCK_LEAVES(q8_0)
BLOCK_LEAVES(iq4_nl)

#endif
