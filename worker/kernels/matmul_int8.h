#ifndef SHOAL_KERNELS_MATMUL_INT8_H
#define SHOAL_KERNELS_MATMUL_INT8_H

/* The products of one level with int8 activations where the weights are of a block type; other
 * weights take the float chain. Two panels at a time: a chunk of both is unpacked and meets all
 * rows of the tile, whose sums wait on the stack. Weights are asked for well before they are
 * unpacked, also across the end of a panel: with few rows the memory is the limit, and what the
 * processor guesses ends at each page. The including source defines the table `block_kernels`;
 * matmul_driver.h comes before. */
#include "worker/kernels/int8_rows.h"

#define FETCH_AHEAD_BYTES 4096
#define FETCH_ROWS_MAX    16 /* more keep the processor busy longer than the memory */
#define LINE_BYTES        64

/* [row][panel][16] */
struct int8_sums_buffer {
    _Alignas(64) float values[BLOCK_ROWS * BLOCK_ROW_OUTPUTS];
};

/* Up to TASK_PANELS panels of a matrix. */
struct int8_panels {
    const struct packed_matrix *w;
    uint32_t panel; /* first */
    uint32_t panel_count;
    const char *next; /* what is read after these panels; NULL: not known */
};

static inline const char *int8_panel_at(const struct packed_matrix *w, uint32_t panel)
{
    return (const char *)w->data + panel * packed_panel_bytes(w->type, w->columns);
}

/* Asks for what comes FETCH_AHEAD_BYTES after [offset, offset + bytes) of one panel. */
static inline void int8_fetch(const char *panel, size_t panel_bytes, const char *next,
                              size_t offset, size_t bytes)
{
    for (size_t at = offset + FETCH_AHEAD_BYTES; at < offset + FETCH_AHEAD_BYTES + bytes;
         at += LINE_BYTES) {
        if (at < panel_bytes) {
            __builtin_prefetch(panel + at);
        } else if (next != NULL) {
            __builtin_prefetch(next + (at - panel_bytes));
        }
    }
}

/* sums += the products of one chunk of columns. */
static inline void int8_multiply(const struct int8_panels *panels, uint32_t chunk,
                                 const struct int8_chunk *rows, uint32_t row_count,
                                 struct int8_sums_buffer *sums)
{
    const struct packed_matrix *w = panels->w;
    const struct block_kernel *kernel = &block_kernels[w->type];
    const size_t panel_bytes = packed_panel_bytes(w->type, w->columns);
    const size_t offset = weight_row_bytes(w->type, chunk * CHUNK_VALUES) * PANEL_ROWS;
    const uint32_t values = int8_chunk_values(w->columns, chunk);
    const size_t bytes = weight_row_bytes(w->type, values) * PANEL_ROWS;
    const uint32_t block_count = values / weight_type_block_values(w->type);
    struct block_chunk chunks[TASK_PANELS];

    for (uint32_t i = 0; i < panels->panel_count; i++) {
        const char *panel = int8_panel_at(w, panels->panel + i);

        if (row_count <= FETCH_ROWS_MAX) {
            int8_fetch(panel, panel_bytes,
                       panels->next != NULL ? panels->next + i * panel_bytes : NULL, offset, bytes);
        }
        leaf_reads(panel + offset, bytes);
        kernel->unpack(panel + offset, block_count, &chunks[i]);
    }
    leaf_reads(rows, row_count * sizeof(*rows));
    kernel->multiply(&(struct block_task){
        .chunks = chunks,
        .panel_count = panels->panel_count,
        .block_count = block_count,
        .rows = rows,
        .row_count = row_count,
        .acc = sums->values,
    });
}

static inline void int8_clear(struct int8_sums_buffer *sums, uint32_t row_count)
{
    memset(sums->values, 0, (size_t)row_count * BLOCK_ROW_OUTPUTS * sizeof(float));
}

static inline void int8_store(const struct int8_panels *panels, uint32_t row_count,
                              const struct int8_sums_buffer *sums, struct rows_out out)
{
    const uint32_t output = panels->panel * PANEL_ROWS;
    const uint32_t count = smaller(panels->w->rows - output, panels->panel_count * PANEL_ROWS);

    for (uint32_t row = 0; row < row_count; row++) {
        memcpy(out.values + row * out.stride + output, sums->values + row * BLOCK_ROW_OUTPUTS,
               count * sizeof(float));
    }
}

/* sums = the products of one tile. */
static inline void int8_tile(const struct int8_panels *panels, struct int8_rows x,
                             uint32_t row_count, struct int8_sums_buffer *sums)
{
    int8_clear(sums, row_count);
    for (uint32_t chunk = 0; chunk < int8_chunk_count(panels->w->columns); chunk++) {
        int8_multiply(panels, chunk, x.chunks + chunk * x.stride + x.row, row_count, sums);
    }
}

/* As many rows as are left, or equal parts of them. */
static inline uint32_t int8_block_rows(uint32_t row_count)
{
    const uint32_t blocks = (row_count + BLOCK_ROWS - 1) / BLOCK_ROWS;

    return (row_count + blocks - 1) / blocks;
}

static inline void matmul_codes(const struct packed_matrix *w, const struct packed_matrix *up,
                                uint32_t panel_begin, uint32_t panel_end, struct int8_rows x,
                                uint32_t row_count, struct rows_out out)
{
    const uint32_t rows_max = int8_block_rows(row_count);
    struct int8_sums_buffer sums, up_sums;

    for (uint32_t row = 0; row < row_count; row += rows_max) {
        const uint32_t rows = smaller(row_count - row, rows_max);
        const struct int8_rows view = {x.chunks, x.stride, x.row + row};
        const struct rows_out to = {out.values + row * out.stride, out.stride};

        for (uint32_t panel = panel_begin; panel < panel_end; panel += TASK_PANELS) {
            const uint32_t count = smaller(panel_end - panel, TASK_PANELS);
            const char *next =
                panel + 2 * TASK_PANELS <= panel_end ? int8_panel_at(w, panel + TASK_PANELS) : NULL;
            const struct int8_panels first = {
                w, panel, count,
                up != NULL && up->type == w->type ? int8_panel_at(up, panel) : next};

            int8_tile(&first, view, rows, &sums);
            if (up != NULL) {
                int8_tile(&(struct int8_panels){up, panel, count, next}, view, rows, &up_sums);
                silu_mul(sums.values, up_sums.values, (size_t)rows * BLOCK_ROW_OUTPUTS,
                         sums.values);
            }
            int8_store(&first, rows, &sums, to);
        }
    }
}

/* Rows that come as floats become codes chunk by chunk, for each pair of panels anew. */
static inline void matmul_int8_blocks(const struct packed_matrix *w, uint32_t panel_begin,
                                      uint32_t panel_end, struct rows_view x, uint32_t row_count,
                                      struct rows_out out)
{
    const uint32_t rows_max = int8_block_rows(row_count);
    struct int8_chunk codes[BLOCK_ROWS];
    struct int8_sums_buffer sums;

    for (uint32_t row = 0; row < row_count; row += rows_max) {
        const uint32_t rows = smaller(row_count - row, rows_max);

        for (uint32_t panel = panel_begin; panel < panel_end; panel += TASK_PANELS) {
            const struct int8_panels panels = {w, panel, smaller(panel_end - panel, TASK_PANELS),
                                               NULL};

            int8_clear(&sums, rows);
            for (uint32_t chunk = 0; chunk < int8_chunk_count(w->columns); chunk++) {
                const float *from = x.values + row * x.stride + (size_t)chunk * CHUNK_VALUES;

                int8_rows_make(w->type, int8_chunk_values(w->columns, chunk),
                               (struct rows_view){from, x.stride}, rows,
                               (struct int8_rows){codes, BLOCK_ROWS, 0});
                int8_multiply(&panels, chunk, codes, rows, &sums);
            }
            int8_store(&panels, rows, &sums,
                       (struct rows_out){out.values + row * out.stride, out.stride});
        }
    }
}

static inline void matmul_int8(const struct packed_matrix *w, uint32_t panel_begin,
                               uint32_t panel_end, struct rows_view x, uint32_t row_count,
                               struct rows_out out)
{
    if (weight_type_is_blocks(w->type)) {
        matmul_int8_blocks(w, panel_begin, panel_end, x, row_count, out);
    } else {
        matmul(w, panel_begin, panel_end, x, row_count, out);
    }
}

/* Gate and up where one of them at least is of a block type: the two products side by side. */
static inline void gate_up_mixed(const struct packed_matrix *gate, const struct packed_matrix *up,
                                 uint32_t panel_begin, uint32_t panel_end, struct rows_view x,
                                 uint32_t row_count, struct rows_out out)
{
    _Alignas(64) float gate_product[TILE_ROWS * TILE_OUTPUTS] = {0};
    _Alignas(64) float up_product[TILE_ROWS * TILE_OUTPUTS] = {0};

    for (uint32_t row = 0; row < row_count; row += TILE_ROWS) {
        for (uint32_t panel = panel_begin; panel < panel_end; panel += TILE_PANELS) {
            const uint32_t panels = smaller(panel_end - panel, TILE_PANELS);
            const uint32_t rows = smaller(row_count - row, TILE_ROWS);
            const struct rows_view part = {x.values + row * x.stride, x.stride};
            const struct packed_matrix gate_part = packed_panels(gate, panel, panel + panels);
            const struct packed_matrix up_part = packed_panels(up, panel, panel + panels);
            struct matmul_tile tile = {
                .w = gate, .panel = panel, .panel_count = panels, .row_count = rows};

            matmul_int8(&gate_part, 0, panels, part, rows,
                        (struct rows_out){gate_product, TILE_OUTPUTS});
            matmul_int8(&up_part, 0, panels, part, rows,
                        (struct rows_out){up_product, TILE_OUTPUTS});
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
    if (weight_type_is_blocks(gate->type) || weight_type_is_blocks(up->type)) {
        gate_up_mixed(gate, up, panel_begin, panel_end, x, row_count, out);
    } else {
        matmul_gate_up(gate, up, panel_begin, panel_end, x, row_count, out);
    }
}

#endif
