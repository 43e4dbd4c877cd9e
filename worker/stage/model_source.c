/* model_source.c - see model_source.h. */
#include "worker/stage/model_source.h"

#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/model/model_hash.h"
#include "worker/stage/verify_guard.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The caller owns it; NULL with err. */
static char *cache_directory(const struct model_source *source, struct error *err)
{
    const char *caches = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");

    if (source->cache_directory != NULL) {
        return mem_strdup(source->cache_directory);
    }
    if (caches != NULL && caches[0] == '/') {
        return mem_printf("%s/shoal", caches);
    }
    if (home != NULL && home[0] == '/') {
        return mem_printf("%s/.cache/shoal", home);
    }
    error_set(err, ERROR_USAGE, "no HOME to keep a cache in: say --cache DIR");
    return NULL;
}

static struct model_cache *cache_open(const struct model_source *source, const char *id,
                                      struct error *err)
{
    char *directory = cache_directory(source, err);
    struct model_cache_config config = {
        .directory = directory, .bytes_max = source->cache_bytes_max, .id = id};
    struct model_cache *cache = directory == NULL ? NULL : model_cache_open(&config, err);

    mem_free(directory);
    return cache;
}

static struct fetch_client_config client_config(const struct model_source *source)
{
    return (struct fetch_client_config){.endpoint = source->fetch_endpoint,
                                        .key = source->key,
                                        .model_hash = source->fetch_id,
                                        .cancel = source->cancel};
}

static char *describe(const struct model_source *source, struct model_cache *cache,
                      struct error *err)
{
    struct fetch_client_config config = client_config(source);
    struct fetch_client *client = fetch_client_open(&config, err);
    char *path = NULL;

    bool described = client != NULL && model_cache_describe(cache, client, &path, err);

    fetch_client_close(client);
    return described ? path : NULL;
}

/* A file, or a folder that describes a model: not the empty one where a disk is not mounted. */
static bool is_here(const char *path)
{
    char *config = mem_printf("%s/config.json", path);
    struct stat facts;
    bool is_model =
        stat(path, &facts) == 0 && (!S_ISDIR(facts.st_mode) || access(config, F_OK) == 0);

    mem_free(config);
    return is_model;
}

char *model_source_open(const struct model_source *source, struct model_cache **cache,
                        struct error *err)
{
    char *path;

    *cache = NULL;
    if (source->fetch_endpoint == NULL || source->fetch_id[0] == '\0' || is_here(source->path)) {
        return mem_strdup(source->path);
    }
    log_info("%s is not on this machine; the coordinator has it", source->path);
    *cache = cache_open(source, source->fetch_id, err);
    if (*cache == NULL) {
        return NULL;
    }
    path = describe(source, *cache, err);
    if (path == NULL) {
        model_cache_close(*cache);
        *cache = NULL;
    }
    return path;
}

static bool load_fetched(const struct model_source *source, struct model_cache *cache,
                         struct load_config *load, struct error *err)
{
    struct fetch_guard *guard = fetch_guard_start(
        &(struct fetch_guard_config){
            .cache = cache,
            .catalog = load->catalog,
            .plan = load->plan,
            .client = client_config(source),
        },
        err);
    struct fetch_counters counters;
    bool loaded;

    if (guard == NULL) {
        return false;
    }
    load->guard = fetch_guard_ops(guard);
    loaded = load_weights(load, err);
    fetch_guard_stop(guard, &counters);
    log_info("fetched: bytes=%" PRIu64 " resent_bytes=%" PRIu64 " reconnects=%u crc_errors=%u",
             counters.received_bytes, counters.resent_bytes, counters.reconnects,
             counters.crc_errors);
    return loaded;
}

/* The checksums of local files lie in the cache, beside what was fetched of the same model. */
static bool load_verified(const struct model_source *source, const char *model_hash,
                          struct load_config *load, struct error *err)
{
    struct model_cache *cache = cache_open(source, model_hash, err);
    char *path = cache == NULL ? NULL : model_cache_path(cache, "local");
    struct chunk_records *records = cache == NULL ? NULL : chunk_records_open(path, err);
    struct verify_guard guard;
    bool loaded = false;

    if (records != NULL) {
        uint32_t before = chunk_records_count(records);

        verify_guard_init(&guard, load->catalog, load->plan, records);
        load->guard = &guard.ops;
        loaded = load_weights(load, err);
        verify_guard_deinit(&guard);
        log_info("verified: chunks=%u new=%u checksums=%s", load->plan->chunk_count,
                 chunk_records_count(records) - before, path);
    }
    chunk_records_close(records);
    mem_free(path);
    model_cache_close(cache);
    return loaded;
}

bool model_source_load(const struct model_source *source, struct model_cache *cache,
                       const struct load_config *load, struct error *err)
{
    struct load_config guarded = *load;
    char hash[MODEL_HASH_BYTES];

    if (cache != NULL) {
        return load_fetched(source, cache, &guarded, err);
    }
    if (source->verify == VERIFY_NOT) {
        return load_weights(&guarded, err);
    }
    model_hash(load->catalog, hash);
    return load_verified(source, hash, &guarded, err);
}
