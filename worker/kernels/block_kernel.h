#ifndef SHOAL_KERNELS_BLOCK_KERNEL_H
#define SHOAL_KERNELS_BLOCK_KERNEL_H

/* Between the products of a level and the leaves for block types (blocks_<level>.c): one pair of
 * functions for each type.
 *
 * A block of a panel is 16 blocks of as many rows, word by word: word i of row r is at
 * [i][r]; the two bytes that a block has beside its words (packed.h) follow as [16]. Vector lanes
 * run across rows, so a block's sums need no folding and its scales are vectors too.
 *
 * Canonical arithmetic (DESIGN, Same answer everywhere): activations of a block become int8 codes
 * under one f32 scale. Inside a block all is exact: S = sum of scale * code * activation, M = sum
 * of min * activation, both int32. Then acc = fma(d * da, S, acc), and where a type has mins acc =
 * fma(-+(dmin * da), M, acc), blocks in rising order.
 */
#include "common/model/weight_type.h"
#include "worker/kernels/packed.h"

#include <stddef.h>
#include <stdint.h>

/* Rows of activations as codes, cut like the weights. Strides count elements. */
struct int8_view {
    const int8_t *codes; /* [row][k] */
    size_t code_stride;
    const float *scales; /* [row][block] */
    size_t scale_stride;
    const int32_t *sums; /* [row][sub-block]: of the codes of each 16 or 32 (block_sum_values) */
    size_t sum_stride;
};

struct block_task {
    const char *blocks; /* of one panel */
    uint32_t block_count;
    uint32_t row_count; /* 1 … BLOCK_ROWS */
    struct int8_view x; /* from the first of these blocks on */
    float *acc;         /* [row][16], added to */
};
#define BLOCK_ROWS 48

typedef void (*block_multiply_fn)(const struct block_task *task);
/* out[k][16]: the exact values of one block of a panel. */
typedef void (*block_widen_fn)(const char *block, float *out);

struct block_kernel {
    block_multiply_fn multiply; /* NULL: no block type */
    block_widen_fn widen;
    uint32_t sum_values; /* how many codes one sum covers */
};

extern const struct block_kernel block_kernels_ref[WEIGHT_TYPE_COUNT];
extern const struct block_kernel block_kernels_avx2[WEIGHT_TYPE_COUNT];
extern const struct block_kernel block_kernels_avx512[WEIGHT_TYPE_COUNT];
extern const struct block_kernel block_kernels_vnni[WEIGHT_TYPE_COUNT];

#endif
