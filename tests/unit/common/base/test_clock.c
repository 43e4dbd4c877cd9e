/* test_clock.c - time moves forward and is the time of day. */
#include "common/base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

static void the_monotonic_clock_never_goes_back(void **state)
{
    (void)state;
    int64_t before = clock_monotonic_ns();

    assert_true(before > 0);
    for (int i = 0; i < 1000; i++) {
        int64_t now = clock_monotonic_ns();

        assert_true(now >= before);
        before = now;
    }
}

static void the_unix_clock_agrees_with_the_c_library(void **state)
{
    (void)state;
    int64_t before = (int64_t)time(NULL);
    int64_t now = clock_unix_s();

    assert_true(now >= before - 1 && now <= before + 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_monotonic_clock_never_goes_back),
        cmocka_unit_test(the_unix_clock_agrees_with_the_c_library),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
