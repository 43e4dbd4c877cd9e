/* test_check.c - a failed assertion ends the process. */
#include "common/base/check.h"

#include "tests/support/death.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void claim(void *context)
{
    ASSERT(*(const int *)context == 1);
}

static void a_failed_assertion_aborts(void **state)
{
    (void)state;
    int value = 0;

    assert_true(death_by_abort(claim, &value));
}

static void a_true_assertion_does_nothing(void **state)
{
    (void)state;
    int value = 1;

    assert_false(death_by_abort(claim, &value));
    claim(&value);
}

static void array_length_counts_elements(void **state)
{
    (void)state;
    int three[] = {1, 2, 3};

    assert_int_equal(ARRAY_LENGTH(three), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_assertion_aborts),
        cmocka_unit_test(a_true_assertion_does_nothing),
        cmocka_unit_test(array_length_counts_elements),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
