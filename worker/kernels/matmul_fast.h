#ifndef SHOAL_KERNELS_MATMUL_FAST_H
#define SHOAL_KERNELS_MATMUL_FAST_H

/* The products of --numerics fast, which are not canonical: fast-amx takes bf16 and e4m3 weights to
 * AMX tiles (amx.h), fast-blas all float weights to OpenBLAS where there are many rows. Other
 * weights, and few rows, take the canonical products. Written over a lanes header;
 * matmul_driver.h, matmul_float.h and matmul_int8.h come before. */
#include "worker/kernels/amx.h"
#include "worker/kernels/blas.h"

#define BLAS_ROWS    64
#define BLAS_ROW_MIN 13 /* fewer take the float chain, which then is bound by memory */
#define BLAS_PANELS  16
#define BLAS_OUTPUTS (BLAS_PANELS * PANEL_ROWS)
#define BLAS_COLUMNS SCALE_BLOCK

/* Part of one product, or of two whose results are joined by SiLU. */
struct fast_range {
    const struct packed_matrix *w, *up; /* up: NULL, or of w's shape */
    uint32_t panel_begin, panel_end;
    struct rows_view x;
    uint32_t row_count;
    struct rows_out out;
};

static inline void fast_reads(const struct packed_matrix *w, uint32_t panel, uint32_t panel_count,
                              struct rows_view x, uint32_t row_count)
{
    matmul_reads(&(struct matmul_tile){
        .w = w, .panel = panel, .panel_count = panel_count, .x = x, .row_count = row_count});
}

/* --- AMX --- */

static inline void amx_store(const struct amx_task *task, const struct amx_sums *sums,
                             struct rows_out out, size_t row_begin)
{
    for (uint32_t panel = 0; panel < task->panel_count; panel++) {
        const uint32_t output = (task->panel + panel) * PANEL_ROWS;
        const uint32_t count = smaller(task->w->rows - output, PANEL_ROWS);

        for (uint32_t row = 0; row < task->row_count; row++) {
            memcpy(out.values + (row_begin + row) * out.stride + output, sums->values[panel][row],
                   count * sizeof(float));
        }
    }
}

static inline void amx_tile(const struct fast_range *range, const struct amx_task *task, size_t row)
{
    struct amx_sums sums, up_sums;

    fast_reads(task->w, task->panel, task->panel_count, task->x, task->row_count);
    amx_multiply(task, &sums, task->up != NULL ? &up_sums : NULL);
    for (uint32_t panel = 0; task->up != NULL && panel < task->panel_count; panel++) {
        silu_mul(sums.values[panel][0], up_sums.values[panel][0],
                 (size_t)task->row_count * PANEL_ROWS, sums.values[panel][0]);
    }
    amx_store(task, &sums, range->out, row);
}

static inline void amx_product(const struct fast_range *range)
{
    for (uint32_t row = 0; row < range->row_count; row += AMX_ROWS) {
        for (uint32_t panel = range->panel_begin; panel < range->panel_end; panel += AMX_PANELS) {
            const struct amx_task task = {
                .w = range->w,
                .up = range->up,
                .panel = panel,
                .panel_count = smaller(range->panel_end - panel, AMX_PANELS),
                .x = {range->x.values + row * range->x.stride, range->x.stride},
                .row_count = smaller(range->row_count - row, AMX_ROWS),
            };

            amx_tile(range, &task, row);
        }
    }
}

static inline void matmul_fast_amx(const struct packed_matrix *w, uint32_t panel_begin,
                                   uint32_t panel_end, struct rows_view x, uint32_t row_count,
                                   struct rows_out out)
{
    if (amx_takes(w->type)) {
        amx_product(&(struct fast_range){w, NULL, panel_begin, panel_end, x, row_count, out});
    } else {
        matmul_int8(w, panel_begin, panel_end, x, row_count, out);
    }
}

static inline void matmul_gate_up_fast_amx(const struct packed_matrix *gate,
                                           const struct packed_matrix *up, uint32_t panel_begin,
                                           uint32_t panel_end, struct rows_view x,
                                           uint32_t row_count, struct rows_out out)
{
    if (amx_takes(gate->type) && amx_takes(up->type)) {
        amx_product(&(struct fast_range){gate, up, panel_begin, panel_end, x, row_count, out});
    } else {
        matmul_gate_up_int8(gate, up, panel_begin, panel_end, x, row_count, out);
    }
}

/* --- OpenBLAS --- */

struct blas_sums {
    _Alignas(64) float values[BLAS_ROWS * BLAS_OUTPUTS];
};

static inline const struct chain_loads *blas_loads(enum weight_type type)
{
    switch (type) {
    case WEIGHT_F16:
        return &chain_loads_f16;
    case WEIGHT_BF16:
        return &chain_loads_bf16;
    default:
        return &chain_loads_f32;
    }
}

/* out: [k][BLAS_OUTPUTS], at the panel's first output. */
static inline void blas_widen_plain(const struct packed_matrix *w, const char *panel,
                                    uint32_t column, uint32_t count, float *out)
{
    const struct chain_loads *loads = blas_loads(w->type);
    const size_t step_bytes = PANEL_ROWS * weight_type_bytes(w->type);
    const char *from = panel + column * step_bytes;

    for (uint32_t k = 0; k < count; k += 2) {
        lanes_store(out + k * BLAS_OUTPUTS, loads->even(from));
        if (k + 1 < count) {
            lanes_store(out + (k + 1) * BLAS_OUTPUTS, loads->odd(from + loads->odd_bytes));
        }
        from += 2 * step_bytes;
    }
}

/* Codes times their scale. */
static inline void blas_widen_f8(const struct packed_matrix *w, const char *panel, uint32_t column,
                                 uint32_t count, float *out)
{
    const char *scales = panel + packed_scales_begin(w->columns);
    struct lanes factor;
    float scale;

    memcpy(&scale, scales + column / SCALE_BLOCK * sizeof(scale), sizeof(scale));
    factor = lanes_set(scale);
    for (uint32_t k = 0; k < count; k += F8_GROUP) {
        uint16_t halves[F8_GROUP * PANEL_ROWS];

        lanes_f16_of_f8(halves, panel + (column + k) * PANEL_ROWS);
        for (uint32_t i = 0; i < smaller(F8_GROUP, count - k); i++) {
            lanes_store(out + (k + i) * BLAS_OUTPUTS,
                        lanes_mul(lanes_load_f16(halves + i * PANEL_ROWS), factor));
        }
    }
}

/* The tile's products with one matrix; column blocks begin at multiples of a scale's. */
static inline void blas_fill(const struct packed_matrix *w, const struct matmul_tile *tile,
                             struct blas_sums *sums)
{
    _Alignas(64) float wide[BLAS_COLUMNS * BLAS_OUTPUTS];
    const size_t panel_bytes = packed_panel_bytes(w->type, w->columns);
    const char *first = (const char *)w->data + tile->panel * panel_bytes;

    fast_reads(w, tile->panel, tile->panel_count, tile->x, tile->row_count);
    for (uint32_t column = 0; column < w->columns; column += BLAS_COLUMNS) {
        const struct blas_tile part = {
            .x = tile->x.values + column,
            .x_stride = tile->x.stride,
            .row_count = tile->row_count,
            .w = wide,
            .w_stride = BLAS_OUTPUTS,
            .output_count = (size_t)tile->panel_count * PANEL_ROWS,
            .k_count = smaller(w->columns - column, BLAS_COLUMNS),
            .sums = sums->values,
        };

        for (uint32_t panel = 0; panel < tile->panel_count; panel++) {
            const char *from = first + panel * panel_bytes;
            float *to = wide + panel * PANEL_ROWS;

            if (w->type == WEIGHT_F8_E4M3) {
                blas_widen_f8(w, from, column, (uint32_t)part.k_count, to);
            } else {
                blas_widen_plain(w, from, column, (uint32_t)part.k_count, to);
            }
        }
        column == 0 ? blas_multiply(&part) : blas_multiply_add(&part);
    }
}

static inline void blas_tile_run(const struct fast_range *range, const struct matmul_tile *tile,
                                 size_t row_begin)
{
    const uint32_t output = tile->panel * PANEL_ROWS;
    const uint32_t count = smaller(tile->w->rows - output, tile->panel_count * PANEL_ROWS);
    struct blas_sums sums, up_sums;

    blas_fill(range->w, tile, &sums);
    if (range->up != NULL) {
        blas_fill(range->up, tile, &up_sums);
    }
    for (uint32_t row = 0; row < tile->row_count; row++) {
        float *from = sums.values + (size_t)row * BLAS_OUTPUTS;

        if (range->up != NULL) {
            silu_mul(from, up_sums.values + (size_t)row * BLAS_OUTPUTS,
                     (size_t)tile->panel_count * PANEL_ROWS, from);
        }
        memcpy(range->out.values + (row_begin + row) * range->out.stride + output, from,
               count * sizeof(float));
    }
}

static inline void blas_product(const struct fast_range *range)
{
    for (uint32_t row = 0; row < range->row_count; row += BLAS_ROWS) {
        for (uint32_t panel = range->panel_begin; panel < range->panel_end; panel += BLAS_PANELS) {
            const struct matmul_tile tile = {
                .w = range->w,
                .panel = panel,
                .panel_count = smaller(range->panel_end - panel, BLAS_PANELS),
                .x = {range->x.values + row * range->x.stride, range->x.stride},
                .row_count = smaller(range->row_count - row, BLAS_ROWS),
            };

            blas_tile_run(range, &tile, row);
        }
    }
}

static inline void matmul_fast_blas(const struct packed_matrix *w, uint32_t panel_begin,
                                    uint32_t panel_end, struct rows_view x, uint32_t row_count,
                                    struct rows_out out)
{
    if (row_count < BLAS_ROW_MIN || weight_type_is_blocks(w->type)) {
        matmul_int8(w, panel_begin, panel_end, x, row_count, out);
    } else {
        blas_product(&(struct fast_range){w, NULL, panel_begin, panel_end, x, row_count, out});
    }
}

static inline void matmul_gate_up_fast_blas(const struct packed_matrix *gate,
                                            const struct packed_matrix *up, uint32_t panel_begin,
                                            uint32_t panel_end, struct rows_view x,
                                            uint32_t row_count, struct rows_out out)
{
    if (row_count < BLAS_ROW_MIN || weight_type_is_blocks(gate->type) ||
        weight_type_is_blocks(up->type)) {
        matmul_gate_up_int8(gate, up, panel_begin, panel_end, x, row_count, out);
    } else {
        blas_product(&(struct fast_range){gate, up, panel_begin, panel_end, x, row_count, out});
    }
}

#endif
