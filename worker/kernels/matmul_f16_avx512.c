/* matmul_f16_avx512.c - products with f16 weights, AVX-512. The arithmetic is float_chain.h's. */
#include "worker/kernels/lanes_avx512.h"

#include "worker/kernels/float_chain.h"
#include "worker/kernels/matmul_float.h"

void matmul_f16_avx512(const struct matmul_tile *tile)
{
    matmul_float_tile(tile, &chain_loads_f16, 2);
}
