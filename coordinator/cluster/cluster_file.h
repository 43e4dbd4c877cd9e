#ifndef SHOAL_CLUSTER_CLUSTER_FILE_H
#define SHOAL_CLUSTER_CLUSTER_FILE_H

/* A described cluster (`shoal plan --cluster FILE`): YAML, for machines that need not be there.
 *
 *   nodes:                       groups of machines that are alike, at least one
 *     - name: desktop            of letters, digits and . _ -; node1, node2, … unless given
 *       count: 8                 so many of them; 1
 *       memory: 64GB             what shoal may have of each: what the system needs is not in it
 *       cores: 8
 *       read_bandwidth: 45GB/s   what all its cores together read from memory
 *       workers: 1               on each machine, 1; two for two NUMA domains: each has its part of
 *                                memory, cores and bandwidth
 *       network: {bandwidth: 10Gbit/s, latency: 30us}    of these machines, instead of:
 *   network:                     not needed where every group has its own, or for one machine
 *     bandwidth: 1Gbit/s         of each machine's port, in each direction
 *     latency: 100us             of a small message, one way, program to program
 *
 * Amounts: 64GB, 64GiB; rates: 45GB/s, 1Gbit/s; times: 100us, 1.5ms. Unknown keys, anchors and
 * aliases are refused. deploy/clusters/ has examples, deploy/docs/cluster-file.md the whole story.
 */
#include "common/base/arena.h"
#include "common/base/error.h"
#include "common/plan/machine.h"
#include "common/plan/planner.h"

#include <stddef.h>

struct cluster_file {
    uint32_t machine_count;
    uint32_t worker_count;
    uint32_t thread_count_max;      /* cores of the worker that has most */
    struct planner_worker *workers; /* [worker_count]; ids are their numbers, hosts the machines */
    struct plan_port *ports;        /* [worker_count] */
};

/* In the arena; NULL with ERROR_INPUT that names path, line and field. */
struct cluster_file *cluster_file_read(const char *path, struct arena *arena,
                                       struct error *err) MUST_CHECK;
/* The same from text; `name` is for messages. */
struct cluster_file *cluster_file_parse(const char *text, size_t length, const char *name,
                                        struct arena *arena, struct error *err) MUST_CHECK;

#endif
