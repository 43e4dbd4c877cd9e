/* test_detokenizer.c - streamed text never holds half a character. */
#include "common/text/tokenizer.h"
#include "common/text/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define FFFD "\xEF\xBF\xBD"

/* A tokenizer whose token n is the byte of this list. */
static const char vocab_json[] =
    "{\"model\":{\"vocab\":{\"ð\":0,\"Ł\":1,\"ĳ\":2,\"¨\":3,\"a\":4,\"â\":5},\"merges\":[]},"
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
    "\"added_tokens\":[{\"id\":6,\"content\":\"<s>\",\"special\":true},"
    "{\"id\":7,\"content\":\"<t>\"}]}";

static struct tokenizer *open_bytes(void)
{
    struct error err = {0};
    struct tokenizer *tokenizer =
        tokenizer_parse(vocab_json, sizeof vocab_json - 1, NULL, 0, "t", &err);

    assert_non_null(tokenizer);
    return tokenizer;
}

static void check_lossy(const char *bytes, size_t length, const char *expected)
{
    struct buffer out = {0};

    utf8_append_lossy(&out, bytes, length);
    assert_string_equal(buffer_text(&out), expected);
    buffer_deinit(&out);
}

static void a_character_comes_out_with_its_last_byte(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = open_bytes();
    struct detokenizer detokenizer = {.held_count = 0};
    struct buffer out = {0};

    for (uint32_t id = 0; id < 3; id++) {
        detokenizer_push(&detokenizer, tokenizer, id, SPECIAL_SHOW, &out);
        assert_int_equal(out.length, 0);
    }
    detokenizer_push(&detokenizer, tokenizer, 3, SPECIAL_SHOW, &out);
    assert_string_equal(buffer_text(&out), "\xF0\x9F\x91\xA8");
    detokenizer_finish(&detokenizer, &out);
    assert_int_equal(out.length, 4);
    buffer_deinit(&out);
    tokenizer_close(tokenizer);
}

static void an_unfinished_character_becomes_one_replacement(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = open_bytes();
    struct detokenizer detokenizer = {.held_count = 0};
    struct buffer out = {0};

    detokenizer_push(&detokenizer, tokenizer, 0, SPECIAL_SHOW, &out);
    detokenizer_push(&detokenizer, tokenizer, 1, SPECIAL_SHOW, &out);
    detokenizer_push(&detokenizer, tokenizer, 4, SPECIAL_SHOW, &out);
    assert_string_equal(buffer_text(&out), FFFD "a");
    detokenizer_push(&detokenizer, tokenizer, 5, SPECIAL_SHOW, &out);
    detokenizer_push(&detokenizer, tokenizer, 0, SPECIAL_SHOW, &out);
    assert_string_equal(buffer_text(&out), FFFD "a" FFFD);
    detokenizer_finish(&detokenizer, &out);
    assert_string_equal(buffer_text(&out), FFFD "a" FFFD FFFD);
    buffer_deinit(&out);
    tokenizer_close(tokenizer);
}

static void special_tokens_are_skipped_and_other_added_ones_kept(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = open_bytes();
    struct detokenizer detokenizer = {.held_count = 0};
    struct buffer out = {0};

    detokenizer_push(&detokenizer, tokenizer, 6, SPECIAL_SKIP, &out);
    detokenizer_push(&detokenizer, tokenizer, 7, SPECIAL_SKIP, &out);
    detokenizer_push(&detokenizer, tokenizer, 6, SPECIAL_SHOW, &out);
    assert_string_equal(buffer_text(&out), "<t><s>");
    buffer_deinit(&out);
    tokenizer_close(tokenizer);
}

static void each_maximal_invalid_part_is_replaced_once(void **state)
{
    (void)state;
    check_lossy("a\x80z", 3, "a" FFFD "z");
    check_lossy("\xE0\x80", 2, FFFD FFFD);                   /* overlong: E0 takes no 80 */
    check_lossy("\xED\xA0\x80", 3, FFFD FFFD FFFD);          /* a surrogate */
    check_lossy("\xF4\x90\x80\x80", 4, FFFD FFFD FFFD FFFD); /* beyond U+10FFFF */
    check_lossy("\xF0\x9F\x91", 3, FFFD);                    /* cut */
    check_lossy("\xF0\x9F\x91\xF0\x9F\x91\xA8", 7, FFFD "\xF0\x9F\x91\xA8");
    check_lossy("\xC0\xAF\xFE\xFF", 4, FFFD FFFD FFFD FFFD);
    check_lossy("\xE4\xB8\xAD", 3, "\xE4\xB8\xAD");
}

static void every_character_is_valid_at_its_length(void **state)
{
    (void)state;
    static const char *const characters[] = {"a",
                                             "\xC2\x80",
                                             "\xDF\xBF",
                                             "\xE0\xA0\x80",
                                             "\xED\x9F\xBF",
                                             "\xEE\x80\x80",
                                             "\xF0\x90\x80\x80",
                                             "\xF4\x8F\xBF\xBF"};

    for (size_t i = 0; i < sizeof characters / sizeof characters[0]; i++) {
        size_t length = strlen(characters[i]);
        size_t taken = 0;

        assert_int_equal(utf8_step(characters[i], length, &taken), UTF8_CHARACTER);
        assert_int_equal(taken, length);
        assert_int_equal(utf8_valid_length(characters[i], length), length);
        for (size_t cut = 1; cut < length; cut++) {
            assert_int_equal(utf8_step(characters[i], cut, &taken), UTF8_INCOMPLETE);
            assert_int_equal(taken, cut);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_character_comes_out_with_its_last_byte),
        cmocka_unit_test(an_unfinished_character_becomes_one_replacement),
        cmocka_unit_test(special_tokens_are_skipped_and_other_added_ones_kept),
        cmocka_unit_test(each_maximal_invalid_part_is_replaced_once),
        cmocka_unit_test(every_character_is_valid_at_its_length),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
