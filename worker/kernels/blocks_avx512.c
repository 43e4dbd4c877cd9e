/* blocks_avx512.c - products with weights of every block type, AVX-512 without VNNI.
 *
 * The formats are in blocks_legacy.h, blocks_k.h and blocks_iq.h, the arithmetic in
 * block_product.h. */
#include "worker/kernels/lanes_avx512.h"

#include "worker/kernels/words_avx512.h"

#define BLOCK_PLAIN 0
#include "worker/kernels/blocks_iq.h"

const struct block_kernel block_kernels_avx512[WEIGHT_TYPE_COUNT] = BLOCK_KERNELS;
