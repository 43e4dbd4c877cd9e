#ifndef SHOAL_STAGE_FETCH_GUARD_H
#define SHOAL_STAGE_FETCH_GUARD_H

/* A guard of load.h for models that are fetched: sees to it that each chunk is in the cache before
 * it is read, and that what is read is what was fetched.
 *
 * One thread fetches, in the order in which the loader wants the chunks, neighbours in one go; the
 * loader's threads wait for theirs. A chunk whose bytes do not have the recorded checksum is named
 * in the log and fetched again.
 */
#include "common/model/catalog.h"
#include "worker/stage/load.h"
#include "worker/stage/model_cache.h"

struct fetch_guard_config {
    struct model_cache *cache;     /* described; borrowed, as all below, until the end */
    const struct catalog *catalog; /* opened in it */
    const struct load_plan *plan;
    struct fetch_client_config client;
};

struct fetch_guard;
/* Makes room in the cache for what is missing, and starts. */
struct fetch_guard *fetch_guard_start(const struct fetch_guard_config *config,
                                      struct error *err) MUST_CHECK;
const struct load_guard *fetch_guard_ops(const struct fetch_guard *guard);
/* Ends the thread and frees the guard; what was fetched so far stays in the cache. */
void fetch_guard_stop(struct fetch_guard *guard, struct fetch_counters *counters);

#endif
