#ifndef SHOAL_KERNELS_WORDS_AVX2_H
#define SHOAL_KERNELS_WORDS_AVX2_H

/* Sixteen words in two AVX2 registers; the contract is words_ref.h. Shifts are written with the
 * compilers' vector extension, which takes the immediate form when the number is known. */
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define WORDS_ACTIVATION_BIAS 0U
#define WORDS_GROUP_ROWS      2
#define WORDS_GROUP_PANELS    1

typedef uint32_t words8 __attribute__((vector_size(32)));
typedef int32_t words8_signed __attribute__((vector_size(32)));

struct words {
    __m256i low, high;
};

#define WORDS_BOTH(function)                                                                       \
    (struct words)                                                                                 \
    {                                                                                              \
        function(a.low, b.low), function(a.high, b.high)                                           \
    }

static inline struct words words_set(uint32_t value)
{
    __m256i all = _mm256_set1_epi32((int)value);

    return (struct words){all, all};
}

static inline struct words words_load(const void *values)
{
    const __m256i *at = values;

    return (struct words){_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
}

static inline void words_store(void *values, struct words a)
{
    __m256i *at = values;

    _mm256_storeu_si256(at, a.low);
    _mm256_storeu_si256(at + 1, a.high);
}

static inline struct words words_and(struct words a, struct words b)
{
    return WORDS_BOTH(_mm256_and_si256);
}

static inline struct words words_or(struct words a, struct words b)
{
    return WORDS_BOTH(_mm256_or_si256);
}

static inline struct words words_xor(struct words a, struct words b)
{
    return WORDS_BOTH(_mm256_xor_si256);
}

static inline struct words words_left(struct words a, uint32_t bits)
{
    return (struct words){(__m256i)((words8)a.low << bits), (__m256i)((words8)a.high << bits)};
}

static inline struct words words_right(struct words a, uint32_t bits)
{
    return (struct words){(__m256i)((words8)a.low >> bits), (__m256i)((words8)a.high >> bits)};
}

static inline struct words words_right_signed(struct words a, uint32_t bits)
{
    return (struct words){(__m256i)((words8_signed)a.low >> (int)bits),
                          (__m256i)((words8_signed)a.high >> (int)bits)};
}

static inline struct words words_add(struct words a, struct words b)
{
    return WORDS_BOTH(_mm256_add_epi32);
}

static inline struct words words_sub(struct words a, struct words b)
{
    return WORDS_BOTH(_mm256_sub_epi32);
}

static inline struct words words_mul(struct words a, struct words b)
{
    return WORDS_BOTH(_mm256_mullo_epi32);
}

static inline struct words words_max(struct words a, struct words b)
{
    return WORDS_BOTH(_mm256_max_epu32);
}

static inline struct words words_add_bytes(struct words a, struct words b)
{
    return WORDS_BOTH(_mm256_add_epi8);
}

static inline struct words words_sub_bytes(struct words a, struct words b)
{
    return WORDS_BOTH(_mm256_sub_epi8);
}

static inline struct words words_gather(const uint32_t *table, struct words index)
{
    const int *from = (const int *)table;

    return (struct words){_mm256_i32gather_epi32(from, index.low, 4),
                          _mm256_i32gather_epi32(from, index.high, 4)};
}

static inline struct words words_look_up(const int8_t *table, struct words codes)
{
    __m256i row =
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)table));

    return (struct words){_mm256_shuffle_epi8(row, codes.low),
                          _mm256_shuffle_epi8(row, codes.high)};
}

static inline __m256i dot_half(__m256i acc, __m256i w, __m256i a)
{
    __m256i pairs = _mm256_maddubs_epi16(w, a);

    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

static inline struct words words_dot(struct words acc, struct words w, struct words a)
{
    return (struct words){dot_half(acc.low, w.low, a.low), dot_half(acc.high, w.high, a.high)};
}

/* The sign moves to the activation, which is never -128: pairs stay within 2 * 128 * 127. */
static inline struct words words_dot_signed(struct words acc, struct words w, struct words a)
{
    return (struct words){
        dot_half(acc.low, _mm256_abs_epi8(w.low), _mm256_sign_epi8(a.low, w.low)),
        dot_half(acc.high, _mm256_abs_epi8(w.high), _mm256_sign_epi8(a.high, w.high))};
}

static inline struct words words_load_apart(const void *values)
{
    return words_load(values);
}

static inline struct words words_sum_four(struct words a, struct words ones)
{
    return words_dot(words_set(0), ones, a);
}

static inline struct words words_dot_pairs(struct words acc, struct words a, struct words b)
{
    return (struct words){_mm256_add_epi32(acc.low, _mm256_madd_epi16(a.low, b.low)),
                          _mm256_add_epi32(acc.high, _mm256_madd_epi16(a.high, b.high))};
}

static inline struct lanes words_to_lanes(struct words a)
{
    return (struct lanes){_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)};
}

static inline struct words words_of_lanes(struct lanes a)
{
    return (struct words){_mm256_cvtps_epi32(a.low), _mm256_cvtps_epi32(a.high)};
}

static inline struct words words_cast(struct lanes a)
{
    return (struct words){_mm256_castps_si256(a.low), _mm256_castps_si256(a.high)};
}

/* The low halves of 16 words, in order. */
static inline __m256i low_halves(struct words a)
{
    const struct words mask = words_set(0xffff);
    __m256i packed =
        _mm256_packus_epi32(_mm256_and_si256(a.low, mask.low), _mm256_and_si256(a.high, mask.high));

    return _mm256_permute4x64_epi64(packed, 0xd8); /* pack works by halves */
}

static inline struct lanes words_half_lanes(struct words a)
{
    __m256i halves = low_halves(a);

    return (struct lanes){_mm256_cvtph_ps(_mm256_castsi256_si128(halves)),
                          _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
}

static inline void words_store_bytes(int8_t *out, struct words a)
{
    __m256i halves = _mm256_and_si256(low_halves(a), _mm256_set1_epi16(0xff));
    __m128i bytes =
        _mm_packus_epi16(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));

    _mm_storeu_si128((__m128i *)(void *)out, bytes);
}

static inline int32_t words_fold_add(struct words a)
{
    __m256i eight = _mm256_add_epi32(a.low, a.high);
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));

    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}

static inline uint32_t words_fold_max(struct words a)
{
    __m256i eight = _mm256_max_epu32(a.low, a.high);
    __m128i four = _mm_max_epu32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    __m128i two = _mm_max_epu32(four, _mm_unpackhi_epi64(four, four));

    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epu32(two, _mm_shuffle_epi32(two, 1)));
}

#undef WORDS_BOTH
#endif
