/* test_stage_cost.c - what the fit learns from noisy, repetitive, lying and changing times. */
#include "coordinator/engine/stage_cost.h"

#include "tests/support/sim_random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define LOADS 200

/* The true cost of a stage and the steps that it is given. */
struct truth {
    double ns[STAGE_COST_TERMS];
    double noise; /* relative, uniform */
    struct sim_random random;
};

static const struct truth decoder = {.ns = {5e6, 2e5, 40, 3e5}};

static double true_ns(const struct truth *truth, const struct step_load *load)
{
    return truth->ns[0] + truth->ns[1] * load->rows + truth->ns[2] * (double)load->attended +
           truth->ns[3] * load->sampled;
}

static struct step_load decode_load(struct truth *truth, uint32_t rows)
{
    uint64_t attended = 0;

    for (uint32_t i = 0; i < rows; i++) {
        attended += sim_random_range(&truth->random, 1, 4000);
    }
    return (struct step_load){.rows = rows, .attended = attended, .sampled = rows};
}

static struct step_load prompt_load(uint32_t position, uint32_t rows)
{
    return (struct step_load){.rows = rows,
                              .attended = (uint64_t)rows * position + rows * (rows + 1ull) / 2,
                              .sampled = 1};
}

static struct step_load any_load(struct truth *truth)
{
    if (sim_random_chance(&truth->random, 30)) {
        return prompt_load(sim_random_u32(&truth->random, 0, 8000),
                           sim_random_u32(&truth->random, 1, 512));
    }
    return decode_load(truth, sim_random_u32(&truth->random, 1, 64));
}

static void measure(struct stage_cost *cost, struct truth *truth, const struct step_load *load)
{
    double unit = (double)sim_random_range(&truth->random, 0, 1000000) / 500000 - 1;

    stage_cost_measure(cost, load, (int64_t)(true_ns(truth, load) * (1 + truth->noise * unit)));
}

static double error_of(const struct stage_cost *cost, const struct truth *truth,
                       const struct step_load *load)
{
    return fabs(stage_cost_ns(cost, load) / true_ns(truth, load) - 1);
}

/* The largest relative error over loads of all kinds. */
static double error_max(const struct stage_cost *cost, const struct truth *truth)
{
    struct truth draws = *truth;
    double max = 0;

    for (int i = 0; i < LOADS; i++) {
        struct step_load load = any_load(&draws);

        max = fmax(max, error_of(cost, truth, &load));
    }
    return max;
}

/* The share of loads of all kinds whose prediction is off by more than a quarter. */
static double error_share(const struct stage_cost *cost, const struct truth *truth)
{
    struct truth draws = *truth;
    double far = 0;

    for (int i = 0; i < LOADS; i++) {
        struct step_load load = any_load(&draws);

        far += error_of(cost, truth, &load) > 0.25;
    }
    return far / LOADS;
}

static void assert_sane(const struct stage_cost *cost)
{
    for (int i = 0; i < STAGE_COST_TERMS; i++) {
        assert_true(isfinite(cost->ns[i]) && cost->ns[i] >= 0);
    }
}

static void nothing_is_known_before_the_first_step(void **state)
{
    struct stage_cost cost;

    (void)state;
    stage_cost_init(&cost);
    assert_true(stage_cost_ns(&cost, &(struct step_load){.rows = 1}) == 0);
    stage_cost_deinit(&cost);
}

static void exact_times_give_the_true_coefficients(void **state)
{
    struct truth truth = decoder;
    struct stage_cost cost;

    (void)state;
    truth.random = sim_random_from(1);
    stage_cost_init(&cost);
    for (int i = 0; i < 300; i++) {
        struct step_load load = any_load(&truth);

        measure(&cost, &truth, &load);
        assert_sane(&cost);
    }
    print_message("largest error %.4f\n", error_max(&cost, &truth));
    assert_true(error_max(&cost, &truth) < 0.01);
    for (int i = 0; i < STAGE_COST_TERMS; i++) {
        assert_true(fabs(cost.ns[i] - truth.ns[i]) < 0.05 * truth.ns[i]);
    }
    stage_cost_deinit(&cost);
}

static void noise_of_a_shared_machine_is_averaged(void **state)
{
    double worst = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct truth truth = decoder;
        struct stage_cost cost;

        truth.random = sim_random_from(seed);
        truth.noise = 0.3;
        stage_cost_init(&cost);
        for (int i = 0; i < 400; i++) {
            struct step_load load = any_load(&truth);

            measure(&cost, &truth, &load);
            assert_sane(&cost);
        }
        worst = fmax(worst, error_max(&cost, &truth));
        stage_cost_deinit(&cost);
    }
    print_message("30 %% noise: largest error %.3f\n", worst);
    assert_true(worst < 0.25);
}

/* Terms over five orders of magnitude, some 0: what is rare and tiny may be predicted badly. */
static void no_truth_gives_an_absurd_fit(void **state)
{
    double far = 0;
    double worst = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct truth truth = {.noise = 0.1, .random = sim_random_from(seed)};
        struct stage_cost cost;

        for (int i = 0; i < STAGE_COST_TERMS; i++) {
            if (sim_random_chance(&truth.random, 70)) {
                truth.ns[i] =
                    pow(10, (double)sim_random_range(&truth.random, 2, 7)) / (i == 2 ? 1000 : 1);
            }
        }
        truth.ns[0] += 1000;
        stage_cost_init(&cost);
        for (int i = 0; i < 400; i++) {
            struct step_load load = any_load(&truth);

            measure(&cost, &truth, &load);
            assert_sane(&cost);
        }
        far += error_share(&cost, &truth) / 200;
        worst = fmax(worst, error_max(&cost, &truth));
        stage_cost_deinit(&cost);
    }
    print_message(
        "any truth: largest error %.2f, %.5f of the loads are off by more than a quarter\n", worst,
        far);
    assert_true(far < 0.01);
}

static void a_stall_hardly_moves_the_prediction(void **state)
{
    struct truth truth = decoder;
    struct stage_cost cost;
    struct step_load load;

    (void)state;
    truth.random = sim_random_from(3);
    truth.noise = 0.05;
    stage_cost_init(&cost);
    for (int i = 0; i < 300; i++) {
        load = any_load(&truth);
        measure(&cost, &truth, &load);
    }
    load = decode_load(&truth, 8);
    stage_cost_measure(&cost, &load, 5000000000);
    print_message("after a stall of 5 s: %.4f\n", error_max(&cost, &truth));
    assert_true(error_max(&cost, &truth) < 0.08);
    stage_cost_measure(&cost, &load, 0); /* a clock that stood still */
    print_message("after a step of no time: %.4f\n", error_max(&cost, &truth));
    assert_true(error_max(&cost, &truth) < 0.1);
    for (int i = 0; i < 20; i++) { /* one step in ten is paged */
        for (int j = 0; j < 10; j++) {
            load = any_load(&truth);
            measure(&cost, &truth, &load);
        }
        stage_cost_measure(&cost, &load, (int64_t)(20 * true_ns(&truth, &load)));
    }
    print_message("one step in ten takes twenty times its time: %.4f\n", error_max(&cost, &truth));
    assert_true(error_max(&cost, &truth) < 0.25);
    stage_cost_deinit(&cost);
}

static void an_hour_of_equal_steps_keeps_what_a_prompt_has_shown(void **state)
{
    struct truth truth = decoder;
    struct stage_cost cost;
    struct step_load load;
    double error;

    (void)state;
    truth.random = sim_random_from(4);
    truth.noise = 0.05;
    stage_cost_init(&cost);
    for (uint32_t i = 0; i < 20; i++) {
        load = prompt_load(i * 256, 256);
        measure(&cost, &truth, &load);
    }
    for (int i = 0; i < 50000; i++) {
        load =
            (struct step_load){.rows = 8, .attended = 8 * (1000 + (uint64_t)i / 50), .sampled = 8};
        measure(&cost, &truth, &load);
    }
    load = prompt_load(1000, 256);
    error = error_of(&cost, &truth, &load);
    print_message("prompt predicted with an error of %.3f\n", error);
    assert_true(error < 0.15);
    stage_cost_deinit(&cost);
}

static void a_machine_that_slows_down_is_noticed(void **state)
{
    struct truth truth = decoder;
    struct stage_cost cost;
    struct step_load load;
    double error;

    (void)state;
    truth.random = sim_random_from(5);
    truth.noise = 0.05;
    stage_cost_init(&cost);
    for (int i = 0; i < 500; i++) {
        load = any_load(&truth);
        measure(&cost, &truth, &load);
    }
    for (int i = 0; i < STAGE_COST_TERMS; i++) {
        truth.ns[i] *= 3;
    }
    for (int i = 0; i < 150; i++) {
        load = decode_load(&truth, 8);
        measure(&cost, &truth, &load);
    }
    error = error_of(&cost, &truth, &load);
    print_message("three times slower for 150 steps: error %.3f\n", error);
    assert_true(error < 0.1);
    load = prompt_load(1000, 256);
    error = error_of(&cost, &truth, &load);
    print_message("and of prompts, which have not been seen since: %.3f\n", error);
    assert_true(error < 0.25);
    stage_cost_deinit(&cost);
}

static void equal_measurements_give_equal_bits(void **state)
{
    struct truth truth = decoder;
    struct stage_cost one;
    struct stage_cost two;

    (void)state;
    truth.random = sim_random_from(6);
    truth.noise = 0.2;
    stage_cost_init(&one);
    stage_cost_init(&two);
    for (int i = 0; i < 100; i++) {
        struct step_load load = any_load(&truth);

        stage_cost_measure(&one, &load, (int64_t)true_ns(&truth, &load));
        stage_cost_measure(&two, &load, (int64_t)true_ns(&truth, &load));
        assert_memory_equal(one.ns, two.ns, sizeof(one.ns));
    }
    stage_cost_deinit(&one);
    stage_cost_deinit(&two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_known_before_the_first_step),
        cmocka_unit_test(exact_times_give_the_true_coefficients),
        cmocka_unit_test(noise_of_a_shared_machine_is_averaged),
        cmocka_unit_test(no_truth_gives_an_absurd_fit),
        cmocka_unit_test(a_stall_hardly_moves_the_prediction),
        cmocka_unit_test(an_hour_of_equal_steps_keeps_what_a_prompt_has_shown),
        cmocka_unit_test(a_machine_that_slows_down_is_noticed),
        cmocka_unit_test(equal_measurements_give_equal_bits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
