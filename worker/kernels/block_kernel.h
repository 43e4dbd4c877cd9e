#ifndef SHOAL_KERNELS_BLOCK_KERNEL_H
#define SHOAL_KERNELS_BLOCK_KERNEL_H

/* Between the products of a level and the leaves for block types (blocks_<level>.c).
 *
 * A block of a panel is 16 blocks of as many rows, word by word: word i of row r is at
 * [i][r]; the two bytes that a block has beside its words (packed.h) follow as [16]. Vector lanes
 * run across rows, so a block's sums need no folding and its scales are vectors too.
 *
 * Canonical arithmetic (DESIGN, Same answer everywhere): activations of a block become int8 codes
 * under one f32 scale. Inside a block all is exact: S = sum of scale * code * activation, M = sum
 * of min * activation, both int32. Then acc = fma(d * da, S, acc), and where a type has mins acc =
 * fma(-+(dmin * da), M, acc), blocks in rising order.
 *
 * Weights meet activations in chunks of 256 columns: one block, or up to eight of 32. A chunk of a
 * panel is unpacked once, into a near cache, and meets all rows of a tile there.
 */
#include "common/model/weight_type.h"
#include "worker/kernels/packed.h"

#include <stddef.h>
#include <stdint.h>

#define CHUNK_VALUES      256
#define CHUNK_WORDS       (CHUNK_VALUES / 4)
#define CHUNK_BLOCKS      8  /* of 32 values */
#define CHUNK_GROUPS_MAX  32 /* groups of words that are summed before they are scaled */
#define CHUNK_MIN_PAIRS   8
#define TASK_PANELS       2
#define BLOCK_ROWS        64 /* of one tile: its rows of one chunk and what is unpacked fit into L1 */
#define BLOCK_ROW_OUTPUTS (TASK_PANELS * PANEL_ROWS)

/* 256 columns of one row of activations. Blocks of 256 use scales[0]. */
struct int8_chunk {
    _Alignas(64) uint8_t codes[CHUNK_VALUES]; /* int8, plus the level's WORDS_ACTIVATION_BIAS */
    float scales[CHUNK_BLOCKS];
    int16_t sums_32[CHUNK_VALUES / 32]; /* of 32 codes, without the bias */
    int16_t sums_16[CHUNK_VALUES / 16];
};

static inline uint32_t int8_chunk_count(uint32_t columns)
{
    return columns / CHUNK_VALUES + (columns % CHUNK_VALUES != 0);
}

static inline uint32_t int8_chunk_values(uint32_t columns, uint32_t chunk)
{
    const uint32_t left = columns - chunk * CHUNK_VALUES;

    return left < CHUNK_VALUES ? left : CHUNK_VALUES;
}

/* A chunk of a panel as the products read it. */
struct block_chunk {
    _Alignas(64) uint32_t codes[CHUNK_WORDS][PANEL_ROWS];
    uint32_t begins[CHUNK_GROUPS_MAX][PANEL_ROWS];   /* what a group's sum begins with */
    uint32_t scales[CHUNK_GROUPS_MAX][PANEL_ROWS];   /* of a sub-block */
    uint32_t min_pairs[CHUNK_MIN_PAIRS][PANEL_ROWS]; /* int16 mins of two sub-blocks */
    float d[CHUNK_BLOCKS][PANEL_ROWS];
    float min[CHUNK_BLOCKS][PANEL_ROWS];
};

struct block_task {
    const struct block_chunk *chunks; /* [panel_count] */
    uint32_t panel_count;             /* 1 … TASK_PANELS */
    uint32_t block_count;             /* blocks of 32 in the chunk; 1 of 256 */
    const struct int8_chunk *rows;
    uint32_t row_count;
    float *acc; /* [row][BLOCK_ROW_OUTPUTS], added to */
};

/* Unpacks `block_count` blocks of one panel. */
typedef void (*block_unpack_fn)(const char *blocks, uint32_t block_count, struct block_chunk *out);
typedef void (*block_multiply_fn)(const struct block_task *task);
/* out[k][16]: the exact values of one block of a panel. */
typedef void (*block_widen_fn)(const char *block, float *out);

struct block_kernel {
    block_unpack_fn unpack; /* NULL: no block type */
    block_multiply_fn multiply;
    block_widen_fn widen;
};

extern const struct block_kernel block_kernels_ref[WEIGHT_TYPE_COUNT];
extern const struct block_kernel block_kernels_avx2[WEIGHT_TYPE_COUNT];
extern const struct block_kernel block_kernels_avx512[WEIGHT_TYPE_COUNT];
extern const struct block_kernel block_kernels_vnni[WEIGHT_TYPE_COUNT];

#endif
