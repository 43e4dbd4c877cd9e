/* blocks_avx2.c - products with weights of every block type, AVX2.
 *
 * The formats are in blocks_legacy.h, blocks_k.h and blocks_iq.h, the arithmetic in
 * block_product.h. */
#include "worker/kernels/lanes_avx2.h"

#include "worker/kernels/words_avx2.h"

#define BLOCK_PLAIN 0
#include "worker/kernels/blocks_iq.h"

const struct block_kernel block_kernels_avx2[WEIGHT_TYPE_COUNT] = BLOCK_KERNELS;
