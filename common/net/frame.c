/* frame.c - a frame's 64 bytes of header, and its count of references.
 *
 *   0 magic   4 version  6 kind  7 dtype   8 epoch  16 step  24 link_sequence
 *  32 attempt  36 layer  40 source  44 rows  48 columns  52 payload_bytes  56 crc  60 zero
 *
 * Bytes are written one by one in little-endian order, so the layout does not depend on the
 * machine.
 */
#include "common/net/frame.h"

#include "common/base/bytes.h"
#include "common/base/hash.h"

#include <string.h>

#define CRC_OFFSET 56

struct frame *frame_acquire(struct frame *frame)
{
    unsigned before = atomic_fetch_add_explicit(&frame->references, 1, memory_order_relaxed);

    ASSERT(before > 0);
    return frame;
}

void frame_release(struct frame *frame)
{
    unsigned before;

    if (frame == NULL) {
        return;
    }
    before = atomic_fetch_sub_explicit(&frame->references, 1, memory_order_acq_rel);
    ASSERT(before > 0);
    if (before == 1) {
        frame->release(frame);
    }
}

void frame_encode_header(const struct frame *frame, uint8_t out[FRAME_HEADER_BYTES])
{
    const struct frame_header *header = &frame->header;
    uint32_t crc;

    DEBUG_ASSERT(header->kind < FRAME_KIND_COUNT && header->payload_bytes <= frame->capacity);
    memset(out, 0, FRAME_HEADER_BYTES);
    bytes_put(out, FRAME_MAGIC, 4);
    bytes_put(out + 4, FRAME_VERSION, 2);
    out[6] = header->kind;
    out[7] = header->dtype;
    bytes_put(out + 8, header->epoch, 8);
    bytes_put(out + 16, header->step, 8);
    bytes_put(out + 24, header->link_sequence, 8);
    bytes_put(out + 32, header->attempt, 4);
    bytes_put(out + 36, header->layer, 4);
    bytes_put(out + 40, header->source, 4);
    bytes_put(out + 44, header->rows, 4);
    bytes_put(out + 48, header->columns, 4);
    bytes_put(out + 52, header->payload_bytes, 4);
    crc = hash_crc32c(0, out, FRAME_HEADER_BYTES);
    crc = hash_crc32c(crc, frame->payload, header->payload_bytes);
    bytes_put(out + CRC_OFFSET, crc, 4);
}

static void header_read(const uint8_t *message, struct frame_header *out)
{
    *out = (struct frame_header){.kind = message[6],
                                 .dtype = message[7],
                                 .epoch = bytes_get(message + 8, 8),
                                 .step = bytes_get(message + 16, 8),
                                 .link_sequence = bytes_get(message + 24, 8),
                                 .attempt = (uint32_t)bytes_get(message + 32, 4),
                                 .layer = (uint32_t)bytes_get(message + 36, 4),
                                 .source = (uint32_t)bytes_get(message + 40, 4),
                                 .rows = (uint32_t)bytes_get(message + 44, 4),
                                 .columns = (uint32_t)bytes_get(message + 48, 4),
                                 .payload_bytes = (uint32_t)bytes_get(message + 52, 4),
                                 .crc = (uint32_t)bytes_get(message + CRC_OFFSET, 4)};
}

static uint32_t message_crc(const uint8_t *message, size_t length)
{
    uint8_t head[FRAME_HEADER_BYTES];

    memcpy(head, message, sizeof(head));
    memset(head + CRC_OFFSET, 0, 4);
    return hash_crc32c(hash_crc32c(0, head, sizeof(head)), message + FRAME_HEADER_BYTES,
                       length - FRAME_HEADER_BYTES);
}

static bool header_check(const struct frame_header *header, size_t length, struct error *err)
{
    uint64_t values = (uint64_t)header->rows * header->columns;

    if (header->kind >= FRAME_KIND_COUNT) {
        return error_set(err, ERROR_INPUT, "frame: unknown kind %u", header->kind);
    }
    if (header->dtype > FRAME_F32) {
        return error_set(err, ERROR_INPUT, "frame: unknown dtype %u", header->dtype);
    }
    if (header->payload_bytes != length - FRAME_HEADER_BYTES) {
        return error_set(err, ERROR_INPUT, "frame: header claims %u bytes of payload, %zu came",
                         header->payload_bytes, length - FRAME_HEADER_BYTES);
    }
    if (header->dtype == FRAME_F32 && values > header->payload_bytes / sizeof(float)) {
        return error_set(err, ERROR_INPUT, "frame: %u × %u values in %u bytes", header->rows,
                         header->columns, header->payload_bytes);
    }
    return true;
}

bool frame_decode(const uint8_t *message, size_t length, struct frame_header *out,
                  struct error *err)
{
    struct frame_header header;
    uint32_t crc;

    if (length < FRAME_HEADER_BYTES) {
        return error_set(err, ERROR_INPUT, "frame: %zu bytes, a header has %d", length,
                         FRAME_HEADER_BYTES);
    }
    if (bytes_get(message, 4) != FRAME_MAGIC) {
        return error_set(err, ERROR_INPUT, "frame: magic %08x is not shoal's",
                         (unsigned)bytes_get(message, 4));
    }
    if (bytes_get(message + 4, 2) != FRAME_VERSION) {
        return error_set(err, ERROR_INPUT, "frame: version %u, this program speaks %d",
                         (unsigned)bytes_get(message + 4, 2), FRAME_VERSION);
    }
    header_read(message, &header);
    crc = message_crc(message, length);
    if (crc != header.crc) {
        return error_set(err, ERROR_INPUT, "frame: crc %08x, header says %08x", crc, header.crc);
    }
    if (!header_check(&header, length, err)) {
        return false;
    }
    *out = header;
    return true;
}
