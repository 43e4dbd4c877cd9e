#ifndef SHOAL_KERNELS_WORDS_VNNI_H
#define SHOAL_KERNELS_WORDS_VNNI_H

/* Sixteen words in one AVX-512 register with the dot products of VNNI; the contract is words_ref.h.
 */
#include "worker/kernels/words_512.h"

/* vpdpbusd takes unsigned weights, so signed ones are shifted up by 128. */
#define WORDS_SIGNED_BIAS 128

static inline struct words words_dot(struct words acc, struct words w, struct words a)
{
    return (struct words){_mm512_dpbusd_epi32(acc.v, w.v, a.v)};
}

static inline struct words words_dot_signed(struct words acc, struct words w, struct words a)
{
    __m512i shifted = _mm512_xor_si512(w.v, _mm512_set1_epi8(-128));

    return (struct words){_mm512_dpbusd_epi32(acc.v, shifted, a.v)};
}

#endif
