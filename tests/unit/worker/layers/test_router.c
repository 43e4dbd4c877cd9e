/* The router's choice and weights, on a layer whose router is the identity: the logits of a row are
 * the row itself, when its mean square is 1. */
#include "common/base/mem.h"
#include "worker/layers/forward.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define EXPERTS 8

struct fixture {
    struct arch arch;
    struct weights weights;
    struct layer_weights layer;
    struct team *team;
    struct kv_cache *cache;
    struct forward *forward;
    void *router;
    float ones[EXPERTS];
    float bias[EXPERTS];
};

static void arch_fill(struct arch *arch, const struct router_config *router)
{
    *arch = (struct arch){
        .layer_count = 1,
        .hidden = EXPERTS,
        .vocab = 16,
        .context_tokens_max = 64,
        .norm_eps = 1e-12f,
        .latent_norm_eps = 1e-6f,
        .head_count = 1,
        .kv_lora_rank = 16,
        .qk_nope_dim = 4,
        .qk_rope_dim = 2,
        .v_head_dim = 4,
        .rope = {.scaling = ROPE_PLAIN, .theta = 10000.0, .factor = 1.0},
        .dense_width = 16,
        .expert_width = 16,
        .router = *router,
    };
}

static struct fixture *fixture_open(const struct router_config *router)
{
    struct fixture *fixture = mem_new(struct fixture);
    struct kv_config kv = {0, 1, 1, 1, 1, 1, {0}, false};
    struct team_config team = {2, -1};
    float identity[EXPERTS][EXPERTS] = {{0}};
    struct pack_source source = {WEIGHT_F32, identity, EXPERTS};
    struct error err;

    arch_fill(&fixture->arch, router);
    kv.layout = kv_layout_of(&fixture->arch, KV_F32);
    for (uint32_t i = 0; i < EXPERTS; i++) {
        identity[i][i] = 1.0f;
        fixture->ones[i] = 1.0f;
    }
    fixture->router = mem_alloc_zeroed(1, packed_bytes(WEIGHT_F32, EXPERTS, EXPERTS));
    pack_rows(fixture->router, EXPERTS, 0, EXPERTS, &source);
    fixture->layer.post_norm = fixture->ones;
    fixture->layer.router_bias = fixture->bias;
    fixture->layer.router = (struct packed_matrix){WEIGHT_F32, EXPERTS, EXPERTS, fixture->router};
    fixture->weights.arch = fixture->arch;
    fixture->weights.layer_end = 1;
    fixture->weights.layers = &fixture->layer;
    fixture->team = team_create(&team, &err);
    fixture->cache = kv_cache_create(&kv, &err);
    assert_non_null(fixture->team);
    assert_non_null(fixture->cache);
    struct forward_config config = {&fixture->arch,
                                    &fixture->weights,
                                    fixture->cache,
                                    kernels_for(CPU_REF, NUMERICS_EXACT),
                                    fixture->team,
                                    8,
                                    8,
                                    NULL};
    fixture->forward = forward_create(&config, &err);
    assert_non_null(fixture->forward);
    return fixture;
}

static void fixture_close(struct fixture *fixture)
{
    forward_destroy(fixture->forward);
    kv_cache_destroy(fixture->cache);
    team_destroy(fixture->team);
    mem_free(fixture->router);
    mem_free(fixture);
}

/* Routes one row, its logits being `x` divided by its root mean square. */
static void route(struct fixture *fixture, const float *x, struct expert_choice *choices)
{
    const float *normed;

    forward_route(fixture->forward, 0, 1, x, &normed, choices);
}

static double logit(const float *x, uint32_t expert)
{
    double square = 0.0;

    for (uint32_t i = 0; i < EXPERTS; i++) {
        square += (double)x[i] * (double)x[i];
    }
    return (double)x[expert] / sqrt(square / EXPERTS);
}

static double sigmoid_of(const float *x, uint32_t expert)
{
    return 1.0 / (1.0 + exp(-logit(x, expert)));
}

static double softmax_of(const float *x, uint32_t expert)
{
    double sum = 0.0;

    for (uint32_t i = 0; i < EXPERTS; i++) {
        sum += exp(logit(x, i));
    }
    return exp(logit(x, expert)) / sum;
}

static const struct router_config noaux = {
    .scoring = ROUTER_SIGMOID,
    .method = ROUTER_NOAUX_TC,
    .expert_count = EXPERTS,
    .chosen_count = 2,
    .group_count = 2,
    .group_chosen_count = 1,
    .normalise = true,
    .scale = 2.5f,
};

static void negative_choices_still_exclude_other_groups(void **state)
{
    struct fixture *fixture = fixture_open(&noaux);
    const float x[EXPERTS] = {2.0f, -3.0f, -3.0f, -3.0f, 1.0f, 1.0f, 0.5f, 0.0f};
    struct expert_choice choices[2];

    (void)state;
    for (uint32_t i = 0; i < EXPERTS; i++) {
        fixture->bias[i] = -3.0f;
    }
    route(fixture, x, choices); /* the pair 1 + 1 beats 2 - 3 */
    assert_int_equal(choices[0].expert, 4);
    assert_int_equal(choices[1].expert, 5);
    assert_float_equal(choices[0].weight, 1.25f, 1e-6f);
    assert_float_equal(choices[1].weight, 1.25f, 1e-6f);
    fixture_close(fixture);
}

static void the_bias_steers_the_choice_and_never_the_weight(void **state)
{
    struct fixture *fixture = fixture_open(&noaux);
    const float x[EXPERTS] = {0.0f, 0.1f, 0.2f, 0.3f, 1.0f, 2.0f, 1.5f, -1.0f};
    struct expert_choice choices[2];
    double a = sigmoid_of(x, 5), b = sigmoid_of(x, 7);

    (void)state;
    fixture->bias[7] = 10.0f;
    route(fixture, x, choices);
    assert_int_equal(choices[0].expert, 5);
    assert_int_equal(choices[1].expert, 7);
    assert_float_equal(choices[0].weight, a / (a + b) * 2.5, 1e-6);
    assert_float_equal(choices[1].weight, b / (a + b) * 2.5, 1e-6);
    fixture_close(fixture);
}

static void ties_go_to_the_lower_id(void **state)
{
    struct fixture *fixture = fixture_open(&noaux);
    const float x[EXPERTS] = {1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f};
    struct expert_choice choices[2];

    (void)state;
    route(fixture, x, choices);
    assert_int_equal(choices[0].expert, 0);
    assert_int_equal(choices[1].expert, 1);
    fixture_close(fixture);
}

static void limited_greedy_scores_a_group_by_its_highest(void **state)
{
    struct router_config config = noaux;
    const float x[EXPERTS] = {2.0f, -3.0f, -3.0f, -2.0f, 1.0f, 1.0f, 0.5f, 0.0f};
    struct expert_choice choices[2];
    struct fixture *fixture;

    (void)state;
    config.scoring = ROUTER_SOFTMAX;
    config.method = ROUTER_GROUP_LIMITED_GREEDY;
    config.normalise = false;
    config.scale = 16.0f;
    fixture = fixture_open(&config);
    route(fixture, x, choices);
    assert_int_equal(choices[0].expert, 0);
    assert_int_equal(choices[1].expert, 3);
    assert_float_equal(choices[0].weight, softmax_of(x, 0) * 16.0, 1e-5);
    assert_float_equal(choices[1].weight, softmax_of(x, 3) * 16.0, 1e-5);
    fixture_close(fixture);
}

static void greedy_takes_the_highest_of_all(void **state)
{
    struct router_config config = noaux;
    const float x[EXPERTS] = {2.0f, -3.0f, -3.0f, -2.0f, 1.0f, 1.5f, 0.5f, 0.0f};
    struct expert_choice choices[2];
    struct fixture *fixture;

    (void)state;
    config.scoring = ROUTER_SOFTMAX;
    config.method = ROUTER_GREEDY;
    config.group_count = 1;
    config.normalise = false;
    config.scale = 1.0f;
    fixture = fixture_open(&config);
    route(fixture, x, choices);
    assert_int_equal(choices[0].expert, 0);
    assert_int_equal(choices[1].expert, 5);
    assert_float_equal(choices[1].weight, softmax_of(x, 5), 1e-6);
    fixture_close(fixture);
}

static void rows_that_are_not_numbers_still_choose_distinct_experts(void **state)
{
    struct fixture *fixture = fixture_open(&noaux);
    float x[EXPERTS];
    struct expert_choice choices[2];

    (void)state;
    for (uint32_t i = 0; i < EXPERTS; i++) {
        x[i] = NAN;
    }
    route(fixture, x, choices);
    assert_true(choices[0].expert < choices[1].expert);
    assert_true(choices[1].expert < EXPERTS);
    fixture_close(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(negative_choices_still_exclude_other_groups),
        cmocka_unit_test(the_bias_steers_the_choice_and_never_the_weight),
        cmocka_unit_test(ties_go_to_the_lower_id),
        cmocka_unit_test(limited_greedy_scores_a_group_by_its_highest),
        cmocka_unit_test(greedy_takes_the_highest_of_all),
        cmocka_unit_test(rows_that_are_not_numbers_still_choose_distinct_experts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
