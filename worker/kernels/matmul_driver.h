#ifndef SHOAL_KERNELS_MATMUL_DRIVER_H
#define SHOAL_KERNELS_MATMUL_DRIVER_H

/* The products of one level: cuts rows and panels into tiles, lets the weight type's leaf fill a
 * tile on the stack, and stores what lies inside the matrix. All activations are f32 here. The
 * including source defines the table `matmul_tiles` by float type; block types are
 * matmul_blocks.h's and silu_mul is row_math.h's. */
#include "common/base/check.h"
#include "worker/kernels/leaf_reads.h"
#include "worker/kernels/matmul_blocks.h"

#include <string.h>

static inline uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static inline void matmul_reads(const struct matmul_tile *tile)
{
    const size_t panel_bytes = packed_panel_bytes(tile->w->type, tile->w->columns);

    leaf_reads((const char *)tile->w->data + tile->panel * panel_bytes,
               tile->panel_count * panel_bytes);
    for (uint32_t row = 0; row < tile->row_count; row++) {
        leaf_reads(tile->x.values + row * tile->x.stride, tile->w->columns * sizeof(float));
    }
}

static inline void matmul_fill(struct matmul_tile *tile, const struct packed_matrix *w, float *out)
{
    tile->w = w;
    tile->out = out;
    if (weight_type_is_blocks(w->type)) {
        matmul_widened(tile);
    } else {
        matmul_reads(tile);
        matmul_tiles[w->type](tile);
    }
}

static inline void matmul_store(const struct matmul_tile *tile, const float *values,
                                struct rows_out out, size_t row_begin)
{
    const uint32_t output = tile->panel * PANEL_ROWS;
    const uint32_t count = smaller(tile->w->rows - output, tile->panel_count * PANEL_ROWS);

    for (uint32_t row = 0; row < tile->row_count; row++) {
        memcpy(out.values + (row_begin + row) * out.stride + output, values + row * TILE_OUTPUTS,
               count * sizeof(float));
    }
}

static inline void matmul(const struct packed_matrix *w, uint32_t panel_begin, uint32_t panel_end,
                          struct rows_view x, uint32_t row_count, struct rows_out out)
{
    _Alignas(64) float product[TILE_ROWS * TILE_OUTPUTS];

    DEBUG_ASSERT(w->type < WEIGHT_TYPE_COUNT && panel_end <= packed_panel_count(w->rows));
    for (uint32_t row = 0; row < row_count; row += TILE_ROWS) {
        for (uint32_t panel = panel_begin; panel < panel_end; panel += TILE_PANELS) {
            struct matmul_tile tile = {
                .panel = panel,
                .panel_count = smaller(panel_end - panel, TILE_PANELS),
                .x = {x.values + row * x.stride, x.stride},
                .row_count = smaller(row_count - row, TILE_ROWS),
            };

            matmul_fill(&tile, w, product);
            matmul_store(&tile, product, out, row);
        }
    }
}

static inline void matmul_gate_up(const struct packed_matrix *gate, const struct packed_matrix *up,
                                  uint32_t panel_begin, uint32_t panel_end, struct rows_view x,
                                  uint32_t row_count, struct rows_out out)
{
    _Alignas(64) float gate_product[TILE_ROWS * TILE_OUTPUTS];
    _Alignas(64) float up_product[TILE_ROWS * TILE_OUTPUTS];

    DEBUG_ASSERT(gate->rows == up->rows && gate->columns == up->columns);
    DEBUG_ASSERT(panel_end <= packed_panel_count(gate->rows));
    for (uint32_t row = 0; row < row_count; row += TILE_ROWS) {
        for (uint32_t panel = panel_begin; panel < panel_end; panel += TILE_PANELS) {
            struct matmul_tile tile = {
                .panel = panel,
                .panel_count = smaller(panel_end - panel, TILE_PANELS),
                .x = {x.values + row * x.stride, x.stride},
                .row_count = smaller(row_count - row, TILE_ROWS),
            };

            matmul_fill(&tile, gate, gate_product);
            matmul_fill(&tile, up, up_product);
            silu_mul(gate_product, up_product, (size_t)tile.row_count * TILE_OUTPUTS, gate_product);
            matmul_store(&tile, gate_product, out, row);
        }
    }
}

#endif
