/* test_step.c - counting rows of steps. */
#include "common/plan/step.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void rows_are_counted_over_all_lanes_and_by_lane(void **state)
{
    struct step_entry entries[] = {
        {.lane = 0, .token_count = 1},
        {.lane = 1, .token_count = 7},
        {.lane = 0, .token_count = 5},
    };
    struct step step = {.entry_count = 3, .entries = entries};

    (void)state;
    assert_int_equal(step_row_count(&step), 13);
    assert_int_equal(step_lane_row_count(&step, 0), 6);
    assert_int_equal(step_lane_row_count(&step, 1), 7);
    assert_int_equal(step_lane_row_count(&step, 2), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_counted_over_all_lanes_and_by_lane),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
