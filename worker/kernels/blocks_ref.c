/* blocks_ref.c - products with weights of every block type, plain C.
 *
 * The formats are in blocks_legacy.h, blocks_k.h and blocks_iq.h, the arithmetic in
 * block_product.h. */
#include "worker/kernels/lanes_ref.h"

#include "worker/kernels/words_ref.h"

#define BLOCK_PLAIN 1
#include "worker/kernels/blocks_iq.h"

const struct block_kernel block_kernels_ref[WEIGHT_TYPE_COUNT] = BLOCK_KERNELS;
