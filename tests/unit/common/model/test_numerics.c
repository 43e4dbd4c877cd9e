/* test_numerics.c - names and ids of the ways to compute products. */
#include "common/base/check.h"
#include "common/model/numerics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void names_are_found_again(void **state)
{
    enum numerics found = NUMERICS_COUNT;

    (void)state;
    assert_true(numerics_find("exact", &found));
    assert_int_equal(found, NUMERICS_EXACT);
    assert_true(numerics_find("int8", &found));
    assert_int_equal(found, NUMERICS_INT8);
    assert_true(numerics_find("fast-amx", &found));
    assert_int_equal(found, NUMERICS_FAST_AMX);
    assert_true(numerics_find("fast-blas", &found));
    assert_int_equal(found, NUMERICS_FAST_BLAS);
    assert_false(numerics_find("fast", &found));
    assert_false(numerics_find("", &found));
    assert_int_equal(found, NUMERICS_FAST_BLAS);
}

static void fast_may_be_asked_for(void **state)
{
    enum numerics found = NUMERICS_COUNT;

    (void)state;
    assert_true(numerics_asked("int8", &found));
    assert_int_equal(found, NUMERICS_INT8);
    assert_false(numerics_asked("faster", &found));
    assert_int_equal(found, NUMERICS_INT8);
    assert_true(numerics_asked("fast", &found));
    assert_int_equal(found, NUMERICS_FAST);
}

static void an_id_names_numerics_kv_type_and_version(void **state)
{
    char text[NUMERICS_ID_BYTES];
    enum numerics found = NUMERICS_COUNT;

    (void)state;
    assert_string_equal(numerics_id_write(NUMERICS_INT8, KV_F16, 1, text), "int8/f16/k1");
    assert_true(numerics_of_id(text, KV_F16, 1, &found));
    assert_int_equal(found, NUMERICS_INT8);
    assert_true(numerics_of_id("exact/f32/k4294967295", KV_F32, UINT32_MAX, &found));
    assert_int_equal(found, NUMERICS_EXACT);
}

static void an_id_of_others_is_not_ours(void **state)
{
    enum numerics found = NUMERICS_COUNT;

    (void)state;
    assert_false(numerics_of_id("int8/f16/k2", KV_F16, 1, &found));
    assert_false(numerics_of_id("int8/f32/k1", KV_F16, 1, &found));
    assert_false(numerics_of_id("int8/f16/k1x", KV_F16, 1, &found));
    assert_false(numerics_of_id("", KV_F16, 1, &found));
    assert_int_equal(found, NUMERICS_COUNT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_found_again),
        cmocka_unit_test(fast_may_be_asked_for),
        cmocka_unit_test(an_id_names_numerics_kv_type_and_version),
        cmocka_unit_test(an_id_of_others_is_not_ours),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
