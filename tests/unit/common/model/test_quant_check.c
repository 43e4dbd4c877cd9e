/* test_quant_check.c - a scale that is no number is found in every block type. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/model/weight_type.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static uint8_t *golden_blocks(enum weight_type type, size_t *length)
{
    char *path = mem_printf("%s/quants/%s.bin", SHOAL_TEST_DATA, weight_type_name(type));
    struct error err = {0};
    char *bytes = NULL;

    if (!file_read(path, 1 << 20, &bytes, length, &err)) {
        fail_msg("%s", err.message);
    }
    mem_free(path);
    return (uint8_t *)bytes;
}

/* Whether all values of one block are finite, by decoding it. */
static bool decodes_finite(enum weight_type type, const uint8_t *block)
{
    uint32_t values = weight_type_block_values(type);
    float wide[256];

    weight_values_widen(wide, type, block, values);
    for (uint32_t i = 0; i < values; i++) {
        if (!isfinite(wide[i])) {
            return false;
        }
    }
    return true;
}

static void sound_blocks_pass(void **state)
{
    (void)state;
    for (int type = WEIGHT_Q4_0; type < WEIGHT_TYPE_COUNT; type++) {
        size_t length;
        uint8_t *blocks = golden_blocks((enum weight_type)type, &length);
        uint32_t values = weight_type_block_values((enum weight_type)type);
        uint64_t block_bytes = weight_row_bytes((enum weight_type)type, values);

        assert_true(weight_scales_are_finite((enum weight_type)type, blocks,
                                             length / block_bytes * values));
        mem_free(blocks);
    }
}

/* Every bit of the first block is set in turn to what makes f16 exponents full: wherever decoding
 * then gives no number, the check says so, and nowhere else. */
static void the_check_agrees_with_decoding(void **state)
{
    uint32_t broken = 0;

    (void)state;
    for (int type = WEIGHT_Q4_0; type < WEIGHT_TYPE_COUNT; type++) {
        size_t length;
        uint8_t *block = golden_blocks((enum weight_type)type, &length);
        uint32_t values = weight_type_block_values((enum weight_type)type);
        uint64_t block_bytes = weight_row_bytes((enum weight_type)type, values);
        uint32_t broken_before = broken;

        for (uint64_t byte = 0; byte < block_bytes; byte++) {
            uint8_t kept = block[byte];
            uint8_t below = byte >= 2 ? block[byte - 2] : 0;

            block[byte] = 0xff;
            if (type == WEIGHT_IQ1_M && byte >= 2) {
                block[byte - 2] |= 0xf0; /* the exponent lies in two quarters */
            }
            bool finite = decodes_finite((enum weight_type)type, block);

            if (weight_scales_are_finite((enum weight_type)type, block, values) != finite) {
                fail_msg("%s, byte %u", weight_type_name((enum weight_type)type), (unsigned)byte);
            }
            broken += !finite;
            block[byte] = kept;
            if (byte >= 2) {
                block[byte - 2] = below;
            }
        }
        assert_true(broken > broken_before);
        mem_free(block);
    }
}

static void later_blocks_are_checked_too(void **state)
{
    size_t length;
    uint8_t *blocks = golden_blocks(WEIGHT_Q8_0, &length);

    (void)state;
    blocks[3 * 34 + 1] = 0x7c;
    blocks[3 * 34] = 0;
    assert_true(weight_scales_are_finite(WEIGHT_Q8_0, blocks, 3 * 32));
    assert_false(weight_scales_are_finite(WEIGHT_Q8_0, blocks, 4 * 32));
    mem_free(blocks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sound_blocks_pass),
        cmocka_unit_test(the_check_agrees_with_decoding),
        cmocka_unit_test(later_blocks_are_checked_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
