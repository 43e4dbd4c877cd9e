#ifndef SHOAL_KERNELS_MATMUL_FLOAT_H
#define SHOAL_KERNELS_MATMUL_FLOAT_H

/* A tile of a product with float weights: one chain over k for each output, cut into blocks of k
 * whose weights stay in the nearest caches for all rows of the tile. Written over a lanes header
 * and float_chain.h; a leaf passes the load of its type. */
#include "worker/kernels/matmul.h"

#include <string.h>

#define K_BLOCK 256

CHAIN_INLINE void matmul_float_tile(const struct matmul_tile *tile, lanes_load_fn load,
                                    size_t value_bytes)
{
    const size_t columns = tile->w->columns;
    const size_t step_bytes = PANEL_ROWS * value_bytes;
    /* A lone row group reads each weight once: nothing to keep. */
    const size_t block = tile->row_count > CHAIN_ROWS ? K_BLOCK : columns;
    struct chain chain = {
        .w = (const char *)tile->w->data + tile->panel * columns * step_bytes,
        .panel_bytes = columns * step_bytes,
        .step_bytes = step_bytes,
        .x = tile->x.values,
        .x_stride = tile->x.stride,
        .sums = tile->out,
        .sums_stride = TILE_OUTPUTS,
    };

    memset(tile->out, 0, (size_t)tile->row_count * TILE_OUTPUTS * sizeof(float));
    for (size_t k = 0; k < columns; k += block) {
        chain.k_count = columns - k < block ? columns - k : block;
        chain_product(tile->row_count, tile->panel_count, load, chain);
        chain.w += chain.k_count * step_bytes;
        chain.x += chain.k_count;
    }
}

#endif
