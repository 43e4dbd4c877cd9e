/* matmul_f32_ref.c - products with f32 weights, plain C. The arithmetic is float_chain.h's. */
#include "worker/kernels/lanes_ref.h"

#include "worker/kernels/float_chain.h"
#include "worker/kernels/matmul_float.h"

void matmul_f32_ref(const struct matmul_tile *tile)
{
    matmul_float_tile(tile, &chain_loads_f32, 4);
}
