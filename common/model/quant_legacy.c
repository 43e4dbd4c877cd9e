/* quant_legacy.c - blocks of 32 values with one scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
 *
 * K-quant files hold them too, where a row is no multiple of 256.
 */
#include "common/model/quant_internal.h"

/* out = scale * (code + shift) + min for 32 four-bit codes, each with its fifth bit from `fifth`.
 */
struct nibble_block {
    const uint8_t *nibbles;
    uint32_t fifth; /* bit j belongs to value j */
    int shift;
    float scale;
    float min;
};

static void decode_nibbles(float *out, const struct nibble_block *block)
{
    for (int j = 0; j < 16; j++) {
        int low = (block->nibbles[j] & 15) | (int)(block->fifth >> j & 1) << 4;
        int high = block->nibbles[j] >> 4 | (int)(block->fifth >> (j + 16) & 1) << 4;

        out[j] = block->scale * (float)(low + block->shift) + block->min;
        out[j + 16] = block->scale * (float)(high + block->shift) + block->min;
    }
}

/* -0 + x is x, also for a zero of either sign. */
#define NO_MIN (-0.0f)

void quant_decode_q4_0(float *out, const void *blocks, size_t block_count)
{
    const uint8_t *at = blocks;

    for (size_t i = 0; i < block_count; i++, at += 18) {
        decode_nibbles(out + 32 * i, &(struct nibble_block){at + 2, 0, -8, field_f16(at), NO_MIN});
    }
}

void quant_decode_q4_1(float *out, const void *blocks, size_t block_count)
{
    const uint8_t *at = blocks;

    for (size_t i = 0; i < block_count; i++, at += 20) {
        decode_nibbles(out + 32 * i,
                       &(struct nibble_block){at + 4, 0, 0, field_f16(at), field_f16(at + 2)});
    }
}

void quant_decode_q5_0(float *out, const void *blocks, size_t block_count)
{
    const uint8_t *at = blocks;

    for (size_t i = 0; i < block_count; i++, at += 22) {
        decode_nibbles(out + 32 * i, &(struct nibble_block){at + 6, field_u32(at + 2), -16,
                                                            field_f16(at), NO_MIN});
    }
}

void quant_decode_q5_1(float *out, const void *blocks, size_t block_count)
{
    const uint8_t *at = blocks;

    for (size_t i = 0; i < block_count; i++, at += 24) {
        decode_nibbles(out + 32 * i, &(struct nibble_block){at + 8, field_u32(at + 4), 0,
                                                            field_f16(at), field_f16(at + 2)});
    }
}

void quant_decode_q8_0(float *out, const void *blocks, size_t block_count)
{
    const uint8_t *at = blocks;

    for (size_t i = 0; i < block_count; i++, at += 34) {
        float scale = field_f16(at);

        for (int j = 0; j < 32; j++) {
            out[32 * i + j] = scale * (float)(int8_t)at[2 + j];
        }
    }
}
