#ifndef SHOAL_KERNELS_WORDS_VNNI_H
#define SHOAL_KERNELS_WORDS_VNNI_H

/* Sixteen words in one AVX-512 register with the dot products of VNNI; the contract is words_ref.h.
 */
#include "worker/kernels/words_512.h"

/* vpdpbusd takes unsigned bytes on one side: the activations, shifted up, so that what that adds
 * depends on the weights alone and is the same for all rows. */
#define WORDS_ACTIVATION_BIAS 128U
#define WORDS_GROUP_ROWS      6
#define WORDS_GROUP_PANELS    2

static inline struct words words_dot(struct words acc, struct words w, struct words a)
{
    return (struct words){_mm512_dpbusd_epi32(acc.v, a.v, w.v)};
}

static inline struct words words_dot_signed(struct words acc, struct words w, struct words a)
{
    return words_dot(acc, w, a);
}

static inline struct words words_sum_four(struct words a, struct words ones)
{
    return words_dot(words_set(0), a, ones);
}

static inline struct words words_dot_pairs(struct words acc, struct words a, struct words b)
{
    return (struct words){_mm512_dpwssd_epi32(acc.v, a.v, b.v)};
}

/* A load of its own: sums that begin alike would be copied from one register otherwise. */
static inline struct words words_load_apart(const void *values)
{
    struct words out;

    __asm__ volatile("vmovdqu32 %1, %0" : "=v"(out.v) : "m"(*(const __m512i_u *)values));
    return out;
}

#endif
