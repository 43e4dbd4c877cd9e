/* Sampling: truncation sets, determinism, and that noise has the distribution it should have. */
#include "worker/stage/sampling.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define VOCAB 12

static const float logits[VOCAB] = {1.0f, 3.0f,  -2.0f, 0.5f, 3.0f,  2.0f,
                                    0.0f, -1.0f, 2.5f,  1.5f, -4.0f, 0.25f};

static const struct sampling_params plain = {.temperature = 1.0f, .top_p = 1.0f};

static uint32_t kept_mask(const struct sampling_params *params)
{
    struct sampling_candidate candidates[VOCAB];
    uint32_t count = sampling_truncate(logits, VOCAB, params, candidates);
    uint32_t mask = 0;

    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(mask & (1u << candidates[i].token), 0);
        mask |= 1u << candidates[i].token;
    }
    return mask;
}

static uint32_t choose(struct sampling_params params, uint32_t position)
{
    struct sampling_candidate candidates[VOCAB];

    assert_int_equal(sampling_scratch_bytes(VOCAB), sizeof(candidates));
    return sampling_choose(logits, VOCAB, &params, position, candidates);
}

static void greedy_takes_the_lowest_id_among_equals(void **state)
{
    (void)state;
    assert_int_equal(choose((struct sampling_params){.temperature = 0.0f}, 7), 1);
}

static void top_k_keeps_the_k_largest_lower_ids_first(void **state)
{
    struct sampling_params params = plain;

    (void)state;
    params.top_k = 1;
    assert_int_equal(kept_mask(&params), 1u << 1);
    params.top_k = 3;
    assert_int_equal(kept_mask(&params), 1u << 1 | 1u << 4 | 1u << 8);
    params.top_k = VOCAB;
    assert_int_equal(kept_mask(&params), (1u << VOCAB) - 1);
    params.top_k = 1000;
    assert_int_equal(kept_mask(&params), (1u << VOCAB) - 1);
}

static void top_p_keeps_the_fewest_that_reach_it(void **state)
{
    struct sampling_params params = plain;
    double total = 0.0;
    double two;

    (void)state;
    for (uint32_t i = 0; i < VOCAB; i++) {
        total += exp((double)logits[i]);
    }
    two = 2.0 * exp(3.0) / total;
    params.top_p = (float)(two - 1e-3);
    assert_int_equal(kept_mask(&params), 1u << 1 | 1u << 4);
    params.top_p = (float)(two + 1e-3);
    assert_int_equal(kept_mask(&params), 1u << 1 | 1u << 4 | 1u << 8);
    params.top_p = 0.0f;
    assert_int_equal(kept_mask(&params), 1u << 1);
}

static void top_p_looks_at_what_top_k_left(void **state)
{
    struct sampling_params params = plain;

    (void)state;
    params.top_k = 2;
    params.top_p = 0.5f; /* the first of two equals has exactly half */
    assert_int_equal(kept_mask(&params), 1u << 1);
    params.top_p = 0.51f;
    assert_int_equal(kept_mask(&params), 1u << 1 | 1u << 4);
}

static void min_p_is_relative_to_the_most_probable(void **state)
{
    struct sampling_params params = plain;

    (void)state;
    params.min_p = 0.6f; /* exp(-0.5) = 0.607 */
    assert_int_equal(kept_mask(&params), 1u << 1 | 1u << 4 | 1u << 8);
    params.min_p = 0.61f;
    assert_int_equal(kept_mask(&params), 1u << 1 | 1u << 4);
    params.temperature = 2.0f; /* exp(-0.25) = 0.779, exp(-0.5) = 0.607 for logit 2 */
    params.min_p = 0.6f;
    assert_int_equal(kept_mask(&params), 1u << 1 | 1u << 4 | 1u << 8 | 1u << 5);
}

static void a_sample_depends_on_its_four_numbers_only(void **state)
{
    struct sampling_params params = plain;
    bool differs[3] = {false};

    (void)state;
    for (uint32_t position = 0; position < 200; position++) {
        struct sampling_params seed = params;
        struct sampling_params choice = params;
        uint32_t token = choose(params, position);

        assert_int_equal(choose(params, position), token);
        seed.seed = 1;
        choice.choice = 1;
        differs[0] = differs[0] || choose(seed, position) != token;
        differs[1] = differs[1] || choose(choice, position) != token;
        differs[2] = differs[2] || choose(params, position + 1) != token;
    }
    assert_true(differs[0] && differs[1] && differs[2]);
}

/* The quick bound in sampling_choose must never change who wins. */
static void the_winner_is_the_largest_sum_of_logit_and_noise(void **state)
{
    struct sampling_params params = plain;

    (void)state;
    params.temperature = 0.7f;
    for (uint32_t position = 0; position < 3000; position++) {
        double best = -INFINITY;
        uint32_t token = 0;

        for (uint32_t i = 0; i < VOCAB; i++) {
            double value = (double)logits[i] / (double)params.temperature +
                           sampling_noise(&params, position, i);

            token = value > best ? i : token;
            best = value > best ? value : best;
        }
        assert_int_equal(choose(params, position), token);
    }
}

static void samples_follow_the_softmax(void **state)
{
    enum { DRAWS = 40000 };
    uint32_t counts[VOCAB] = {0};
    struct sampling_params params = plain;
    double total = 0.0;
    double chi_square = 0.0;

    (void)state;
    params.temperature = 1.3f;
    for (uint32_t i = 0; i < DRAWS; i++) {
        params.seed = 1000 + i;
        counts[choose(params, 5)]++;
    }
    for (uint32_t i = 0; i < VOCAB; i++) {
        total += exp((double)logits[i] / (double)params.temperature);
    }
    for (uint32_t i = 0; i < VOCAB; i++) {
        double expected = DRAWS * exp((double)logits[i] / (double)params.temperature) / total;

        chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
    }
    assert_true(chi_square < 31.26); /* 11 degrees of freedom, p = 0.001 */
}

static void truncated_tokens_are_never_drawn(void **state)
{
    struct sampling_params params = plain;

    (void)state;
    params.top_k = 3;
    params.temperature = 5.0f;
    for (uint32_t position = 0; position < 2000; position++) {
        uint32_t token = choose(params, position);

        assert_true(token == 1 || token == 4 || token == 8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_lowest_id_among_equals),
        cmocka_unit_test(top_k_keeps_the_k_largest_lower_ids_first),
        cmocka_unit_test(top_p_keeps_the_fewest_that_reach_it),
        cmocka_unit_test(top_p_looks_at_what_top_k_left),
        cmocka_unit_test(min_p_is_relative_to_the_most_probable),
        cmocka_unit_test(a_sample_depends_on_its_four_numbers_only),
        cmocka_unit_test(the_winner_is_the_largest_sum_of_logit_and_noise),
        cmocka_unit_test(samples_follow_the_softmax),
        cmocka_unit_test(truncated_tokens_are_never_drawn),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
