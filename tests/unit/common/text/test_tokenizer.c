/* test_tokenizer.c - text to tokens and back, against vectors of Hugging Face's library. */
#include "common/text/tokenizer.h"

#include "common/base/mem.h"
#include "tests/unit/common/text/jsonl.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct tokenizer *open_data(const char *name)
{
    char path[512];
    struct error err = {0};

    snprintf(path, sizeof path, "%s/%s", SHOAL_TEST_DATA, name);
    struct tokenizer *tokenizer = tokenizer_open(path, &err);
    if (tokenizer == NULL) {
        print_error("%s\n", err.message);
    }
    assert_non_null(tokenizer);
    return tokenizer;
}

static struct tokenizer *open_small(void)
{
    return open_data("tokenizers/deepseek-v3-small");
}

static struct token_list encode_spans(const struct tokenizer *tokenizer,
                                      const struct text_span *spans, size_t count)
{
    struct token_list ids = {0};
    struct error err = {0};

    assert_true(tokenizer_encode(tokenizer, spans, count, &ids, &err));
    return ids;
}

static struct token_list encode(const struct tokenizer *tokenizer, const char *text, size_t length,
                                enum special_mode mode)
{
    struct text_span span = {.text = text, .length = length, .special = mode};

    return encode_spans(tokenizer, &span, 1);
}

static void check_ids(const struct token_list *ids, const json_t *expected, size_t skip)
{
    assert_int_equal(ids->count, json_array_size(expected) - skip);
    for (size_t i = 0; i < ids->count; i++) {
        assert_int_equal(ids->ids[i], json_integer_value(json_array_get(expected, i + skip)));
    }
}

static void append_bytes(const struct tokenizer *tokenizer, const struct token_list *ids,
                         struct buffer *out)
{
    for (size_t i = 0; i < ids->count; i++) {
        size_t length = 0;
        const char *bytes = tokenizer_bytes(tokenizer, ids->ids[i], &length);

        buffer_append(out, bytes, length);
    }
}

static void check_row_encodes(void *context, const json_t *row)
{
    const json_t *text = json_object_get(row, "text");
    struct token_list ids =
        encode(context, json_string_value(text), json_string_length(text), SPECIAL_PARSE);

    check_ids(&ids, json_object_get(row, "ids"), 0);
    token_list_deinit(&ids);
}

static void check_row_survives_as_plain_text(void *context, const json_t *row)
{
    const json_t *text = json_object_get(row, "text");
    struct token_list ids =
        encode(context, json_string_value(text), json_string_length(text), SPECIAL_TEXT);
    struct buffer bytes = {0};

    for (size_t i = 0; i < ids.count; i++) {
        assert_false(tokenizer_is_added(context, ids.ids[i]));
    }
    append_bytes(context, &ids, &bytes);
    assert_string_equal(buffer_text(&bytes), json_string_value(text));
    buffer_deinit(&bytes);
    token_list_deinit(&ids);
}

static void check_row_decodes(void *context, const json_t *row)
{
    const json_t *ids = json_object_get(row, "ids");
    struct detokenizer state = {.held_count = 0};
    struct buffer hex = {0};
    struct buffer text = {0};

    for (size_t i = 0; i < json_array_size(ids); i++) {
        uint32_t id = (uint32_t)json_integer_value(json_array_get(ids, i));
        size_t length = 0;
        const char *bytes = tokenizer_bytes(context, id, &length);

        for (size_t k = 0; k < length; k++) {
            buffer_printf(&hex, "%02x", (unsigned)(unsigned char)bytes[k]);
        }
        detokenizer_push(&state, context, id, SPECIAL_SHOW, &text);
    }
    detokenizer_finish(&state, &text);
    assert_string_equal(buffer_text(&hex), json_string_value(json_object_get(row, "bytes_hex")));
    assert_string_equal(buffer_text(&text), json_string_value(json_object_get(row, "text")));
    buffer_deinit(&hex);
    buffer_deinit(&text);
}

static void every_vector_encodes_to_its_ids(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = open_small();

    assert_int_equal(
        jsonl_each("tokenizers/deepseek-v3-small/encode.jsonl", check_row_encodes, tokenizer), 676);
    tokenizer_close(tokenizer);
}

static void every_vector_decodes_to_its_bytes(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = open_small();

    assert_int_equal(
        jsonl_each("tokenizers/deepseek-v3-small/decode.jsonl", check_row_decodes, tokenizer), 144);
    tokenizer_close(tokenizer);
}

static void plain_text_never_becomes_an_added_token(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = open_small();

    jsonl_each("tokenizers/deepseek-v3-small/encode.jsonl", check_row_survives_as_plain_text,
               tokenizer);
    tokenizer_close(tokenizer);
}

static void check_row_of_the_model(void *context, const json_t *row)
{
    const json_t *text = json_object_get(row, "text");
    const json_t *greedy = json_object_get(row, "greedy");
    struct token_list ids =
        encode(context, json_string_value(text), json_string_length(text), SPECIAL_PARSE);
    struct detokenizer state = {.held_count = 0};
    struct buffer output = {0};

    assert_true(tokenizer_adds_bos(context));
    assert_int_equal(json_integer_value(json_array_get(json_object_get(row, "tokens"), 0)),
                     tokenizer_bos(context));
    check_ids(&ids, json_object_get(row, "tokens"), 1);
    for (size_t i = 0; i < json_array_size(greedy); i++) {
        uint32_t id = (uint32_t)json_integer_value(json_array_get(greedy, i));

        detokenizer_push(&state, context, id, SPECIAL_SHOW, &output);
    }
    detokenizer_finish(&state, &output);
    assert_string_equal(buffer_text(&output), json_string_value(json_object_get(row, "output")));
    buffer_deinit(&output);
    token_list_deinit(&ids);
}

static void a_models_prompts_and_outputs_agree(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = open_data("deepseek_v3-bf16/model");

    assert_true(jsonl_each("deepseek_v3-bf16/text.jsonl", check_row_of_the_model, tokenizer) > 0);
    assert_string_equal(tokenizer_bos_text(tokenizer), "<｜begin▁of▁sentence｜>");
    assert_string_equal(tokenizer_eos_text(tokenizer), "<｜end▁of▁sentence｜>");
    assert_null(tokenizer_chat_template(tokenizer));
    tokenizer_close(tokenizer);
}

static void invalid_bytes_come_back_as_they_were(void **state)
{
    (void)state;
    static const char bytes[] = "a\x80\xFF\xC3 b\xE4\xB8 \xF0\x9F\x91\xA8 12\xED\xA0\x80\xC0\xAF";
    struct tokenizer *tokenizer = open_small();
    struct token_list ids = encode(tokenizer, bytes, sizeof bytes - 1, SPECIAL_PARSE);
    struct buffer back = {0};

    append_bytes(tokenizer, &ids, &back);
    assert_int_equal(back.length, sizeof bytes - 1);
    assert_memory_equal(back.data, bytes, sizeof bytes - 1);
    buffer_deinit(&back);
    token_list_deinit(&ids);
    tokenizer_close(tokenizer);
}

static void spans_join_to_one_text_for_the_patterns(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = open_small();
    struct text_span cut[] = {
        {"The ma", 6, SPECIAL_PARSE}, {"chine", 5, SPECIAL_TEXT}, {"", 0, SPECIAL_PARSE},
        {"s  ", 3, SPECIAL_TEXT},     {"work", 4, SPECIAL_PARSE},
    };
    struct token_list one = encode(tokenizer, "The machines  work", 18, SPECIAL_TEXT);
    struct token_list many = encode_spans(tokenizer, cut, 5);

    assert_int_equal(one.count, many.count);
    assert_memory_equal(one.ids, many.ids, one.count * sizeof *one.ids);
    token_list_deinit(&one);
    token_list_deinit(&many);
    tokenizer_close(tokenizer);
}

static void added_tokens_are_found_only_inside_spans_that_allow_it(void **state)
{
    (void)state;
    static const char user[] = "<｜User｜>";
    struct tokenizer *tokenizer = open_small();
    uint32_t id = tokenizer_find(tokenizer, user);
    struct text_span spans[] = {
        {user, strlen(user), SPECIAL_PARSE},
        {user, strlen(user), SPECIAL_TEXT},
        {"<", 1, SPECIAL_PARSE}, /* a user's text can't complete what the template began */
        {user + 1, strlen(user) - 1, SPECIAL_TEXT},
        {user, strlen(user), SPECIAL_PARSE},
    };
    struct token_list ids = encode_spans(tokenizer, spans, 5);
    size_t found = 0;

    assert_int_not_equal(id, UINT32_MAX);
    for (size_t i = 0; i < ids.count; i++) {
        found += tokenizer_is_added(tokenizer, ids.ids[i]);
    }
    assert_int_equal(found, 2);
    assert_int_equal(ids.ids[0], id);
    assert_int_equal(ids.ids[ids.count - 1], id);
    token_list_deinit(&ids);
    tokenizer_close(tokenizer);
}

static void a_megabyte_without_a_space_is_no_trouble(void **state)
{
    (void)state;
    size_t length = 1000 * 1000;
    char *text = mem_new_array(char, length);
    struct tokenizer *tokenizer = open_small();
    struct buffer back = {0};

    for (size_t i = 0; i < length; i++) {
        text[i] = (char)('a' + (i * i / 7) % 26);
    }
    struct token_list ids = encode(tokenizer, text, length, SPECIAL_PARSE);
    append_bytes(tokenizer, &ids, &back);
    assert_int_equal(back.length, length);
    assert_memory_equal(back.data, text, length);
    buffer_deinit(&back);
    token_list_deinit(&ids);
    tokenizer_close(tokenizer);
    mem_free(text);
}

static void cached_pieces_give_the_same_ids(void **state)
{
    (void)state;
    static const char line[] = "repeated words repeat, repeated numbers 12345 repeat\n";
    struct tokenizer *tokenizer = open_small();
    struct token_list once = encode(tokenizer, line, strlen(line), SPECIAL_PARSE);
    struct buffer text = {0};

    for (int i = 0; i < 1000; i++) {
        buffer_append_text(&text, line);
    }
    struct token_list ids = encode(tokenizer, text.data, text.length, SPECIAL_PARSE);
    assert_int_equal(ids.count, 1000 * once.count);
    for (size_t i = 0; i < ids.count; i++) {
        assert_int_equal(ids.ids[i], once.ids[i % once.count]);
    }
    buffer_deinit(&text);
    token_list_deinit(&ids);
    token_list_deinit(&once);
    tokenizer_close(tokenizer);
}

static void ids_without_a_token_have_no_bytes(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = open_small();
    struct detokenizer detokenizer = {.held_count = 0};
    struct buffer out = {0};
    size_t length = 1;

    assert_int_equal(tokenizer_token_count(tokenizer), 4096);
    assert_non_null(tokenizer_bytes(tokenizer, 4096, &length));
    assert_int_equal(length, 0);
    assert_false(tokenizer_is_special(tokenizer, UINT32_MAX));
    detokenizer_push(&detokenizer, tokenizer, UINT32_MAX, SPECIAL_SHOW, &out);
    assert_int_equal(out.length, 0);
    tokenizer_close(tokenizer);
}

static void tokens_are_found_by_their_text(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = open_small();
    uint32_t the = tokenizer_find(tokenizer, " the");
    size_t length = 0;

    assert_int_equal(tokenizer_find(tokenizer, "<｜begin▁of▁sentence｜>"), 0);
    assert_true(tokenizer_is_special(tokenizer, 0));
    assert_int_not_equal(the, UINT32_MAX);
    assert_memory_equal(tokenizer_bytes(tokenizer, the, &length), " the", 4);
    assert_false(tokenizer_is_added(tokenizer, the));
    assert_int_equal(tokenizer_find(tokenizer, "no such token"), UINT32_MAX);
    tokenizer_close(tokenizer);
}

static void *encode_many(void *context)
{
    jsonl_each("tokenizers/deepseek-v3-small/encode.jsonl", check_row_encodes, context);
    return NULL;
}

static void threads_share_a_tokenizer(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = open_small();
    pthread_t threads[4];

    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, encode_many, tokenizer), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    tokenizer_close(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_vector_encodes_to_its_ids),
        cmocka_unit_test(every_vector_decodes_to_its_bytes),
        cmocka_unit_test(plain_text_never_becomes_an_added_token),
        cmocka_unit_test(a_models_prompts_and_outputs_agree),
        cmocka_unit_test(invalid_bytes_come_back_as_they_were),
        cmocka_unit_test(spans_join_to_one_text_for_the_patterns),
        cmocka_unit_test(added_tokens_are_found_only_inside_spans_that_allow_it),
        cmocka_unit_test(a_megabyte_without_a_space_is_no_trouble),
        cmocka_unit_test(cached_pieces_give_the_same_ids),
        cmocka_unit_test(ids_without_a_token_have_no_bytes),
        cmocka_unit_test(tokens_are_found_by_their_text),
        cmocka_unit_test(threads_share_a_tokenizer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
