#ifndef SHOAL_MODEL_QUANT_INTERNAL_H
#define SHOAL_MODEL_QUANT_INTERNAL_H

/* Between the quant_*.c files: decoders for the table, and fields of blocks. */
#include "common/base/half.h"
#include "common/model/quant.h"

#include <string.h>

#define QUANT_SUPER 256 /* values of a block of the K and IQ families */

static inline uint16_t field_u16(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static inline uint32_t field_u32(const uint8_t *at)
{
    return field_u16(at) | (uint32_t)field_u16(at + 2) << 16;
}

static inline float field_f16(const uint8_t *at)
{
    return float_of_f16(field_u16(at));
}

/* Nibble i of a byte string, low halves first. */
static inline uint32_t field_nibble(const uint8_t *at, uint32_t i)
{
    return at[i / 2] >> 4 * (i % 2) & 15;
}

/* quant_legacy.c */
void quant_decode_q4_0(float *out, const void *blocks, size_t block_count);
void quant_decode_q4_1(float *out, const void *blocks, size_t block_count);
void quant_decode_q5_0(float *out, const void *blocks, size_t block_count);
void quant_decode_q5_1(float *out, const void *blocks, size_t block_count);
void quant_decode_q8_0(float *out, const void *blocks, size_t block_count);

/* quant_k.c */
void quant_decode_q2_k(float *out, const void *blocks, size_t block_count);
void quant_decode_q3_k(float *out, const void *blocks, size_t block_count);
void quant_decode_q4_k(float *out, const void *blocks, size_t block_count);
void quant_decode_q5_k(float *out, const void *blocks, size_t block_count);
void quant_decode_q6_k(float *out, const void *blocks, size_t block_count);

/* quant_iq.c */
void quant_decode_iq1_s(float *out, const void *blocks, size_t block_count);
void quant_decode_iq1_m(float *out, const void *blocks, size_t block_count);
void quant_decode_iq2_xxs(float *out, const void *blocks, size_t block_count);
void quant_decode_iq2_xs(float *out, const void *blocks, size_t block_count);
void quant_decode_iq2_s(float *out, const void *blocks, size_t block_count);
void quant_decode_iq3_xxs(float *out, const void *blocks, size_t block_count);
void quant_decode_iq3_s(float *out, const void *blocks, size_t block_count);
void quant_decode_iq4_nl(float *out, const void *blocks, size_t block_count);
void quant_decode_iq4_xs(float *out, const void *blocks, size_t block_count);

#endif
