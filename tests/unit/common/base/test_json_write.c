/* test_json_write.c - what is written is what jansson reads back. */
#include "common/base/json_write.h"

#include "common/base/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void expect_same(const char *text, size_t length)
{
    struct buffer out = {0};
    struct error err = {0};
    json_t *array;

    buffer_append_char(&out, '[');
    json_write_string(&out, text, length);
    buffer_append_char(&out, ']');
    array = json_parse(buffer_text(&out), out.length, "written", &err);
    assert_non_null(array);
    assert_int_equal(json_string_length(json_array_get(array, 0)), length);
    assert_memory_equal(json_string_value(json_array_get(array, 0)), text, length);
    json_decref(array);
    buffer_deinit(&out);
}

static void every_ascii_character_is_read_back(void **state)
{
    char text[127];

    (void)state;
    for (size_t i = 0; i < sizeof(text); i++) {
        text[i] = (char)(i + 1);
        expect_same(&text[i], 1);
    }
    expect_same(text, sizeof(text));
    expect_same("", 0);
}

static void other_characters_are_left_as_they_are(void **state)
{
    static const char text[] = "Grüße, 世界 \xF0\x9F\x90\x9F";
    struct buffer out = {0};

    (void)state;
    expect_same(text, strlen(text));
    json_write_string(&out, text, strlen(text));
    assert_int_equal(out.length, strlen(text) + 2);
    buffer_deinit(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_ascii_character_is_read_back),
        cmocka_unit_test(other_characters_are_left_as_they_are),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
