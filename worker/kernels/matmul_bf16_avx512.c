/* matmul_bf16_avx512.c - products with bf16 weights, AVX-512. The arithmetic is float_chain.h's. */
#include "worker/kernels/lanes_avx512.h"

#include "worker/kernels/float_chain.h"
#include "worker/kernels/matmul_float.h"

static const struct chain_loads loads = {lanes_load_bf16_even, lanes_load_bf16_odd, 0};

void matmul_bf16_avx512(const struct matmul_tile *tile)
{
    matmul_float_tile(tile, &loads, 2);
}
