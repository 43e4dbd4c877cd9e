/* test_error.c - messages are set, wrapped, cut. */
#include "common/base/error.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void a_set_error_has_its_code_and_message(void **state)
{
    (void)state;
    struct error err = {0};

    assert_false(error_set(&err, ERROR_INPUT, "header claims %d bytes, %d left", 9000, 812));
    assert_int_equal(err.code, ERROR_INPUT);
    assert_string_equal(err.message, "header claims 9000 bytes, 812 left");
}

static void wrapping_puts_the_place_in_front_and_keeps_the_code(void **state)
{
    (void)state;
    struct error err = {0};

    error_set(&err, ERROR_LIMIT, "too long");
    assert_false(error_wrap(&err, "catalog %s", "/m/a"));
    assert_false(error_wrap(&err, "stage %d", 2));
    assert_int_equal(err.code, ERROR_LIMIT);
    assert_string_equal(err.message, "stage 2: catalog /m/a: too long");
}

static void an_errno_error_ends_with_the_reason_and_keeps_errno(void **state)
{
    (void)state;
    struct error err = {0};

    errno = ENOENT;
    assert_false(error_set_errno(&err, "%s: cannot open", "/no"));
    assert_int_equal(errno, ENOENT);
    assert_int_equal(err.code, ERROR_SYSTEM);
    assert_string_equal(err.message, "/no: cannot open: No such file or directory");
}

static void a_message_may_quote_the_one_it_replaces(void **state)
{
    (void)state;
    struct error err = {0};

    error_set(&err, ERROR_PEER, "gone");
    error_set(&err, ERROR_INPUT, "<%s>", err.message);
    assert_string_equal(err.message, "<gone>");
    error_wrap(&err, "(%s)", err.message);
    assert_string_equal(err.message, "(<gone>): <gone>");
}

static void long_messages_are_cut_to_fit(void **state)
{
    (void)state;
    struct error err = {0};
    char text[2000];

    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    error_set(&err, ERROR_INPUT, "%s", text);
    assert_int_equal(strlen(err.message), sizeof(err.message) - 1);
    for (int i = 0; i < 3; i++) {
        error_wrap(&err, "%s", "where");
        assert_int_equal(strlen(err.message), sizeof(err.message) - 1);
        assert_memory_equal(err.message, "where: ", 7);
    }
    error_wrap(&err, "%s", text);
    assert_int_equal(strlen(err.message), sizeof(err.message) - 1);
}

/* The message, shifted byte by byte, is cut inside each kind of character once. */
static void a_cut_never_leaves_half_a_character(void **state)
{
    (void)state;
    static const char *const letters[] = {"\xC3\xA9", "\xE6\xB0\xB4", "\xF0\x9F\x90\x9F"};

    for (size_t letter = 0; letter < ARRAY_LENGTH(letters); letter++) {
        size_t bytes = strlen(letters[letter]);

        for (size_t shift = 0; shift < bytes; shift++) {
            char text[1024] = "aaaa";
            struct error err = {0};

            text[shift] = '\0';
            while (strlen(text) + bytes < sizeof(text)) {
                strcat(text, letters[letter]);
            }
            error_set(&err, ERROR_INPUT, "%s", text);
            assert_int_equal((strlen(err.message) - shift) % bytes, 0);
            assert_true(strlen(err.message) + bytes >= sizeof(err.message));
            assert_memory_equal(err.message, text, strlen(err.message));
        }
    }
}

static void every_code_has_a_name(void **state)
{
    (void)state;
    assert_string_equal(error_code_name(ERROR_NONE), "none");
    assert_string_equal(error_code_name(ERROR_USAGE), "usage");
    assert_string_equal(error_code_name(ERROR_INPUT), "input");
    assert_string_equal(error_code_name(ERROR_LIMIT), "limit");
    assert_string_equal(error_code_name(ERROR_SYSTEM), "system");
    assert_string_equal(error_code_name(ERROR_PEER), "peer");
    assert_string_equal(error_code_name((enum error_code)99), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_set_error_has_its_code_and_message),
        cmocka_unit_test(wrapping_puts_the_place_in_front_and_keeps_the_code),
        cmocka_unit_test(an_errno_error_ends_with_the_reason_and_keeps_errno),
        cmocka_unit_test(a_message_may_quote_the_one_it_replaces),
        cmocka_unit_test(long_messages_are_cut_to_fit),
        cmocka_unit_test(a_cut_never_leaves_half_a_character),
        cmocka_unit_test(every_code_has_a_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
