#ifndef SHOAL_KERNELS_PACKED_H
#define SHOAL_KERNELS_PACKED_H

/* Weights as the kernels read them: panels of 16 outputs, so that vector lanes run across outputs
 * and every output is one chain of fused multiply-adds in rising k.
 *
 *   element (row, column) lies at [row / 16][column][row % 16]; rows beyond the last are zero
 *   BF16:    [row / 16][column / 2][row % 16][column % 2]
 *   F8_E4M3: [row / 16][column / 4][column % 2][row % 16][column / 2 % 2]
 *
 * Two bf16 side by side are an operand of matrix tiles, and become f32 by a shift or a mask; two
 * codes side by side become f16 likewise. Columns are padded with zeros to whole pairs and groups
 * of four.
 *
 * Rows of a block type are cut into their blocks; panels hold them side by side, the bytes of 16
 * blocks in the order that block_kernel.h gives, and are padded to 64 bytes.
 *
 * Values keep the type they were published in. A panel of F8_E4M3 ends with its scales, one f32
 * for each 128 columns (its rows lie in one block of 128), padded to 64 bytes; they are 256 times
 * the published ones, since the kernels widen a code to its value / 256.
 *
 * The memory belongs to whoever made the regions (worker/stage/load.c); a packed_matrix is a view
 * and may be copied.
 */
#include "common/model/catalog.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PANEL_ROWS 16

struct packed_matrix {
    enum weight_type type;
    uint32_t rows;    /* outputs */
    uint32_t columns; /* k */
    const void *data; /* 64-byte aligned */
};

/* Columns of F8_E4M3 that lie together. */
#define F8_GROUP 4

uint32_t packed_panel_count(uint32_t rows);
uint64_t packed_panel_bytes(enum weight_type type, uint32_t columns);
/* Where the scales lie in a panel of F8_E4M3. */
uint64_t packed_scales_begin(uint32_t columns);
/* Bytes of a packed matrix; a multiple of 64. */
uint64_t packed_bytes(enum weight_type type, uint32_t rows, uint32_t columns);
/* Panels [panel_begin, panel_end) as a matrix of their own. */
struct packed_matrix packed_panels(const struct packed_matrix *w, uint32_t panel_begin,
                                   uint32_t panel_end);

/* Packs source rows [0, row_count) into rows row_begin… of the matrix that lies at `packed`.
 *   source  row-major, row_stride values (whole blocks) from row to row, as in the file
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
/* The same for the transpose, of F32, F16 and BF16: source column c becomes row c, source row r
 * becomes column column_begin + r of the packed matrix with `columns` columns and `rows` rows. */
void pack_transposed(void *packed, uint32_t rows, uint32_t columns, uint32_t column_begin,
                     uint32_t source_row_count, const struct pack_source *source);
/* Packs the scales of F8_E4M3 rows [row_begin, row_begin + row_count); row_begin is a multiple of
 * 16, `scales` are the published ones from the block row in which it lies. */
void pack_scales(void *packed, uint32_t columns, uint32_t row_begin, uint32_t row_count,
                 const float *scales);
/* out[i] = the code's value * scale, rounded to f32. */
void widen_f8(float *out, const uint8_t *codes, size_t count, float scale);
/* What no checkpoint should hold: the codes of NaN; scales that are no number or that leave f32
 * when packed. Both return false when there is one. */
bool f8_codes_are_numbers(const uint8_t *codes, size_t count);
bool f8_scales_are_finite(const float *scales, size_t count);

#endif
