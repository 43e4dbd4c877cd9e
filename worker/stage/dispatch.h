#ifndef SHOAL_STAGE_DISPATCH_H
#define SHOAL_STAGE_DISPATCH_H

/* The layout of a FRAME_DISPATCH payload: rows of normed hidden states with the experts that shall
 * see them. All values little-endian, 4 bytes:
 *
 *   u32 part_count[rows]           experts of each row at this owner, 1 … chosen
 *   (u32 expert, f32 weight)[parts] row by row, ascending expert id
 *   f32 values[rows][hidden]
 *
 * The header's `rows` is the number of rows, `columns` is hidden. No row: no payload.
 * DISPATCH_WHOLE in an expert's word says that all chosen experts of its router group (for this
 * row) are in this dispatch: the owner then answers their sum, otherwise one row per expert.
 *
 * FRAME_COMBINE answers f32 [parts][hidden], where a whole group counts as one part, in the order
 * of the dispatch. An empty dispatch is not answered.
 */
#include "common/base/error.h"
#include "common/net/frame.h"

#define DISPATCH_WHOLE 0x80000000u

struct dispatch_part {
    uint32_t expert; /* DISPATCH_WHOLE included */
    float weight;
};
struct dispatch {
    uint32_t row_count;
    uint32_t part_count;
    uint32_t *row_parts;         /* [row_count] */
    struct dispatch_part *parts; /* [part_count] */
    float *values;               /* [row_count][hidden] */
};

size_t dispatch_bytes(uint32_t row_count, uint32_t part_count, uint32_t hidden);
/* Lays an outgoing dispatch out in the frame (large enough, asserted) and fills its header's rows,
 * columns, dtype and length; the caller writes the arrays. */
void dispatch_begin(struct frame *frame, uint32_t row_count, uint32_t part_count, uint32_t hidden,
                    struct dispatch *out);
/* Checks a received one against its lengths: ERROR_PEER says what is wrong. The arrays lie in the
 * frame; experts are not yet checked. */
struct dispatch_limits {
    uint32_t hidden;
    uint32_t rows_max; /* rows of the sender in this step */
    uint32_t chosen_count;
};
bool dispatch_read(const struct frame *frame, const struct dispatch_limits *limits,
                   struct dispatch *out, struct error *err) MUST_CHECK;

#endif
