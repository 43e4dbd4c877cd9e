/* Medians, ranges, and how much of a window each stage computed. */
#include "coordinator/cli/bench_figures.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void a_median_needs_no_order(void **state)
{
    const double odd[] = {9, 1, 4};
    const double even[] = {8, 2, 4, 6};

    (void)state;
    assert_float_equal(bench_median(odd, 3), 4, 0);
    assert_float_equal(bench_median(even, 4), 5, 0);
    assert_float_equal(bench_median(odd, 1), 9, 0);
    assert_float_equal(bench_median(odd, 0), 0, 0);
    assert_float_equal(odd[0], 9, 0); /* untouched */
}

static void a_range_is_least_and_most(void **state)
{
    const double values[] = {3, -1, 7};

    (void)state;
    assert_float_equal(bench_range(values, 3).min, -1, 0);
    assert_float_equal(bench_range(values, 3).max, 7, 0);
    assert_float_equal(bench_range(values, 0).max, 0, 0);
}

static void tests_are_named_as_in_other_tools(void **state)
{
    struct bench_test prompt = {.kind = BENCH_PROMPT, .token_count = 512};
    struct bench_test generate = {.kind = BENCH_GENERATE, .token_count = 16777216};
    struct bench_name name;

    (void)state;
    assert_string_equal(bench_test_name(&prompt, &name), "pp512");
    assert_string_equal(bench_test_name(&generate, &name), "tg16777216");
}

static void spans_count_with_the_part_inside_the_window(void **state)
{
    const struct cluster_step_span spans[] = {
        {.stage = 0, .begin_ns = 0, .end_ns = 90},     /* before */
        {.stage = 0, .begin_ns = 90, .end_ns = 120},   /* 20 inside */
        {.stage = 0, .begin_ns = 130, .end_ns = 150},  /* all 20 */
        {.stage = 0, .begin_ns = 190, .end_ns = 1000}, /* 10 inside */
        {.stage = 0, .begin_ns = 200, .end_ns = 300},  /* behind */
        {.stage = 1, .begin_ns = 50, .end_ns = 250},   /* all of the window */
    };
    const struct bench_window window = {100, 200};
    const uint32_t members[] = {1, 1, 1};
    double busy[3];

    (void)state;
    bench_stage_busy(spans, 6, &window, members, 3, busy);
    assert_float_equal(busy[0], 0.5, 1e-12);
    assert_float_equal(busy[1], 1, 1e-12);
    assert_float_equal(busy[2], 0, 0);
}

static void waiting_for_peers_is_not_computing(void **state)
{
    const struct cluster_step_span spans[] = {
        {.stage = 0, .begin_ns = 100, .end_ns = 200, .wait_ns = 25},
        {.stage = 0, .begin_ns = 200, .end_ns = 400, .wait_ns = 100}, /* half of it inside */
    };
    const struct bench_window window = {100, 300};
    const uint32_t members[] = {1};
    double busy[1];

    (void)state;
    bench_stage_busy(spans, 2, &window, members, 1, busy);
    assert_float_equal(busy[0], (75 + 50) / 200.0, 1e-12);
}

static void a_stage_is_as_busy_as_its_members_on_average(void **state)
{
    const struct cluster_step_span spans[] = {
        {.stage = 0, .member = 0, .begin_ns = 0, .end_ns = 100},
        {.stage = 0, .member = 1, .begin_ns = 0, .end_ns = 50},
    };
    const struct bench_window window = {0, 100};
    const uint32_t members[] = {2};
    double busy[1];

    (void)state;
    bench_stage_busy(spans, 2, &window, members, 1, busy);
    assert_float_equal(busy[0], 0.75, 1e-12);
}

static void rows_of_a_step_are_summed_over_members(void **state)
{
    const struct cluster_step_span spans[] = {
        {.stage = 0, .member = 0, .step = 1, .rows = 3, .end_ns = 50},
        {.stage = 0, .member = 1, .step = 1, .rows = 2, .end_ns = 60},
        {.stage = 1, .member = 0, .step = 1, .rows = 3, .end_ns = 70},
        {.stage = 0, .member = 0, .step = 2, .rows = 1, .end_ns = 80},
        {.stage = 0, .member = 1, .step = 2, .rows = 0, .end_ns = 80},
        {.stage = 0, .member = 0, .step = 3, .rows = 9, .end_ns = 101}, /* ends behind */
    };
    const struct bench_window window = {0, 100};

    (void)state;
    assert_float_equal(bench_rows_per_step(spans, 6, &window), 3, 0);
    assert_float_equal(bench_rows_per_step(spans, 0, &window), 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_median_needs_no_order),
        cmocka_unit_test(a_range_is_least_and_most),
        cmocka_unit_test(tests_are_named_as_in_other_tools),
        cmocka_unit_test(spans_count_with_the_part_inside_the_window),
        cmocka_unit_test(waiting_for_peers_is_not_computing),
        cmocka_unit_test(a_stage_is_as_busy_as_its_members_on_average),
        cmocka_unit_test(rows_of_a_step_are_summed_over_members),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
