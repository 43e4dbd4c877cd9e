#ifndef SHOAL_NET_FRAME_H
#define SHOAL_NET_FRAME_H

/* One message of the data plane: a header and rows of values.
 *
 * On the wire: 64 bytes of header, little-endian, then the payload. The CRC32C covers the header
 * (with its crc field zero) and the payload. A frame comes from a pool that the epoch sizes, or
 * wraps a buffer of the transport; it is reference-counted and returns to where it came from when
 * the last reference is released, on any thread (the pool takes it back through an mpsc_list:
 * libzmq frees on its own thread).
 */
#include "common/base/error.h"
#include "common/base/ring.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_MAGIC        0x4c414f53u /* "SOAL" as bytes */
#define FRAME_VERSION      1
#define FRAME_HEADER_BYTES 64
#define FRAME_BYTES_MAX    ((size_t)1 << 30) /* header and payload: no transport takes more */

enum frame_kind {
    FRAME_HELLO, /* opens a link: who dials, for which epoch */
    FRAME_PROBE, /* measures a link before ready; PROBE_ECHO answers */
    FRAME_PROBE_ECHO,
    FRAME_HIDDEN,   /* hidden states to the next stage */
    FRAME_DISPATCH, /* rows for the experts of another member */
    FRAME_COMBINE,  /* their weighted outputs */
    FRAME_KIND_COUNT
};
enum frame_dtype { FRAME_RAW, FRAME_F32 };

struct frame_header {
    uint64_t epoch;
    uint64_t step;
    uint64_t link_sequence; /* rising by one on each direction of a link; a gap is LINK_LOST */
    uint32_t attempt;
    uint32_t layer;
    uint32_t source; /* worker id */
    uint32_t rows;
    uint32_t columns;
    uint32_t crc;
    uint32_t payload_bytes;
    uint8_t kind;
    uint8_t dtype;
};

struct frame_pool;
struct frame {
    struct frame_header header;
    uint8_t *payload; /* 64-byte aligned when it comes from a pool */
    size_t capacity;  /* of the payload */
    atomic_uint references;
    /* Called when the last reference goes, on whatever thread that happens. */
    void (*release)(struct frame *frame);
    void *owner;           /* for release: the pool, or the transport's buffer */
    struct mpsc_node node; /* for whoever owns the frame: queues, the pool */
    uint8_t *wire;         /* pool frames: FRAME_HEADER_BYTES before the payload, contiguous */
};

struct frame *frame_acquire(struct frame *frame); /* one more reference; returns it */
void frame_release(struct frame *frame);          /* NULL is legal */

/* Fills header bytes (crc included) from frame->header and the payload. */
void frame_encode_header(const struct frame *frame, uint8_t out[FRAME_HEADER_BYTES]);
/* Checks magic, version, lengths, kind and CRC of a whole message; false: err names what is wrong.
 * The crc check is counted by the caller (ERROR_INPUT). */
bool frame_decode(const uint8_t *message, size_t length, struct frame_header *out,
                  struct error *err) MUST_CHECK;

/* count frames of payload_bytes each (address space is reserved, pages are touched when used). */
struct frame_pool *frame_pool_create(uint32_t count, size_t payload_bytes,
                                     struct error *err) MUST_CHECK;
/* Waits for nothing: frames still out keep the pool alive until the last comes back. */
void frame_pool_destroy(struct frame_pool *pool);
uint64_t frame_pool_bytes(uint32_t count, size_t payload_bytes); /* for the ledger */
/* NULL: all are out ("not now"). One taking thread at a time. The frame has one reference. */
struct frame *frame_pool_take(struct frame_pool *pool);

#endif
