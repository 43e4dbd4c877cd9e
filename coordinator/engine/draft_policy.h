#ifndef SHOAL_ENGINE_DRAFT_POLICY_H
#define SHOAL_ENGINE_DRAFT_POLICY_H

/* Is drafting worth it now, and how deep? */
#include "coordinator/engine/pace.h"

#include <stdint.h>

#define DRAFT_POLICY_MAX 16 /* the deepest */

struct draft_policy {
    uint32_t draft_max;
    uint32_t depth;                    /* of the last answer that was no probe */
    uint32_t idle;                     /* answers of 0 since the last probe */
    uint64_t noted[DRAFT_POLICY_MAX];  /* drafts of this index whose forerunners were accepted */
    double accepted[DRAFT_POLICY_MAX]; /* of these, the running share that was accepted too */
};

/* draft_max <= DRAFT_POLICY_MAX; 0: never drafts. */
void draft_policy_init(struct draft_policy *policy, uint32_t draft_max);
/* A step verified `drafted` drafts of a sequence, of which the first `accepted` were right. */
void draft_policy_note(struct draft_policy *policy, uint32_t drafted, uint32_t accepted);
/* How many drafts each sequence of the next decoding step should have, 0..draft_max: where expected
 * tokens per predicted time are most.
 *   decode  the load of one decoding step with no drafts; k drafts make every row 1 + k rows, each
 *           attending one position more than the one before, all sampled
 *   steps   such steps in flight, >= 1 (pace_cycle_ns)
 * Call once per step: it counts the steps without drafts, and now and then asks for a probe. */
uint32_t draft_policy_depth(struct draft_policy *policy, const struct pace *pace,
                            const struct step_load *decode, uint32_t steps);

#endif
