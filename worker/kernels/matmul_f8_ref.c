/* matmul_f8_ref.c - products with e4m3 weights, plain C. The arithmetic is matmul_f8.h's. */
#include "worker/kernels/lanes_ref.h"

#include "worker/kernels/float_chain.h"
#include "worker/kernels/matmul_f8.h"

void matmul_f8_ref(const struct matmul_tile *tile)
{
    matmul_f8_tile(tile);
}
