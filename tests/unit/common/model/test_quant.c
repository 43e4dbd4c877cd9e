/* test_quant.c - every block format against blocks of random bytes and the floats they stand for.
 */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/model/quant.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static char *golden_read(const char *name, const char *kind, size_t *length)
{
    char *path = mem_printf("%s/quants/%s.%s", SHOAL_TEST_DATA, name, kind);
    struct error err = {0};
    char *bytes = NULL;

    if (!file_read(path, 1 << 20, &bytes, length, &err)) {
        fail_msg("%s", err.message);
    }
    mem_free(path);
    return bytes;
}

/* Blocks at an odd address, floats behind each other: neither side needs alignment. */
static void expect_golden(enum quant_type type)
{
    const struct quant_traits *traits = quant_traits(type);
    size_t block_bytes, float_bytes;
    char *blocks = golden_read(traits->name, "bin", &block_bytes);
    char *expected = golden_read(traits->name, "f32", &float_bytes);
    char *odd = mem_new_array(char, block_bytes + 1);
    size_t count = float_bytes / sizeof(float);
    float *got = mem_new_array(float, count);

    memcpy(odd + 1, blocks, block_bytes);
    assert_int_equal(quant_bytes(type, count), block_bytes);
    quant_decode(got, type, odd + 1, count);
    for (size_t i = 0; i < count; i++) {
        if (memcmp(&got[i], expected + i * sizeof(float), sizeof(float)) != 0) {
            fail_msg("%s: value %zu of block %zu is %a", traits->name, i % traits->block_values,
                     i / traits->block_values, (double)got[i]);
        }
    }
    mem_free(blocks);
    mem_free(expected);
    mem_free(odd);
    mem_free(got);
}

static void every_format_decodes_to_the_golden_bits(void **state)
{
    (void)state;
    uint32_t seen = 0;

    for (uint32_t type = 0; type < QUANT_TYPE_COUNT; type++) {
        if (quant_traits(type) != NULL && type != QUANT_F32) {
            expect_golden((enum quant_type)type);
            seen++;
        }
    }
    assert_int_equal(seen, 21);
}

static void f32_values_are_copied(void **state)
{
    (void)state;
    const float values[3] = {1.5f, -0.0f, 3e-42f};
    float got[3];

    quant_decode(got, QUANT_F32, values, 3);
    assert_memory_equal(got, values, sizeof(values));
}

static void a_run_of_no_blocks_writes_nothing(void **state)
{
    (void)state;
    float sentinel = 7.0f;

    quant_decode(&sentinel, QUANT_IQ1_M, "", 0);
    assert_true(sentinel == 7.0f);
}

static void bytes_follow_from_values(void **state)
{
    (void)state;
    assert_int_equal(quant_bytes(QUANT_Q4_K, 7168 * UINT64_C(2048)), UINT64_C(8257536));
    assert_int_equal(quant_bytes(QUANT_BF16, 3), 6);
    assert_int_equal(quant_bytes(QUANT_Q4_K, 128), 0);
    assert_int_equal(quant_bytes(QUANT_F32, UINT64_MAX / 2), 0);
    assert_int_equal(quant_bytes(4, 32), 0);
}

static void types_without_a_decoder_are_named_all_the_same(void **state)
{
    (void)state;
    assert_null(quant_traits(39));
    assert_null(quant_traits(4));
    assert_null(quant_traits(UINT32_MAX));
    assert_string_equal(quant_type_name(QUANT_IQ4_XS), "IQ4_XS");
    assert_string_equal(quant_type_name(39), "MXFP4");
    assert_string_equal(quant_type_name(4), "unknown");
    assert_string_equal(quant_type_name(UINT32_MAX), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_decodes_to_the_golden_bits),
        cmocka_unit_test(f32_values_are_copied),
        cmocka_unit_test(a_run_of_no_blocks_writes_nothing),
        cmocka_unit_test(bytes_follow_from_values),
        cmocka_unit_test(types_without_a_decoder_are_named_all_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
