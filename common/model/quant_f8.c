/* quant_f8.c - 8-bit floats, the weights of the published DeepSeek-V3 and R1.
 *
 * By integer arithmetic on the f32 bits. Encoding adds half of the last kept bit and lets the carry
 * run into the exponent; below the smallest normal, 2^-6, adding a constant whose last bit weighs
 * 2^-9 makes the FPU round at the right place.
 */
#include "common/base/half.h"
#include "common/model/quant.h"

#define F8_LARGEST_BITS UINT32_C(0x43e00000) /* 448 */
#define F8_NORMAL_BITS  UINT32_C(0x3c800000) /* 2^-6 */
#define F8_NAN          0x7f

float quant_decode_f8(uint8_t code)
{
    uint32_t sign = (uint32_t)(code & 0x80) << 24;
    uint32_t exponent = code >> 3 & 15;
    uint32_t fraction = code & 7;

    if ((code & 0x7f) == F8_NAN) {
        return float_of_bits(sign | 0x7ff00000);
    }
    if (exponent == 0) { /* zero or denormal: fraction * 2^-9, exact */
        float magnitude = (float)fraction * 0x1p-9f;
        return float_of_bits(sign | float_bits(magnitude));
    }
    return float_of_bits(sign | (exponent + 120) << 23 | fraction << 20);
}

uint8_t quant_encode_f8(float value)
{
    const float rounder = 0x1p14f; /* its last bit weighs 2^-9 */
    uint32_t sign = float_bits(value) >> 24 & 0x80;
    uint32_t magnitude = float_bits(value) & 0x7fffffff;

    if (magnitude > 0x7f800000) {
        return (uint8_t)(sign | F8_NAN);
    }
    if (magnitude >= F8_LARGEST_BITS) {
        return (uint8_t)(sign | 0x7e);
    }
    if (magnitude < F8_NORMAL_BITS) {
        return (uint8_t)(sign | (float_bits(float_of_bits(magnitude) + rounder) & 15));
    }
    magnitude += 0x7ffff + (magnitude >> 20 & 1);
    return (uint8_t)(sign | ((magnitude >> 20) - (120 << 3)));
}

void quant_decode_f8_run(float *out, const uint8_t *codes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = quant_decode_f8(codes[i]);
    }
}

void quant_decode_f8_scaled(float *out, const uint8_t *codes, const float *scales,
                            size_t column_count)
{
    for (size_t i = 0; i < column_count; i++) {
        out[i] = quant_decode_f8(codes[i]) * scales[i / QUANT_F8_BLOCK];
    }
}
