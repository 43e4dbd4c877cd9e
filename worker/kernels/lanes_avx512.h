#ifndef SHOAL_KERNELS_LANES_AVX512_H
#define SHOAL_KERNELS_LANES_AVX512_H

/* Sixteen lanes in one AVX-512 register (F, BW, DQ, VL); the contract is lanes_ref.h. bf16 goes
 * through integers: the CPU's own bf16 conversion flushes denormals. */
#include "worker/kernels/transpose_avx2.h"

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LANE_COUNT          16
#define CHAIN_ROWS          6  /* 6 × 4 sums, 4 weights, 1 value: 29 of 32 registers */
#define CHAIN_ROWS_TALL     12 /* × 2 */
#define CHAIN_PANELS        4
#define CHAIN_PANELS_SINGLE 4
#define CHAIN_ROWS_SINGLE   12

struct lanes {
    __m512 v;
};

static inline struct lanes lanes_set(float value)
{
    return (struct lanes){_mm512_set1_ps(value)};
}

static inline struct lanes lanes_load(const float *values)
{
    return (struct lanes){_mm512_loadu_ps(values)};
}

static inline void lanes_store(float *values, struct lanes a)
{
    _mm512_storeu_ps(values, a.v);
}

static inline struct lanes lanes_load_f32(const void *values)
{
    return (struct lanes){_mm512_loadu_ps(values)};
}

static inline struct lanes lanes_load_bf16(const void *values)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(values));

    return (struct lanes){_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}

static inline struct lanes lanes_load_f16(const void *values)
{
    return (struct lanes){_mm512_cvtph_ps(_mm256_loadu_si256(values))};
}

static inline struct lanes lanes_load_i8(const void *values)
{
    return (struct lanes){_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(values)))};
}

/* Of 16 pairs of bf16 side by side: the first of each, the second. */
static inline struct lanes lanes_load_bf16_even(const void *values)
{
    return (struct lanes){_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(values), 16))};
}

static inline struct lanes lanes_load_bf16_odd(const void *values)
{
    const __m512i upper = _mm512_set1_epi32(-0x10000);

    return (struct lanes){_mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(values), upper))};
}

/* The code in the upper byte goes down by one, its sign stays and fills bit 14, which is cleared
 * with what is left of the lower byte. */
static inline void lanes_f16_of_f8(void *out, const void *codes)
{
    const __m512i fields = _mm512_set1_epi16((short)0xbf80);
    const __m512i pairs = _mm512_loadu_si512(codes);
    const __m512i lower = _mm512_srai_epi16(_mm512_slli_epi16(pairs, 8), 1);
    const __m512i upper = _mm512_srai_epi16(pairs, 1);

    _mm512_storeu_si512(out, _mm512_and_si512(lower, fields));
    _mm512_storeu_si512((char *)out + 64, _mm512_and_si512(upper, fields));
}

static inline void lanes_store_bf16(void *values, struct lanes a)
{
    __m512i bits = _mm512_castps_si512(a.v);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
    __m512i chosen = _mm512_mask_mov_epi32(rounded, nan, quiet);

    _mm256_storeu_si256(values, _mm512_cvtepi32_epi16(_mm512_srli_epi32(chosen, 16)));
}

static inline void lanes_store_f16(void *values, struct lanes a)
{
    _mm256_storeu_si256(values, _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}

static inline struct lanes lanes_fma(struct lanes a, struct lanes b, struct lanes c)
{
    return (struct lanes){_mm512_fmadd_ps(a.v, b.v, c.v)};
}

static inline struct lanes lanes_add(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm512_add_ps(a.v, b.v)};
}

static inline struct lanes lanes_sub(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm512_sub_ps(a.v, b.v)};
}

static inline struct lanes lanes_mul(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm512_mul_ps(a.v, b.v)};
}

static inline struct lanes lanes_div(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm512_div_ps(a.v, b.v)};
}

static inline struct lanes lanes_max(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm512_max_ps(a.v, b.v)};
}

static inline struct lanes lanes_select_less(struct lanes a, struct lanes b, struct lanes x,
                                             struct lanes y)
{
    __mmask16 less = _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ);

    return (struct lanes){_mm512_mask_blend_ps(less, y.v, x.v)};
}

static inline struct lanes lanes_pow2(struct lanes t)
{
    __m512i bits = _mm512_slli_epi32(_mm512_castps_si512(t.v), 23);

    return (struct lanes){
        _mm512_castsi512_ps(_mm512_add_epi32(bits, _mm512_set1_epi32(0x3f800000)))};
}

static inline struct lanes lanes_evens(struct lanes low, struct lanes high)
{
    const __m512i from =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);

    return (struct lanes){_mm512_permutex2var_ps(low.v, from, high.v)};
}

static inline struct lanes lanes_odds(struct lanes low, struct lanes high)
{
    const __m512i from =
        _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);

    return (struct lanes){_mm512_permutex2var_ps(low.v, from, high.v)};
}

static inline struct lanes lanes_rotate(struct lanes x, struct lanes cos_sin)
{
    const __m512 crossed =
        _mm512_mul_ps(_mm512_movehdup_ps(x.v), _mm512_permute_ps(cos_sin.v, 0xb1));

    return (struct lanes){_mm512_fmaddsub_ps(_mm512_moveldup_ps(x.v), cos_sin.v, crossed)};
}

static inline float lanes_fold_add(struct lanes a)
{
    __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));

    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static inline float lanes_fold_max(struct lanes a)
{
    __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));

    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

#endif
