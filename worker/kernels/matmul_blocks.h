#ifndef SHOAL_KERNELS_MATMUL_BLOCKS_H
#define SHOAL_KERNELS_MATMUL_BLOCKS_H

/* A tile of a product of block-typed weights with f32 activations: some columns of the tile become
 * exact floats in a near cache, then take the float chain over k. Written over a lanes header and
 * float_chain.h; the including source defines the level's table `block_kernels`. */
#include "worker/kernels/block_kernel.h"
#include "worker/kernels/leaf_reads.h"
#include "worker/kernels/matmul.h"

#include <string.h>

#define WIDE_COLUMNS 256 /* a multiple of every block */

static inline void blocks_widen(const struct matmul_tile *tile, uint32_t column, uint32_t count,
                                float *wide)
{
    const struct packed_matrix *w = tile->w;
    const struct block_kernel *kernel = &block_kernels[w->type];
    const uint32_t values = weight_type_block_values(w->type);
    const size_t block_bytes = weight_row_bytes(w->type, values) * PANEL_ROWS;
    const size_t panel_bytes = packed_panel_bytes(w->type, w->columns);
    const char *first = (const char *)w->data + tile->panel * panel_bytes;

    for (uint32_t panel = 0; panel < tile->panel_count; panel++) {
        const char *block = first + panel * panel_bytes + column / values * block_bytes;
        float *out = wide + (size_t)panel * WIDE_COLUMNS * PANEL_ROWS;

        leaf_reads(block, weight_row_bytes(w->type, count) * PANEL_ROWS);
        for (uint32_t k = 0; k < count; k += values) {
            kernel->widen(block, out + (size_t)k * PANEL_ROWS);
            block += block_bytes;
        }
    }
}

static inline void matmul_widened(const struct matmul_tile *tile)
{
    _Alignas(64) float wide[TILE_PANELS * WIDE_COLUMNS * PANEL_ROWS];
    const uint32_t columns = tile->w->columns;
    struct chain chain = {
        .w = (const char *)wide,
        .panel_bytes = WIDE_COLUMNS * PANEL_ROWS * sizeof(*wide),
        .step_bytes = PANEL_ROWS * sizeof(*wide),
        .x = tile->x.values,
        .x_stride = tile->x.stride,
        .sums = tile->out,
        .sums_stride = TILE_OUTPUTS,
    };

    memset(tile->out, 0, (size_t)tile->row_count * TILE_OUTPUTS * sizeof(float));
    for (uint32_t column = 0; column < columns; column += WIDE_COLUMNS) {
        uint32_t count = columns - column < WIDE_COLUMNS ? columns - column : WIDE_COLUMNS;

        blocks_widen(tile, column, count, wide);
        chain.k_count = count;
        chain_product(tile->row_count, tile->panel_count, lanes_load_f32, chain);
        chain.x += count;
    }
}

#endif
