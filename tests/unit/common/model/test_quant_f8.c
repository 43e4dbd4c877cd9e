/* test_quant_f8.c - 8-bit floats: all codes, and rounding to them. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/model/quant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static char *golden_read(const char *name, size_t *length)
{
    char *path = mem_printf("%s/quants/%s", SHOAL_TEST_DATA, name);
    struct error err = {0};
    char *bytes = NULL;

    if (!file_read(path, 1 << 20, &bytes, length, &err)) {
        fail_msg("%s", err.message);
    }
    mem_free(path);
    return bytes;
}

static void all_codes_decode_to_the_golden_bits(void **state)
{
    (void)state;
    size_t length;
    char *expected = golden_read("F8_E4M3.f32", &length);
    uint8_t codes[256];
    float got[256];

    for (int i = 0; i < 256; i++) {
        codes[i] = (uint8_t)i;
    }
    quant_decode_f8_run(got, codes, 256);
    assert_int_equal(length, sizeof(got));
    assert_memory_equal(got, expected, sizeof(got));
    mem_free(expected);
}

static void floats_encode_to_the_golden_codes(void **state)
{
    (void)state;
    size_t float_bytes, count;
    char *values = golden_read("F8_E4M3.encode.f32", &float_bytes);
    char *codes = golden_read("F8_E4M3.encode.bin", &count);

    assert_int_equal(float_bytes, count * sizeof(float));
    for (size_t i = 0; i < count; i++) {
        float value;

        memcpy(&value, values + i * sizeof(value), sizeof(value));
        if (quant_encode_f8(value) != (uint8_t)codes[i]) {
            fail_msg("%a gives 0x%02x, not 0x%02x", (double)value, quant_encode_f8(value),
                     (uint8_t)codes[i]);
        }
    }
    mem_free(values);
    mem_free(codes);
}

static void every_code_survives_the_round_trip(void **state)
{
    (void)state;
    for (int i = 0; i < 256; i++) {
        assert_int_equal(quant_encode_f8(quant_decode_f8((uint8_t)i)), i);
    }
}

static void the_middle_between_neighbours_goes_to_the_even_one(void **state)
{
    (void)state;
    for (int i = 0; i < 0x7e; i++) {
        float middle = (quant_decode_f8((uint8_t)i) + quant_decode_f8((uint8_t)(i + 1))) / 2;

        assert_int_equal(quant_encode_f8(middle), i + i % 2);
        assert_int_equal(quant_encode_f8(nextafterf(middle, 0)), i);
        assert_int_equal(quant_encode_f8(nextafterf(middle, 1000)), i + 1);
        assert_int_equal(quant_encode_f8(-middle), 0x80 | (i + i % 2));
    }
}

static void what_is_too_large_saturates_and_nan_stays(void **state)
{
    (void)state;
    assert_int_equal(quant_encode_f8(449), 0x7e);
    assert_int_equal(quant_encode_f8(-1e30f), 0xfe);
    assert_int_equal(quant_encode_f8(INFINITY), 0x7e);
    assert_int_equal(quant_encode_f8(NAN), 0x7f);
    assert_int_equal(quant_encode_f8(-0.0f), 0x80);
    assert_int_equal(quant_encode_f8(1e-40f), 0);
    assert_true(isnan(quant_decode_f8(0x7f)));
}

static void a_row_takes_the_factor_of_each_block(void **state)
{
    (void)state;
    static const float scales[3] = {0.5f, -3.0f, 0.001f};
    uint8_t codes[257];
    float got[257];

    for (int i = 0; i < 257; i++) {
        codes[i] = (uint8_t)(i * 5 % 127);
    }
    quant_decode_f8_scaled(got, codes, scales, 257);
    for (int i = 0; i < 257; i++) {
        assert_true(got[i] == quant_decode_f8(codes[i]) * scales[i / 128]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_codes_decode_to_the_golden_bits),
        cmocka_unit_test(floats_encode_to_the_golden_codes),
        cmocka_unit_test(every_code_survives_the_round_trip),
        cmocka_unit_test(the_middle_between_neighbours_goes_to_the_even_one),
        cmocka_unit_test(what_is_too_large_saturates_and_nan_stays),
        cmocka_unit_test(a_row_takes_the_factor_of_each_block),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
