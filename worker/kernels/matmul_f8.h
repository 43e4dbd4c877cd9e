#ifndef SHOAL_KERNELS_MATMUL_F8_H
#define SHOAL_KERNELS_MATMUL_F8_H

/* A tile of a product with e4m3 weights: for each block of 128 columns one chain from +0, which one
 * fma by the block's scale adds to the output. Written over a lanes header and float_chain.h.
 *
 * Codes are widened to their value / 256, which costs one conversion; the packed scales are 256
 * times as large. Few rows take the codes as they pass; for many, a block of the tile becomes f16
 * first, which stays in the nearest cache for all of them. */
#include "worker/kernels/matmul.h"

#include <string.h>

/* What one block of columns adds to the tile. */
struct f8_block {
    const struct matmul_tile *tile;
    const char *codes;  /* of the tile's first panel */
    const float *scale; /* likewise */
    size_t panel_bytes;
};

CHAIN_INLINE void f8_widen(const struct f8_block *block, size_t k_count, uint16_t *wide)
{
    for (size_t panel = 0; panel < block->tile->panel_count; panel++) {
        const char *codes = block->codes + panel * block->panel_bytes;
        uint16_t *out = wide + panel * SCALE_BLOCK * PANEL_ROWS;

        for (size_t k = 0; k < k_count; k++) {
            lanes_f16_of_f8(out + k * PANEL_ROWS, codes + k * PANEL_ROWS);
        }
    }
}

CHAIN_INLINE void f8_close(const struct f8_block *block, const float *sums)
{
    const struct matmul_tile *tile = block->tile;

    for (size_t panel = 0; panel < tile->panel_count; panel++) {
        const char *at = (const char *)block->scale + panel * block->panel_bytes;
        float *out = tile->out + panel * PANEL_ROWS;
        const float *in = sums + panel * PANEL_ROWS;
        struct lanes scale;
        float value;

        memcpy(&value, at, sizeof(value));
        scale = lanes_set(value);
        for (size_t row = 0; row < tile->row_count; row++) {
            struct lanes sum = lanes_load(in + row * TILE_OUTPUTS);

            lanes_store(out + row * TILE_OUTPUTS,
                        lanes_fma(sum, scale, lanes_load(out + row * TILE_OUTPUTS)));
        }
    }
}

CHAIN_INLINE void matmul_f8_tile(const struct matmul_tile *tile)
{
    _Alignas(64) uint16_t wide[TILE_PANELS * SCALE_BLOCK * PANEL_ROWS];
    _Alignas(64) float sums[TILE_ROWS * TILE_OUTPUTS];
    const size_t columns = tile->w->columns;
    const size_t panel_bytes = packed_panel_bytes(WEIGHT_F8_E4M3, tile->w->columns);
    const char *first = (const char *)tile->w->data + tile->panel * panel_bytes;
    struct f8_block block = {tile, first, (const void *)(first + columns * PANEL_ROWS),
                             panel_bytes};
    struct chain chain = {
        .x = tile->x.values,
        .x_stride = tile->x.stride,
        .sums = sums,
        .sums_stride = TILE_OUTPUTS,
    };

    memset(tile->out, 0, (size_t)tile->row_count * TILE_OUTPUTS * sizeof(float));
    for (size_t k = 0; k < columns; k += SCALE_BLOCK) {
        chain.k_count = columns - k < SCALE_BLOCK ? columns - k : SCALE_BLOCK;
        memset(sums, 0, (size_t)tile->row_count * TILE_OUTPUTS * sizeof(float));
        if (tile->row_count > CHAIN_ROWS) {
            f8_widen(&block, chain.k_count, wide);
            chain.w = (const void *)wide;
            chain.panel_bytes = SCALE_BLOCK * PANEL_ROWS * sizeof(*wide);
            chain.step_bytes = PANEL_ROWS * sizeof(*wide);
            chain_product(tile->row_count, tile->panel_count, lanes_load_f16, chain);
        } else {
            chain.w = block.codes;
            chain.panel_bytes = panel_bytes;
            chain.step_bytes = PANEL_ROWS;
            chain_product(tile->row_count, tile->panel_count, lanes_load_f8, chain);
        }
        f8_close(&block, sums);
        chain.x += chain.k_count;
        block.codes += chain.k_count * PANEL_ROWS;
        block.scale++;
    }
}

#endif
