#ifndef SHOAL_KERNELS_TRANSPOSE_AVX2_H
#define SHOAL_KERNELS_TRANSPOSE_AVX2_H

/* The 8 × 8 transpose of both AVX levels. */
#include <immintrin.h>
#include <stddef.h>

/* out[column][row] = in[row][column] for an 8 × 8 block; strides count values. */
static inline void lanes_transpose_8x8(const float *in, size_t in_stride, float *out,
                                       size_t out_stride)
{
    __m256 row[8], pair[8], quad[8];

    for (int i = 0; i < 8; i++) {
        row[i] = _mm256_loadu_ps(in + (size_t)i * in_stride);
    }
    for (int i = 0; i < 8; i += 2) {
        pair[i] = _mm256_unpacklo_ps(row[i], row[i + 1]);
        pair[i + 1] = _mm256_unpackhi_ps(row[i], row[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        quad[i] = _mm256_shuffle_ps(pair[i], pair[i + 2], 0x44);
        quad[i + 1] = _mm256_shuffle_ps(pair[i], pair[i + 2], 0xee);
        quad[i + 2] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0x44);
        quad[i + 3] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        __m256 low = _mm256_permute2f128_ps(quad[i], quad[i + 4], 0x20);
        __m256 high = _mm256_permute2f128_ps(quad[i], quad[i + 4], 0x31);

        _mm256_storeu_ps(out + (size_t)i * out_stride, low);
        _mm256_storeu_ps(out + (size_t)(i + 4) * out_stride, high);
    }
}

#endif
