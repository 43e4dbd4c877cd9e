#ifndef SHOAL_STAGE_MODEL_CACHE_H
#define SHOAL_STAGE_MODEL_CACHE_H

/* Models of which this machine has no copy, kept as far as they were fetched.
 *
 *   DIR/<id>/files/  the model's files, of their full sizes, holes where nothing was fetched
 *   DIR/<id>/chunks  checksums of what was (chunk_records.h); nothing else counts as there
 *   DIR/<id>/local   checksums of the machine's own files, for --verify
 *   DIR/<id>/lock    held (shared) by every process that uses the model; its time is that of the
 *                    last use
 *
 * A fetched model is named by the id of its content, that the coordinator gives, the machine's own
 * by the hash of its description. Whole models are evicted, the longest unused first, never one in
 * use.
 */
#include "common/net/fetch.h"
#include "worker/stage/chunk_records.h"

struct model_cache_config {
    const char *directory; /* made if it is not there */
    uint64_t bytes_max;    /* of all models on the disk; 0: no limit */
    const char *id;
};

struct model_cache;
/* The model's place in the cache, locked until it is closed. ERROR_SYSTEM names the path. */
struct model_cache *model_cache_open(const struct model_cache_config *config,
                                     struct error *err) MUST_CHECK;
void model_cache_close(struct model_cache *cache); /* NULL is legal */
/* The path of a file in the model's folder ("local"); the caller owns it: mem_free. */
char *model_cache_path(const struct model_cache *cache, const char *name);

/* Makes the files with their descriptions, fetched where they are not there or damaged, so that the
 * catalog can be opened: *model_path is the path to open, owned by the caller (mem_free).
 * `client` is borrowed for the call. */
bool model_cache_describe(struct model_cache *cache, struct fetch_client *client, char **model_path,
                          struct error *err) MUST_CHECK;
/* After it: the listing, sorted by name; lent until the cache is closed. */
const struct fetch_listing *model_cache_listing(const struct model_cache *cache);
struct chunk_records *model_cache_records(struct model_cache *cache); /* lent likewise */
/* A descriptor of a file of the listing for writing; lent likewise. -1 with err. */
int model_cache_file(struct model_cache *cache, uint32_t file, struct error *err);

/* Evicts until so many bytes more may be written; ERROR_LIMIT says what is in use. */
bool model_cache_make_room(struct model_cache *cache, uint64_t bytes, struct error *err) MUST_CHECK;

#endif
