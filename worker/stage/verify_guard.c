/* verify_guard.c - see verify_guard.h. */
#include "worker/stage/verify_guard.h"

#include <inttypes.h>
#include <stdlib.h>

static bool chunk_await(void *context, uint32_t chunk, struct error *err)
{
    (void)context;
    (void)chunk;
    (void)err;
    return true;
}

static enum load_verdict chunk_check(void *context, uint32_t chunk, uint32_t crc32c,
                                     struct error *err)
{
    const struct verify_guard *guard = context;
    const struct load_chunk *at = &guard->plan->chunks[chunk];
    const char *path = guard->paths[at->file];
    struct chunk_key key = {path, at->offset, at->bytes};
    uint32_t recorded = 0;

    if (!chunk_records_find(guard->records, &key, &recorded)) {
        return chunk_records_add(guard->records, &key, crc32c, err) ? LOAD_GOOD : LOAD_BAD;
    }
    if (recorded == crc32c) {
        return LOAD_GOOD;
    }
    error_set(err, ERROR_INPUT,
              "bytes %" PRIu64 " to %" PRIu64
              " of %s have changed since they were first loaded (%s)",
              at->offset, at->offset + at->bytes, path, chunk_records_path(guard->records));
    return LOAD_BAD;
}

void verify_guard_init(struct verify_guard *guard, const struct catalog *catalog,
                       const struct load_plan *plan, struct chunk_records *records)
{
    *guard = (struct verify_guard){
        .ops = {chunk_await, chunk_check, guard}, .plan = plan, .records = records};
    arena_init(&guard->arena, 4096);
    guard->paths = arena_new_array(&guard->arena, const char *, catalog->file_count);
    for (uint32_t i = 0; i < catalog->file_count; i++) {
        char *real = realpath(catalog->files[i].path, NULL);

        guard->paths[i] = arena_strdup(&guard->arena, real != NULL ? real : catalog->files[i].path);
        free(real); /* libc's */
    }
}

void verify_guard_deinit(struct verify_guard *guard)
{
    arena_deinit(&guard->arena);
}
