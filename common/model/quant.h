#ifndef SHOAL_MODEL_QUANT_H
#define SHOAL_MODEL_QUANT_H

/* Quantised block formats: what each block holds and the floats it stands for.
 *
 * A row is a whole number of blocks, each of a fixed number of bytes and values. Formats and their
 * numbers are those of GGUF files (ggml), stated by gguf-py of llama.cpp. All fields are
 * little-endian; d and m are f16; "codes" are small integers; nibbles: low half of byte i first.
 * Below, x(j) is value j of the block, and offsets are in bytes.
 *
 *   32 values
 *   Q4_0     0 d, 2 low nibbles x0-15, high x16-31                      x = d * (code - 8)
 *   Q4_1     0 d, 2 m, 4 nibbles as Q4_0                                x = d * code + m
 *   Q5_0     0 d, 2 fifth bits (u32, bit j for x(j)), 6 nibbles         x = d * (code - 16)
 *   Q5_1     0 d, 2 m, 4 fifth bits, 8 nibbles                          x = d * code + m
 *   Q8_0     0 d, 2 int8 codes                                          x = d * code
 *   IQ4_NL   0 d, 2 nibbles as Q4_0                                     x = d * quant_levels[code]
 *
 *   256 values in sub-blocks of 16 or 32 with integer scales s (and mins m)
 *   Q2_K     0 sixteen bytes s | m << 4, 16 two-bit codes, 80 d, 82 dmin
 *            x = d * s * code - dmin * m
 *   Q3_K     0 third bits (bit h of byte l), 32 two-bit codes, 96 sixteen six-bit s, 108 d
 *            x = d * (s - 32) * (code - (third bit ? 0 : 4))
 *   Q4_K     0 d, 2 dmin, 4 eight six-bit pairs s, m in 12 bytes, 16 nibbles (low 32 then high 32)
 *            x = d * s * code - dmin * m
 *   Q5_K     0 d, 2 dmin, 4 pairs as Q4_K, 16 fifth bits (bit g of byte l), 48 nibbles
 *   Q6_K     0 low nibbles, 128 upper two bits, 192 sixteen int8 s, 208 d
 *            x = d * s * (code - 32)
 *   IQ4_XS   0 d, 2 upper scale bits (u16, two for each 32), 4 lower scale nibbles, 8 nibbles
 *            x = d * (s - 32) * quant_levels[code]
 *
 *   256 values in groups of 8 (4) taken from a grid of 256 to 2048 rows; see quant_tables.h
 *   IQ2_XXS  0 d, 2 for each 32: four grid bytes, u32 four 7-bit signs | s << 28
 *            x = d * (s + 1/2) / 4 * grid * sign
 *   IQ2_XS   0 d, 2 u16 for each 8: 9-bit row | sign << 9, 66 scale nibbles for each 16
 *   IQ2_S    0 d, 2 low row bytes for each 8, 34 sign bytes, 66 upper row bits (two for each 8),
 *            74 scale nibbles for each 16
 *   IQ3_XXS  0 d, 2 grid bytes for each 4, 66 for each 32: u32 four 7-bit signs | s << 28
 *            x = d * (s + 1/2) / 2 * grid * sign
 *   IQ3_S    0 d, 2 low row bytes for each 4, 66 ninth row bits, 74 sign bytes, 106 scale nibbles
 *            for each 32; x = d * (2 s + 1) * grid * sign
 *   IQ1_S    0 d, 2 low row bytes for each 8, 34 u16 for each 32: upper row bits 3 x 4 | s << 12 |
 *            negative shift << 15; x = d * (2 s + 1) * (grid +- 1/8)
 *   IQ1_M    0 low row bytes for each 8, 32 nibbles for each 8: upper row bits 3, negative shift
 *            << 3; 48 four u16: 3-bit s for each 16 x 4 | a quarter of d << 12
 *            x = d * (2 s + 1) * (grid +- 1/8)
 *
 * A 7-bit sign has an eighth bit that makes the number of negative signs even.
 *
 * Every product before the last addition is exact in f32 (fewer than 25 bits), so the values below
 * are the only right ones, with or without fused multiply-add: each is rounded at most once.
 * Pure; any thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Numbers as in GGUF tensor infos. The gaps are types that published models do not use. */
enum quant_type {
    QUANT_F32 = 0,
    QUANT_F16 = 1,
    QUANT_Q4_0 = 2,
    QUANT_Q4_1 = 3,
    QUANT_Q5_0 = 6,
    QUANT_Q5_1 = 7,
    QUANT_Q8_0 = 8,
    QUANT_Q2_K = 10,
    QUANT_Q3_K = 11,
    QUANT_Q4_K = 12,
    QUANT_Q5_K = 13,
    QUANT_Q6_K = 14,
    QUANT_IQ2_XXS = 16,
    QUANT_IQ2_XS = 17,
    QUANT_IQ3_XXS = 18,
    QUANT_IQ1_S = 19,
    QUANT_IQ4_NL = 20,
    QUANT_IQ3_S = 21,
    QUANT_IQ2_S = 22,
    QUANT_IQ4_XS = 23,
    QUANT_IQ1_M = 29,
    QUANT_BF16 = 30,
    QUANT_TYPE_COUNT = 31
};

/* Writes block_values floats for each of `block_count` blocks; neither side needs alignment. */
typedef void (*quant_decode_fn)(float *out, const void *blocks, size_t block_count);

struct quant_traits {
    const char *name; /* "Q4_K" */
    uint32_t block_bytes;
    uint32_t block_values; /* 1 for F32, F16 and BF16 */
    quant_decode_fn decode;
};

/* The row of a type; NULL for numbers that cannot be read, any number being legal. */
const struct quant_traits *quant_traits(uint32_t type);
/* For messages: also types that ggml has and we cannot read; "unknown" beyond those. */
const char *quant_type_name(uint32_t type);
/* 0 when `values` is no multiple of the block or the type cannot be read. */
uint64_t quant_bytes(uint32_t type, uint64_t values);
/* quant_traits(type)->decode for `value_count` values, a multiple of the block. */
void quant_decode(float *out, enum quant_type type, const void *blocks, size_t value_count);

/* False when a scale or min of one of the blocks is NaN or infinite. Block types only. */
bool quant_scales_are_finite(enum quant_type type, const void *blocks, uint64_t block_count);

/* F8_E4M3 ("fn": no infinity): sign, 4 exponent bits with bias 7, 3 fraction bits; the largest is
 * 448, the smallest 2^-9; 0x7f and 0xff are NaN. Encoding rounds to the nearest, ties to even;
 * beyond +-448 it saturates. */
float quant_decode_f8(uint8_t code);
uint8_t quant_encode_f8(float value);
void quant_decode_f8_run(float *out, const uint8_t *codes, size_t count);

/* Published 8-bit matrices have an f32 factor for each block of 128 x 128 values, the last blocks
 * of a row or column being what is left (weight_scale_inv, which is multiplied in spite of its
 * name): [ceil(rows / 128)][ceil(columns / 128)]. Decodes one row, or its first `column_count`
 * values, with its row of factors, that of global row / 128; each value is rounded once. */
#define QUANT_F8_BLOCK 128
void quant_decode_f8_scaled(float *out, const uint8_t *codes, const float *scales,
                            size_t column_count);

#endif
