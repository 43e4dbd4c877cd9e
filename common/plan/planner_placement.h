#ifndef SHOAL_PLAN_PLANNER_PLACEMENT_H
#define SHOAL_PLAN_PLANNER_PLACEMENT_H

/* The placement of a partition that partition_solve found with `goal`: PARTITION_TIME fits,
 * PARTITION_MEMORY need not. In the arena. */
#include "common/plan/partition.h"

struct placement *planner_placement(const struct partition *partition,
                                    const struct partition_stage *stages, enum partition_goal goal,
                                    uint64_t kv_blocks, struct arena *arena);

#endif
