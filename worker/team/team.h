#ifndef SHOAL_TEAM_TEAM_H
#define SHOAL_TEAM_TEAM_H

/* The compute threads: fork-join over tiles.
 *
 * team_run hands tiles 0 … tile_count-1 out dynamically (an atomic counter) to the caller and the
 * team's threads, and returns when all are done. Tiles write disjoint outputs, so the schedule
 * never shows in the result. Waiting threads spin at most 20 µs (not at all when the machine has
 * more runnable workers than cores: spin_ns = 0), then sleep on a futex. One owner thread calls
 * team_run; calls don't nest.
 */
#include "common/base/error.h"

#include <stddef.h>
#include <stdint.h>

struct team;

/* thread is 0 … thread_count-1, for scratch memory of its own. */
typedef void (*team_fn)(void *context, size_t tile, uint32_t thread);

struct team_config {
    uint32_t thread_count; /* with the caller; 0: one per available core (affinity mask, cgroup) */
    int64_t spin_ns;       /* -1: the default, 20 µs */
};
struct team *team_create(const struct team_config *config, struct error *err) MUST_CHECK;
void team_destroy(struct team *team); /* NULL is legal */
/* The calling thread, which is to call team_run from now on, takes the first core where the team's
 * threads are pinned (pinning.h), until it ends. */
void team_join(const struct team *team);
/* Fresh memory that the whole team will read goes to the NUMA nodes that its threads run on. */
void team_spread(const struct team *team, const void *memory, uint64_t bytes);
uint32_t team_thread_count(const struct team *team);
void team_run(struct team *team, team_fn fn, void *context, size_t tile_count);

#endif
