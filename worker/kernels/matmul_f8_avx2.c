/* matmul_f8_avx2.c - products with e4m3 weights, AVX2. The arithmetic is matmul_f8.h's. */
#include "worker/kernels/lanes_avx2.h"

#include "worker/kernels/float_chain.h"
#include "worker/kernels/matmul_f8.h"

void matmul_f8_avx2(const struct matmul_tile *tile)
{
    matmul_f8_tile(tile);
}
