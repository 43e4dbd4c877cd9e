#ifndef SHOAL_KERNELS_MATRIX_WIDEN_H
#define SHOAL_KERNELS_MATRIX_WIDEN_H

/* The exact values of a matrix as f32 panels, and those of its transpose, for one level: written
 * over a lanes header; the including source defines the level's table `block_kernels`. For whoever
 * meets the same small matrix many times, as expanded latent attention does. */
#include "common/base/check.h"
#include "worker/kernels/block_kernel.h"
#include "worker/kernels/leaf_reads.h"

#include <string.h>

/* out[column][16] */
static inline void panel_widen(const struct packed_matrix *w, uint32_t panel, float *out)
{
    const size_t panel_bytes = packed_panel_bytes(w->type, w->columns);
    const char *from = (const char *)w->data + panel * panel_bytes;
    const size_t count = (size_t)w->columns * PANEL_ROWS;

    if (weight_type_is_blocks(w->type)) {
        const uint32_t values = weight_type_block_values(w->type);
        const size_t block_bytes = weight_row_bytes(w->type, values) * PANEL_ROWS;

        leaf_reads(from, panel_bytes);
        for (uint32_t column = 0; column < w->columns; column += values) {
            block_kernels[w->type].widen(from, out + (size_t)column * PANEL_ROWS);
            from += block_bytes;
        }
        return;
    }
    ASSERT(w->type == WEIGHT_F32 || w->type == WEIGHT_F16 || w->type == WEIGHT_BF16);
    for (size_t i = 0; i < count; i += LANE_COUNT) {
        struct lanes values = w->type == WEIGHT_F32 ? lanes_load_f32(from + i * sizeof(float))
                              : w->type == WEIGHT_F16
                                  ? lanes_load_f16(from + i * sizeof(uint16_t))
                                  : lanes_load_bf16(from + i * sizeof(uint16_t));

        lanes_store(out + i, values);
    }
}

static inline void matrix_widen(const struct packed_matrix *w, float *out)
{
    for (uint32_t panel = 0; panel < packed_panel_count(w->rows); panel++) {
        panel_widen(w, panel, out + (size_t)panel * w->columns * PANEL_ROWS);
    }
}

/* out[column / 16][row][column % 16]: eight by eight where there is room, else one by one. */
static inline void matrix_widen_transposed(const struct packed_matrix *w, float *scratch,
                                           float *out)
{
    memset(out, 0, (size_t)packed_panel_count(w->columns) * w->rows * PANEL_ROWS * sizeof(float));
    for (uint32_t row = 0; row < w->rows; row += PANEL_ROWS) {
        const uint32_t left = w->rows - row < PANEL_ROWS ? w->rows - row : PANEL_ROWS;

        panel_widen(w, row / PANEL_ROWS, scratch);
        for (uint32_t column = 0; column < w->columns; column += 8) {
            const float *from = scratch + (size_t)column * PANEL_ROWS;
            float *to = out + ((size_t)column / PANEL_ROWS * w->rows + row) * PANEL_ROWS +
                        column % PANEL_ROWS;
            uint32_t columns = w->columns - column < 8 ? w->columns - column : 8;

            if (left == PANEL_ROWS && columns == 8) {
                lanes_transpose_8x8(from, PANEL_ROWS, to, PANEL_ROWS);
                lanes_transpose_8x8(from + 8, PANEL_ROWS, to + 8 * PANEL_ROWS, PANEL_ROWS);
                continue;
            }
            for (uint32_t i = 0; i < left * columns; i++) {
                to[i / columns * PANEL_ROWS + i % columns] =
                    from[i % columns * PANEL_ROWS + i / columns];
            }
        }
    }
}

#endif
