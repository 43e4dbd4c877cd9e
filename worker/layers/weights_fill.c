/* weights_fill.c - raw rows of a file into kernel layout.
 *
 * Straight moves from the bytes of some rows of a tensor to their places; weights.c decided where
 * those are. No reading, no threads: the loader brings rows in any order, on any thread. Codes of
 * F8_E4M3 that are NaN stop here: they would spread silently.
 */
#include "worker/layers/weights.h"

#include <string.h>

enum weight_type weights_uk_type(const struct tensor *kv_b)
{
    return weight_type_is_blocks(kv_b->type) ? WEIGHT_F32 : weights_uv_type(kv_b);
}

enum weight_type weights_uv_type(const struct tensor *kv_b)
{
    return kv_b->type == WEIGHT_F8_E4M3 ? WEIGHT_F32 : kv_b->type;
}

uint32_t weights_piece_granularity(const struct weights *weights, const struct weights_piece *piece)
{
    switch (piece->kind) {
    case PIECE_PACK:
        return piece->tensor->type == WEIGHT_F8_E4M3 ? SCALE_BLOCK : PANEL_ROWS;
    case PIECE_KV_B:
    case PIECE_HEADS:
        return piece->tensor->rows / weights->arch.head_count;
    case PIECE_WIDEN:
    case PIECE_COPY:
        break;
    }
    return 1;
}

static bool f8_check(const struct tensor *tensor, const struct weights_rows *rows,
                     struct error *err)
{
    uint32_t block_rows = scale_block_count(rows->end) - rows->begin / SCALE_BLOCK;

    if (!f8_scales_are_finite(rows->scales,
                              (size_t)block_rows * scale_block_count(tensor->columns))) {
        return error_set(err, ERROR_INPUT,
                         "tensor %s_scale_inv: a scale for rows %u to %u is not finite",
                         tensor->name, rows->begin, rows->end - 1);
    }
    if (!f8_codes_are_numbers(rows->values, (size_t)(rows->end - rows->begin) * tensor->columns)) {
        return error_set(err, ERROR_INPUT, "tensor %s: rows %u to %u hold NaN", tensor->name,
                         rows->begin, rows->end - 1);
    }
    return true;
}

static bool numbers_check(const struct weights_piece *piece, const struct weights_rows *rows,
                          struct error *err)
{
    const struct tensor *tensor = piece->tensor;
    uint64_t value_count = (uint64_t)(rows->end - rows->begin) * tensor->columns;

    if (tensor->type == WEIGHT_F8_E4M3) {
        return f8_check(tensor, rows, err);
    }
    return !weight_type_is_blocks(tensor->type) ||
           weight_scales_are_finite(tensor->type, rows->values, value_count) ||
           error_set(err, ERROR_INPUT, "tensor %s: a scale in rows %u to %u is not finite",
                     tensor->name, rows->begin, rows->end - 1);
}

/* Where a piece's values go. */
static char *destination_of(const struct weights *weights, const struct weights_piece *piece)
{
    const struct weights_part *part = &weights->parts[piece->part];

    ASSERT(part->memory != NULL);
    return part->memory + (piece->destination - part->offset);
}

/* Where one head's two matrices lie. */
struct head_place {
    char *uk, *uv;
};

static struct head_place head_place(const struct weights *weights,
                                    const struct weights_piece *piece, uint32_t head)
{
    const struct arch *arch = &weights->arch;
    uint64_t uk_bytes =
        packed_bytes(weights_uk_type(piece->tensor), arch->kv_lora_rank, arch->qk_nope_dim);
    uint64_t uv_bytes =
        packed_bytes(weights_uv_type(piece->tensor), arch->v_head_dim, arch->kv_lora_rank);
    char *first = destination_of(weights, piece);

    return (struct head_place){first + head * uk_bytes,
                               first + arch->head_count * uk_bytes + head * uv_bytes};
}

/* One head's value rows, as they are. */
static void kv_b_fill_values(const struct weights *weights, const struct tensor *tensor,
                             const struct head_place *place, const char *values)
{
    const struct arch *arch = &weights->arch;
    uint64_t row_bytes = weight_row_bytes(tensor->type, tensor->columns);
    struct pack_source value = {tensor->type, values + arch->qk_nope_dim * row_bytes,
                                tensor->columns};

    pack_rows(place->uv, arch->kv_lora_rank, 0, arch->v_head_dim, &value);
}

static void kv_b_fill_keys(const struct weights *weights, const struct tensor *tensor,
                           const struct head_place *place, const char *values)
{
    const struct arch *arch = &weights->arch;
    struct pack_source nope = {tensor->type, values, tensor->columns};

    pack_transposed(place->uk, arch->kv_lora_rank, arch->qk_nope_dim, 0, arch->qk_nope_dim, &nope);
}

/* Part of one row of a head, from `column` on, whose values have been widened. */
static void kv_b_place(const struct arch *arch, const struct head_place *place, uint32_t row,
                       uint32_t column, const struct pack_source *part)
{
    const float *values = part->values;
    uint32_t value_row = row - arch->qk_nope_dim;

    if (row < arch->qk_nope_dim) {
        uint64_t panel_bytes = packed_panel_bytes(WEIGHT_F32, arch->qk_nope_dim);

        pack_transposed(place->uk + column / PANEL_ROWS * panel_bytes, (uint32_t)part->row_stride,
                        arch->qk_nope_dim, row, 1, part);
        return;
    }
    for (uint32_t i = 0; i < part->row_stride; i++) {
        size_t index = (size_t)value_row / PANEL_ROWS * arch->kv_lora_rank + column + i;

        memcpy(place->uv + (index * PANEL_ROWS + value_row % PANEL_ROWS) * sizeof(float),
               &values[i], sizeof(float));
    }
}

#define WIDEN_VALUES_MAX 256

/* Columns [column, column + count) of a row, as f32. */
static void row_widen(const struct tensor *tensor, const struct weights_rows *rows, uint32_t row,
                      uint32_t column, uint32_t count, float *out)
{
    const char *values = rows->values;

    values += (row - rows->begin) * weight_row_bytes(tensor->type, tensor->columns);
    values += weight_row_bytes(tensor->type, column);
    if (tensor->type == WEIGHT_F8_E4M3) {
        uint32_t block_row = row / SCALE_BLOCK - rows->begin / SCALE_BLOCK;
        const float *scales = rows->scales + (size_t)block_row * scale_block_count(tensor->columns);

        widen_f8(out, (const uint8_t *)values, count, scales[column / SCALE_BLOCK]);
    } else {
        weight_values_widen(out, tensor->type, values, count);
    }
}

/* The first rows of a head, as f32: those of keys, or all. */
static void kv_b_widen_rows(const struct weights *weights, const struct weights_piece *piece,
                            uint32_t head, const struct weights_rows *rows, uint32_t row_count)
{
    const struct tensor *tensor = piece->tensor;
    const struct head_place place = head_place(weights, piece, head);
    const uint32_t head_rows = weights_piece_granularity(weights, piece);
    const uint32_t step = tensor->type == WEIGHT_F8_E4M3 ? SCALE_BLOCK : WIDEN_VALUES_MAX;

    for (uint32_t i = 0; i < row_count; i++) {
        for (uint32_t column = 0; column < tensor->columns; column += step) {
            uint32_t left = tensor->columns - column, count = left < step ? left : step;
            float values[WIDEN_VALUES_MAX];
            struct pack_source part = {WEIGHT_F32, values, count};

            row_widen(tensor, rows, head * head_rows + i, column, count, values);
            kv_b_place(&weights->arch, &place, i, column, &part);
        }
    }
}

static void kv_b_fill(const struct weights *weights, const struct weights_piece *piece,
                      const struct weights_rows *rows)
{
    const struct tensor *tensor = piece->tensor;
    const char *values = rows->values;
    uint32_t head_rows = weights_piece_granularity(weights, piece);
    uint64_t head_bytes = head_rows * weight_row_bytes(tensor->type, tensor->columns);

    ASSERT(rows->begin % head_rows == 0 && rows->end % head_rows == 0);
    for (uint32_t head = rows->begin / head_rows; head < rows->end / head_rows; head++) {
        struct head_place place = head_place(weights, piece, head);

        if (tensor->type == WEIGHT_F8_E4M3) {
            kv_b_widen_rows(weights, piece, head, rows, head_rows);
        } else if (weight_type_is_blocks(tensor->type)) {
            kv_b_widen_rows(weights, piece, head, rows, weights->arch.qk_nope_dim);
            kv_b_fill_values(weights, tensor, &place, values);
        } else {
            kv_b_fill_keys(weights, tensor, &place, values);
            kv_b_fill_values(weights, tensor, &place, values);
        }
        values += head_bytes;
    }
}

/* Each head's rows are a matrix of their own. */
static void heads_fill(const struct weights *weights, const struct weights_piece *piece,
                       const struct weights_rows *rows)
{
    const struct tensor *tensor = piece->tensor;
    uint32_t head_rows = weights_piece_granularity(weights, piece);
    uint64_t matrix_bytes = packed_bytes(tensor->type, head_rows, tensor->columns);
    char *out = destination_of(weights, piece) + rows->begin / head_rows * matrix_bytes;
    struct pack_source source = {tensor->type, rows->values, tensor->columns};

    ASSERT(rows->begin % head_rows == 0 && rows->end % head_rows == 0);
    for (uint32_t row = rows->begin; row < rows->end; row += head_rows) {
        pack_rows(out, tensor->columns, 0, head_rows, &source);
        source.values = (const char *)source.values +
                        head_rows * weight_row_bytes(tensor->type, tensor->columns);
        out += matrix_bytes;
    }
}

bool weights_fill(const struct weights *weights, const struct weights_piece *piece,
                  const struct weights_rows *rows, struct error *err)
{
    const struct tensor *tensor = piece->tensor;
    struct pack_source source = {tensor->type, rows->values, tensor->columns};
    uint32_t row_count = rows->end - rows->begin;
    uint64_t value_begin = (uint64_t)rows->begin * tensor->columns;
    uint64_t value_count = (uint64_t)row_count * tensor->columns;
    uint64_t row_bytes = weight_row_bytes(tensor->type, tensor->columns);
    char *destination = destination_of(weights, piece);

    ASSERT(rows->begin <= rows->end && rows->end <= tensor->rows);
    if (!numbers_check(piece, rows, err)) {
        return false;
    }
    switch (piece->kind) {
    case PIECE_PACK:
        pack_rows(destination, tensor->columns, rows->begin, row_count, &source);
        if (tensor->type == WEIGHT_F8_E4M3) {
            pack_scales(destination, tensor->columns, rows->begin, row_count, rows->scales);
        }
        break;
    case PIECE_WIDEN:
        weight_values_widen((float *)(void *)destination + value_begin, tensor->type, rows->values,
                            value_count);
        break;
    case PIECE_KV_B:
        kv_b_fill(weights, piece, rows);
        break;
    case PIECE_HEADS:
        heads_fill(weights, piece, rows);
        break;
    case PIECE_COPY:
        memcpy(destination + rows->begin * row_bytes, rows->values, row_count * row_bytes);
        break;
    }
    return true;
}
