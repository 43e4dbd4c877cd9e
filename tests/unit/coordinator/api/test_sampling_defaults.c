/* test_sampling_defaults.c - generation_config.json as the source of defaults. */
#include "coordinator/api/sampling_defaults.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
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

static void penalties_of_the_file_are_read(void **state)
{
    static const char text[] = "{\"temperature\": 0.7, \"repetition_penalty\": 1.05}";
    struct scratch scratch;
    struct sampling_params params;
    struct error err = {0};
    FILE *file;

    (void)state;
    scratch_open(&scratch);
    file = fopen(scratch_path(&scratch, "generation_config.json"), "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0 && fclose(file) == 0);
    assert_true(sampling_defaults_read(scratch.folder, &params, &err));
    scratch_close(&scratch);
    assert_float_equal(params.repetition_penalty, 1.05, 1e-6);
}

static void ranges_are_checked(void **state)
{
    struct sampling_params params = {.temperature = 1, .top_p = 1, .repetition_penalty = 1};
    struct error err = {0};

    (void)state;
    assert_true(sampling_params_check(&params, &err));
    params.top_p = 0;
    assert_false(sampling_params_check(&params, &err));
    assert_non_null(strstr(err.message, "top_p"));
    params = (struct sampling_params){.temperature = 1, .top_p = 1, .repetition_penalty = 0};
    assert_false(sampling_params_check(&params, &err));
    assert_non_null(strstr(err.message, "repetition_penalty"));
    params = (struct sampling_params){.temperature = -0.1f, .top_p = 1, .repetition_penalty = 1};
    assert_false(sampling_params_check(&params, &err));
    assert_non_null(strstr(err.message, "temperature"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_demo_models_file_is_read),
        cmocka_unit_test(without_a_file_sampling_is_plain),
        cmocka_unit_test(penalties_of_the_file_are_read),
        cmocka_unit_test(ranges_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
