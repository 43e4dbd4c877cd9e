/* fuzz_frame.c - any bytes as a frame; what is accepted must be as long as it says. */
#include "common/net/frame.h"

#include "common/base/hash.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_decode(const uint8_t *bytes, size_t size)
{
    struct frame_header header;
    struct error err;

    if (frame_decode(bytes, size, &header, &err)) {
        ASSERT(header.payload_bytes == size - FRAME_HEADER_BYTES);
        ASSERT(header.kind < FRAME_KIND_COUNT && header.dtype <= FRAME_F32);
        ASSERT(header.dtype != FRAME_F32 ||
               (uint64_t)header.rows * header.columns <= header.payload_bytes / sizeof(float));
    } else {
        ASSERT(err.code == ERROR_INPUT);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t repaired[4096];
    uint32_t crc;

    try_decode(data, size);
    if (size < FRAME_HEADER_BYTES || size > sizeof(repaired)) {
        return 0;
    }
    memcpy(repaired, data, size); /* with the right crc, to get beyond it */
    memset(repaired + 56, 0, 4);
    crc = hash_crc32c(0, repaired, size);
    for (size_t i = 0; i < 4; i++) {
        repaired[56 + i] = (uint8_t)(crc >> (8 * i));
    }
    try_decode(repaired, size);
    return 0;
}
