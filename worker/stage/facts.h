#ifndef SHOAL_STAGE_FACTS_H
#define SHOAL_STAGE_FACTS_H

/* What a worker tells about its machine when it registers. Reads /proc and /sys. */
#include "common/base/error.h"
#include "worker/team/team.h"

#include <stdint.h>

struct facts {
    char host[256];
    char cpu_name[128];
    char cpu_features[160]; /* words, for people */
    uint32_t core_count;    /* that this process may use */
    uint32_t numa_node_count;
    uint32_t numa_node;    /* the one that it is bound to; UINT32_MAX: none, or all */
    uint64_t memory_bytes; /* limit of the ledger */
    double read_bytes_per_s;
};
/* `memory_bytes`: --memory, 0 for none. Measures for some 20 ms on the team's threads. */
void facts_collect(uint64_t memory_bytes, struct team *team, struct facts *out);

/* What the system can still give without swapping; UINT64_MAX: it does not say. */
uint64_t facts_available_now(void);
/* Anonymous memory of this process that is resident now. */
uint64_t facts_resident_bytes(void);

/* Parsers, for the tests. Both give UINT64_MAX when there is nothing.
 *   /proc/meminfo: the value of "MemAvailable:", in bytes
 *   memory.max, memory.limit_in_bytes: "max" or a number; v1 writes a huge one for none */
uint64_t facts_available_bytes(const char *meminfo);
uint64_t facts_limit_bytes(const char *text);
/* The least limit of the control group and its ancestors; `group` as /proc/self/cgroup has it.
 *   root  "/sys/fs/cgroup" or, for v1, "/sys/fs/cgroup/memory"; file "memory.max" … */
uint64_t facts_group_limit(const char *root, const char *group, const char *file);
/* The path of the memory controller in /proc/self/cgroup: controller "" names the v2 line. */
bool facts_group_path(const char *text, const char *controller, char *out, size_t out_bytes);

#endif
