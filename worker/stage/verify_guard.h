#ifndef SHOAL_STAGE_VERIFY_GUARD_H
#define SHOAL_STAGE_VERIFY_GUARD_H

/* A guard of load.h for local files: the first load of a chunk records its checksum, later ones
 * refuse a chunk that has changed since, and name it. Files are known by their real paths.
 */
#include "common/base/arena.h"
#include "common/model/catalog.h"
#include "worker/stage/chunk_records.h"
#include "worker/stage/load.h"

struct verify_guard {
    struct load_guard ops;
    const struct load_plan *plan;
    struct chunk_records *records;
    const char **paths; /* of the catalog's files */
    struct arena arena;
};
/* Borrows all until the load has ended. */
void verify_guard_init(struct verify_guard *guard, const struct catalog *catalog,
                       const struct load_plan *plan, struct chunk_records *records);
void verify_guard_deinit(struct verify_guard *guard);

#endif
