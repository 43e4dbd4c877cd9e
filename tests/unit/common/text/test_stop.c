/* test_stop.c - stop strings, whatever the chunks. */
#include "common/text/stop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

struct stops {
    const char *strings[4];
    size_t count;
};

/* Pushes text in chunks of every size; expected is what comes out. */
static void check(struct stops stops, const char *text, const char *expected, bool found_expected)
{
    size_t length = strlen(text);

    for (size_t chunk = 1; chunk <= length; chunk++) {
        struct stop_filter filter;
        struct buffer out = {0};
        bool found = false;

        stop_filter_init(&filter, stops.strings, stops.count);
        for (size_t at = 0; at < length; at += chunk) {
            size_t size = length - at < chunk ? length - at : chunk;

            found = stop_filter_push(&filter, text + at, size, &out);
            assert_int_equal(found, filter.found);
        }
        stop_filter_finish(&filter, &out);
        assert_string_equal(buffer_text(&out), expected);
        assert_int_equal(found, found_expected);
        buffer_deinit(&out);
        stop_filter_deinit(&filter);
    }
}

static void text_ends_before_the_stop_string(void **state)
{
    (void)state;
    check((struct stops){{"\n\n"}, 1}, "a\nb\n\nc", "a\nb", true);
    check((struct stops){{"aab"}, 1}, "aaaab!", "aa", true);
    check((struct stops){{"x"}, 1}, "x", "", true);
}

static void the_first_of_several_to_be_complete_counts(void **state)
{
    (void)state;
    check((struct stops){{"abcd", "bc"}, 2}, "zabcd", "za", true);
    check((struct stops){{"c", "abc"}, 2}, "zabc", "z", true);
}

static void a_beginning_that_is_no_stop_string_comes_out(void **state)
{
    (void)state;
    check((struct stops){{"STOP"}, 1}, "STSTO STO", "STSTO STO", false);
    check((struct stops){{""}, 1}, "abc", "abc", false);
    check((struct stops){{NULL}, 0}, "abc", "abc", false);
}

static void only_what_may_begin_a_stop_string_is_held(void **state)
{
    (void)state;
    const char *strings[] = {"END"};
    struct stop_filter filter;
    struct buffer out = {0};

    stop_filter_init(&filter, strings, 1);
    assert_false(stop_filter_push(&filter, "the EN", 6, &out));
    assert_string_equal(buffer_text(&out), "the ");
    assert_true(stop_filter_push(&filter, "D", 1, &out));
    assert_true(stop_filter_push(&filter, "more", 4, &out));
    stop_filter_finish(&filter, &out);
    assert_string_equal(buffer_text(&out), "the ");
    buffer_deinit(&out);
    stop_filter_deinit(&filter);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_ends_before_the_stop_string),
        cmocka_unit_test(the_first_of_several_to_be_complete_counts),
        cmocka_unit_test(a_beginning_that_is_no_stop_string_comes_out),
        cmocka_unit_test(only_what_may_begin_a_stop_string_is_held),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
