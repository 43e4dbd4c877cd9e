/* test_gguf_values.c - metadata by key and type. */
#include "tests/unit/common/model/gguf_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* A header with one more value; its file stays in `file` until close. */
struct one_value {
    struct gguf_spec spec;
    struct buffer file;
    struct gguf_header header;
    struct error err;
};

static void value_begin(struct one_value *one, uint32_t type)
{
    *one = (struct one_value){.spec = gguf_spec_sound()};
    gguf_put_key(&one->spec.value, "x", type);
}

static void value_end(struct one_value *one)
{
    one->file = gguf_spec_write(&one->spec, NULL);
    assert_int_equal(gguf_header_init(&one->header, one->file.data, one->file.length,
                                      one->file.length, &one->err),
                     GGUF_PARSED);
}

static void value_close(struct one_value *one)
{
    gguf_header_deinit(&one->header);
    buffer_deinit(&one->file);
    buffer_deinit(&one->spec.value);
}

static void open_number(struct one_value *one, uint32_t type, uint64_t payload, uint32_t bytes)
{
    value_begin(one, type);
    for (uint32_t i = 0; i < bytes; i++) {
        buffer_append_char(&one->spec.value, (char)(payload >> 8 * i & 255));
    }
    value_end(one);
}

static void integers_of_any_width_serve(void **state)
{
    (void)state;
    static const struct {
        enum gguf_type type;
        uint32_t bytes;
    } widths[] = {{GGUF_U8, 1},  {GGUF_I8, 1},  {GGUF_U16, 2}, {GGUF_I16, 2},
                  {GGUF_U32, 4}, {GGUF_I32, 4}, {GGUF_U64, 8}, {GGUF_I64, 8}};

    for (size_t i = 0; i < ARRAY_LENGTH(widths); i++) {
        struct one_value one;
        uint32_t value = 0;
        double number = 0;

        open_number(&one, widths[i].type, 77, widths[i].bytes);
        assert_true(gguf_get_u32(&one.header, "x", &value, &one.err));
        assert_int_equal(value, 77);
        assert_true(gguf_get_number(&one.header, "x", &number, &one.err));
        assert_true(number == 77);
        value_close(&one);
    }
}

static void integers_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    static const struct {
        enum gguf_type type;
        uint32_t bytes;
        const char *words;
    } cases[] = {{GGUF_I8, 1, "key \"x\" is -1; 0 to 4294967295 can be used"},
                 {GGUF_I16, 2, "is -1"},
                 {GGUF_I32, 4, "is -1"},
                 {GGUF_I64, 8, "is -1"},
                 {GGUF_U64, 8, "is 9223372036854775807"}};

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct one_value one;
        uint32_t value = 5;

        open_number(&one, cases[i].type, UINT64_MAX, cases[i].bytes);
        assert_false(gguf_get_u32(&one.header, "x", &value, &one.err));
        assert_non_null(strstr(one.err.message, cases[i].words));
        assert_int_equal(value, 5);
        value_close(&one);
    }
}

static void floats_become_what_their_writer_had(void **state)
{
    (void)state;
    static const double written[] = {0.0707, 0.1, 1e-6, 10000, 1234567, 2.5, 0.70700001716613770,
                                     0};

    for (size_t i = 0; i < ARRAY_LENGTH(written); i++) {
        float narrow = (float)written[i];
        struct one_value one;
        uint32_t bits;
        double number = -1;

        memcpy(&bits, &narrow, sizeof(bits));
        open_number(&one, GGUF_F32, bits, 4);
        assert_true(gguf_get_number(&one.header, "x", &number, &one.err));
        assert_true((float)number == narrow);
        assert_true(i == 6 ? number == 0.707 : number == written[i]);
        value_close(&one);
    }
}

static void numbers_are_finite(void **state)
{
    (void)state;
    struct one_value one;
    double number;

    open_number(&one, GGUF_F32, 0x7fc00000, 4);
    assert_false(gguf_get_number(&one.header, "x", &number, &one.err));
    assert_string_equal(one.err.message, "key \"x\" is nan; it must be finite");
    value_close(&one);
    open_number(&one, GGUF_F64, UINT64_C(0x7ff0000000000000), 8);
    assert_false(gguf_get_number_or(&one.header, "x", 1, &number, &one.err));
    value_close(&one);
    open_number(&one, GGUF_F64, UINT64_C(0x3ff8000000000000), 8);
    assert_true(gguf_get_number_or(&one.header, "x", 1, &number, &one.err));
    assert_true(number == 1.5);
    value_close(&one);
}

static void missing_keys_give_the_fallback_or_their_name(void **state)
{
    (void)state;
    struct one_value one;
    struct gguf_string string;
    struct gguf_array array;
    uint32_t value;
    double number;
    bool flag;

    open_number(&one, GGUF_U8, 1, 1);
    assert_true(gguf_get_u32_or(&one.header, "y", 9, &value, &one.err) && value == 9);
    assert_true(gguf_get_number_or(&one.header, "y", 0.5, &number, &one.err) && number == 0.5);
    assert_true(gguf_get_bool_or(&one.header, "y", true, &flag, &one.err) && flag);
    assert_false(gguf_get_u32(&one.header, "y", &value, &one.err));
    assert_string_equal(one.err.message, "key \"y\" is missing; it must be an integer");
    assert_false(gguf_get_number(&one.header, "y", &number, &one.err));
    assert_false(gguf_get_string(&one.header, "y", &string, &one.err));
    assert_false(gguf_get_array(&one.header, "y", GGUF_F32, &array, &one.err));
    assert_string_equal(one.err.message, "key \"y\" is missing; it must be an array of f32");
    assert_null(gguf_find(&one.header, "general.architectur"));
    assert_null(gguf_find(&one.header, "general.architectures"));
    value_close(&one);
}

static void wrong_types_are_named(void **state)
{
    (void)state;
    struct one_value one;
    struct gguf_string string;
    struct gguf_array array;
    uint32_t value;
    double number;
    bool flag;

    open_number(&one, GGUF_U8, 1, 1);
    assert_false(gguf_get_u32(&one.header, "general.architecture", &value, &one.err));
    assert_string_equal(one.err.message,
                        "key \"general.architecture\" must be an integer, got string");
    assert_false(gguf_get_u32_or(&one.header, "tiny.words", 1, &value, &one.err));
    assert_string_equal(one.err.message,
                        "key \"tiny.words\" must be an integer, got an array of string");
    assert_false(gguf_get_number(&one.header, "tiny.words", &number, &one.err));
    assert_false(gguf_get_bool_or(&one.header, "x", false, &flag, &one.err));
    assert_string_equal(one.err.message, "key \"x\" must be a bool, got u8");
    assert_false(gguf_get_string(&one.header, "x", &string, &one.err));
    assert_false(gguf_get_array(&one.header, "x", GGUF_U8, &array, &one.err));
    assert_false(gguf_get_array(&one.header, "tiny.words", GGUF_U8, &array, &one.err));
    value_close(&one);
}

static void strings_and_bools_are_read(void **state)
{
    (void)state;
    struct one_value one;
    struct gguf_string string;
    bool flag = false;

    open_number(&one, GGUF_BOOL, 1, 1);
    assert_true(gguf_get_bool_or(&one.header, "x", false, &flag, &one.err) && flag);
    assert_true(gguf_get_string(&one.header, "general.architecture", &string, &one.err));
    assert_true(gguf_string_equals(string, "tiny"));
    assert_false(gguf_string_equals(string, "tin"));
    assert_false(gguf_string_equals(string, "tiny!"));
    value_close(&one);
}

static void arrays_of_strings_are_walked(void **state)
{
    (void)state;
    struct one_value one;
    struct gguf_array words;
    struct gguf_string word;

    open_number(&one, GGUF_U8, 1, 1);
    assert_true(gguf_get_array(&one.header, "tiny.words", GGUF_STRING, &words, &one.err));
    assert_int_equal(words.count, 3);
    assert_true(gguf_array_next(&words, &word) && gguf_string_equals(word, "one"));
    assert_true(gguf_array_next(&words, &word) && gguf_string_equals(word, ""));
    assert_true(gguf_array_next(&words, &word) && gguf_string_equals(word, "three"));
    assert_false(gguf_array_next(&words, &word));
    value_close(&one);
}

static void arrays_of_numbers_are_indexed(void **state)
{
    (void)state;
    struct one_value one;
    struct gguf_array array;

    value_begin(&one, GGUF_ARRAY);
    gguf_put_u32(&one.spec.value, GGUF_I32);
    gguf_put_u64(&one.spec.value, 2);
    gguf_put_u32(&one.spec.value, 3);
    gguf_put_u32(&one.spec.value, (uint32_t)-4);
    value_end(&one);
    assert_true(gguf_get_array(&one.header, "x", GGUF_I32, &array, &one.err));
    assert_int_equal(array.count, 2);
    assert_int_equal(gguf_array_integer(&array, 0), 3);
    assert_int_equal(gguf_array_integer(&array, 1), -4);
    value_close(&one);

    value_begin(&one, GGUF_ARRAY);
    gguf_put_u32(&one.spec.value, GGUF_F32);
    gguf_put_u64(&one.spec.value, 1);
    gguf_put_u32(&one.spec.value, 0x3fc00000);
    value_end(&one);
    assert_true(gguf_get_array(&one.header, "x", GGUF_F32, &array, &one.err));
    assert_true(gguf_array_number(&array, 0) == 1.5);
    value_close(&one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_of_any_width_serve),
        cmocka_unit_test(integers_that_do_not_fit_are_refused),
        cmocka_unit_test(floats_become_what_their_writer_had),
        cmocka_unit_test(numbers_are_finite),
        cmocka_unit_test(missing_keys_give_the_fallback_or_their_name),
        cmocka_unit_test(wrong_types_are_named),
        cmocka_unit_test(strings_and_bools_are_read),
        cmocka_unit_test(arrays_of_strings_are_walked),
        cmocka_unit_test(arrays_of_numbers_are_indexed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
