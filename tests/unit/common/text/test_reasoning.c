/* test_reasoning.c - thinking and answer, whatever the chunks. */
#include "common/text/reasoning.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* Pushes text in chunks of every size and checks both parts. */
static void check(enum reasoning_state begin, const char *text, const char *thinking_expected,
                  const char *answer_expected)
{
    size_t length = strlen(text);

    for (size_t chunk = 1; chunk <= length; chunk++) {
        struct reasoning reasoning;
        struct buffer thinking = {0};
        struct buffer answer = {0};

        reasoning_init(&reasoning, begin);
        for (size_t at = 0; at < length; at += chunk) {
            size_t size = length - at < chunk ? length - at : chunk;

            reasoning_push(&reasoning, text + at, size, &thinking, &answer);
        }
        reasoning_finish(&reasoning, &thinking, &answer);
        assert_string_equal(buffer_text(&thinking), thinking_expected);
        assert_string_equal(buffer_text(&answer), answer_expected);
        buffer_deinit(&thinking);
        buffer_deinit(&answer);
        reasoning_deinit(&reasoning);
    }
}

static void output_after_an_open_tag_is_split_at_the_closing_one(void **state)
{
    (void)state;
    check(REASONING_INSIDE, "one\ntwo\n</think>\n\nIt is 3.\n", "one\ntwo", "It is 3.\n");
    check(REASONING_INSIDE, "\n\na\n\nb</think>c", "a\n\nb", "c");
    check(REASONING_INSIDE, "</think>x", "", "x");
    check(REASONING_INSIDE, "\n</think>\n\n", "", "");
}

static void a_leading_tag_opens_the_thinking(void **state)
{
    (void)state;
    check(REASONING_START, "<think>\nhm\n</think>\n\nyes", "hm", "yes");
    check(REASONING_START, "\n <think>hm</think>yes", "hm", "yes");
}

static void output_without_a_leading_tag_is_an_answer(void **state)
{
    (void)state;
    check(REASONING_START, "\n  x <think>y</think>", "", "\n  x <think>y</think>");
    check(REASONING_START, "<thin air", "", "<thin air");
    check(REASONING_START, "<thi", "", "<thi");
    check(REASONING_ANSWER, "<think>x</think>", "", "<think>x</think>");
}

static void only_the_first_closing_tag_counts(void **state)
{
    (void)state;
    check(REASONING_INSIDE, "a</think>b</think>c", "a", "b</think>c");
}

static void thinking_that_never_ends_stays_thinking(void **state)
{
    (void)state;
    check(REASONING_INSIDE, "a </thin", "a </thin", "");
    check(REASONING_INSIDE, "a </b>\nc", "a </b>\nc", "");
    check(REASONING_START, "<think>a", "a", "");
}

static void what_is_certain_is_not_held(void **state)
{
    (void)state;
    struct reasoning reasoning;
    struct buffer thinking = {0};
    struct buffer answer = {0};

    reasoning_init(&reasoning, REASONING_INSIDE);
    reasoning_push(&reasoning, "abc\n</", 6, &thinking, &answer);
    assert_string_equal(buffer_text(&thinking), "abc");
    reasoning_push(&reasoning, "b>", 2, &thinking, &answer);
    assert_string_equal(buffer_text(&thinking), "abc\n</b>");
    buffer_deinit(&thinking);
    buffer_deinit(&answer);
    reasoning_deinit(&reasoning);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(output_after_an_open_tag_is_split_at_the_closing_one),
        cmocka_unit_test(a_leading_tag_opens_the_thinking),
        cmocka_unit_test(output_without_a_leading_tag_is_an_answer),
        cmocka_unit_test(only_the_first_closing_tag_counts),
        cmocka_unit_test(thinking_that_never_ends_stays_thinking),
        cmocka_unit_test(what_is_certain_is_not_held),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
