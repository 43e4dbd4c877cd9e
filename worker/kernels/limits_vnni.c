/* limits_vnni.c - the units of level "vnni": four int8 products to a lane, and f32 FMA. */
#include "worker/kernels/limits_avx512.h"

static float int8_run(uint64_t turns)
{
    __m512i sums[SUMS];
    __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(2);

#pragma GCC unroll 16
    for (int i = 0; i < SUMS; i++) {
        sums[i] = _mm512_set1_epi32(i);
    }
    for (uint64_t turn = 0; turn < turns; turn++) {
#pragma GCC unroll 16
        for (int i = 0; i < SUMS; i++) {
            sums[i] = _mm512_dpbusd_epi32(sums[i], a, b);
            HOLD(sums[i]);
        }
    }
    return sums_fold(sums, SUMS);
}

const struct limit_units limit_units_vnni = {
    .int8 = {"avx512-vnni", (uint64_t)2 * CODES *SUMS, int8_run},
    .f32 = {"avx512-fma", (uint64_t)2 * LANES *SUMS, f32_run},
};
