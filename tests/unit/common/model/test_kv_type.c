/* test_kv_type.c - names and sizes of the cache's storage types, and how a block lies. */
#include "common/model/kv_type.h"

#include "tests/unit/common/model/model_fixture.h"

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
        assert_int_equal(kv_type_bytes(type), type == KV_F32 ? 4 : type == KV_Q8 ? 1 : 2);
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

static void a_block_of_mla_holds_entries_then_scales(void **state)
{
    struct arch r1 = fixture_arch("DeepSeek-R1");
    struct kv_layout f16 = kv_layout_of(&r1, KV_F16);
    struct kv_layout q8 = kv_layout_of(&r1, KV_Q8);

    (void)state;
    assert_true(f16.latent && f16.head_count == 1);
    assert_int_equal(f16.key_width, 576);
    assert_int_equal(f16.value_width, 512);
    assert_int_equal(f16.value_begin, 0);
    assert_int_equal(f16.scale_count, 0);
    assert_int_equal(kv_layout_token_bytes(&f16), 1152);
    assert_int_equal(q8.scale_count, 2);
    assert_int_equal(q8.scale_begin, 64 * 576);
    assert_int_equal(kv_layout_token_bytes(&q8), 576 + 2 * 4);
}

static void a_block_of_grouped_heads_holds_keys_values_and_scales(void **state)
{
    struct arch llama = fixture_arch("Llama-3.1-8B");
    struct kv_layout f32 = kv_layout_of(&llama, KV_F32);
    struct kv_layout q8 = kv_layout_of(&llama, KV_Q8);

    (void)state;
    assert_true(!f32.latent && f32.head_count == 8);
    assert_int_equal(f32.value_begin, 64 * 8 * 128 * 4);
    assert_int_equal(kv_layout_token_bytes(&f32), 2 * 8 * 128 * 4);
    assert_int_equal(q8.value_begin, 64 * 8 * 128);
    assert_int_equal(q8.scale_begin, 2 * q8.value_begin);
    assert_int_equal(kv_layout_token_bytes(&q8), 2 * 8 * (128 + 4));
    assert_int_equal(q8.block_bytes % 64, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_of_mla_holds_entries_then_scales),
        cmocka_unit_test(a_block_of_grouped_heads_holds_keys_values_and_scales),
        cmocka_unit_test(each_type_is_found_by_its_name),
        cmocka_unit_test(an_unknown_name_is_a_usage_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
