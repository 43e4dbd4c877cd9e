/* limits_avx512.c - the units of level "avx512": maddubs and madd for int8, and f32 FMA. */
#include "worker/kernels/limits_avx512.h"

#define SUMS_INT8 8

static float int8_run(uint64_t turns)
{
    __m512i sums[SUMS_INT8];
    __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(2), ones = _mm512_set1_epi16(1);

#pragma GCC unroll 16
    for (int i = 0; i < SUMS_INT8; i++) {
        sums[i] = _mm512_set1_epi32(i);
    }
    for (uint64_t turn = 0; turn < turns; turn++) {
#pragma GCC unroll 16
        for (int i = 0; i < SUMS_INT8; i++) {
            __m512i pairs;

            HOLD(a); /* else the product is taken out of the loop */
            pairs = _mm512_maddubs_epi16(a, b);
            sums[i] = _mm512_add_epi32(sums[i], _mm512_madd_epi16(pairs, ones));
            HOLD(sums[i]);
        }
    }
    return sums_fold(sums, SUMS_INT8);
}

const struct limit_units limit_units_avx512 = {
    .int8 = {"avx512-maddubs", (uint64_t)2 * CODES *SUMS_INT8, int8_run},
    .f32 = {"avx512-fma", (uint64_t)2 * LANES *SUMS, f32_run},
};
