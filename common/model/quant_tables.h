#ifndef SHOAL_MODEL_QUANT_TABLES_H
#define SHOAL_MODEL_QUANT_TABLES_H

/* The tables that the IQ formats refer to; part of the file format, as gguf-py of llama.cpp
 * (gguf/quants.py) states them. Decoders and kernels expand them as they like.
 *
 * A grid row is packed into 16 bits, value 0 in the lowest: eight two-bit indices for the 2-bit
 * and 1-bit grids, four four-bit indices for the 3-bit ones. An index stands for
 *   iq2*    8, 25, 43
 *   iq3xxs  4, 12, 20, 28, 36, 44, 52, 62
 *   iq3s    1, 3, 5, 7, 9, 11, 13, 15
 *   iq1     -1, 0, 1
 */
#include <stdint.h>

extern const uint16_t quant_grid_iq2xxs[256];
extern const uint16_t quant_grid_iq2xs[512];
extern const uint16_t quant_grid_iq2s[1024];
extern const uint16_t quant_grid_iq1[2048]; /* IQ1_S and IQ1_M */
extern const uint16_t quant_grid_iq3xxs[256];
extern const uint16_t quant_grid_iq3s[512];

extern const int8_t quant_grid_values_iq2[4];
extern const int8_t quant_grid_values_iq3xxs[8];
extern const int8_t quant_grid_values_iq3s[8];
extern const int8_t quant_grid_values_iq1[4];

extern const int8_t quant_levels[16]; /* IQ4_NL and IQ4_XS */

/* The eight signs of a seven-bit field, bit j for value j, 1 is negative: their number is even. */
static inline uint8_t quant_signs(uint32_t seven_bits)
{
    return (uint8_t)(seven_bits | (uint32_t)__builtin_parity(seven_bits) << 7);
}

#endif
