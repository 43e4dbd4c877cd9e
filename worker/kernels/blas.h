#ifndef SHOAL_KERNELS_BLAS_H
#define SHOAL_KERNELS_BLAS_H

/* OpenBLAS's product of one tile (--numerics fast-blas), in the calling thread alone. */
#include <stddef.h>

struct blas_tile {
    const float *x; /* [row][x_stride] */
    size_t x_stride, row_count;
    const float *w; /* [k][w_stride] */
    size_t w_stride, output_count;
    size_t k_count;
    float *sums; /* [row][w_stride] */
};

/* sums = x · w, or is added to. Any thread. */
void blas_multiply(const struct blas_tile *tile);
void blas_multiply_add(const struct blas_tile *tile);

#endif
