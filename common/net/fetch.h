#ifndef SHOAL_NET_FETCH_H
#define SHOAL_NET_FETCH_H

/* Bytes of a model's files, served to workers that do not have them, over ZeroMQ.
 *
 * The server is a thread with a socket of its own, beside the control channel, which stays free for
 * steps and heartbeats. It offers a fixed list of files by number: nothing else can be asked for. A
 * client asks for ranges, FETCH_WINDOW chunks at a time and in order; what is under way is the only
 * memory on either side. Each chunk carries its CRC32C. TCP and CURVE guard the way already; the
 * checksum also guards what lies between a disk and a socket. A client whose connection breaks
 * makes a new one and asks again for what was under way, at most FETCH_WINDOW chunks.
 *
 * On the wire (fetch_wire.c), little-endian: requests and headers of replies of fixed sizes; a
 * reply's second part holds the bytes, or a text that says why there are none.
 */
#include "common/base/error.h"
#include "common/net/keys.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define FETCH_CHUNK_BYTES       ((uint32_t)4 << 20)
#define FETCH_WINDOW            2
#define FETCH_FILES_MAX         65536u
#define FETCH_NAME_BYTES_MAX    255
#define FETCH_MODEL_HASH_BYTES  16 /* of the text, without its NUL */
#define FETCH_LISTING_BYTES_MAX ((size_t)24 << 20)

/* A file on offer. `header_bytes` from its beginning, and the extra ones, describe the model. */
struct fetch_file {
    const char *name; /* without a folder; files are sorted by it */
    uint64_t bytes;
    uint64_t header_bytes;
    uint64_t extra_offset, extra_bytes;
};

/* --- server; its own thread --- */
struct fetch_server;
struct fetch_server_config {
    const char *endpoint;          /* tcp://host:port; port 0: a free one */
    const struct cluster_key *key; /* borrowed for life, as all below */
    const char *model_hash;        /* clients with another are refused */
    uint32_t file_count;
    const struct fetch_file *files;
    const char *const *paths; /* [file_count]: where they lie */
};
/* ERROR_SYSTEM names the endpoint. */
struct fetch_server *fetch_server_start(const struct fetch_server_config *config,
                                        struct error *err) MUST_CHECK;
void fetch_server_stop(struct fetch_server *server); /* NULL is legal; waits for the thread */
uint16_t fetch_server_port(const struct fetch_server *server);
/* Listings and bytes of files, without headers; any thread. */
uint64_t fetch_server_sent_bytes(const struct fetch_server *server);

/* --- client; owner: the thread that opened it --- */
struct fetch_client;
struct fetch_client_config {
    const char *endpoint; /* tcp://host:port; borrowed for life, as all below */
    const struct cluster_key *key;
    const char *model_hash;
    const atomic_bool *cancel; /* set: calls fail soon; NULL: never */
    int64_t patience_ns;       /* without a byte for so long: failed; 0: 30 s */
};
struct fetch_client *fetch_client_open(const struct fetch_client_config *config,
                                       struct error *err) MUST_CHECK;
void fetch_client_close(struct fetch_client *client); /* NULL is legal */

struct fetch_listing {
    uint32_t file_count;
    struct fetch_file *files;
    void *memory;
};
/* Names are checked: one path component, no leading dot. ERROR_PEER when it can't be had. */
bool fetch_client_list(struct fetch_client *client, struct fetch_listing *out,
                       struct error *err) MUST_CHECK;
void fetch_listing_deinit(struct fetch_listing *listing);

/* Takes a checked piece of a range; pieces come in rising order, each once. */
typedef bool (*fetch_sink_fn)(void *context, uint64_t offset, const void *bytes, size_t length,
                              struct error *err);
struct fetch_range {
    uint32_t file;
    uint64_t offset, bytes;
};
/* Blocks until all has been handed over. ERROR_PEER: the server refused, or was silent for longer
 * than patience_ns; or the sink's error. */
bool fetch_client_read(struct fetch_client *client, const struct fetch_range *range,
                       fetch_sink_fn sink, void *context, struct error *err) MUST_CHECK;

struct fetch_counters {
    uint64_t received_bytes; /* of files, checked */
    uint64_t resent_bytes;   /* asked for once more, after a break or a wrong checksum */
    uint32_t reconnects;
    uint32_t crc_errors;
};
struct fetch_counters fetch_client_counters(const struct fetch_client *client);

#endif
