#ifndef SHOAL_NET_FETCH_WIRE_H
#define SHOAL_NET_FETCH_WIRE_H

/* Requests and replies of fetch.h as bytes. Pure: for the client, the server, tests, the fuzzer. */
#include "common/base/buffer.h"
#include "common/net/fetch.h"

#define FETCH_REQUEST_BYTES 52
#define FETCH_REPLY_BYTES   36

enum fetch_kind { FETCH_LIST = 1, FETCH_READ = 2 };
struct fetch_request {
    enum fetch_kind kind;
    uint64_t tag; /* comes back with the reply */
    char model_hash[FETCH_MODEL_HASH_BYTES + 1];
    uint32_t file;
    uint32_t bytes; /* 1 … FETCH_CHUNK_BYTES; LIST: 0 */
    uint64_t offset;
};

enum fetch_status { FETCH_HERE = 1, FETCH_REFUSED = 2 };
struct fetch_reply {
    enum fetch_status status;
    uint64_t tag;
    uint64_t offset; /* of the bytes that follow, in the file; LIST: 0 */
    uint32_t bytes;
    uint32_t crc32c; /* of them */
};

void fetch_request_encode(const struct fetch_request *request, uint8_t out[FETCH_REQUEST_BYTES]);
/* ERROR_INPUT: not a request of this version. Bounds of the file are the server's to check. */
bool fetch_request_decode(const void *bytes, size_t length, struct fetch_request *out,
                          struct error *err) MUST_CHECK;
void fetch_reply_encode(const struct fetch_reply *reply, uint8_t out[FETCH_REPLY_BYTES]);
bool fetch_reply_decode(const void *bytes, size_t length, struct fetch_reply *out,
                        struct error *err) MUST_CHECK;

void fetch_listing_encode(const struct fetch_file *files, uint32_t file_count, struct buffer *out);
bool fetch_listing_decode(const void *bytes, size_t length, struct fetch_listing *out,
                          struct error *err) MUST_CHECK;

#endif
