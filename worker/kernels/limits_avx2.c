/* limits_avx2.c - the units of level "avx2": pairs of int8 products by maddubs and madd, and f32
 * FMA.
 */
#include "worker/kernels/limits.h"

#include <immintrin.h>

#define SUMS      12
#define SUMS_INT8 6 /* each is three instructions */
#define LANES     8
#define CODES     32

#define HOLD(value) __asm__ volatile("" : "+x"(value))

static float int8_run(uint64_t turns)
{
    __m256i sums[SUMS_INT8];
    __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(2), ones = _mm256_set1_epi16(1);

#pragma GCC unroll 16
    for (int i = 0; i < SUMS_INT8; i++) {
        sums[i] = _mm256_set1_epi32(i);
    }
    for (uint64_t turn = 0; turn < turns; turn++) {
#pragma GCC unroll 16
        for (int i = 0; i < SUMS_INT8; i++) {
            __m256i pairs;

            HOLD(a); /* else the product is taken out of the loop */
            pairs = _mm256_maddubs_epi16(a, b);
            sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(pairs, ones));
            HOLD(sums[i]);
        }
    }
#pragma GCC unroll 16
    for (int i = 1; i < SUMS_INT8; i++) {
        sums[0] = _mm256_add_epi32(sums[0], sums[i]);
    }
    return (float)_mm256_extract_epi32(sums[0], 0);
}

static float f32_run(uint64_t turns)
{
    __m256 sums[SUMS];
    __m256 a = _mm256_set1_ps(1.0000001F), b = _mm256_set1_ps(1e-9F);

#pragma GCC unroll 16
    for (int i = 0; i < SUMS; i++) {
        sums[i] = _mm256_set1_ps((float)i);
    }
    for (uint64_t turn = 0; turn < turns; turn++) {
#pragma GCC unroll 16
        for (int i = 0; i < SUMS; i++) {
            sums[i] = _mm256_fmadd_ps(sums[i], a, b);
            HOLD(sums[i]);
        }
    }
#pragma GCC unroll 16
    for (int i = 1; i < SUMS; i++) {
        sums[0] = _mm256_add_ps(sums[0], sums[i]);
    }
    return _mm256_cvtss_f32(sums[0]);
}

const struct limit_units limit_units_avx2 = {
    .int8 = {"avx2-maddubs", (uint64_t)2 * CODES *SUMS_INT8, int8_run},
    .f32 = {"avx2-fma", (uint64_t)2 * LANES *SUMS, f32_run},
};
