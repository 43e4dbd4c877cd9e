/* The check that stands between a broken weight and a wrong answer. */
#include "worker/stage/answer.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

#define COUNT 37

static void only_infinities_and_nans_are_found_wherever_they_stand(void **state)
{
    static const float good[] = {0.0f, -0.0f, FLT_MAX, -FLT_MAX, FLT_MIN, 1e-45f};
    const float bad[] = {INFINITY, -INFINITY, NAN, -NAN};
    float values[COUNT];

    (void)state;
    for (uint32_t i = 0; i < COUNT; i++) {
        values[i] = good[i % 6];
    }
    assert_true(answer_is_finite(values, COUNT));
    for (uint32_t i = 0; i < COUNT; i++) {
        float kept = values[i];

        values[i] = bad[i % 4];
        assert_false(answer_is_finite(values, COUNT));
        assert_true(answer_is_finite(values, i));
        values[i] = kept;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_infinities_and_nans_are_found_wherever_they_stand),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
