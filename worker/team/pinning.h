#ifndef SHOAL_TEAM_PINNING_H
#define SHOAL_TEAM_PINNING_H

/* Which core each compute thread runs on.
 *
 * Threads are pinned one to a core when there are as many as this process may use cores: then no
 * choice is taken from the scheduler but that between threads of ours, and a woken thread never
 * waits for another core's. A smaller team moves about freely, since the machine may be busy with
 * something else on any of its cores, and so does one under a CPU quota. Threads on several NUMA
 * nodes share all weights, tile by tile, so weights are spread over these nodes page by page; on
 * one node they lie there by themselves. (A worker for each node, bound to it, reads only its own
 * memory: deploy/docs/threads.md.)
 */
#include <stdbool.h>
#include <stdint.h>

struct pinning;

/* NULL: the threads are not pinned. */
struct pinning *pinning_create(uint32_t thread_count);
/* The same on a machine that is described as hwloc's synthetic topologies are
 * ("numa:2 core:4 pu:2"); never NULL unless the description is wrong. For tests. */
struct pinning *pinning_create_synthetic(const char *description, uint32_t thread_count);
void pinning_destroy(struct pinning *pinning); /* NULL is legal */

/* Binds the calling thread. What the system refuses is left as it is. NULL is legal. */
void pinning_apply(const struct pinning *pinning, uint32_t thread);

/* Fresh memory that all threads will read: spread over their nodes, if there are several. NULL is
 * legal. */
void pinning_spread(const struct pinning *pinning, const void *memory, uint64_t bytes);

/* The operating system's number of the thread's core: different physical cores before siblings. */
uint32_t pinning_core(const struct pinning *pinning, uint32_t thread);
bool pinning_is_interleaved(const struct pinning *pinning);

#endif
