#ifndef SHOAL_KERNELS_LANES_AVX2_H
#define SHOAL_KERNELS_LANES_AVX2_H

/* Sixteen lanes in two AVX registers (AVX2, FMA, F16C); the contract is lanes_ref.h. */
#include "worker/kernels/transpose_avx2.h"

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LANE_COUNT          16
#define CHAIN_ROWS          6 /* sums 6 × 1 × 2, weights 2, value 1: 15 of 16 registers */
#define CHAIN_ROWS_TALL     6
#define CHAIN_PANELS        1
#define CHAIN_PANELS_SINGLE 4
#define CHAIN_ROWS_SINGLE   6

struct lanes {
    __m256 low, high; /* lanes 0 … 7, 8 … 15 */
};

static inline struct lanes lanes_set(float value)
{
    __m256 all = _mm256_set1_ps(value);

    return (struct lanes){all, all};
}

static inline struct lanes lanes_load(const float *values)
{
    return (struct lanes){_mm256_loadu_ps(values), _mm256_loadu_ps(values + 8)};
}

static inline void lanes_store(float *values, struct lanes a)
{
    _mm256_storeu_ps(values, a.low);
    _mm256_storeu_ps(values + 8, a.high);
}

static inline struct lanes lanes_load_f32(const void *values)
{
    return lanes_load(values);
}

static inline __m256 widen_bf16(__m128i bits)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

static inline struct lanes lanes_load_bf16(const void *values)
{
    const __m128i *bits = values;

    return (struct lanes){widen_bf16(_mm_loadu_si128(bits)), widen_bf16(_mm_loadu_si128(bits + 1))};
}

static inline struct lanes lanes_load_f16(const void *values)
{
    const __m128i *bits = values;

    return (struct lanes){_mm256_cvtph_ps(_mm_loadu_si128(bits)),
                          _mm256_cvtph_ps(_mm_loadu_si128(bits + 1))};
}

static inline struct lanes lanes_load_i8(const void *values)
{
    __m128i codes = _mm_loadu_si128(values);

    return (struct lanes){
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)),
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(codes, codes)))};
}

static inline __m256 pairs_even(__m256i pairs)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
}

static inline __m256 pairs_odd(__m256i pairs)
{
    return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(-0x10000)));
}

/* Of 16 pairs of bf16 side by side: the first of each, the second. */
static inline struct lanes lanes_load_bf16_even(const void *values)
{
    const __m256i *pairs = values;

    return (struct lanes){pairs_even(_mm256_loadu_si256(pairs)),
                          pairs_even(_mm256_loadu_si256(pairs + 1))};
}

static inline struct lanes lanes_load_bf16_odd(const void *values)
{
    const __m256i *pairs = values;

    return (struct lanes){pairs_odd(_mm256_loadu_si256(pairs)),
                          pairs_odd(_mm256_loadu_si256(pairs + 1))};
}

/* The code in the upper byte goes down by one, its sign stays and fills bit 14, which is cleared
 * with what is left of the lower byte. */
static inline void lanes_f16_of_f8(void *out, const void *codes)
{
    const __m256i fields = _mm256_set1_epi16((short)0xbf80);
    const __m256i *in = codes;
    __m256i *to = out;

    for (int i = 0; i < 2; i++) {
        const __m256i pairs = _mm256_loadu_si256(in + i);
        const __m256i lower = _mm256_srai_epi16(_mm256_slli_epi16(pairs, 8), 1);
        const __m256i upper = _mm256_srai_epi16(pairs, 1);

        _mm256_storeu_si256(to + i, _mm256_and_si256(lower, fields));
        _mm256_storeu_si256(to + 2 + i, _mm256_and_si256(upper, fields));
    }
}

/* Each bf16 in the low half of its 32 bits. */
static inline __m256i round_bf16(__m256 a)
{
    __m256i bits = _mm256_castps_si256(a);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));

    return _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
}

static inline void lanes_store_bf16(void *values, struct lanes a)
{
    __m256i packed = _mm256_packus_epi32(round_bf16(a.low), round_bf16(a.high));

    _mm256_storeu_si256(values, _mm256_permute4x64_epi64(packed, 0xd8)); /* pack works by halves */
}

static inline void lanes_store_f16(void *values, struct lanes a)
{
    __m128i *bits = values;

    _mm_storeu_si128(bits, _mm256_cvtps_ph(a.low, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(bits + 1, _mm256_cvtps_ph(a.high, _MM_FROUND_TO_NEAREST_INT));
}

static inline struct lanes lanes_fma(struct lanes a, struct lanes b, struct lanes c)
{
    return (struct lanes){_mm256_fmadd_ps(a.low, b.low, c.low),
                          _mm256_fmadd_ps(a.high, b.high, c.high)};
}

static inline struct lanes lanes_add(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}

static inline struct lanes lanes_sub(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}

static inline struct lanes lanes_mul(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}

static inline struct lanes lanes_div(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}

static inline struct lanes lanes_max(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}

static inline struct lanes lanes_select_less(struct lanes a, struct lanes b, struct lanes x,
                                             struct lanes y)
{
    __m256 low = _mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ);
    __m256 high = _mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ);

    return (struct lanes){_mm256_blendv_ps(y.low, x.low, low),
                          _mm256_blendv_ps(y.high, x.high, high)};
}

static inline __m256 pow2_half(__m256 t)
{
    __m256i bits = _mm256_slli_epi32(_mm256_castps_si256(t), 23);

    return _mm256_castsi256_ps(_mm256_add_epi32(bits, _mm256_set1_epi32(0x3f800000)));
}

static inline struct lanes lanes_pow2(struct lanes t)
{
    return (struct lanes){pow2_half(t.low), pow2_half(t.high)};
}

/* Shuffles leave the quarters as 0 2 1 3. */
static inline __m256 quarters_sort(__m256 a)
{
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(a), 0xd8));
}

static inline struct lanes lanes_evens(struct lanes low, struct lanes high)
{
    return (struct lanes){quarters_sort(_mm256_shuffle_ps(low.low, low.high, 0x88)),
                          quarters_sort(_mm256_shuffle_ps(high.low, high.high, 0x88))};
}

static inline struct lanes lanes_odds(struct lanes low, struct lanes high)
{
    return (struct lanes){quarters_sort(_mm256_shuffle_ps(low.low, low.high, 0xdd)),
                          quarters_sort(_mm256_shuffle_ps(high.low, high.high, 0xdd))};
}

static inline __m256 rotate_half(__m256 x, __m256 cos_sin)
{
    const __m256 crossed = _mm256_mul_ps(_mm256_movehdup_ps(x), _mm256_permute_ps(cos_sin, 0xb1));

    return _mm256_fmaddsub_ps(_mm256_moveldup_ps(x), cos_sin, crossed);
}

static inline struct lanes lanes_rotate(struct lanes x, struct lanes cos_sin)
{
    return (struct lanes){rotate_half(x.low, cos_sin.low), rotate_half(x.high, cos_sin.high)};
}

static inline float lanes_fold_add(struct lanes a)
{
    __m256 eight = _mm256_add_ps(a.low, a.high);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));

    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static inline float lanes_fold_max(struct lanes a)
{
    __m256 eight = _mm256_max_ps(a.low, a.high);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));

    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

#endif
