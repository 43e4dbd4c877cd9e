/* router.c - which experts each row visits, and with what weight.
 *
 * Scores are a sigmoid (V3) or a softmax over all experts (V2). The choice is made on score + bias:
 * groups first where the model has them, then the best experts inside the kept groups; other groups
 * are excluded altogether, because a bias can make every kept choice negative. The weight is the
 * score alone, divided by the sum over the chosen (added in rising expert id) where the model says
 * so, then scaled. Ties go to the lower id. (DeepSeek-V3 report, arXiv:2412.19437, section 2.1.2.)
 */
#include "worker/layers/forward_state.h"

#include <string.h>

#define WEIGHT_SUM_FLOOR 1e-20f

/* One row's work area, of one thread. */
struct selection {
    const struct router_config *config;
    const float *scores;
    float *choice;           /* [experts] */
    float *group_scores;     /* [groups] */
    uint8_t *excluded;       /* [experts] */
    uint8_t *group_excluded; /* [groups] */
};

/* The highest value not excluded; excludes it. Something is found even among NaNs. */
static uint32_t take_highest(const float *values, uint8_t *excluded, uint32_t count)
{
    uint32_t best = count;

    for (uint32_t i = 0; i < count; i++) {
        if (excluded[i] == 0 && (best == count || values[i] > values[best])) {
            best = i;
        }
    }
    ASSERT(best < count);
    excluded[best] = 1;
    return best;
}

static float highest(const float *values, uint32_t count)
{
    float best = values[0];

    for (uint32_t i = 1; i < count; i++) {
        best = values[i] > best ? values[i] : best;
    }
    return best;
}

static float two_highest_sum(const float *values, uint32_t count)
{
    float first = values[0], second = values[1];

    if (second > first) {
        first = values[1];
        second = values[0];
    }
    for (uint32_t i = 2; i < count; i++) {
        if (values[i] > first) {
            second = first;
            first = values[i];
        } else if (values[i] > second) {
            second = values[i];
        }
    }
    return first + second;
}

/* Leaves only the experts of the kept groups. */
static void groups_limit(struct selection *s)
{
    uint32_t group_count = s->config->group_count;
    uint32_t size = s->config->expert_count / group_count;
    bool pairs = s->config->method == ROUTER_NOAUX_TC && size > 1;

    for (uint32_t g = 0; g < group_count; g++) {
        const float *choice = s->choice + (size_t)g * size;

        s->group_scores[g] = pairs ? two_highest_sum(choice, size) : highest(choice, size);
    }
    memset(s->group_excluded, 0, group_count);
    memset(s->excluded, 1, s->config->expert_count);
    for (uint32_t i = 0; i < s->config->group_chosen_count; i++) {
        uint32_t g = take_highest(s->group_scores, s->group_excluded, group_count);

        memset(s->excluded + (size_t)g * size, 0, size);
    }
}

/* The chosen experts in rising id, weights still bare scores. */
static void experts_choose(struct selection *s, struct expert_choice *out)
{
    uint32_t chosen_count = s->config->chosen_count;

    for (uint32_t i = 0; i < chosen_count; i++) {
        uint32_t expert = take_highest(s->choice, s->excluded, s->config->expert_count);
        uint32_t place = i;

        for (; place > 0 && out[place - 1].expert > expert; place--) {
            out[place] = out[place - 1];
        }
        out[place] = (struct expert_choice){expert, s->scores[expert]};
    }
}

static void weights_finish(const struct router_config *config, struct expert_choice *chosen)
{
    float sum = 0.0f;

    for (uint32_t i = 0; config->normalise && i < config->chosen_count; i++) {
        sum += chosen[i].weight;
    }
    sum += WEIGHT_SUM_FLOOR;
    for (uint32_t i = 0; i < config->chosen_count; i++) {
        if (config->normalise) {
            chosen[i].weight /= sum;
        }
        chosen[i].weight *= config->scale;
    }
}

struct route_work {
    struct forward *forward;
    const struct layer_weights *weights;
    struct expert_choice *choices;
};

static void route_row(void *context, size_t row, uint32_t thread)
{
    const struct route_work *work = context;
    const struct forward *forward = work->forward;
    const struct router_config *config = &forward->config.arch->router;
    uint32_t count = config->expert_count;
    size_t scratch_begin = (size_t)thread * (count + config->group_count);
    float *scores = forward->router.scores + row * count;
    struct selection s = {
        .config = config,
        .scores = scores,
        .choice = forward->router.choice + scratch_begin,
        .group_scores = forward->router.choice + scratch_begin + count,
        .excluded = forward->router.excluded + scratch_begin,
        .group_excluded = forward->router.excluded + scratch_begin + count,
    };
    struct expert_choice *chosen = work->choices + row * config->chosen_count;

    if (config->scoring == ROUTER_SIGMOID) {
        forward->config.kernels->sigmoid(scores, count);
    } else {
        forward->config.kernels->softmax(scores, count);
    }
    for (uint32_t e = 0; e < count; e++) {
        s.choice[e] = scores[e] + work->weights->router_bias[e];
    }
    memset(s.excluded, 0, count);
    if (config->method != ROUTER_GREEDY) {
        groups_limit(&s);
    }
    experts_choose(&s, chosen);
    weights_finish(config, chosen);
}

void forward_route(struct forward *forward, uint32_t layer, uint32_t row_count, const float *x,
                   const float **normed, struct expert_choice *choices)
{
    const struct arch *arch = forward->config.arch;
    const struct layer_weights *weights = forward_layer(forward, layer);
    struct route_work work = {forward, weights, choices};
    struct product scores = {.w = &weights->router,
                             .x = {forward->normed, arch->hidden},
                             .out = {forward->router.scores, arch->router.expert_count},
                             .activations = PRODUCT_F32};

    ASSERT(row_count <= forward->config.rows_max && arch_layer_is_moe(arch, layer));
    *normed = forward->normed;
    if (row_count == 0) {
        return;
    }
    rows_norm(forward, x, weights->post_norm, row_count, forward->normed);
    forward_lap(forward, layer, OPERATION_MLP_NORM, row_count);
    product_run(forward, &scores, 1, row_count);
    rows_run(forward, route_row, &work, row_count);
    forward_lap(forward, layer, OPERATION_ROUTER, row_count);
}
