#ifndef SHOAL_STAGE_LOAD_H
#define SHOAL_STAGE_LOAD_H

/* Reads a share of a checkpoint into kernel layout: pread by several threads into staging buffers,
 * repacked from there, so the weights are anonymous memory, touched first by the threads that read
 * them, and the files' pages can be dropped from the page cache.
 */
#include "common/base/error.h"
#include "worker/layers/weights.h"

#include <stdatomic.h>
#include <stdint.h>

struct load_progress {
    _Atomic uint64_t done_bytes;
    atomic_bool cancel; /* set by another thread: load_weights fails soon */
};

/* Staging memory of all threads, for the ledger. */
uint64_t load_staging_bytes(const struct weights *weights, uint32_t thread_count);
/* Fills bound weights; returns when all is read. Errors name file and tensor. Any thread; starts
 * thread_count - 1 more. */
bool load_weights(const struct catalog *catalog, const struct weights *weights,
                  uint32_t thread_count, struct load_progress *progress,
                  struct error *err) MUST_CHECK;

#endif
