/* test_weight_type.c - names, sizes and values of the published types. */
#include "common/base/check.h"
#include "common/model/weight_type.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void every_type_is_found_by_its_name(void **state)
{
    (void)state;
    for (int i = 0; i < WEIGHT_TYPE_COUNT; i++) {
        enum weight_type found = WEIGHT_TYPE_COUNT;

        assert_true(weight_type_find(weight_type_name((enum weight_type)i), &found));
        assert_int_equal(found, i);
    }
}

static void unknown_names_are_not_found(void **state)
{
    enum weight_type found = WEIGHT_BF16;

    (void)state;
    assert_false(weight_type_find("bf16", &found));
    assert_false(weight_type_find("", &found));
    assert_int_equal(found, WEIGHT_BF16);
}

static void every_readable_gguf_type_has_one(void **state)
{
    uint32_t readable = 0;

    (void)state;
    for (uint32_t quant = 0; quant < QUANT_TYPE_COUNT; quant++) {
        const struct quant_traits *traits = quant_traits(quant);
        enum weight_type type;

        if (traits == NULL) {
            continue;
        }
        type = weight_type_of_quant((enum quant_type)quant);
        assert_string_equal(weight_type_name(type), traits->name);
        assert_int_equal(weight_type_block_values(type), traits->block_values);
        assert_int_equal(weight_row_bytes(type, 512),
                         512 / traits->block_values * traits->block_bytes);
        assert_int_equal(weight_type_is_blocks(type), traits->block_values > 1);
        readable++;
    }
    assert_int_equal(readable, WEIGHT_TYPE_COUNT - 1); /* all but F8_E4M3 */
}

static void rows_are_counted_in_blocks(void **state)
{
    (void)state;
    assert_int_equal(weight_row_bytes(WEIGHT_F8_E4M3, 7168), 7168);
    assert_int_equal(weight_row_bytes(WEIGHT_BF16, 3), 6);
    assert_int_equal(weight_row_bytes(WEIGHT_Q4_K, 7168), 7168 / 256 * 144);
    assert_int_equal(weight_row_bytes(WEIGHT_Q5_0, 1408), 1408 / 32 * 22);
    assert_int_equal(scale_block_count(576), 5);
    assert_int_equal(scale_block_count(128), 1);
}

static void values_are_widened_exactly(void **state)
{
    static const uint16_t bf16[] = {0x3f80, 0xc040, 0x0001}, f16[] = {0x3c00, 0xc200, 0x0001};
    static const float f32[] = {0x1.234p-140f, -7.0f};
    uint8_t q8[34] = {0x00, 0x38}; /* d = 0.5 */
    float out[32];

    (void)state;
    weight_values_widen(out, WEIGHT_BF16, bf16, 3);
    assert_true(out[0] == 1.0f && out[1] == -3.0f && out[2] == 0x1p-133f);
    weight_values_widen(out, WEIGHT_F16, f16, 3);
    assert_true(out[0] == 1.0f && out[1] == -3.0f && out[2] == 0x1p-24f);
    weight_values_widen(out, WEIGHT_F32, f32, 2);
    assert_memory_equal(out, f32, sizeof(f32));
    q8[2] = 0x80;
    q8[33] = 3;
    weight_values_widen(out, WEIGHT_Q8_0, q8, 32);
    assert_true(out[0] == -64.0f && out[1] == 0.0f && out[31] == 1.5f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_is_found_by_its_name),
        cmocka_unit_test(unknown_names_are_not_found),
        cmocka_unit_test(every_readable_gguf_type_has_one),
        cmocka_unit_test(rows_are_counted_in_blocks),
        cmocka_unit_test(values_are_widened_exactly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
