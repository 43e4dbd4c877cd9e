/* test_sampling_defaults.c - generation_config.json as the source of defaults. */
#include "coordinator/api/sampling_defaults.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void the_demo_models_file_is_read(void **state)
{
    struct sampling_params params;
    struct error err = {0};

    (void)state;
    assert_true(sampling_defaults_read(SHOAL_SOURCE_DIR "/deploy/demo-model", &params, &err));
    assert_float_equal(params.temperature, 0.6, 1e-6);
    assert_float_equal(params.top_p, 0.95, 1e-6);
    assert_int_equal(params.top_k, 0);
}

static void without_a_file_sampling_is_plain(void **state)
{
    struct sampling_params params;
    struct error err = {0};

    (void)state;
    assert_true(sampling_defaults_read(SHOAL_TEST_DATA "/configs", &params, &err));
    assert_float_equal(params.temperature, 1, 1e-6);
    assert_float_equal(params.top_p, 1, 1e-6);
}

static void ranges_are_checked(void **state)
{
    struct sampling_params params = {.temperature = 1, .top_p = 1};
    struct error err = {0};

    (void)state;
    assert_true(sampling_params_check(&params, &err));
    params.top_p = 0;
    assert_false(sampling_params_check(&params, &err));
    assert_non_null(strstr(err.message, "top_p"));
    params = (struct sampling_params){.temperature = -0.1f, .top_p = 1};
    assert_false(sampling_params_check(&params, &err));
    assert_non_null(strstr(err.message, "temperature"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_demo_models_file_is_read),
        cmocka_unit_test(without_a_file_sampling_is_plain),
        cmocka_unit_test(ranges_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
