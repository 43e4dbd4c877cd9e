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

/* One machine of each stage reads and computes a unit a nanosecond; the last one twice as fast. */
static const struct bench_machine machines[] = {
    {.worker = 7, .stage = 0, .limits = {1e9, 1e9, 1e9, "", ""}},
    {.worker = 8, .stage = 1, .limits = {1e9, 2e9, 1e9, "", ""}},
    {.worker = 9, .stage = 1, .limits = {2e9, 2e9, 2e9, "", ""}},
};

static void the_stages_of_one_step_need_their_times_one_after_another(void **state)
{
    const struct cluster_step_span spans[] = {
        {.worker = 7,
         .stage = 0,
         .step = 1,
         .begin_ns = 0,
         .end_ns = 50,
         .read_bytes = 20,
         .int8_operations = 4,
         .f32_operations = 6},
        {.worker = 8,
         .stage = 1,
         .step = 1,
         .begin_ns = 50,
         .end_ns = 100,
         .read_bytes = 30,
         .int8_operations = 40},
    };
    const struct bench_window window = {0, 100};
    struct bench_shares shares = bench_limit_shares(spans, 2, &window, machines, 3, 2);

    (void)state;
    assert_float_equal(shares.steps_in_flight, 1, 1e-12);
    assert_float_equal(shares.memory, 0.50, 1e-12);
    assert_float_equal(shares.arithmetic, 0.10 + 0.20, 1e-12);
}

static void steps_in_flight_let_stages_read_at_the_same_time(void **state)
{
    const struct cluster_step_span spans[] = {
        {.worker = 7, .stage = 0, .step = 4, .begin_ns = 0, .end_ns = 50, .read_bytes = 20},
        {.worker = 7, .stage = 0, .step = 5, .begin_ns = 50, .end_ns = 100, .read_bytes = 20},
        {.worker = 8, .stage = 1, .step = 3, .begin_ns = 0, .end_ns = 50, .read_bytes = 30},
        {.worker = 8, .stage = 1, .step = 4, .begin_ns = 50, .end_ns = 100, .read_bytes = 30},
        {.worker = 7, .stage = 0, .step = 3, .begin_ns = -50, .end_ns = 0, .read_bytes = 20},
        {.worker = 8, .stage = 1, .step = 5, .begin_ns = 100, .end_ns = 150, .read_bytes = 30},
    };
    const struct bench_window window = {0, 100};
    struct bench_shares shares = bench_limit_shares(spans, 6, &window, machines, 3, 2);

    (void)state;
    assert_float_equal(shares.steps_in_flight, 2, 1e-12);
    assert_float_equal(shares.memory, 0.60, 1e-12); /* the slower stage: not (0.4 + 0.6) / 2 */
}

static void a_stage_is_as_slow_as_its_slowest_member(void **state)
{
    const struct cluster_step_span spans[] = {
        {.worker = 8, .stage = 1, .step = 1, .begin_ns = 0, .end_ns = 100, .read_bytes = 10},
        {.worker = 9, .stage = 1, .step = 1, .begin_ns = 50, .end_ns = 150, .read_bytes = 80},
    };
    const struct bench_window window = {0, 100}; /* half of the second span */
    struct bench_shares shares = bench_limit_shares(spans, 2, &window, machines, 3, 2);

    (void)state;
    assert_float_equal(shares.memory, 0.20, 1e-12);
}

static void without_limits_there_are_no_shares(void **state)
{
    const struct bench_machine unknown = {.worker = 7};
    const struct cluster_step_span span = {
        .worker = 7, .step = 1, .begin_ns = 0, .end_ns = 100, .read_bytes = 10};
    const struct bench_window window = {0, 100};
    const struct bench_window nothing = {5, 5};

    (void)state;
    assert_float_equal(bench_limit_shares(&span, 1, &window, &unknown, 1, 1).memory, 0, 0);
    assert_float_equal(bench_limit_shares(&span, 1, &nothing, machines, 3, 1).memory, 0, 0);
    assert_float_equal(bench_limit_shares(&span, 0, &window, machines, 3, 1).memory, 0, 0);
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
        cmocka_unit_test(the_stages_of_one_step_need_their_times_one_after_another),
        cmocka_unit_test(steps_in_flight_let_stages_read_at_the_same_time),
        cmocka_unit_test(a_stage_is_as_slow_as_its_slowest_member),
        cmocka_unit_test(without_limits_there_are_no_shares),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
