#ifndef SHOAL_KERNELS_PACKED_H
#define SHOAL_KERNELS_PACKED_H

/* Weights as the kernels read them: panels of 16 outputs, so that vector lanes run across outputs
 * and every output is one chain of fused multiply-adds in rising k.
 *
 *   element (row, column) lies at [row / 16][column][row % 16]; rows beyond the last are zero
 *
 * Values keep the type they were published in. The memory belongs to whoever made the regions
 * (worker/stage/load.c); a packed_matrix is a view and may be copied.
 */
#include "common/model/catalog.h"

#include <stddef.h>
#include <stdint.h>

#define PANEL_ROWS 16

struct packed_matrix {
    enum weight_type type;
    uint32_t rows;    /* outputs */
    uint32_t columns; /* k */
    const void *data; /* 64-byte aligned */
};

uint32_t packed_panel_count(uint32_t rows);
/* Bytes of a packed matrix; a multiple of 64. */
uint64_t packed_bytes(enum weight_type type, uint32_t rows, uint32_t columns);

/* Packs source rows [0, row_count) into rows row_begin… of the matrix that lies at `packed`.
 *   source  row-major, row_stride values from row to row, as in the file (little-endian)
 *   row_begin must be a multiple of 16 unless the rest of its panel was packed before: disjoint
 * calls that share no panel may run at the same time The destination starts zeroed, so padding
 * needs no care. */
struct pack_source {
    enum weight_type type;
    const void *values;
    size_t row_stride;
};
void pack_rows(void *packed, uint32_t columns, uint32_t row_begin, uint32_t row_count,
               const struct pack_source *source);
/* The same for the transpose: source column c becomes row c, source row r becomes column
 * column_begin + r of the packed matrix with `columns` columns and `rows` rows. */
void pack_transposed(void *packed, uint32_t rows, uint32_t columns, uint32_t column_begin,
                     uint32_t source_row_count, const struct pack_source *source);
/* Widens exactly to f32 (norms, router bias). */
void widen_values(float *out, const void *values, enum weight_type type, size_t count);

#endif
