/* draft_policy.c - drafts pay when what they save is worth more than what their rows cost.
 *
 * The acceptance of an index is learnt from the steps that came that far. The index behind the
 * chosen depth is tried rarely, so what is heard from it counts for more, and a success is followed
 * by another try at once: a text that begins to repeat itself is noticed after a few steps. An
 * index that was never tried is believed to be as good as the one before it.
 */
#include "coordinator/engine/draft_policy.h"

#include "common/base/check.h"

#include <stdbool.h>

#define NOTE_WEIGHT  (1.0 / 32)
#define PROBE_WEIGHT (1.0 / 8)
#define NOTED_ENOUGH 8    /* first drafts until the first decision */
#define GAIN_MIN     1.03 /* what another depth must bring */
#define PROBE_EVERY  64   /* answers */

void draft_policy_init(struct draft_policy *policy, uint32_t draft_max)
{
    ASSERT(draft_max <= DRAFT_POLICY_MAX);
    *policy = (struct draft_policy){.draft_max = draft_max, .depth = draft_max > 0};
}

/* The chance that draft `index` is right when those before it are. */
static double chance(const struct draft_policy *policy, uint32_t index)
{
    while (index > 0 && policy->noted[index] == 0) {
        index--;
    }
    return policy->noted[index] > 0 ? policy->accepted[index] : 0.5;
}

static void chance_move(struct draft_policy *policy, uint32_t index, double outcome)
{
    double before = chance(policy, index);
    double weight = index < policy->depth ? NOTE_WEIGHT : PROBE_WEIGHT;
    double weight_early = 1.0 / (double)(++policy->noted[index] + 1); /* a mean, at first */

    weight = weight > weight_early ? weight : weight_early;
    policy->accepted[index] = before + weight * (outcome - before);
}

void draft_policy_note(struct draft_policy *policy, uint32_t drafted, uint32_t accepted)
{
    ASSERT(accepted <= drafted && drafted <= DRAFT_POLICY_MAX);
    for (uint32_t index = 0; index < accepted; index++) {
        chance_move(policy, index, 1);
    }
    if (accepted < drafted) {
        chance_move(policy, accepted, 0);
    }
    if (accepted > policy->depth) {
        policy->unprobed = PROBE_EVERY;
    } else if (drafted > policy->depth && accepted == policy->depth) {
        policy->unprobed = 0;
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

/* Moves to the depth with the highest rate, if it is worth it. */
static void depth_choose(struct draft_policy *policy, const struct pace *pace,
                         const struct step_load *decode, uint32_t steps)
{
    double rate_best = 0;
    double rate_now = 0;
    double tokens = 1;
    double reached = 1;
    uint32_t best = 0;

    for (uint32_t depth = 0; depth <= policy->draft_max; depth++) {
        struct step_load load = load_with(decode, depth);
        double rate = tokens / pace_cycle_ns(pace, &load, steps);

        if (rate > rate_best) {
            rate_best = rate;
            best = depth;
        }
        if (depth == policy->depth) {
            rate_now = rate;
        }
        if (depth < policy->draft_max) {
            reached *= chance(policy, depth);
            tokens += reached;
        }
    }
    if (rate_best > GAIN_MIN * rate_now) {
        policy->depth = best;
    }
}

uint32_t draft_policy_depth(struct draft_policy *policy, const struct pace *pace,
                            const struct step_load *decode, uint32_t steps)
{
    bool probes;

    if (policy->noted[0] < NOTED_ENOUGH || pace_cycle_ns(pace, decode, steps) <= 0) {
        return policy->depth;
    }
    depth_choose(policy, pace, decode, steps);
    probes = policy->unprobed >= PROBE_EVERY && policy->depth < policy->draft_max;
    policy->unprobed += policy->unprobed < PROBE_EVERY;
    return policy->depth + probes;
}
