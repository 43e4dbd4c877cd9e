#ifndef SHOAL_TEAM_CORES_H
#define SHOAL_TEAM_CORES_H

/* How many cores this process may use. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The smaller of the affinity mask and the CPU quota of the control groups (v2, else v1), rounded
 * up; at least 1. Reads /proc and /sys: not for the path of a token. */
uint32_t cores_available(void);

/* Parsers, for the tests. Cores of a quota, rounded up; 0 when there is no limit or the text is not
 * understood.
 *   cpu.max (v2): "150000 100000" or "max 100000" */
uint32_t cores_of_cpu_max(const char *text);
/* The path below the mount point in /proc/self/cgroup: of the line "0::/path" (v2) or of the line
 * whose controllers contain "cpu" (v1: "4:cpu,cpuacct:/path"). False when there is none or it does
 * not fit. */
enum cgroup_version { CGROUP_V1 = 1, CGROUP_V2 = 2 };
bool cores_cgroup_path(const char *text, enum cgroup_version version, char *path,
                       size_t path_bytes);

#endif
