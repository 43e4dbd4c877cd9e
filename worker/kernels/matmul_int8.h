#ifndef SHOAL_KERNELS_MATMUL_INT8_H
#define SHOAL_KERNELS_MATMUL_INT8_H

/* The products of one level with int8 activations where the weights are of a block type; other
 * weights take the float chain. Rows are converted on the stack, some columns at a time, for as
 * many panels as have their sums there; the leaves (blocks_<level>.c) do one panel. The including
 * source defines the table `block_kernels`; matmul_driver.h comes before. */
#include "worker/kernels/int8_rows.h"

#define INT8_PANELS 16

struct int8_tile {
    uint32_t panel; /* first */
    uint32_t panel_count;
    struct rows_view x;
    uint32_t row_count; /* 1 … BLOCK_ROWS */
};

/* [panel][row][16] */
struct int8_sums_buffer {
    _Alignas(64) float values[INT8_PANELS * BLOCK_ROWS * PANEL_ROWS];
};

static inline struct int8_cut int8_cut_of(const struct packed_matrix *w)
{
    return (struct int8_cut){weight_type_block_values(w->type), block_kernels[w->type].sum_values};
}

static inline void int8_multiply(const struct packed_matrix *w, const struct int8_tile *tile,
                                 const struct int8_rows *rows, uint32_t column, uint32_t count,
                                 struct int8_sums_buffer *sums)
{
    const struct int8_cut cut = int8_cut_of(w);
    const size_t panel_bytes = packed_panel_bytes(w->type, w->columns);
    const size_t column_bytes = weight_row_bytes(w->type, column) * PANEL_ROWS;
    const char *first = (const char *)w->data + tile->panel * panel_bytes + column_bytes;

    for (uint32_t panel = 0; panel < tile->panel_count; panel++) {
        const char *blocks = first + panel * panel_bytes;

        leaf_reads(blocks, weight_row_bytes(w->type, count) * PANEL_ROWS);
        block_kernels[w->type].multiply(&(struct block_task){
            .blocks = blocks,
            .block_count = count / cut.block_values,
            .row_count = tile->row_count,
            .x = {rows->codes[0], INT8_COLUMNS, rows->scales[0], INT8_COLUMNS / 32, rows->sums[0],
                  INT8_COLUMNS / 16},
            .acc = sums->values + (size_t)panel * BLOCK_ROWS * PANEL_ROWS,
        });
    }
}

static inline void int8_clear(const struct int8_tile *tile, struct int8_sums_buffer *sums)
{
    for (uint32_t panel = 0; panel < tile->panel_count; panel++) {
        memset(sums->values + (size_t)panel * BLOCK_ROWS * PANEL_ROWS, 0,
               (size_t)tile->row_count * PANEL_ROWS * sizeof(float));
    }
}

/* out = the products of one tile; `up` too where it is not NULL, of the same shape. */
static inline void int8_fill(const struct packed_matrix *w, const struct packed_matrix *up,
                             const struct int8_tile *tile, struct int8_sums_buffer *out,
                             struct int8_sums_buffer *up_out)
{
    const struct int8_cut cut = int8_cut_of(w);
    struct int8_rows rows;

    int8_clear(tile, out);
    if (up != NULL) {
        int8_clear(tile, up_out);
    }
    for (uint32_t column = 0; column < w->columns; column += INT8_COLUMNS) {
        const uint32_t count = smaller(w->columns - column, INT8_COLUMNS);
        const struct rows_view x = {tile->x.values + column, tile->x.stride};

        int8_rows_make(&rows, cut, x, tile->row_count, count);
        int8_multiply(w, tile, &rows, column, count, out);
        if (up != NULL) {
            const struct int8_cut up_cut = int8_cut_of(up);

            if (memcmp(&cut, &up_cut, sizeof(cut)) != 0) {
                int8_rows_make(&rows, up_cut, x, tile->row_count, count);
            }
            int8_multiply(up, tile, &rows, column, count, up_out);
        }
    }
}

static inline void int8_store(const struct packed_matrix *w, const struct int8_tile *tile,
                              const struct int8_sums_buffer *sums, struct rows_out out,
                              size_t row_begin)
{
    for (uint32_t panel = 0; panel < tile->panel_count; panel++) {
        const uint32_t output = (tile->panel + panel) * PANEL_ROWS;
        const uint32_t count = smaller(w->rows - output, PANEL_ROWS);
        const float *from = sums->values + (size_t)panel * BLOCK_ROWS * PANEL_ROWS;

        for (uint32_t row = 0; row < tile->row_count; row++) {
            memcpy(out.values + (row_begin + row) * out.stride + output, from + row * PANEL_ROWS,
                   count * sizeof(float));
        }
    }
}

static inline void int8_silu_mul(const struct int8_tile *tile, struct int8_sums_buffer *gate,
                                 const struct int8_sums_buffer *up)
{
    for (uint32_t panel = 0; panel < tile->panel_count; panel++) {
        const size_t at = (size_t)panel * BLOCK_ROWS * PANEL_ROWS;

        silu_mul(gate->values + at, up->values + at, (size_t)tile->row_count * PANEL_ROWS,
                 gate->values + at);
    }
}

/* `up` NULL: out = w . x; else silu(w . x) * (up . x). */
static inline void int8_product(const struct packed_matrix *w, const struct packed_matrix *up,
                                struct int8_tile range, struct rows_out out)
{
    const uint32_t panel_end = range.panel + range.panel_count;
    struct int8_sums_buffer sums, up_sums;

    for (uint32_t row = 0; row < range.row_count; row += BLOCK_ROWS) {
        for (uint32_t panel = range.panel; panel < panel_end; panel += INT8_PANELS) {
            struct int8_tile tile = {
                .panel = panel,
                .panel_count = smaller(panel_end - panel, INT8_PANELS),
                .x = {range.x.values + row * range.x.stride, range.x.stride},
                .row_count = smaller(range.row_count - row, BLOCK_ROWS),
            };

            int8_fill(w, up, &tile, &sums, &up_sums);
            if (up != NULL) {
                int8_silu_mul(&tile, &sums, &up_sums);
            }
            int8_store(w, &tile, &sums, out, row);
        }
    }
}

static inline void matmul_int8(const struct packed_matrix *w, uint32_t panel_begin,
                               uint32_t panel_end, struct rows_view x, uint32_t row_count,
                               struct rows_out out)
{
    if (!weight_type_is_blocks(w->type)) {
        matmul(w, panel_begin, panel_end, x, row_count, out);
        return;
    }
    int8_product(w, NULL, (struct int8_tile){panel_begin, panel_end - panel_begin, x, row_count},
                 out);
}

/* Gate and up where only one of them is of a block type: the two products side by side. */
static inline void gate_up_mixed(const struct packed_matrix *gate, const struct packed_matrix *up,
                                 struct int8_tile range, struct rows_out out)
{
    _Alignas(64) float gate_product[TILE_ROWS * TILE_OUTPUTS] = {0};
    _Alignas(64) float up_product[TILE_ROWS * TILE_OUTPUTS] = {0};
    const uint32_t panel_end = range.panel + range.panel_count;

    for (uint32_t row = 0; row < range.row_count; row += TILE_ROWS) {
        for (uint32_t panel = range.panel; panel < panel_end; panel += TILE_PANELS) {
            const uint32_t panels = smaller(panel_end - panel, TILE_PANELS);
            const uint32_t rows = smaller(range.row_count - row, TILE_ROWS);
            const struct rows_view x = {range.x.values + row * range.x.stride, range.x.stride};
            const struct packed_matrix gate_part = packed_panels(gate, panel, panel + panels);
            const struct packed_matrix up_part = packed_panels(up, panel, panel + panels);
            struct matmul_tile tile = {
                .w = gate, .panel = panel, .panel_count = panels, .row_count = rows};

            matmul_int8(&gate_part, 0, panels, x, rows,
                        (struct rows_out){gate_product, TILE_OUTPUTS});
            matmul_int8(&up_part, 0, panels, x, rows, (struct rows_out){up_product, TILE_OUTPUTS});
            silu_mul(gate_product, up_product, (size_t)rows * TILE_OUTPUTS, gate_product);
            matmul_store(&tile, gate_product, out, row);
        }
    }
}

static inline void matmul_gate_up_int8(const struct packed_matrix *gate,
                                       const struct packed_matrix *up, uint32_t panel_begin,
                                       uint32_t panel_end, struct rows_view x, uint32_t row_count,
                                       struct rows_out out)
{
    const struct int8_tile range = {panel_begin, panel_end - panel_begin, x, row_count};
    const bool gate_is_blocks = weight_type_is_blocks(gate->type);
    const bool up_is_blocks = weight_type_is_blocks(up->type);

    if (gate_is_blocks && up_is_blocks) {
        int8_product(gate, up, range, out);
    } else if (gate_is_blocks || up_is_blocks) {
        gate_up_mixed(gate, up, range, out);
    } else {
        matmul_gate_up(gate, up, panel_begin, panel_end, x, row_count, out);
    }
}

#endif
