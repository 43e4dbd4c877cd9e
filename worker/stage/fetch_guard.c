/* fetch_guard.c - see fetch_guard.h. */
#include "worker/stage/fetch_guard.h"

#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/units.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define RANGE_BYTES_MAX ((uint64_t)256 << 20) /* fetched in one go */

enum chunk_state { CHUNK_MISSING, CHUNK_HERE };

struct fetch_guard {
    struct fetch_guard_config config;
    struct load_guard ops;
    uint32_t *listed; /* [catalog->file_count]: the file's number in the listing */
    atomic_bool stop;
    pthread_t thread;
    struct fetch_counters counters; /* the thread's, read after its end */

    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    uint8_t *states; /* [chunk_count], of enum chunk_state */
    uint32_t cursor; /* all before it are here, but for those that were damaged */
    bool failed;
    struct error err;
};

/* --- chunks --- */

static const char *name_of(const struct fetch_guard *guard, const struct load_chunk *chunk)
{
    return model_cache_listing(guard->config.cache)->files[guard->listed[chunk->file]].name;
}

static struct chunk_key key_of(const struct fetch_guard *guard, uint32_t chunk)
{
    const struct load_chunk *at = &guard->config.plan->chunks[chunk];

    return (struct chunk_key){name_of(guard, at), at->offset, at->bytes};
}

static void state_set(struct fetch_guard *guard, uint32_t chunk, enum chunk_state state)
{
    pthread_mutex_lock(&guard->mutex);
    guard->states[chunk] = (uint8_t)state;
    if (state == CHUNK_MISSING && chunk < guard->cursor) {
        guard->cursor = chunk;
    }
    pthread_cond_broadcast(&guard->changed);
    pthread_mutex_unlock(&guard->mutex);
}

static void fail(struct fetch_guard *guard, const struct error *err)
{
    pthread_mutex_lock(&guard->mutex);
    guard->failed = true;
    guard->err = *err;
    pthread_cond_broadcast(&guard->changed);
    pthread_mutex_unlock(&guard->mutex);
}

/* --- the thread that fetches --- */

/* Chunks [begin, end) of the plan, one behind the other in one file. */
struct run {
    uint32_t begin, end;
};

static bool follows(const struct load_chunk *chunk, const struct load_chunk *next)
{
    return next->file == chunk->file && next->offset == chunk->offset + chunk->bytes;
}

/* Waits for something to do; false: the end. */
static bool run_next(struct fetch_guard *guard, struct run *out)
{
    const struct load_plan *plan = guard->config.plan;
    uint64_t bytes;

    pthread_mutex_lock(&guard->mutex);
    for (;;) {
        while (guard->cursor < plan->chunk_count && guard->states[guard->cursor] == CHUNK_HERE) {
            guard->cursor++;
        }
        if (atomic_load(&guard->stop) || guard->cursor < plan->chunk_count) {
            break;
        }
        pthread_cond_wait(&guard->changed, &guard->mutex);
    }
    out->begin = guard->cursor;
    out->end = guard->cursor;
    bytes = 0;
    while (
        out->end < plan->chunk_count && guard->states[out->end] == CHUNK_MISSING &&
        bytes < RANGE_BYTES_MAX &&
        (out->end == out->begin || follows(&plan->chunks[out->end - 1], &plan->chunks[out->end]))) {
        bytes += plan->chunks[out->end++].bytes;
    }
    pthread_mutex_unlock(&guard->mutex);
    return !atomic_load(&guard->stop);
}

/* The chunk that is being filled. */
struct filling {
    struct fetch_guard *guard;
    uint32_t chunk;
    uint32_t done_bytes;
    uint32_t crc32c;
};

static bool chunk_finish(struct filling *filling, struct error *err)
{
    struct fetch_guard *guard = filling->guard;
    struct chunk_key key = key_of(guard, filling->chunk);

    if (!chunk_records_add(model_cache_records(guard->config.cache), &key, filling->crc32c, err)) {
        return false;
    }
    state_set(guard, filling->chunk, CHUNK_HERE);
    filling->chunk++;
    filling->done_bytes = 0;
    filling->crc32c = 0;
    return true;
}

/* Bytes of a run arrive: they go into their file and are divided among its chunks. */
static bool run_fill(void *context, uint64_t offset, const void *bytes, size_t length,
                     struct error *err)
{
    struct filling *filling = context;
    struct fetch_guard *guard = filling->guard;
    const struct load_chunk *first = &guard->config.plan->chunks[filling->chunk];
    int file = model_cache_file(guard->config.cache, guard->listed[first->file], err);
    const char *from = bytes;

    if (file < 0 || !file_pwrite(file, from, length, offset, name_of(guard, first), err)) {
        return error_wrap(err, "cache");
    }
    while (length > 0) {
        const struct load_chunk *chunk = &guard->config.plan->chunks[filling->chunk];
        size_t left = chunk->bytes - filling->done_bytes;
        size_t part = left < length ? left : length;

        filling->crc32c = hash_crc32c(filling->crc32c, from, part);
        filling->done_bytes += (uint32_t)part;
        from += part;
        length -= part;
        if (filling->done_bytes == chunk->bytes && !chunk_finish(filling, err)) {
            return false;
        }
    }
    return true;
}

static bool run_fetch(struct fetch_guard *guard, struct fetch_client *client, const struct run *run,
                      struct error *err)
{
    const struct load_chunk *first = &guard->config.plan->chunks[run->begin];
    const struct load_chunk *last = &guard->config.plan->chunks[run->end - 1];
    struct fetch_range range = {guard->listed[first->file], first->offset,
                                last->offset + last->bytes - first->offset};
    struct filling filling = {guard, run->begin, 0, 0};

    return fetch_client_read(client, &range, run_fill, &filling, err) ||
           error_wrap(err, "tensor %s", guard->config.plan->chunks[filling.chunk].tensor->name);
}

static void *fetch_main(void *context)
{
    struct fetch_guard *guard = context;
    struct error err;
    struct fetch_client *client = fetch_client_open(&guard->config.client, &err);
    struct run run;

    (void)pthread_setname_np(pthread_self(), "fetch");
    if (client == NULL) {
        fail(guard, &err);
        return NULL;
    }
    while (run_next(guard, &run)) {
        if (!run_fetch(guard, client, &run, &err)) {
            fail(guard, &err);
            break;
        }
    }
    guard->counters = fetch_client_counters(client);
    fetch_client_close(client);
    return NULL;
}

/* --- the guard --- */

static bool chunk_await(void *context, uint32_t chunk, struct error *err)
{
    struct fetch_guard *guard = context;
    bool is_here;

    pthread_mutex_lock(&guard->mutex);
    while (guard->states[chunk] == CHUNK_MISSING && !guard->failed) {
        pthread_cond_wait(&guard->changed, &guard->mutex);
    }
    is_here = guard->states[chunk] == CHUNK_HERE;
    if (!is_here) {
        *err = guard->err;
    }
    pthread_mutex_unlock(&guard->mutex);
    return is_here;
}

static enum load_verdict chunk_check(void *context, uint32_t chunk, uint32_t crc32c,
                                     struct error *err)
{
    struct fetch_guard *guard = context;
    const struct load_chunk *at = &guard->config.plan->chunks[chunk];
    struct chunk_records *records = model_cache_records(guard->config.cache);
    struct chunk_key key = key_of(guard, chunk);
    uint32_t recorded = 0;

    (void)err;
    if (chunk_records_find(records, &key, &recorded) && recorded == crc32c) {
        return LOAD_GOOD;
    }
    log_warn("cache: tensor %s: bytes %" PRIu64 " to %" PRIu64
             " of %s are not what was fetched (checksum %08x, not %08x); they are fetched again",
             at->tensor->name, at->offset, at->offset + at->bytes, key.name, crc32c, recorded);
    chunk_records_forget(records, &key);
    state_set(guard, chunk, CHUNK_MISSING);
    return LOAD_AGAIN;
}

/* --- life --- */

/* The catalog's files lie in the cache under the names of the listing. */
static bool files_match(struct fetch_guard *guard, struct error *err)
{
    const struct catalog *catalog = guard->config.catalog;
    const struct fetch_listing *listing = model_cache_listing(guard->config.cache);

    for (uint32_t i = 0; i < catalog->file_count; i++) {
        const char *name = file_name(catalog->files[i].path);
        uint32_t at = 0;

        while (at < listing->file_count && strcmp(listing->files[at].name, name) != 0) {
            at++;
        }
        if (at == listing->file_count) {
            return error_set(err, ERROR_INPUT, "%s is not among the files on offer", name);
        }
        guard->listed[i] = at;
    }
    return true;
}

static uint64_t states_find(struct fetch_guard *guard)
{
    const struct load_plan *plan = guard->config.plan;
    uint64_t missing_bytes = 0;

    for (uint32_t i = 0; i < plan->chunk_count; i++) {
        struct chunk_key key = key_of(guard, i);
        uint32_t crc32c;

        if (chunk_records_find(model_cache_records(guard->config.cache), &key, &crc32c)) {
            guard->states[i] = CHUNK_HERE;
        } else {
            missing_bytes += plan->chunks[i].bytes;
        }
    }
    return missing_bytes;
}

static void guard_destroy(struct fetch_guard *guard)
{
    (void)pthread_cond_destroy(&guard->changed);
    (void)pthread_mutex_destroy(&guard->mutex);
    mem_free(guard->states);
    mem_free(guard->listed);
    mem_free(guard);
}

static bool guard_begin(struct fetch_guard *guard, struct error *err)
{
    uint64_t missing_bytes;
    struct units_text text;
    int problem;

    if (!files_match(guard, err)) {
        return false;
    }
    missing_bytes = states_find(guard);
    if (!model_cache_make_room(guard->config.cache, missing_bytes, err)) {
        return false;
    }
    log_info("fetching what the cache lacks: bytes=%s from=%s", units_bytes(&text, missing_bytes),
             guard->config.client.endpoint);
    problem = pthread_create(&guard->thread, NULL, fetch_main, guard);
    errno = problem;
    return problem == 0 || error_set_errno(err, "thread that fetches");
}

struct fetch_guard *fetch_guard_start(const struct fetch_guard_config *config, struct error *err)
{
    struct fetch_guard *guard = mem_new(struct fetch_guard);

    guard->config = *config;
    guard->config.client.cancel = &guard->stop;
    guard->ops = (struct load_guard){chunk_await, chunk_check, guard};
    guard->listed = mem_new_array(uint32_t, config->catalog->file_count);
    guard->states = mem_new_array(uint8_t, config->plan->chunk_count);
    (void)pthread_mutex_init(&guard->mutex, NULL);
    (void)pthread_cond_init(&guard->changed, NULL);
    if (!guard_begin(guard, err)) {
        guard_destroy(guard);
        return NULL;
    }
    return guard;
}

const struct load_guard *fetch_guard_ops(const struct fetch_guard *guard)
{
    return &guard->ops;
}

void fetch_guard_stop(struct fetch_guard *guard, struct fetch_counters *counters)
{
    pthread_mutex_lock(&guard->mutex);
    atomic_store(&guard->stop, true);
    pthread_cond_broadcast(&guard->changed);
    pthread_mutex_unlock(&guard->mutex);
    (void)pthread_join(guard->thread, NULL);
    *counters = guard->counters;
    guard_destroy(guard);
}
