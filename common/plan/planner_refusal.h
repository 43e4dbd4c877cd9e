#ifndef SHOAL_PLAN_PLANNER_REFUSAL_H
#define SHOAL_PLAN_PLANNER_REFUSAL_H

/* What to tell the user when no placement fits. */
#include "common/plan/partition.h"

/* Sets ERROR_LIMIT: the figures of the tightest worker in the partition that comes closest, and
 * what would fit: fewer KV tokens, or more workers. Scratch from the arena. */
void planner_refuse(const struct partition *partition, struct arena *arena, struct error *err);

#endif
