#ifndef SHOAL_BASE_HALF_H
#define SHOAL_BASE_HALF_H

/* The 16-bit float types by integer arithmetic: what the CPU's own conversions compute (IEEE 754,
 * nearest even, denormals kept, overflow to infinity, NaN made quiet), on any machine and under any
 * floating point control word. */
#include <stdint.h>
#include <string.h>

static inline uint32_t float_bits(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static inline float float_of_bits(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

static inline float float_of_bf16(uint16_t bits)
{
    return float_of_bits((uint32_t)bits << 16);
}

static inline uint16_t bf16_of_float(float value)
{
    uint32_t bits = float_bits(value);

    if ((bits & 0x7fffffff) > 0x7f800000) {
        return (uint16_t)(bits >> 16 | 0x40); /* NaN: rounding could carry it into infinity */
    }
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline float float_of_f16(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16;
    uint32_t exponent = bits >> 10 & 0x1f;
    uint32_t fraction = bits & 0x3ff;

    if (exponent == 0) { /* zero or denormal: fraction * 2^-24, exact */
        float magnitude = (float)fraction * 0x1p-24f;
        return float_of_bits(sign | float_bits(magnitude));
    }
    if (exponent == 0x1f) {
        uint32_t quiet = fraction != 0 ? 0x400000 : 0;
        return float_of_bits(sign | 0x7f800000 | quiet | fraction << 13);
    }
    return float_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

static inline uint16_t f16_of_float(float value)
{
    uint32_t bits = float_bits(value);
    uint32_t sign = bits >> 16 & 0x8000;
    uint32_t magnitude = bits & 0x7fffffff;

    if (magnitude > 0x7f800000) {
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    }
    if (magnitude >= 0x47800000) { /* 65536 and more; what rounds up to it carries below */
        return (uint16_t)(sign | 0x7c00);
    }
    if (magnitude >= 0x38800000) { /* 2^-14 and more: a normal f16 */
        uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
        return (uint16_t)(sign | ((rounded >> 13) - (112 << 10)));
    }
    if (magnitude < 0x33000000) { /* below 2^-25: half of the smallest denormal */
        return (uint16_t)sign;
    }
    uint32_t shift = 126 - (magnitude >> 23); /* 14 … 24 */
    uint32_t whole = (magnitude & 0x7fffff) | 0x800000;
    uint32_t half = UINT32_C(1) << (shift - 1);
    uint32_t rounded = whole + half - 1 + (whole >> shift & 1);

    return (uint16_t)(sign | rounded >> shift);
}

#endif
