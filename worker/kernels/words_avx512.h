#ifndef SHOAL_KERNELS_WORDS_AVX512_H
#define SHOAL_KERNELS_WORDS_AVX512_H

/* Sixteen words in one AVX-512 register (F, BW, DQ, VL), products without VNNI; the contract is
 * words_ref.h. */
#include "worker/kernels/words_512.h"

#define WORDS_ACTIVATION_BIAS 0U
#define WORDS_GROUP_ROWS      6
#define WORDS_GROUP_PANELS    2

static inline struct words words_dot(struct words acc, struct words w, struct words a)
{
    __m512i pairs = _mm512_maddubs_epi16(w.v, a.v);

    return (struct words){_mm512_add_epi32(acc.v, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))};
}

/* The sign moves to the activation, which is never -128: pairs stay within 2 * 128 * 127. */
static inline struct words words_dot_signed(struct words acc, struct words w, struct words a)
{
    __m512i turned =
        _mm512_mask_sub_epi8(a.v, _mm512_movepi8_mask(w.v), _mm512_setzero_si512(), a.v);

    return words_dot(acc, (struct words){_mm512_abs_epi8(w.v)}, (struct words){turned});
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
    return (struct words){_mm512_add_epi32(acc.v, _mm512_madd_epi16(a.v, b.v))};
}

#endif
