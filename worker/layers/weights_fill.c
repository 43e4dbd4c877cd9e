/* weights_fill.c - raw rows of a file into kernel layout.
 *
 * Straight moves from the bytes of some rows of a tensor to their places; weights.c decided where
 * those are. No reading, no threads: the loader brings rows in any order, on any thread. Codes of
 * F8_E4M3 that are NaN stop here: they would spread silently.
 */
#include "worker/layers/weights.h"

#include <string.h>

enum weight_type weights_kv_b_type(const struct tensor *kv_b)
{
    return kv_b->type == WEIGHT_F8_E4M3 ? WEIGHT_F32 : kv_b->type;
}

uint32_t weights_piece_granularity(const struct weights *weights, const struct weights_piece *piece)
{
    switch (piece->kind) {
    case PIECE_PACK:
        return piece->tensor->type == WEIGHT_F8_E4M3 ? SCALE_BLOCK : PANEL_ROWS;
    case PIECE_KV_B:
        return weights->arch.qk_nope_dim + weights->arch.v_head_dim;
    case PIECE_WIDEN:
    case PIECE_COPY:
        break;
    }
    return 1;
}

static bool numbers_check(const struct weights_piece *piece, const struct weights_rows *rows,
                          struct error *err)
{
    const struct tensor *tensor = piece->tensor;
    uint32_t block_rows = scale_block_count(rows->end) - rows->begin / SCALE_BLOCK;

    if (tensor->type != WEIGHT_F8_E4M3) {
        return true;
    }
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

/* Where one head's two matrices lie. */
struct head_place {
    char *uk, *uv;
};

static struct head_place head_place(const struct weights *weights,
                                    const struct weights_piece *piece, uint32_t head)
{
    const struct arch *arch = &weights->arch;
    enum weight_type type = weights_kv_b_type(piece->tensor);
    uint64_t uk_bytes = packed_bytes(type, arch->kv_lora_rank, arch->qk_nope_dim);
    uint64_t uv_bytes = packed_bytes(type, arch->v_head_dim, arch->kv_lora_rank);
    char *first = weights->memory + piece->destination;

    return (struct head_place){first + head * uk_bytes,
                               first + arch->head_count * uk_bytes + head * uv_bytes};
}

/* One head's rows [nope | value] of kv_b_proj. */
static void kv_b_fill_head(const struct weights *weights, const struct weights_piece *piece,
                           uint32_t head, const char *values)
{
    const struct arch *arch = &weights->arch;
    const struct tensor *tensor = piece->tensor;
    const struct head_place place = head_place(weights, piece, head);
    uint64_t row_bytes = (uint64_t)tensor->columns * weight_type_bytes(tensor->type);
    struct pack_source nope = {tensor->type, values, tensor->columns};
    struct pack_source value = {tensor->type, values + arch->qk_nope_dim * row_bytes,
                                tensor->columns};

    pack_transposed(place.uk, arch->kv_lora_rank, arch->qk_nope_dim, 0, arch->qk_nope_dim, &nope);
    pack_rows(place.uv, arch->kv_lora_rank, 0, arch->v_head_dim, &value);
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

/* One head of F8_E4M3: block by block along each row, as f32. */
static void kv_b_widen_head(const struct weights *weights, const struct weights_piece *piece,
                            uint32_t head, const struct weights_rows *rows)
{
    const struct arch *arch = &weights->arch;
    const struct head_place place = head_place(weights, piece, head);
    const uint32_t head_rows = arch->qk_nope_dim + arch->v_head_dim;
    const uint32_t columns = piece->tensor->columns;

    for (uint32_t i = 0; i < head_rows; i++) {
        uint32_t row = head * head_rows + i;
        uint32_t block_row = row / SCALE_BLOCK - rows->begin / SCALE_BLOCK;
        const float *scales = rows->scales + (size_t)block_row * scale_block_count(columns);
        const uint8_t *codes =
            (const uint8_t *)rows->values + (size_t)(row - rows->begin) * columns;

        for (uint32_t column = 0; column < columns; column += SCALE_BLOCK) {
            uint32_t count = columns - column < SCALE_BLOCK ? columns - column : SCALE_BLOCK;
            float values[SCALE_BLOCK];
            struct pack_source part = {WEIGHT_F32, values, count};

            widen_f8(values, codes + column, count, scales[column / SCALE_BLOCK]);
            kv_b_place(arch, &place, i, column, &part);
        }
    }
}

static void kv_b_fill(const struct weights *weights, const struct weights_piece *piece,
                      const struct weights_rows *rows)
{
    const struct tensor *tensor = piece->tensor;
    const char *values = rows->values;
    uint32_t head_rows = weights_piece_granularity(weights, piece);
    uint64_t head_bytes = (uint64_t)head_rows * tensor->columns * weight_type_bytes(tensor->type);

    ASSERT(rows->begin % head_rows == 0 && rows->end % head_rows == 0);
    for (uint32_t head = rows->begin / head_rows; head < rows->end / head_rows; head++) {
        if (tensor->type == WEIGHT_F8_E4M3) {
            kv_b_widen_head(weights, piece, head, rows);
        } else {
            kv_b_fill_head(weights, piece, head, values);
        }
        values += head_bytes;
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
    uint32_t value_bytes = weight_type_bytes(tensor->type);
    char *destination = weights->memory + piece->destination;

    ASSERT(weights->memory != NULL && rows->begin <= rows->end && rows->end <= tensor->rows);
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
    case PIECE_COPY:
        memcpy(destination + value_begin * value_bytes, rows->values, value_count * value_bytes);
        break;
    }
    return true;
}
