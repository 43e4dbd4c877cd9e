/* test_json.c - documents and fields, with errors that name the place. */
#include "common/base/json.h"

#include "common/base/file.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static json_t *parse(const char *text)
{
    struct error err = {0};
    json_t *root = json_parse(text, strlen(text), "test", &err);

    if (root == NULL) {
        print_error("%s\n", err.message);
    }
    assert_non_null(root);
    return root;
}

static void check_refused(const char *text, const char *message)
{
    struct error err = {0};

    assert_null(json_parse(text, strlen(text), "request body", &err));
    assert_int_equal(err.code, ERROR_INPUT);
    assert_string_equal(err.message, message);
}

static void malformed_documents_are_refused_with_their_place(void **state)
{
    (void)state;
    struct error err = {0};

    check_refused("{\"a\": 1,\n  \"b\" 2}",
                  "request body: line 2, column 7: ':' expected near '2'");
    check_refused("{\"a\": 1, \"a\": 2}",
                  "request body: line 1, column 12: duplicate object key near '\"a\"'");
    check_refused("[1] x", "request body: line 1, column 5: end of file expected near 'x'");
    assert_null(json_parse("", 0, "empty", &err));
    assert_null(json_parse("\xFF", 1, "bytes", &err));
    assert_null(json_parse("{\"a\"", 4, "cut", &err));
    assert_int_equal(err.code, ERROR_INPUT);
}

static void a_document_cut_anywhere_is_refused(void **state)
{
    (void)state;
    static const char text[] =
        "{\"a\": [1, 2.5, \"x\\\"\", 99999999999999999999], \"b\": {\"c\": null}}";

    for (size_t length = 0; length < sizeof(text) - 1; length++) {
        struct error err = {0};

        assert_null(json_parse(text, length, "cut", &err));
        assert_int_equal(err.code, ERROR_INPUT);
    }
    json_decref(parse(text));
}

static void endless_nesting_is_refused(void **state)
{
    (void)state;
    static char text[100000];
    struct error err = {0};

    memset(text, '[', sizeof(text));
    assert_null(json_parse(text, sizeof(text), "deep", &err));
    assert_int_equal(err.code, ERROR_INPUT);
}

static void integers_beyond_64_bits_are_numbers(void **state)
{
    (void)state;
    json_t *root = parse("{\"max\": 1000000000000000019884624838656, \"n\": -99999999999999999999,"
                         "\"s\": \"99999999999999999999 \\\" 99999999999999999999\", \"i\": 7,"
                         "\"top\": 9223372036854775807, \"r\": 99999999999999999999.5,"
                         "\"over\": 9223372036854775808}");
    struct error err = {0};
    double number;
    int64_t integer;
    const char *text;
    uint32_t small;

    assert_true(json_get_number_or(root, "max", 0, &number, &err) && number == 1e30);
    assert_true(json_get_number_or(root, "n", 0, &number, &err) && number == -1e20);
    assert_true(json_get_number_or(root, "r", 0, &number, &err) && number == 1e20);
    assert_true(json_get_number_or(root, "over", 0, &number, &err) && number == 0x1p63);
    assert_true(json_get_i64_or(root, "top", 0, &integer, &err) && integer == INT64_MAX);
    assert_true(json_get_string(root, "s", &text, &err));
    assert_string_equal(text, "99999999999999999999 \" 99999999999999999999");
    assert_false(json_get_u32(root, "max", &small, &err));
    assert_string_equal(err.message, "field \"max\" must be an integer, got a number");
    json_decref(root);
    assert_null(json_parse("[1e999]", 7, "real", &err));
}

static void integers_are_checked_for_type_and_range(void **state)
{
    (void)state;
    json_t *root = parse("{\"a\": 7, \"neg\": -1, \"big\": 4294967296, \"max\": 4294967295,"
                         "\"text\": \"5\", \"real\": 5.0, \"null\": null}");
    struct error err = {0};
    uint32_t value = 99;
    int64_t wide = 99;

    assert_true(json_get_u32(root, "a", &value, &err) && value == 7);
    assert_true(json_get_u32(root, "max", &value, &err) && value == UINT32_MAX);
    assert_true(json_get_u32_or(root, "none", 3, &value, &err) && value == 3);
    assert_true(json_get_u32_or(root, "null", 4, &value, &err) && value == 4);
    assert_true(json_get_u32_or(root, "a", 4, &value, &err) && value == 7);
    assert_false(json_get_u32(root, "neg", &value, &err));
    assert_string_equal(err.message, "field \"neg\" must be between 0 and 4294967295, got -1");
    assert_false(json_get_u32_or(root, "big", 1, &value, &err));
    assert_false(json_get_u32(root, "none", &value, &err));
    assert_string_equal(err.message, "field \"none\" is missing");
    assert_false(json_get_u32(root, "null", &value, &err));
    assert_string_equal(err.message, "field \"null\" is missing");
    assert_false(json_get_u32_or(root, "text", 1, &value, &err));
    assert_string_equal(err.message, "field \"text\" must be an integer, got a string");
    assert_int_equal(value, 7);
    assert_true(json_get_i64_or(root, "neg", 1, &wide, &err) && wide == -1);
    assert_true(json_get_i64_or(root, "none", 5, &wide, &err) && wide == 5);
    assert_false(json_get_i64_or(root, "real", 1, &wide, &err));
    assert_string_equal(err.message, "field \"real\" must be an integer, got a number");
    assert_int_equal(wide, 5);
    json_decref(root);
}

static void the_other_types_are_checked_too(void **state)
{
    (void)state;
    json_t *root = parse("{\"n\": 0.5, \"i\": 2, \"t\": true, \"s\": \"x\", \"o\": {}, \"a\": [],"
                         "\"null\": null}");
    struct error err = {0};
    double number = 9;
    bool flag = true;
    const char *text = "kept";
    json_t *part = NULL;

    assert_true(json_get_number_or(root, "n", 1, &number, &err) && number == 0.5);
    assert_true(json_get_number_or(root, "i", 1, &number, &err) && number == 2);
    assert_true(json_get_number_or(root, "null", 1, &number, &err) && number == 1);
    assert_false(json_get_number_or(root, "t", 1, &number, &err));
    assert_string_equal(err.message, "field \"t\" must be a number, got a boolean");
    assert_true(json_get_bool_or(root, "none", false, &flag, &err) && !flag);
    assert_true(json_get_bool_or(root, "t", false, &flag, &err) && flag);
    assert_false(json_get_bool_or(root, "i", false, &flag, &err));
    assert_string_equal(err.message, "field \"i\" must be a boolean, got an integer");
    assert_false(json_get_string(root, "null", &text, &err));
    assert_false(json_get_string(root, "o", &text, &err));
    assert_string_equal(err.message, "field \"o\" must be a string, got an object");
    assert_string_equal(text, "kept");
    assert_true(json_get_string(root, "s", &text, &err));
    assert_string_equal(text, "x");
    assert_true(json_get_string_or(root, "none", "fallback", &text, &err));
    assert_string_equal(text, "fallback");
    assert_true(json_get_object_or_null(root, "o", &part, &err) && json_is_object(part));
    assert_true(json_get_object_or_null(root, "none", &part, &err) && part == NULL);
    assert_true(json_get_array_or_null(root, "a", &part, &err) && json_is_array(part));
    assert_true(json_get_array_or_null(root, "null", &part, &err) && part == NULL);
    assert_false(json_get_object_or_null(root, "a", &part, &err));
    assert_string_equal(err.message, "field \"a\" must be an object, got an array");
    assert_false(json_get_array_or_null(root, "s", &part, &err));
    assert_string_equal(err.message, "field \"s\" must be an array, got a string");
    json_decref(root);
}

static void fields_of_what_is_no_object_are_refused(void **state)
{
    (void)state;
    json_t *root = parse("[1]");
    struct error err = {0};
    uint32_t value;

    assert_false(json_get_u32_or(root, "a", 1, &value, &err));
    assert_string_equal(err.message, "field \"a\" is looked for in an array, not an object");
    assert_false(json_get_u32_or(NULL, "a", 1, &value, &err));
    assert_string_equal(err.message, "field \"a\" is looked for in nothing, not an object");
    json_decref(root);
}

static void files_are_read_with_their_limit(void **state)
{
    (void)state;
    struct scratch scratch;
    struct error err = {0};
    json_t *root;

    scratch_open(&scratch);
    assert_true(file_write(scratch_path(&scratch, "a.json"), "{\"a\": 1}", 8, 0600, &err));
    root = json_read_file(scratch_path(&scratch, "a.json"), 8, &err);
    assert_non_null(root);
    json_decref(root);
    assert_null(json_read_file(scratch_path(&scratch, "a.json"), 7, &err));
    assert_int_equal(err.code, ERROR_LIMIT);
    assert_null(json_read_file(scratch_path(&scratch, "none.json"), 7, &err));
    assert_int_equal(err.code, ERROR_SYSTEM);
    scratch_close(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_documents_are_refused_with_their_place),
        cmocka_unit_test(a_document_cut_anywhere_is_refused),
        cmocka_unit_test(endless_nesting_is_refused),
        cmocka_unit_test(integers_beyond_64_bits_are_numbers),
        cmocka_unit_test(integers_are_checked_for_type_and_range),
        cmocka_unit_test(the_other_types_are_checked_too),
        cmocka_unit_test(fields_of_what_is_no_object_are_refused),
        cmocka_unit_test(files_are_read_with_their_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
