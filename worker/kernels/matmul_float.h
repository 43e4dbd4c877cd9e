#ifndef SHOAL_KERNELS_MATMUL_FLOAT_H
#define SHOAL_KERNELS_MATMUL_FLOAT_H

/* A tile of a product with float weights: one chain over k for each output. One group of rows takes
 * the weights as they pass; for more, some columns of the tile become f32 in the nearest cache
 * first, and every group reads them there. Written over a lanes header and float_chain.h; a leaf
 * passes the loads of its type. */
#include "worker/kernels/matmul.h"

#include <string.h>

#define FLOAT_COLUMNS     64   /* of a block: 16 KiB as f32, and as much of x and sums beside it */
#define FLOAT_AHEAD_BYTES 4096 /* of each panel; a multiple of every type's pair */

static const struct chain_loads chain_loads_f32 = {lanes_load_f32, lanes_load_f32,
                                                   PANEL_ROWS * sizeof(float)};
static const struct chain_loads chain_loads_f16 = {lanes_load_f16, lanes_load_f16,
                                                   PANEL_ROWS * sizeof(uint16_t)};
static const struct chain_loads chain_loads_bf16 = {lanes_load_bf16_even, lanes_load_bf16_odd, 0};

/* wide: [panel][FLOAT_COLUMNS][16] */
CHAIN_INLINE void float_widen(const struct chain_loads *loads, const struct chain *c,
                              size_t panel_count, float *wide)
{
    for (size_t panel = 0; panel < panel_count; panel++) {
        const char *from = c->w + panel * c->panel_bytes;
        float *to = wide + panel * FLOAT_COLUMNS * PANEL_ROWS;
        size_t k = 0;

#pragma GCC unroll 4
        for (; k + 2 <= c->k_count; k += 2) {
            lanes_store(to, loads->even(from));
            lanes_store(to + PANEL_ROWS, loads->odd(from + loads->odd_bytes));
            from += 2 * c->step_bytes;
            to += 2 * PANEL_ROWS;
        }
        if (k < c->k_count) {
            lanes_store(to, loads->even(from));
        }
    }
}

/* Many rows: c covers all columns of the tile. */
CHAIN_INLINE void float_blocked(const struct matmul_tile *tile, const struct chain_loads *loads,
                                struct chain c)
{
    _Alignas(64) float wide[TILE_PANELS * FLOAT_COLUMNS * PANEL_ROWS];
    const size_t columns = c.k_count;
    struct chain near = c; /* asks for what c.ahead says */

    near.w = (const char *)wide;
    near.panel_bytes = FLOAT_COLUMNS * PANEL_ROWS * sizeof(*wide);
    near.step_bytes = PANEL_ROWS * sizeof(*wide);
    for (size_t k = 0; k < columns; k += FLOAT_COLUMNS) {
        c.k_count = columns - k < FLOAT_COLUMNS ? columns - k : FLOAT_COLUMNS;
        float_widen(loads, &c, tile->panel_count, wide);
        c.w += c.k_count * c.step_bytes;
        near.k_count = c.k_count;
        chain_run(tile->row_count, tile->panel_count, &chain_loads_f32, near);
        near.x += c.k_count;
        near.ahead += c.k_count * c.ahead_step_bytes;
    }
}

/* One group of rows. Near the end of the panels those that follow are asked for. */
CHAIN_INLINE void float_streamed(const struct matmul_tile *tile, const struct chain_loads *loads,
                                 struct chain c)
{
    const size_t ahead = FLOAT_AHEAD_BYTES / c.step_bytes;
    const size_t columns = c.k_count;
    const size_t first = columns > ahead ? (columns - ahead) / 2 * 2 : 0;

    c.ahead = c.w + FLOAT_AHEAD_BYTES;
    c.k_count = first;
    chain_run_once(tile->row_count, tile->panel_count, loads, c);
    c.w += first * c.step_bytes;
    c.x += first;
    c.ahead = c.w + tile->panel_count * c.panel_bytes - first * c.step_bytes;
    c.k_count = columns - first;
    chain_run_once(tile->row_count, tile->panel_count, loads, c);
}

CHAIN_INLINE void matmul_float_tile(const struct matmul_tile *tile, const struct chain_loads *loads,
                                    size_t value_bytes)
{
    const size_t panel_bytes = packed_panel_bytes(tile->w->type, tile->w->columns);
    struct chain chain = {
        .w = (const char *)tile->w->data + tile->panel * panel_bytes,
        .panel_bytes = panel_bytes,
        .step_bytes = PANEL_ROWS * value_bytes,
        .x = tile->x.values,
        .x_stride = tile->x.stride,
        .k_count = tile->w->columns,
        .sums = tile->out,
        .sums_stride = TILE_OUTPUTS,
        .ahead_panel_bytes = panel_bytes,
        .ahead_step_bytes = PANEL_ROWS * value_bytes,
    };

    memset(tile->out, 0, (size_t)tile->row_count * TILE_OUTPUTS * sizeof(float));
    if (tile->row_count > CHAIN_ROWS_TALL) {
        chain.ahead = chain.w + FLOAT_COLUMNS * chain.step_bytes;
        float_blocked(tile, loads, chain);
    } else {
        float_streamed(tile, loads, chain);
    }
}

#endif
