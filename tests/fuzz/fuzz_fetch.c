/* fuzz_fetch.c - any bytes as a request, a reply or a listing of fetch.h, also with the checksum
 * that they should have. */
#include "common/net/fetch_wire.h"

#include "common/base/hash.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_request(const uint8_t *bytes, size_t size)
{
    struct fetch_request request;
    struct error err;

    if (fetch_request_decode(bytes, size, &request, &err)) {
        ASSERT(request.kind == FETCH_LIST || request.kind == FETCH_READ);
        ASSERT(request.kind == FETCH_LIST || request.bytes <= FETCH_CHUNK_BYTES);
    } else {
        ASSERT(err.code == ERROR_INPUT);
    }
}

static void try_reply(const uint8_t *bytes, size_t size)
{
    struct fetch_reply reply;
    struct error err;

    if (fetch_reply_decode(bytes, size, &reply, &err)) {
        ASSERT(reply.status == FETCH_HERE || reply.status == FETCH_REFUSED);
    }
}

static void try_listing(const uint8_t *bytes, size_t size)
{
    struct fetch_listing listing;
    struct error err;

    if (!fetch_listing_decode(bytes, size, &listing, &err)) {
        return;
    }
    for (uint32_t i = 0; i < listing.file_count; i++) {
        ASSERT(listing.files[i].header_bytes <= listing.files[i].bytes);
        ASSERT(listing.files[i].name[0] != '.' && strchr(listing.files[i].name, '/') == NULL);
    }
    fetch_listing_deinit(&listing);
}

/* The first bytes, with the checksum that ends them. */
static const uint8_t *repaired(const uint8_t *data, size_t bytes, uint8_t *out)
{
    uint32_t crc;

    memcpy(out, data, bytes);
    crc = hash_crc32c(0, out, bytes - 4);
    for (size_t i = 0; i < 4; i++) {
        out[bytes - 4 + i] = (uint8_t)(crc >> 8 * i);
    }
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t copy[FETCH_REQUEST_BYTES];

    try_listing(data, size);
    try_request(data, size);
    try_reply(data, size);
    if (size >= FETCH_REQUEST_BYTES) {
        try_request(repaired(data, FETCH_REQUEST_BYTES, copy), FETCH_REQUEST_BYTES);
    }
    if (size >= FETCH_REPLY_BYTES) {
        try_reply(repaired(data, FETCH_REPLY_BYTES, copy), FETCH_REPLY_BYTES);
    }
    return 0;
}
