#ifndef SHOAL_STAGE_LOAD_H
#define SHOAL_STAGE_LOAD_H

/* Reads a share of a checkpoint into kernel layout: pread by several threads into small staging
 * buffers, repacked from there while the bytes are in the core's cache, so the weights are
 * anonymous memory, touched first by the threads that read them, and the files' pages can be
 * dropped from the page cache.
 */
#include "common/base/error.h"
#include "worker/stage/load_plan.h"

#include <stdatomic.h>
#include <stdint.h>

struct load_progress {
    _Atomic uint64_t done_bytes;
    atomic_bool cancel; /* set by another thread: load_weights fails soon */
};

/* Who guards what is read: recorded checksums of local files, or the cache of fetched ones. Called
 * by all loading threads; `chunk` is an index into plan->chunks. */
enum load_verdict {
    LOAD_GOOD,
    LOAD_AGAIN, /* it was mended: await it and read it again */
    LOAD_BAD,   /* err says why */
};
struct load_guard {
    /* Before a chunk is read: returns when its bytes are there. */
    bool (*await)(void *context, uint32_t chunk, struct error *err);
    /* After it was read; crc32c is that of the bytes that came. */
    enum load_verdict (*check)(void *context, uint32_t chunk, uint32_t crc32c, struct error *err);
    void *context;
};

struct load_config {
    const struct catalog *catalog;
    struct weights *weights;      /* bound */
    const struct load_plan *plan; /* of these weights */
    uint32_t thread_count;
    const struct load_guard *guard; /* NULL: none, nothing is checksummed */
    struct load_progress *progress;
};

/* Staging memory of all threads, for the ledger. */
uint64_t load_staging_bytes(const struct load_plan *plan, uint32_t thread_count);
/* Fills bound weights; returns when all is read. Errors name file and tensor; parts that were read
 * to their end before it are marked as filled then. Any thread; starts thread_count - 1 more. */
bool load_weights(const struct load_config *config, struct error *err) MUST_CHECK;

#endif
