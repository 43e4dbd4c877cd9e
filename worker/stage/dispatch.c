/* dispatch.c - tokens on their way to the experts of another worker.
 *
 * Lengths come from a peer and are checked before anything is read behind them. Values are read in
 * place: a payload whose memory is not aligned for floats is moved to the front of its frame's
 * memory by the receiver before it comes here (exchange.h promises alignment).
 */
#include "worker/stage/dispatch.h"

#include <stdint.h>

size_t dispatch_bytes(uint32_t row_count, uint32_t part_count, uint32_t hidden)
{
    return (size_t)row_count * sizeof(uint32_t) +
           (size_t)part_count * sizeof(struct dispatch_part) +
           (size_t)row_count * hidden * sizeof(float);
}

static void lay_out(const struct frame *frame, uint32_t row_count, uint32_t part_count,
                    struct dispatch *out)
{
    uint8_t *at = frame->payload;

    out->row_count = row_count;
    out->part_count = part_count;
    out->row_parts = (uint32_t *)(void *)at;
    at += (size_t)row_count * sizeof(uint32_t);
    out->parts = (struct dispatch_part *)(void *)at;
    at += (size_t)part_count * sizeof(struct dispatch_part);
    out->values = (float *)(void *)at;
}

void dispatch_begin(struct frame *frame, uint32_t row_count, uint32_t part_count, uint32_t hidden,
                    struct dispatch *out)
{
    size_t bytes = dispatch_bytes(row_count, part_count, hidden);

    ASSERT(bytes <= frame->capacity && bytes <= UINT32_MAX);
    frame->header.rows = row_count;
    frame->header.columns = hidden;
    frame->header.dtype = FRAME_RAW;
    frame->header.payload_bytes = (uint32_t)bytes;
    lay_out(frame, row_count, part_count, out);
}

static bool count_parts(const struct frame *frame, const struct dispatch_limits *limits,
                        uint32_t *part_count, struct error *err)
{
    const uint32_t *row_parts = (const uint32_t *)(const void *)frame->payload;
    uint32_t parts = 0;

    for (uint32_t row = 0; row < frame->header.rows; row++) {
        if (row_parts[row] == 0 || row_parts[row] > limits->chosen_count) {
            return error_set(err, ERROR_PEER, "dispatch row %u has %u experts, must be 1 to %u",
                             row, row_parts[row], limits->chosen_count);
        }
        parts += row_parts[row];
    }
    *part_count = parts;
    return true;
}

bool dispatch_read(const struct frame *frame, const struct dispatch_limits *limits,
                   struct dispatch *out, struct error *err)
{
    const struct frame_header *header = &frame->header;
    uint32_t part_count = 0;
    size_t bytes;

    if (header->rows > limits->rows_max || header->columns != limits->hidden ||
        header->payload_bytes / sizeof(uint32_t) < header->rows) {
        return error_set(err, ERROR_PEER,
                         "dispatch of %u rows of %u values in %u bytes, expected at most %u of %u",
                         header->rows, header->columns, header->payload_bytes, limits->rows_max,
                         limits->hidden);
    }
    if (!count_parts(frame, limits, &part_count, err)) {
        return false;
    }
    bytes = dispatch_bytes(header->rows, part_count, limits->hidden);
    if (bytes != header->payload_bytes) {
        return error_set(err, ERROR_PEER,
                         "dispatch of %u rows with %u experts has %u bytes, expected %zu",
                         header->rows, part_count, header->payload_bytes, bytes);
    }
    lay_out(frame, header->rows, part_count, out);
    return true;
}
