/* test_splitter.c - patterns of tokenizer.json, run by PCRE2. */
#include "common/text/splitter.h"

#include "common/base/buffer.h"
#include "common/text/pattern.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void list_piece(void *context, const char *piece, size_t length)
{
    buffer_append_char(context, '[');
    buffer_append(context, piece, length);
    buffer_append_char(context, ']');
}

static void check_pieces(const char *const *patterns, size_t count, const char *text,
                         const char *expected)
{
    struct splitter splitter;
    struct buffer pieces = {0};
    struct error err = {0};

    splitter_init(&splitter);
    for (size_t i = 0; i < count; i++) {
        assert_true(splitter_add(&splitter, patterns[i], SPLIT_REGEX, SPLIT_KEEP_BOTH, &err));
    }
    struct split_run *run = split_run_create(&splitter, list_piece, &pieces);
    assert_true(split_run_text(run, text, strlen(text), &err));
    assert_string_equal(buffer_text(&pieces), expected);
    split_run_destroy(run);
    buffer_deinit(&pieces);
    splitter_deinit(&splitter);
}

static void check_one(const char *pattern, const char *text, const char *expected)
{
    check_pieces(&pattern, 1, text, expected);
}

static void check_translation(const char *pattern, const char *expected)
{
    struct buffer out = {0};
    struct error err = {0};

    assert_true(pattern_translate(pattern, strlen(pattern), &out, &err));
    assert_string_equal(buffer_text(&out), expected);
    buffer_deinit(&out);
}

static void check_pattern_refused(const char *pattern, const char *message)
{
    struct buffer out = {0};
    struct error err = {0};

    assert_false(pattern_translate(pattern, strlen(pattern), &out, &err));
    assert_int_equal(err.code, ERROR_INPUT);
    assert_string_equal(err.message, message);
    buffer_deinit(&out);
}

static void matches_and_gaps_are_pieces(void **state)
{
    (void)state;
    check_one("\\p{N}{1,3}", "a1234567b", "[a][123][456][7][b]");
    check_one("b", "", "");
    check_pieces(NULL, 0, "abc", "[abc]");
}

static void later_patterns_see_a_piece_as_a_text_of_its_own(void **state)
{
    (void)state;
    const char *patterns[] = {"x", "\\s+(?!\\S)|\\s+"};

    check_pieces(patterns, 2, "a  xb", "[a][  ][x][b]");
    check_pieces(patterns + 1, 1, "a  b", "[a][ ][ ][b]");
}

static void empty_matches_cut_without_a_piece(void **state)
{
    (void)state;
    check_one("(?=[A-Z])", "aBcD", "[a][Bc][D]");
    check_one("", "a\xC3\xA9z", "[a][\xC3\xA9][z]");
}

static void dollar_matches_at_line_ends_and_dot_not_at_newlines(void **state)
{
    (void)state;
    check_one("b$", "ab\nb", "[a][b][\n][b]");
    check_one(".+", "a\r\nb", "[a\r][\n][b]");
}

static void blanks_are_those_of_unicode(void **state)
{
    (void)state;
    check_one("\\s+",
              "a\xE1\xA0\x8E"
              "b\xE2\x80\x89"
              "c",
              "[a\xE1\xA0\x8E"
              "b][\xE2\x80\x89][c]");
    check_one("[^\\s]+", "a\xC2\x85z", "[a][\xC2\x85][z]");
}

static void shorthands_are_written_out(void **state)
{
    (void)state;
    check_translation("\\s\\S[\\s]", "[\\t-\\r\\x{85}\\p{Z}][^\\t-\\r\\x{85}\\p{Z}]"
                                     "[\\t-\\r\\x{85}\\p{Z}]");
    check_translation("\\h", "[0-9A-Fa-f]");
    check_translation("\\\\s[]s][^]\\]]\\p{L}", "\\\\s[]s][^]\\]]\\p{L}");
}

static void what_would_mean_something_else_is_refused(void **state)
{
    (void)state;
    check_pattern_refused("[a&&b]", "&& inside [...] is not supported");
    check_pattern_refused("[a[b]]", "a class inside [...] is not supported");
    check_pattern_refused("[\\S]", "\\S inside [...] is not supported");
}

static void a_pattern_that_gives_up_is_a_limit(void **state)
{
    (void)state;
    struct splitter splitter;
    struct buffer pieces = {0};
    struct error err = {0};
    char text[64];

    memset(text, 'a', sizeof text);
    splitter_init(&splitter);
    assert_true(splitter_add(&splitter, "(a+)+(?:c|d)", SPLIT_REGEX, SPLIT_KEEP_BOTH, &err));
    struct split_run *run = split_run_create(&splitter, list_piece, &pieces);
    assert_false(split_run_text(run, text, sizeof text, &err));
    assert_int_equal(err.code, ERROR_LIMIT);
    split_run_destroy(run);
    buffer_deinit(&pieces);
    splitter_deinit(&splitter);
}

static void steps_are_bounded(void **state)
{
    (void)state;
    struct splitter splitter;
    struct error err = {0};

    splitter_init(&splitter);
    for (size_t i = 0; i < SPLIT_STEPS_MAX; i++) {
        assert_true(splitter_add(&splitter, "a.", SPLIT_LITERAL, SPLIT_KEEP_BOTH, &err));
    }
    assert_false(splitter_add(&splitter, "a", SPLIT_LITERAL, SPLIT_KEEP_BOTH, &err));
    splitter_deinit(&splitter);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_and_gaps_are_pieces),
        cmocka_unit_test(later_patterns_see_a_piece_as_a_text_of_its_own),
        cmocka_unit_test(empty_matches_cut_without_a_piece),
        cmocka_unit_test(dollar_matches_at_line_ends_and_dot_not_at_newlines),
        cmocka_unit_test(blanks_are_those_of_unicode),
        cmocka_unit_test(shorthands_are_written_out),
        cmocka_unit_test(what_would_mean_something_else_is_refused),
        cmocka_unit_test(a_pattern_that_gives_up_is_a_limit),
        cmocka_unit_test(steps_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
