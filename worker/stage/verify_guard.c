/* verify_guard.c - see verify_guard.h. */
#include "worker/stage/verify_guard.h"

#include <inttypes.h>
#include <string.h>

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
    const char *path = guard->catalog->files[at->file].path;
    const char *slash = strrchr(path, '/');
    struct chunk_key key = {slash != NULL ? slash + 1 : path, at->offset, at->bytes};
    uint32_t recorded = 0;

    if (!chunk_records_find(guard->records, &key, &recorded)) {
        return chunk_records_add(guard->records, &key, crc32c, err) ? LOAD_GOOD : LOAD_BAD;
    }
    if (recorded == crc32c) {
        return LOAD_GOOD;
    }
    error_set(err, ERROR_INPUT,
              "bytes %" PRIu64 " to %" PRIu64
              " of %s have changed since they were first loaded (checksum %08x, recorded %08x)",
              at->offset, at->offset + at->bytes, path, crc32c, recorded);
    return LOAD_BAD;
}

void verify_guard_init(struct verify_guard *guard, const struct catalog *catalog,
                       const struct load_plan *plan, struct chunk_records *records)
{
    *guard = (struct verify_guard){{chunk_await, chunk_check, guard}, catalog, plan, records};
}
