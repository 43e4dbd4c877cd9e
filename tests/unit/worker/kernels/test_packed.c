/* Panels of 16 outputs: every element at its place, whichever way it came. */
#include "tests/unit/worker/kernels/kernel_cases.h"

#include "common/base/mem.h"
#include "worker/kernels/packed.h"

static uint32_t value_at(const void *values, size_t index, uint32_t bytes)
{
    uint32_t value = 0;

    memcpy(&value, (const char *)values + index * bytes, bytes);
    return value;
}

/* Random bytes. */
static char *raw_values(struct numbers *numbers, size_t count, uint32_t bytes)
{
    char *raw = mem_alloc_zeroed(count, bytes);

    for (size_t i = 0; i < count * bytes; i++) {
        raw[i] = (char)numbers_bits(numbers);
    }
    return raw;
}

/* Of a row in a panel, as packed.h has it. */
static size_t index_of(enum weight_type type, uint32_t row, uint32_t column)
{
    switch (type) {
    case WEIGHT_BF16:
        return column / 2 * 32 + row * 2 + column % 2;
    case WEIGHT_F8_E4M3:
        return column / 4 * 64 + column % 2 * 32 + row * 2 + column / 2 % 2;
    default:
        return column * 16 + row;
    }
}

static void assert_packed(const void *packed, const char *raw, size_t stride, uint32_t rows,
                          uint32_t columns, enum weight_type type)
{
    const uint32_t bytes = weight_type_bytes(type);
    const size_t panel_values = packed_panel_bytes(type, columns) / bytes;

    for (uint32_t row = 0; row < packed_panel_count(rows) * PANEL_ROWS; row++) {
        for (uint32_t column = 0; column < columns; column++) {
            size_t index = row / 16 * panel_values + index_of(type, row % 16, column);
            uint32_t wanted = row < rows ? value_at(raw, row * stride + column, bytes) : 0;

            assert_int_equal(value_at(packed, index, bytes), wanted);
        }
    }
}

static const uint32_t shapes[][2] = {{1, 1},  {16, 8},  {16, 7},   {17, 9},  {32, 64},
                                     {5, 40}, {48, 33}, {100, 15}, {64, 257}};

static void rows_land_in_panels(void **state)
{
    struct numbers numbers = {.seed = 8};

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(shapes); i++) {
        for (int type = 0; type < WEIGHT_Q4_0; type++) {
            const uint32_t rows = shapes[i][0], columns = shapes[i][1];
            const uint32_t bytes = weight_type_bytes((enum weight_type)type);
            const size_t stride = columns + 3;
            char *raw = raw_values(&numbers, rows * stride, bytes);
            void *packed = mem_alloc_zeroed(packed_bytes((enum weight_type)type, rows, columns), 1);
            struct pack_source source = {(enum weight_type)type, raw, stride};

            pack_rows(packed, columns, 0, rows, &source);
            assert_packed(packed, raw, stride, rows, columns, (enum weight_type)type);
            mem_free(raw);
            mem_free(packed);
        }
    }
}

static void pieces_that_end_inside_a_panel_continue_there(void **state)
{
    static const uint32_t cuts[] = {0, 16, 21, 48, 49, 70};
    const uint32_t rows = 70, columns = 37;
    struct numbers numbers = {.seed = 18};
    char *raw = raw_values(&numbers, (size_t)rows * columns, 2);
    void *packed = mem_alloc_zeroed(packed_bytes(WEIGHT_BF16, rows, columns), 1);

    (void)state;
    for (size_t i = 0; i + 1 < ARRAY_LENGTH(cuts); i++) {
        struct pack_source source = {WEIGHT_BF16, raw + (size_t)cuts[i] * columns * 2, columns};
        pack_rows(packed, columns, cuts[i], cuts[i + 1] - cuts[i], &source);
    }
    assert_packed(packed, raw, columns, rows, columns, WEIGHT_BF16);
    mem_free(raw);
    mem_free(packed);
}

static void scales_follow_the_codes_of_their_panel(void **state)
{
    const uint32_t rows = 300, columns = 131, column_blocks = 2;
    const size_t panel_bytes = packed_panel_bytes(WEIGHT_F8_E4M3, columns);
    const float scales[3][2] = {{1, 2}, {3, 4}, {5, 0x1p-149f}};
    char *packed = mem_alloc_zeroed(packed_bytes(WEIGHT_F8_E4M3, rows, columns), 1);

    (void)state;
    assert_int_equal(panel_bytes, 132 * 16 + 64); /* two scales, and up to a line's end */
    pack_scales(packed, columns, 0, 144, scales[0]);
    pack_scales(packed, columns, 144, 32, scales[1]); /* begins inside a block */
    pack_scales(packed, columns, 176, 124, scales[1]);
    for (uint32_t panel = 0; panel < packed_panel_count(rows); panel++) {
        for (uint32_t i = 0; i < column_blocks; i++) {
            float value;

            memcpy(&value, packed + panel * panel_bytes + 132 * 16 + i * 4, sizeof(value));
            assert_true(value == 256 * scales[panel * 16 / 128][i]);
        }
    }
    mem_free(packed);
}

static void what_is_no_number_is_found(void **state)
{
    uint8_t codes[300];
    float scales[3] = {1, 0, -0x1p119f};

    (void)state;
    for (size_t i = 0; i < sizeof(codes); i++) {
        codes[i] = (uint8_t)(i % 0x7f | (i & 0x80));
    }
    assert_true(f8_codes_are_numbers(codes, sizeof(codes)));
    for (size_t i = 0; i < sizeof(codes); i++) {
        uint8_t code = codes[i];

        codes[i] = i % 2 == 0 ? 0xff : 0x7f;
        assert_false(f8_codes_are_numbers(codes, sizeof(codes)));
        assert_true(f8_codes_are_numbers(codes, i));
        codes[i] = code;
    }
    codes[0] = 0x7f;
    assert_false(f8_codes_are_numbers(codes, 1));
    assert_true(f8_scales_are_finite(scales, 3));
    scales[2] = 0x1p120f;
    assert_false(f8_scales_are_finite(scales, 3));
    scales[1] = float_of_bits(0x7fc00000);
    assert_false(f8_scales_are_finite(scales, 2));
    assert_true(f8_scales_are_finite(scales, 1));
}

static void transposed_of_type(enum weight_type type)
{
    struct numbers numbers = {.seed = 28};

    for (size_t i = 0; i < ARRAY_LENGTH(shapes); i++) {
        const uint32_t rows = shapes[i][0], columns = shapes[i][1]; /* of the packed matrix */
        const uint32_t cut = columns / 2;
        const size_t stride = rows + 2;
        char *raw = raw_values(&numbers, columns * stride, 2); /* [columns][rows] */
        char *turned = mem_alloc_zeroed((size_t)rows * columns, 2);
        void *packed = mem_alloc_zeroed(packed_bytes(type, rows, columns), 1);
        struct pack_source first = {type, raw, stride};
        struct pack_source second = {type, raw + cut * stride * 2, stride};

        for (uint32_t row = 0; row < rows; row++) {
            for (uint32_t column = 0; column < columns; column++) {
                memcpy(turned + ((size_t)row * columns + column) * 2,
                       raw + (column * stride + row) * 2, 2);
            }
        }
        pack_transposed(packed, rows, columns, 0, cut, &first);
        pack_transposed(packed, rows, columns, cut, columns - cut, &second);
        assert_packed(packed, turned, columns, rows, columns, type);
        mem_free(raw);
        mem_free(turned);
        mem_free(packed);
    }
}

static void transposed_columns_become_rows(void **state)
{
    (void)state;
    transposed_of_type(WEIGHT_F16);
    transposed_of_type(WEIGHT_BF16);
}

static void bytes_cover_whole_panels_and_lines(void **state)
{
    (void)state;
    assert_int_equal(packed_bytes(WEIGHT_BF16, 16, 2), 64);
    assert_int_equal(packed_bytes(WEIGHT_BF16, 1, 1), 64);
    assert_int_equal(packed_bytes(WEIGHT_F32, 17, 3), 2 * 16 * 3 * 4);
    assert_int_equal(packed_bytes(WEIGHT_BF16, 129280, 7168), UINT64_C(129280) * 7168 * 2);
    assert_int_equal(packed_panel_count(UINT32_MAX), (UINT32_MAX / 16) + 1);
}

static void scaled_codes_are_rounded_once(void **state)
{
    float out[3];

    (void)state;
    widen_f8(out, (const uint8_t[]){0x38, 0x01, 0xfe}, 3, 0.1f);
    assert_true(out[0] == 0.1f && out[1] == 0x1p-9f * 0.1f && out[2] == -448.0f * 0.1f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_land_in_panels),
        cmocka_unit_test(pieces_that_end_inside_a_panel_continue_there),
        cmocka_unit_test(scales_follow_the_codes_of_their_panel),
        cmocka_unit_test(what_is_no_number_is_found),
        cmocka_unit_test(transposed_columns_become_rows),
        cmocka_unit_test(bytes_cover_whole_panels_and_lines),
        cmocka_unit_test(scaled_codes_are_rounded_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
