#ifndef SHOAL_PLAN_PLANNER_REFUSAL_H
#define SHOAL_PLAN_PLANNER_REFUSAL_H

/* What to tell the user when no placement fits. */
#include "common/plan/partition.h"

/* In the arena. */
struct planner_refusal *planner_refusal_find(const struct partition *partition,
                                             struct arena *arena);

#endif
