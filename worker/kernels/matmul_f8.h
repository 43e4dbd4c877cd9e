#ifndef SHOAL_KERNELS_MATMUL_F8_H
#define SHOAL_KERNELS_MATMUL_F8_H

/* A tile of a product with e4m3 weights: for each block of 128 columns one chain from +0, which one
 * fma by the block's scale adds to the output. Written over a lanes header, float_chain.h and
 * matmul_float.h.
 *
 * Codes become f16 first, value / 256, by moving their fields only; the packed scales are 256 times
 * as large. One group of rows takes them so, since a conversion from memory is cheap; for more rows
 * they become f32. Both stay in the nearest cache. */
#include "worker/kernels/matmul_float.h"

/* What one block of columns adds to the tile. */
struct f8_block {
    const struct matmul_tile *tile;
    const char *codes;  /* of the tile's first panel */
    const float *scale; /* likewise */
    size_t panel_bytes;
    size_t k_count;
};

/* Whole groups of codes: what follows an odd end stays in the panel. */
CHAIN_INLINE void f8_halves(const struct f8_block *block, uint16_t *halves)
{
    for (size_t panel = 0; panel < block->tile->panel_count; panel++) {
        const char *codes = block->codes + panel * block->panel_bytes;
        uint16_t *out = halves + panel * SCALE_BLOCK * PANEL_ROWS;

#pragma GCC unroll 4
        for (size_t k = 0; k < block->k_count; k += F8_GROUP) {
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

/* The block's sums. `ahead` is what will be read next from memory. */
CHAIN_INLINE void f8_sum(const struct f8_block *block, const float *x, const char *ahead,
                         float *sums)
{
    _Alignas(64) uint16_t halves[TILE_PANELS * SCALE_BLOCK * PANEL_ROWS];
    const struct matmul_tile *tile = block->tile;
    struct chain chain = {
        .w = (const char *)halves,
        .panel_bytes = SCALE_BLOCK * PANEL_ROWS * sizeof(*halves),
        .step_bytes = PANEL_ROWS * sizeof(*halves),
        .x = x,
        .x_stride = tile->x.stride,
        .k_count = block->k_count,
        .sums = sums,
        .sums_stride = TILE_OUTPUTS,
        .ahead = ahead,
        .ahead_panel_bytes = block->panel_bytes,
        .ahead_step_bytes = PANEL_ROWS,
    };

    f8_halves(block, halves);
    memset(sums, 0, (size_t)tile->row_count * TILE_OUTPUTS * sizeof(float));
    if (tile->row_count > CHAIN_ROWS_TALL) {
        float_blocked(tile, &chain_loads_f16, chain);
    } else {
        chain_run_once(tile->row_count, tile->panel_count, &chain_loads_f16, chain);
    }
}

CHAIN_INLINE void matmul_f8_tile(const struct matmul_tile *tile)
{
    _Alignas(64) float sums[TILE_ROWS * TILE_OUTPUTS];
    const size_t columns = tile->w->columns;
    const size_t panel_bytes = packed_panel_bytes(WEIGHT_F8_E4M3, tile->w->columns);
    const char *first = (const char *)tile->w->data + tile->panel * panel_bytes;
    struct f8_block block = {
        .tile = tile,
        .codes = first,
        .scale = (const void *)(first + packed_scales_begin(tile->w->columns)),
        .panel_bytes = panel_bytes,
    };

    memset(tile->out, 0, (size_t)tile->row_count * TILE_OUTPUTS * sizeof(float));
    for (size_t k = 0; k < columns; k += SCALE_BLOCK) {
        const bool is_last = columns - k <= SCALE_BLOCK;
        const char *ahead = is_last ? first + tile->panel_count * panel_bytes
                                    : block.codes + SCALE_BLOCK * PANEL_ROWS;

        block.k_count = is_last ? columns - k : SCALE_BLOCK;
        f8_sum(&block, tile->x.values + k, ahead, sums);
        f8_close(&block, sums);
        block.codes += SCALE_BLOCK * PANEL_ROWS;
        block.scale++;
    }
}

#endif
