/* draft_policy.c - drafts pay when what they save is worth more than what their rows cost.
 *
 * With a_i the chance that draft i is right when those before it are, a step with k drafts yields
 * 1 + a_1 + a_1 a_2 + ... + a_1 ... a_k tokens (Leviathan, Kalman and Matias, arXiv:2211.17192,
 * section 3, with one rate for each index), and takes the time that the pace predicts.
 */
#include "coordinator/engine/draft_policy.h"

#include "common/base/check.h"

#define NOTE_WEIGHT_MIN (1.0 / 32)
#define GAIN_MIN        1.03 /* what a change of depth must bring */
#define PROBE_EVERY     64

void draft_policy_init(struct draft_policy *policy, uint32_t draft_max)
{
    ASSERT(draft_max <= DRAFT_POLICY_MAX);
    *policy = (struct draft_policy){.draft_max = draft_max};
}

static void share_move(struct draft_policy *policy, uint32_t index, double sample)
{
    double weight = 1.0 / (double)(++policy->noted[index] + 1);

    weight = weight > NOTE_WEIGHT_MIN ? weight : NOTE_WEIGHT_MIN;
    policy->accepted[index] += weight * (sample - policy->accepted[index]);
}

void draft_policy_note(struct draft_policy *policy, uint32_t drafted, uint32_t accepted)
{
    ASSERT(accepted <= drafted);
    for (uint32_t i = 0; i < accepted && i < DRAFT_POLICY_MAX; i++) {
        share_move(policy, i, 1);
    }
    if (accepted < drafted && accepted < DRAFT_POLICY_MAX) {
        share_move(policy, accepted, 0);
    }
}

static struct step_load load_with(const struct step_load *decode, uint32_t depth)
{
    return (struct step_load){
        .rows = decode->rows * (1 + depth),
        .attended =
            decode->attended * (1 + depth) + (uint64_t)decode->rows * depth * (depth + 1) / 2,
        .sampled = decode->sampled * (1 + depth),
    };
}

/* The chance that draft `index` is right when those before it are. Not tried yet: like the one
 * before it. */
static double chance(const struct draft_policy *policy, uint32_t index)
{
    while (index > 0 && policy->noted[index] == 0) {
        index--;
    }
    return policy->accepted[index];
}

uint32_t draft_policy_depth(struct draft_policy *policy, const struct pace *pace,
                            const struct step_load *decode, uint32_t steps)
{
    double rates[DRAFT_POLICY_MAX + 1];
    double tokens = 1;
    double reached = 1;
    uint32_t best = 0;

    if (policy->draft_max == 0 || policy->noted[0] == 0 || pace_step_ns(pace, decode) <= 0) {
        return policy->draft_max < 1 ? 0 : 1;
    }
    for (uint32_t depth = 0; depth <= policy->draft_max; depth++) {
        struct step_load load = load_with(decode, depth);

        rates[depth] = tokens / pace_cycle_ns(pace, &load, steps);
        best = rates[depth] > rates[best] ? depth : best;
        if (depth < policy->draft_max) {
            reached *= chance(policy, depth);
            tokens += reached;
        }
    }
    if (rates[best] > GAIN_MIN * rates[policy->depth]) {
        policy->depth = best;
    }
    if (policy->depth > 0) {
        policy->idle = 0;
    } else if (++policy->idle >= PROBE_EVERY) {
        policy->idle = 0;
        return 1;
    }
    return policy->depth;
}
