/* test_kv_type.c - names and sizes of the cache's storage types. */
#include "common/model/kv_type.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void each_type_is_found_by_its_name(void **state)
{
    (void)state;
    struct error err = {0};

    for (enum kv_type type = 0; type < KV_TYPE_COUNT; type++) {
        enum kv_type found;

        assert_true(kv_type_parse(kv_type_name(type), &found, &err));
        assert_int_equal(found, type);
        assert_int_equal(kv_type_bytes(type), type == KV_F32 ? 4 : 2);
    }
}

static void an_unknown_name_is_a_usage_error(void **state)
{
    (void)state;
    struct error err = {0};
    enum kv_type found;

    assert_false(kv_type_parse("F16", &found, &err));
    assert_int_equal(err.code, ERROR_USAGE);
    assert_non_null(strstr(err.message, "\"F16\""));
    assert_false(kv_type_parse("", &found, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_type_is_found_by_its_name),
        cmocka_unit_test(an_unknown_name_is_a_usage_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
