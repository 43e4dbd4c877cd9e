#ifndef SHOAL_KERNELS_WORDS_512_H
#define SHOAL_KERNELS_WORDS_512_H

/* What words_avx512.h and words_vnni.h share: all but the dot products. Shifts are written with the
 * compilers' vector extension, which takes the immediate form when the number is known. */
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint32_t words16 __attribute__((vector_size(64)));
typedef int32_t words16_signed __attribute__((vector_size(64)));

struct words {
    __m512i v;
};

static inline struct words words_set(uint32_t value)
{
    return (struct words){_mm512_set1_epi32((int)value)};
}

static inline struct words words_load(const void *values)
{
    return (struct words){_mm512_loadu_si512(values)};
}

static inline void words_store(void *values, struct words a)
{
    _mm512_storeu_si512(values, a.v);
}

static inline struct words words_and(struct words a, struct words b)
{
    return (struct words){_mm512_and_si512(a.v, b.v)};
}

static inline struct words words_or(struct words a, struct words b)
{
    return (struct words){_mm512_or_si512(a.v, b.v)};
}

static inline struct words words_xor(struct words a, struct words b)
{
    return (struct words){_mm512_xor_si512(a.v, b.v)};
}

static inline struct words words_left(struct words a, uint32_t bits)
{
    return (struct words){(__m512i)((words16)a.v << bits)};
}

static inline struct words words_right(struct words a, uint32_t bits)
{
    return (struct words){(__m512i)((words16)a.v >> bits)};
}

static inline struct words words_right_signed(struct words a, uint32_t bits)
{
    return (struct words){(__m512i)((words16_signed)a.v >> (int)bits)};
}

static inline struct words words_add(struct words a, struct words b)
{
    return (struct words){_mm512_add_epi32(a.v, b.v)};
}

static inline struct words words_sub(struct words a, struct words b)
{
    return (struct words){_mm512_sub_epi32(a.v, b.v)};
}

static inline struct words words_mul(struct words a, struct words b)
{
    return (struct words){_mm512_mullo_epi32(a.v, b.v)};
}

static inline struct words words_max(struct words a, struct words b)
{
    return (struct words){_mm512_max_epu32(a.v, b.v)};
}

static inline struct words words_add_bytes(struct words a, struct words b)
{
    return (struct words){_mm512_add_epi8(a.v, b.v)};
}

static inline struct words words_sub_bytes(struct words a, struct words b)
{
    return (struct words){_mm512_sub_epi8(a.v, b.v)};
}

static inline struct words words_gather(const uint32_t *table, struct words index)
{
    return (struct words){_mm512_i32gather_epi32(index.v, table, 4)};
}

static inline struct words words_look_up(const int8_t *table, struct words codes)
{
    __m512i row = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)table));

    return (struct words){_mm512_shuffle_epi8(row, codes.v)};
}

static inline struct lanes words_to_lanes(struct words a)
{
    return (struct lanes){_mm512_cvtepi32_ps(a.v)};
}

static inline struct words words_of_lanes(struct lanes a)
{
    return (struct words){_mm512_cvtps_epi32(a.v)};
}

static inline struct words words_cast(struct lanes a)
{
    return (struct words){_mm512_castps_si512(a.v)};
}

static inline struct lanes words_half_lanes(struct words a)
{
    return (struct lanes){_mm512_cvtph_ps(_mm512_cvtepi32_epi16(a.v))};
}

static inline void words_store_bytes(int8_t *out, struct words a)
{
    _mm_storeu_si128((__m128i *)(void *)out, _mm512_cvtepi32_epi8(a.v));
}

static inline int32_t words_fold_add(struct words a)
{
    return _mm512_reduce_add_epi32(a.v);
}

static inline uint32_t words_fold_max(struct words a)
{
    return _mm512_reduce_max_epu32(a.v);
}

#endif
