/* quant_k.c - the K family: 256 values, integer scales within, one or two f16 scales over all.
 *
 * Codes of 128 (Q6_K: 64) values share bytes: byte l of a stretch of 32 holds value l of every
 * 32-value group in turn, two bits (or one, or four) each.
 */
#include "common/model/quant_internal.h"

/* Scales s and mins m of Q4_K and Q5_K, six bits each, two times eight of them in 12 bytes: the
 * first four of each in bytes 0-3 and 4-7; of the others the low nibbles in bytes 8-11 (s low, m
 * high) and the upper two bits on top of bytes 0-3 and 4-7. */
static void scales_and_mins(const uint8_t packed[12], uint8_t scales[8], uint8_t mins[8])
{
    for (int j = 0; j < 4; j++) {
        scales[j] = packed[j] & 63;
        mins[j] = packed[j + 4] & 63;
        scales[j + 4] = (uint8_t)((packed[j + 8] & 15) | packed[j] >> 6 << 4);
        mins[j + 4] = (uint8_t)(packed[j + 8] >> 4 | packed[j + 4] >> 6 << 4);
    }
}

/* Sixteen six-bit scales of Q3_K in 12 bytes: low nibbles of 0-7, then of 8-15 in bytes 0-7; the
 * upper two bits, four scales to a bit pair, in bytes 8-11. */
static int scale_q3(const uint8_t packed[12], int j)
{
    int low = packed[j % 8] >> 4 * (j / 8) & 15;
    int high = packed[8 + j % 4] >> 2 * (j / 4) & 3;

    return (low | high << 4) - 32;
}

void quant_decode_q2_k(float *out, const void *blocks, size_t block_count)
{
    const uint8_t *at = blocks;

    for (size_t i = 0; i < block_count; i++, at += 84, out += QUANT_SUPER) {
        float d = field_f16(at + 80), dmin = field_f16(at + 82);

        for (int j = 0; j < QUANT_SUPER; j++) {
            int code = at[16 + j / 128 * 32 + j % 32] >> j % 128 / 32 * 2 & 3;
            uint8_t scale = at[j / 16];

            out[j] = d * (float)(scale & 15) * (float)code - dmin * (float)(scale >> 4);
        }
    }
}

void quant_decode_q3_k(float *out, const void *blocks, size_t block_count)
{
    const uint8_t *at = blocks;

    for (size_t i = 0; i < block_count; i++, at += 110, out += QUANT_SUPER) {
        float d = field_f16(at + 108);

        for (int j = 0; j < QUANT_SUPER; j++) {
            int code = at[32 + j / 128 * 32 + j % 32] >> j % 128 / 32 * 2 & 3;
            int third = at[j % 32] >> j / 32 & 1;

            out[j] = d * (float)scale_q3(at + 96, j / 16) * (float)(code - 4 + 4 * third);
        }
    }
}

void quant_decode_q4_k(float *out, const void *blocks, size_t block_count)
{
    const uint8_t *at = blocks;
    uint8_t scales[8], mins[8];

    for (size_t i = 0; i < block_count; i++, at += 144, out += QUANT_SUPER) {
        float d = field_f16(at), dmin = field_f16(at + 2);

        scales_and_mins(at + 4, scales, mins);
        for (int j = 0; j < QUANT_SUPER; j++) {
            int code = at[16 + j / 64 * 32 + j % 32] >> j % 64 / 32 * 4 & 15;

            out[j] = d * (float)scales[j / 32] * (float)code - dmin * (float)mins[j / 32];
        }
    }
}

void quant_decode_q5_k(float *out, const void *blocks, size_t block_count)
{
    const uint8_t *at = blocks;
    uint8_t scales[8], mins[8];

    for (size_t i = 0; i < block_count; i++, at += 176, out += QUANT_SUPER) {
        float d = field_f16(at), dmin = field_f16(at + 2);

        scales_and_mins(at + 4, scales, mins);
        for (int j = 0; j < QUANT_SUPER; j++) {
            int code = at[48 + j / 64 * 32 + j % 32] >> j % 64 / 32 * 4 & 15;
            int fifth = at[16 + j % 32] >> j / 32 & 1;

            out[j] =
                d * (float)scales[j / 32] * (float)(code | fifth << 4) - dmin * (float)mins[j / 32];
        }
    }
}

void quant_decode_q6_k(float *out, const void *blocks, size_t block_count)
{
    const uint8_t *at = blocks;

    for (size_t i = 0; i < block_count; i++, at += 210, out += QUANT_SUPER) {
        float d = field_f16(at + 208);

        for (int j = 0; j < QUANT_SUPER; j++) {
            int low = at[j / 128 * 64 + j % 64] >> j % 128 / 64 * 4 & 15;
            int high = at[128 + j / 128 * 32 + j % 32] >> j % 128 / 32 * 2 & 3;
            int scale = (int8_t)at[192 + j / 16];

            out[j] = d * (float)scale * (float)((low | high << 4) - 32);
        }
    }
}
