/* blas.c - the door to OpenBLAS.
 *
 * The team's threads call it side by side, so it must not start threads of its own for a product:
 * it is told so before the first one. */
#include "worker/kernels/blas.h"

#include <cblas.h>
#include <pthread.h>

static pthread_once_t told = PTHREAD_ONCE_INIT;

static void tell(void)
{
    openblas_set_num_threads(1);
}

static void multiply(const struct blas_tile *tile, float keep)
{
    pthread_once(&told, tell);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)tile->row_count,
                (blasint)tile->output_count, (blasint)tile->k_count, 1, tile->x,
                (blasint)tile->x_stride, tile->w, (blasint)tile->w_stride, keep, tile->sums,
                (blasint)tile->w_stride);
}

void blas_multiply(const struct blas_tile *tile)
{
    multiply(tile, 0);
}

void blas_multiply_add(const struct blas_tile *tile)
{
    multiply(tile, 1);
}
