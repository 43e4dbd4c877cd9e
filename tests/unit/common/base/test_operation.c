/* The words for what a step is made of. */
#include "common/base/operation.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void every_operation_is_found_by_its_own_name_only(void **state)
{
    enum operation found;

    (void)state;
    for (int i = 0; i < OPERATION_COUNT; i++) {
        assert_true(operation_find(operation_name((enum operation)i), &found));
        assert_int_equal(found, i);
    }
    assert_false(operation_find("", &found));
    assert_false(operation_find("attention_", &found));
}

static void every_phase_is_found_by_its_own_name_only(void **state)
{
    enum operation_phase found;

    (void)state;
    for (int i = 0; i < OPERATION_PHASE_COUNT; i++) {
        assert_true(operation_phase_find(operation_phase_name((enum operation_phase)i), &found));
        assert_int_equal(found, i);
    }
    assert_false(operation_phase_find("prefill", &found));
}

static void a_step_is_in_the_smallest_class_that_holds_it(void **state)
{
    (void)state;
    assert_int_equal(operation_class_of(0), 0);
    assert_int_equal(operation_class_of(1), 0);
    assert_int_equal(operation_class_of(2), 1);
    assert_int_equal(operation_class_of(4), 1);
    assert_int_equal(operation_class_of(5), 2);
    assert_int_equal(operation_class_of(512), 5);
    assert_int_equal(operation_class_rows(5), 1024);
    assert_int_equal(operation_class_of(UINT32_MAX), OPERATION_CLASS_COUNT - 1);
}

static void only_waiting_is_no_work(void **state)
{
    int waiting = 0;

    (void)state;
    for (int i = 0; i < OPERATION_COUNT; i++) {
        waiting += !operation_is_work((enum operation)i);
    }
    assert_int_equal(waiting, 3);
    assert_false(operation_is_work(OPERATION_IDLE));
    assert_false(operation_is_work(OPERATION_RECEIVE));
    assert_false(operation_is_work(OPERATION_EXPERT_WAIT));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_is_found_by_its_own_name_only),
        cmocka_unit_test(every_phase_is_found_by_its_own_name_only),
        cmocka_unit_test(a_step_is_in_the_smallest_class_that_holds_it),
        cmocka_unit_test(only_waiting_is_no_work),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
