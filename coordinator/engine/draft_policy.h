#ifndef SHOAL_ENGINE_DRAFT_POLICY_H
#define SHOAL_ENGINE_DRAFT_POLICY_H

/* Is drafting worth it now, and how deep?
 *
 * With a_i the chance that draft i is right when those before it are, a step with k drafts yields
 *
 *   1 + a_1 + a_1 a_2 + ... + a_1 a_2 ... a_k
 *
 * tokens. The depth is the k with the most of them per predicted time. (Leviathan, Kalman and
 * Matias, Fast Inference from Transformers via Speculative Decoding, arXiv:2211.17192, sections 3.1
 * and 3.5, with a rate for each draft index instead of one, and the measured cost of a row instead
 * of none.) Drafts never change tokens, so this may be as rough as it likes. */
#include "coordinator/engine/pace.h"

#include <stdint.h>

#define DRAFT_POLICY_MAX 16 /* the deepest */

/* One for a sequence, or one for all that draft alike. */
struct draft_policy {
    uint32_t draft_max;
    uint32_t depth;                    /* chosen last */
    uint32_t unprobed;                 /* answers since the draft behind `depth` was last tried */
    uint64_t noted[DRAFT_POLICY_MAX];  /* drafts of this index whose forerunners were accepted */
    double accepted[DRAFT_POLICY_MAX]; /* running share of them that was accepted too */
};

/* draft_max <= DRAFT_POLICY_MAX; 0: never drafts. */
void draft_policy_init(struct draft_policy *policy, uint32_t draft_max);
/* A step has verified `drafted` drafts of one sequence, the first `accepted` of them were right. */
void draft_policy_note(struct draft_policy *policy, uint32_t drafted, uint32_t accepted);
/* How many drafts each sequence of the next decoding step should have, 0..draft_max. Fewer may be
 * made: what nobody proposes costs nothing.
 *   decode  the load of one decoding step with no drafts; k drafts make every row 1 + k rows, each
 *           attending one position more than the one before, all sampled
 *   steps   such steps in flight, >= 1 (pace_cycle_ns)
 * 1 while too little is known. A depth is left only for one that is clearly better. Once in 64
 * answers one more draft than that is asked for, until it has been tried, so that a text that has
 * become predictable is noticed. */
uint32_t draft_policy_depth(struct draft_policy *policy, const struct pace *pace,
                            const struct step_load *decode, uint32_t steps);

#endif
