#ifndef SHOAL_STAGE_MODEL_SOURCE_H
#define SHOAL_STAGE_MODEL_SOURCE_H

/* Where a worker's weights come from: its machine's own files, or, where there are none, the
 * coordinator's by way of a cache.
 */
#include "worker/stage/fetch_guard.h"

enum model_verify {
    VERIFY_NOT, /* local files are taken as they are */
    VERIFY_LOCAL,
};
struct model_source {
    const char *path;           /* on this machine, or where it would be */
    const char *fetch_id;       /* of the content that the service offers; "": none */
    const char *fetch_endpoint; /* of the coordinator's service; NULL: there is none */
    const struct cluster_key *key;
    const char *cache_directory; /* NULL: shoal below $XDG_CACHE_HOME or ~/.cache */
    uint64_t cache_bytes_max;    /* 0: no limit */
    enum model_verify verify;
    const atomic_bool *cancel;
};

/* The path to open, which the caller owns (mem_free), and the cache that it lies in, which is to be
 * closed when nothing of the model is needed any more; NULL for local files. */
char *model_source_open(const struct model_source *source, struct model_cache **cache,
                        struct error *err) MUST_CHECK;
/* load_weights under the guard that the source asks for; load->guard is set here. */
bool model_source_load(const struct model_source *source, struct model_cache *cache,
                       const struct load_config *load, struct error *err) MUST_CHECK;

#endif
