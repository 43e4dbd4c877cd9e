/* weights_fill.c - raw rows of a file into kernel layout.
 *
 * Straight moves from the bytes of some rows of a tensor to their places; weights.c decided where
 * those are. No reading, no threads: the loader brings rows in any order, on any thread.
 */
#include "worker/layers/weights.h"

#include <string.h>

uint32_t weights_piece_granularity(const struct weights *weights, const struct weights_piece *piece)
{
    switch (piece->kind) {
    case PIECE_PACK:
        return PANEL_ROWS;
    case PIECE_KV_B:
        return weights->arch.qk_nope_dim + weights->arch.v_head_dim;
    case PIECE_WIDEN:
    case PIECE_COPY:
        break;
    }
    return 1;
}

/* One head's rows [nope | value] of kv_b_proj. */
static void kv_b_fill_head(const struct weights *weights, const struct weights_piece *piece,
                           uint32_t head, const char *values)
{
    const struct arch *arch = &weights->arch;
    const struct tensor *tensor = piece->tensor;
    uint64_t uk_bytes = packed_bytes(tensor->type, arch->kv_lora_rank, arch->qk_nope_dim);
    uint64_t uv_bytes = packed_bytes(tensor->type, arch->v_head_dim, arch->kv_lora_rank);
    uint64_t row_bytes = (uint64_t)tensor->columns * weight_type_bytes(tensor->type);
    char *uk = weights->memory + piece->destination + head * uk_bytes;
    char *uv = weights->memory + piece->destination + arch->head_count * uk_bytes + head * uv_bytes;
    struct pack_source nope = {tensor->type, values, tensor->columns};
    struct pack_source value = {tensor->type, values + arch->qk_nope_dim * row_bytes,
                                tensor->columns};

    pack_transposed(uk, arch->kv_lora_rank, arch->qk_nope_dim, 0, arch->qk_nope_dim, &nope);
    pack_rows(uv, arch->kv_lora_rank, 0, arch->v_head_dim, &value);
}

static void kv_b_fill(const struct weights *weights, const struct weights_piece *piece,
                      uint32_t row_begin, uint32_t row_end, const char *values)
{
    const struct tensor *tensor = piece->tensor;
    uint32_t head_rows = weights_piece_granularity(weights, piece);
    uint64_t head_bytes = (uint64_t)head_rows * tensor->columns * weight_type_bytes(tensor->type);

    ASSERT(row_begin % head_rows == 0 && row_end % head_rows == 0);
    for (uint32_t head = row_begin / head_rows; head < row_end / head_rows; head++) {
        kv_b_fill_head(weights, piece, head, values);
        values += head_bytes;
    }
}

void weights_fill(const struct weights *weights, const struct weights_piece *piece,
                  uint32_t row_begin, uint32_t row_end, const void *values)
{
    const struct tensor *tensor = piece->tensor;
    struct pack_source source = {tensor->type, values, tensor->columns};
    uint64_t value_begin = (uint64_t)row_begin * tensor->columns;
    uint64_t value_count = (uint64_t)(row_end - row_begin) * tensor->columns;
    uint32_t value_bytes = weight_type_bytes(tensor->type);
    char *destination = weights->memory + piece->destination;

    ASSERT(weights->memory != NULL && row_begin <= row_end && row_end <= tensor->rows);
    switch (piece->kind) {
    case PIECE_PACK:
        pack_rows(destination, tensor->columns, row_begin, row_end - row_begin, &source);
        break;
    case PIECE_WIDEN:
        widen_values((float *)(void *)destination + value_begin, values, tensor->type, value_count);
        break;
    case PIECE_KV_B:
        kv_b_fill(weights, piece, row_begin, row_end, values);
        break;
    case PIECE_COPY:
        memcpy(destination + value_begin * value_bytes, values, value_count * value_bytes);
        break;
    }
}
