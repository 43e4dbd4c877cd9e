#ifndef SHOAL_TESTS_ENGINE_SIM_HISTORY_H
#define SHOAL_TESTS_ENGINE_SIM_HISTORY_H

/* One random history of a cluster, repeatable from its seed: layout, memory, speeds, arrivals,
 * lengths, shared beginnings, classes, drafts, cancels, the end of all work, up to five losses of
 * the placement, each followed by one of another shape, and losses of frames between workers, with
 * answers that come late or twice, are drawn from it. In some histories a flood of short
 * interactive requests goes on until a batch request, or a long prompt, has been answered. */
#include "tests/unit/coordinator/engine/sim_cluster.h"

struct history_counts {
    uint64_t events;
    struct scheduler_stats stats;
    uint32_t late_reports;
    bool flood;
    uint32_t losses; /* of a placement, another one following */
};

/* Runs it to its end; sim_fail if anything is not as it must be. */
struct history_counts sim_history_run(uint64_t seed);

#endif
