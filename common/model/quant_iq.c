/* quant_iq.c - the IQ family: groups of values looked up in grids, and the two non-linear types.
 *
 * Fractions (a half, an eighth) are multiplied out where they are exact. Formats and offsets are in
 * quant.h, grids in quant_tables.h.
 */
#include "common/model/quant_internal.h"
#include "common/model/quant_tables.h"

/* Eight values of a 2-bit grid row, times scale, with the signs' bits. */
static void decode_eight(float *out, uint16_t row, float scale, uint32_t signs)
{
    for (int j = 0; j < 8; j++) {
        float value = scale * (float)quant_grid_values_iq2[row >> 2 * j & 3];

        out[j] = signs >> j & 1 ? -value : value;
    }
}

/* Four values of a 3-bit grid row. */
static void decode_four(float *out, const int8_t *values, uint16_t row, float scale, uint32_t signs)
{
    for (int j = 0; j < 4; j++) {
        float value = scale * (float)values[row >> 4 * j & 7];

        out[j] = signs >> j & 1 ? -value : value;
    }
}

/* Eight values of a 1-bit grid row, all shifted by an eighth up or down. */
static void decode_shifted(float *out, uint32_t row, float scale, uint32_t negative)
{
    float shift = negative ? -0.125f : 0.125f;

    for (int j = 0; j < 8; j++) {
        out[j] = scale * ((float)quant_grid_values_iq1[quant_grid_iq1[row] >> 2 * j & 3] + shift);
    }
}

void quant_decode_iq2_xxs(float *out, const void *blocks, size_t block_count)
{
    const uint8_t *at = blocks;

    for (size_t i = 0; i < block_count; i++, at += 66, out += QUANT_SUPER) {
        float d = field_f16(at);

        for (int g = 0; g < 32; g++) { /* groups of eight */
            const uint8_t *rows = at + 2 + g / 4 * 8;
            uint32_t packed = field_u32(rows + 4);
            float scale = d * (0.5f + (float)(packed >> 28)) * 0.25f;

            decode_eight(out + 8 * g, quant_grid_iq2xxs[rows[g % 4]], scale,
                         quant_signs(packed >> 7 * (g % 4) & 127));
        }
    }
}

void quant_decode_iq2_xs(float *out, const void *blocks, size_t block_count)
{
    const uint8_t *at = blocks;

    for (size_t i = 0; i < block_count; i++, at += 74, out += QUANT_SUPER) {
        float d = field_f16(at);

        for (int g = 0; g < 32; g++) {
            uint32_t packed = field_u16(at + 2 + 2 * g);
            float scale = d * (0.5f + (float)field_nibble(at + 66, g / 2)) * 0.25f;

            decode_eight(out + 8 * g, quant_grid_iq2xs[packed & 511], scale,
                         quant_signs(packed >> 9));
        }
    }
}

void quant_decode_iq2_s(float *out, const void *blocks, size_t block_count)
{
    const uint8_t *at = blocks;

    for (size_t i = 0; i < block_count; i++, at += 82, out += QUANT_SUPER) {
        float d = field_f16(at);

        for (int g = 0; g < 32; g++) {
            uint32_t row = at[2 + g] | (uint32_t)(at[66 + g / 4] >> 2 * (g % 4) & 3) << 8;
            float scale = d * (0.5f + (float)field_nibble(at + 74, g / 2)) * 0.25f;

            decode_eight(out + 8 * g, quant_grid_iq2s[row], scale, at[34 + g]);
        }
    }
}

void quant_decode_iq3_xxs(float *out, const void *blocks, size_t block_count)
{
    const uint8_t *at = blocks;

    for (size_t i = 0; i < block_count; i++, at += 98, out += QUANT_SUPER) {
        float d = field_f16(at);

        for (int g = 0; g < 64; g++) { /* groups of four */
            uint32_t packed = field_u32(at + 66 + g / 8 * 4);
            float scale = d * (0.5f + (float)(packed >> 28)) * 0.5f;
            uint32_t signs = quant_signs(packed >> 7 * (g % 8 / 2) & 127);

            decode_four(out + 4 * g, quant_grid_values_iq3xxs, quant_grid_iq3xxs[at[2 + g]], scale,
                        signs >> 4 * (g % 2));
        }
    }
}

void quant_decode_iq3_s(float *out, const void *blocks, size_t block_count)
{
    const uint8_t *at = blocks;

    for (size_t i = 0; i < block_count; i++, at += 110, out += QUANT_SUPER) {
        float d = field_f16(at);

        for (int g = 0; g < 64; g++) {
            uint32_t row = at[2 + g] | (uint32_t)(at[66 + g / 8] >> g % 8 & 1) << 8;
            float scale = d * (float)(1 + 2 * field_nibble(at + 106, g / 8));

            decode_four(out + 4 * g, quant_grid_values_iq3s, quant_grid_iq3s[row], scale,
                        (uint32_t)at[74 + g / 2] >> 4 * (g % 2));
        }
    }
}

void quant_decode_iq1_s(float *out, const void *blocks, size_t block_count)
{
    const uint8_t *at = blocks;

    for (size_t i = 0; i < block_count; i++, at += 50, out += QUANT_SUPER) {
        float d = field_f16(at);

        for (int g = 0; g < 32; g++) {
            uint32_t packed = field_u16(at + 34 + g / 4 * 2);
            uint32_t row = at[2 + g] | (packed >> 3 * (g % 4) & 7) << 8;

            decode_shifted(out + 8 * g, row, d * (float)(2 * (packed >> 12 & 7) + 1), packed >> 15);
        }
    }
}

void quant_decode_iq1_m(float *out, const void *blocks, size_t block_count)
{
    const uint8_t *at = blocks;

    for (size_t i = 0; i < block_count; i++, at += 56, out += QUANT_SUPER) {
        const uint8_t *scales = at + 48;
        float d = float_of_f16((uint16_t)(scales[1] >> 4 | (scales[3] & 0xf0) |
                                          (scales[5] & 0xf0) << 4 | (scales[7] & 0xf0) << 8));

        for (int g = 0; g < 32; g++) {
            uint32_t scale = field_u16(scales + g / 8 * 2) >> 3 * (g / 2 % 4) & 7;
            uint32_t upper = field_nibble(at + 32, g);

            decode_shifted(out + 8 * g, at[g] | (upper & 7) << 8, d * (float)(2 * scale + 1),
                           upper >> 3);
        }
    }
}

void quant_decode_iq4_nl(float *out, const void *blocks, size_t block_count)
{
    const uint8_t *at = blocks;

    for (size_t i = 0; i < block_count; i++, at += 18, out += 32) {
        float d = field_f16(at);

        for (int j = 0; j < 32; j++) {
            out[j] = d * (float)quant_levels[at[2 + j % 16] >> j / 16 * 4 & 15];
        }
    }
}

void quant_decode_iq4_xs(float *out, const void *blocks, size_t block_count)
{
    const uint8_t *at = blocks;

    for (size_t i = 0; i < block_count; i++, at += 136, out += QUANT_SUPER) {
        float d = field_f16(at);
        uint32_t upper = field_u16(at + 2);

        for (int j = 0; j < QUANT_SUPER; j++) {
            int g = j / 32;
            int scale = (int)(field_nibble(at + 4, g) | (upper >> 2 * g & 3) << 4) - 32;

            out[j] = d * (float)scale *
                     (float)quant_levels[at[8 + 16 * g + j % 16] >> j % 32 / 16 * 4 & 15];
        }
    }
}
