/* fetch_wire.c - what a client and a server of model files say to each other, byte by byte.
 *
 *   request  0 magic "SHFQ", 4 u16 version, 6 u16 kind, 8 u64 tag, 16 model hash (16 characters),
 *            32 u32 file, 36 u32 bytes, 40 u64 offset, 48 u32 CRC32C of what is before
 *   reply    0 magic "SHFR", 4 u16 version, 6 u16 status, 8 u64 tag, 16 u64 offset, 24 u32 bytes,
 *            28 u32 CRC32C of the bytes, 32 u32 CRC32C of what is before
 *   listing  for each file: u64 bytes, u64 header bytes, u64 extra offset, u64 extra bytes, u8
 * length of the name, the name
 */
#include "common/net/fetch_wire.h"

#include "common/base/bytes.h"
#include "common/base/hash.h"
#include "common/base/mem.h"

#include <string.h>

#define REQUEST_MAGIC 0x51464853u
#define REPLY_MAGIC   0x52464853u
#define VERSION       1
#define LISTED_BYTES  33 /* of a file, before its name */

void fetch_request_encode(const struct fetch_request *request, uint8_t out[FETCH_REQUEST_BYTES])
{
    bytes_put(out, REQUEST_MAGIC, 4);
    bytes_put(out + 4, VERSION, 2);
    bytes_put(out + 6, request->kind, 2);
    bytes_put(out + 8, request->tag, 8);
    memcpy(out + 16, request->model_hash, FETCH_MODEL_HASH_BYTES);
    bytes_put(out + 32, request->file, 4);
    bytes_put(out + 36, request->bytes, 4);
    bytes_put(out + 40, request->offset, 8);
    bytes_put(out + 48, hash_crc32c(0, out, 48), 4);
}

/* Length, magic, version and the checksum behind everything else. */
static bool envelope_check(const uint8_t *in, size_t length, size_t wanted, uint32_t magic,
                           struct error *err)
{
    if (length != wanted) {
        return error_set(err, ERROR_INPUT, "%zu bytes, not %zu", length, wanted);
    }
    if (bytes_get(in, 4) != magic) {
        return error_set(err, ERROR_INPUT, "magic %08x, not %08x", (uint32_t)bytes_get(in, 4),
                         magic);
    }
    if (bytes_get(in + 4, 2) != VERSION) {
        return error_set(err, ERROR_INPUT, "version %u, not %u", (uint32_t)bytes_get(in + 4, 2),
                         VERSION);
    }
    return bytes_get(in + wanted - 4, 4) == hash_crc32c(0, in, wanted - 4) ||
           error_set(err, ERROR_INPUT, "wrong checksum");
}

bool fetch_request_decode(const void *bytes, size_t length, struct fetch_request *out,
                          struct error *err)
{
    const uint8_t *in = bytes;
    struct fetch_request request = {0};
    uint64_t kind;

    if (!envelope_check(in, length, FETCH_REQUEST_BYTES, REQUEST_MAGIC, err)) {
        return error_wrap(err, "request");
    }
    kind = bytes_get(in + 6, 2);
    request.tag = bytes_get(in + 8, 8);
    memcpy(request.model_hash, in + 16, FETCH_MODEL_HASH_BYTES);
    request.file = (uint32_t)bytes_get(in + 32, 4);
    request.bytes = (uint32_t)bytes_get(in + 36, 4);
    request.offset = bytes_get(in + 40, 8);
    if (kind != FETCH_LIST && kind != FETCH_READ) {
        return error_set(err, ERROR_INPUT, "request: unknown kind %u", (uint32_t)kind);
    }
    request.kind = (enum fetch_kind)kind;
    if (request.kind == FETCH_READ && (request.bytes == 0 || request.bytes > FETCH_CHUNK_BYTES)) {
        return error_set(err, ERROR_INPUT, "request: %u bytes, must be 1 to %u", request.bytes,
                         FETCH_CHUNK_BYTES);
    }
    *out = request;
    return true;
}

void fetch_reply_encode(const struct fetch_reply *reply, uint8_t out[FETCH_REPLY_BYTES])
{
    bytes_put(out, REPLY_MAGIC, 4);
    bytes_put(out + 4, VERSION, 2);
    bytes_put(out + 6, reply->status, 2);
    bytes_put(out + 8, reply->tag, 8);
    bytes_put(out + 16, reply->offset, 8);
    bytes_put(out + 24, reply->bytes, 4);
    bytes_put(out + 28, reply->crc32c, 4);
    bytes_put(out + 32, hash_crc32c(0, out, 32), 4);
}

bool fetch_reply_decode(const void *bytes, size_t length, struct fetch_reply *out,
                        struct error *err)
{
    const uint8_t *in = bytes;
    uint64_t status;

    if (!envelope_check(in, length, FETCH_REPLY_BYTES, REPLY_MAGIC, err)) {
        return error_wrap(err, "reply");
    }
    status = bytes_get(in + 6, 2);
    if (status != FETCH_HERE && status != FETCH_REFUSED) {
        return error_set(err, ERROR_INPUT, "reply: unknown status %u", (uint32_t)status);
    }
    *out = (struct fetch_reply){
        .status = (enum fetch_status)status,
        .tag = bytes_get(in + 8, 8),
        .offset = bytes_get(in + 16, 8),
        .bytes = (uint32_t)bytes_get(in + 24, 4),
        .crc32c = (uint32_t)bytes_get(in + 28, 4),
    };
    return true;
}

void fetch_listing_encode(const struct fetch_file *files, uint32_t file_count, struct buffer *out)
{
    for (uint32_t i = 0; i < file_count; i++) {
        size_t name_bytes = strlen(files[i].name);
        uint8_t head[LISTED_BYTES];

        ASSERT(name_bytes > 0 && name_bytes <= FETCH_NAME_BYTES_MAX);
        bytes_put(head, files[i].bytes, 8);
        bytes_put(head + 8, files[i].header_bytes, 8);
        bytes_put(head + 16, files[i].extra_offset, 8);
        bytes_put(head + 24, files[i].extra_bytes, 8);
        head[LISTED_BYTES - 1] = (uint8_t)name_bytes;
        buffer_append(out, head, sizeof(head));
        buffer_append(out, files[i].name, name_bytes);
    }
}

/* A name becomes a file of the client's: one component, printable ASCII or UTF-8, no dot first. */
static bool name_check(const uint8_t *name, size_t length, struct error *err)
{
    if (length == 0 || name[0] == '.') {
        return error_set(err, ERROR_INPUT, "a file without a name, or one that begins with a dot");
    }
    for (size_t i = 0; i < length; i++) {
        if (name[i] < ' ' || name[i] == '/' || name[i] == '\\' || name[i] == 0x7f) {
            return error_set(err, ERROR_INPUT, "a file name with byte 0x%02x", name[i]);
        }
    }
    return true;
}

/* One file at the front of `in`; its bytes, or 0. */
static size_t listed_read(const uint8_t *in, size_t left, struct fetch_file *out, char *name,
                          struct error *err)
{
    size_t name_bytes;

    if (left < LISTED_BYTES || left - LISTED_BYTES < in[LISTED_BYTES - 1]) {
        error_set(err, ERROR_INPUT, "it ends within a file");
        return 0;
    }
    name_bytes = in[LISTED_BYTES - 1];
    out->bytes = bytes_get(in, 8);
    out->header_bytes = bytes_get(in + 8, 8);
    out->extra_offset = bytes_get(in + 16, 8);
    out->extra_bytes = bytes_get(in + 24, 8);
    out->name = name;
    if (!name_check(in + LISTED_BYTES, name_bytes, err)) {
        return 0;
    }
    memcpy(name, in + LISTED_BYTES, name_bytes);
    name[name_bytes] = '\0';
    if (out->bytes > INT64_MAX || out->header_bytes > out->bytes ||
        out->extra_offset > out->bytes || out->extra_bytes > out->bytes - out->extra_offset) {
        error_set(err, ERROR_INPUT, "%s: impossible sizes", name);
        return 0;
    }
    return LISTED_BYTES + name_bytes;
}

static bool names_are_unique(const struct fetch_listing *listing, struct error *err)
{
    const struct fetch_file *files = listing->files;

    for (uint32_t i = 1; i < listing->file_count; i++) {
        if (strcmp(files[i - 1].name, files[i].name) >= 0) {
            return error_set(err, ERROR_INPUT, "%s does not follow %s", files[i].name,
                             files[i - 1].name);
        }
    }
    return true;
}

bool fetch_listing_decode(const void *bytes, size_t length, struct fetch_listing *out,
                          struct error *err)
{
    const uint8_t *in = bytes;
    /* Each listed file has more bytes than its name needs; so many files are there at most. */
    size_t most = length / (LISTED_BYTES + 1);
    struct fetch_listing listing = {0};
    char *names = mem_new_array(char, length + 1);

    listing.files = mem_new_array(struct fetch_file, most + 1);
    listing.memory = names;
    for (size_t at = 0; at < length;) {
        size_t taken = 0;

        if (listing.file_count < FETCH_FILES_MAX && listing.file_count < most) {
            taken =
                listed_read(in + at, length - at, &listing.files[listing.file_count], names, err);
            names += taken > 0 ? taken - LISTED_BYTES + 1 : 0;
        } else {
            error_set(err, ERROR_INPUT, "more files than can be");
        }
        if (taken == 0) {
            fetch_listing_deinit(&listing);
            return error_wrap(err, "listing of files");
        }
        at += taken;
        listing.file_count++;
    }
    if (!names_are_unique(&listing, err)) {
        fetch_listing_deinit(&listing);
        return error_wrap(err, "listing of files");
    }
    *out = listing;
    return true;
}

void fetch_listing_deinit(struct fetch_listing *listing)
{
    mem_free(listing->files);
    mem_free(listing->memory);
    memset(listing, 0, sizeof(*listing));
}
