#ifndef SHOAL_KERNELS_LIMITS_AVX512_H
#define SHOAL_KERNELS_LIMITS_AVX512_H

/* f32 FMA, the same in every level with AVX-512. */
#include "worker/kernels/limits.h"

#include <immintrin.h>

#define SUMS  14
#define LANES 16
#define CODES 64

#define HOLD(value) __asm__ volatile("" : "+v"(value))

static float f32_run(uint64_t turns)
{
    __m512 sums[SUMS];
    __m512 a = _mm512_set1_ps(1.0000001F), b = _mm512_set1_ps(1e-9F);

#pragma GCC unroll 16
    for (int i = 0; i < SUMS; i++) {
        sums[i] = _mm512_set1_ps((float)i);
    }
    for (uint64_t turn = 0; turn < turns; turn++) {
#pragma GCC unroll 16
        for (int i = 0; i < SUMS; i++) {
            sums[i] = _mm512_fmadd_ps(sums[i], a, b);
            HOLD(sums[i]);
        }
    }
#pragma GCC unroll 16
    for (int i = 1; i < SUMS; i++) {
        sums[0] = _mm512_add_ps(sums[0], sums[i]);
    }
    return _mm512_cvtss_f32(sums[0]);
}

static inline __attribute__((always_inline)) float sums_fold(__m512i *sums, int count)
{
#pragma GCC unroll 16
    for (int i = 1; i < count; i++) {
        sums[0] = _mm512_add_epi32(sums[0], sums[i]);
    }
    return (float)_mm_cvtsi128_si32(_mm512_castsi512_si128(sums[0]));
}

#endif
