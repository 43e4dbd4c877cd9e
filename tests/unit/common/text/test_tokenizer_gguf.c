/* test_tokenizer_gguf.c - what a GGUF file's metadata may say of its tokenizer, and how it is
 * refused when it is wrong. Whole vocabularies: tests/golden/test_tokenizers.py. */
#include "common/text/tokenizer.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "tests/unit/common/model/gguf_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define KEY(name)   "tokenizer.ggml." name
#define STRINGS_MAX 24
#define NONE_AT_ALL ((const char *)"")
#define FIRST_ADDED 10

/* Metadata from its variable parts; NULL or 0 stands for something that is right. */
struct parts {
    const char *model; /* NONE_AT_ALL: the key is missing, here and below */
    const char *pre;
    const char *tokens[STRINGS_MAX]; /* ended by NULL */
    int32_t types[STRINGS_MAX];      /* 0: normal */
    uint32_t types_count;            /* 0: as many as tokens */
    const char *merges[STRINGS_MAX];
    uint32_t bos; /* id + 1 */
    uint32_t eos;
    const char *chat_template;
    enum { BOS_UNSAID, BOS_ADDED, BOS_NOT_ADDED } add_bos;
};

static const struct parts sound = {
    .tokens = {"a", "b", "c", "ab", "abc", "Ġ", "1", "é", "Ã", "©", "<s>", "<｜tool▁sep｜>",
               "<think>", "[PAD13]"},
    .types = {[FIRST_ADDED] = 3, 3, 4, 5},
    .merges = {"a b", "ab c"},
};

static void put_string_value(struct buffer *out, const char *key, const char *value,
                             const char *usual, uint64_t *count)
{
    if (value != NONE_AT_ALL && (value != NULL || usual != NULL)) {
        gguf_put_key(out, key, GGUF_STRING);
        gguf_put_string(out, value != NULL ? value : usual);
        *count += 1;
    }
}

static void put_strings(struct buffer *out, const char *key, const char *const *texts,
                        uint64_t *count)
{
    uint64_t text_count = 0;

    if (texts[0] == NONE_AT_ALL) {
        return;
    }
    while (text_count < STRINGS_MAX && texts[text_count] != NULL) {
        text_count++;
    }
    gguf_put_key(out, key, GGUF_ARRAY);
    gguf_put_u32(out, GGUF_STRING);
    gguf_put_u64(out, text_count);
    for (uint64_t i = 0; i < text_count; i++) {
        gguf_put_string(out, texts[i]);
    }
    *count += 1;
}

static void put_types(struct buffer *out, const struct parts *parts, const char *const *tokens,
                      const int32_t *types, uint64_t *count)
{
    uint32_t type_count = 0;

    while (type_count < STRINGS_MAX && tokens[type_count] != NULL) {
        type_count++;
    }
    type_count = parts->types_count != 0 ? parts->types_count : type_count;
    gguf_put_key(out, KEY("token_type"), GGUF_ARRAY);
    gguf_put_u32(out, GGUF_I32);
    gguf_put_u64(out, type_count);
    for (uint32_t i = 0; i < type_count; i++) {
        gguf_put_u32(out, types[i] != 0 ? (uint32_t)types[i] : 1);
    }
    *count += 1;
}

static void put_u32_value(struct buffer *out, const char *key, uint32_t id_after, uint64_t *count)
{
    if (id_after != 0) {
        gguf_put_key(out, key, GGUF_U32);
        gguf_put_u32(out, id_after - 1);
        *count += 1;
    }
}

static struct buffer file_of(const struct parts *parts)
{
    bool usual = parts->tokens[0] == NULL;
    const char *const *tokens = usual ? sound.tokens : parts->tokens;
    struct buffer values = {0};
    struct buffer file = {0};
    uint64_t count = 0;

    put_string_value(&values, KEY("model"), parts->model, "gpt2", &count);
    put_string_value(&values, KEY("pre"), parts->pre, "qwen2", &count);
    put_strings(&values, KEY("tokens"), tokens, &count);
    put_types(&values, parts, tokens, usual && parts->types_count == 0 ? sound.types : parts->types,
              &count);
    put_strings(&values, KEY("merges"), parts->merges[0] != NULL ? parts->merges : sound.merges,
                &count);
    put_u32_value(&values, KEY("bos_token_id"), parts->bos, &count);
    put_u32_value(&values, KEY("eos_token_id"), parts->eos, &count);
    put_string_value(&values, "tokenizer.chat_template", parts->chat_template, NULL, &count);
    if (parts->add_bos != BOS_UNSAID) {
        gguf_put_key(&values, KEY("add_bos_token"), GGUF_BOOL);
        buffer_append_char(&values, parts->add_bos == BOS_ADDED);
        count++;
    }
    buffer_append_text(&file, "GGUF");
    gguf_put_u32(&file, 3);
    gguf_put_u64(&file, 0);
    gguf_put_u64(&file, count);
    buffer_append(&file, values.data, values.length);
    buffer_deinit(&values);
    return file;
}

static struct tokenizer *parse(const struct parts *parts, struct error *err)
{
    struct buffer file = file_of(parts);
    struct gguf_header header;

    assert_int_equal(gguf_header_init(&header, file.data, file.length, file.length, err),
                     GGUF_PARSED);
    struct tokenizer *tokenizer = tokenizer_from_gguf(&header, err);
    gguf_header_deinit(&header);
    buffer_deinit(&file);
    return tokenizer;
}

static struct tokenizer *made_of(struct parts parts)
{
    struct error err = {0};
    struct tokenizer *tokenizer = parse(&parts, &err);

    if (tokenizer == NULL) {
        fail_msg("%s", err.message);
    }
    return tokenizer;
}

static void check_refused(struct parts parts, const char *message)
{
    struct error err = {0};

    assert_null(parse(&parts, &err));
    assert_true(err.code == ERROR_INPUT || err.code == ERROR_LIMIT);
    assert_string_equal(err.message, message);
}

/* Checks the ids of `text`, added tokens recognised, as a list "0 1 2". */
static void check_ids(const struct tokenizer *tokenizer, const char *text, const char *expected)
{
    struct text_span span = {.text = text, .length = strlen(text), .special = SPECIAL_PARSE};
    struct token_list ids = {0};
    struct buffer listed = {0};
    struct error err = {0};

    assert_true(tokenizer_encode(tokenizer, &span, 1, &ids, &err));
    for (size_t i = 0; i < ids.count; i++) {
        buffer_printf(&listed, "%s%u", i == 0 ? "" : " ", ids.ids[i]);
    }
    assert_string_equal(buffer_text(&listed), expected);
    buffer_deinit(&listed);
    token_list_deinit(&ids);
}

static void text_becomes_tokens_as_the_file_says(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = made_of((struct parts){0});

    check_ids(tokenizer, "abcab c1", "4 3 5 2 6");
    check_ids(tokenizer, "\xC3\xA9", "8 9"); /* the token "é" is the byte E9 */
    assert_int_equal(tokenizer_token_count(tokenizer), 14);
    assert_int_equal(tokenizer_bos(tokenizer), UINT32_MAX);
    assert_int_equal(tokenizer_eos(tokenizer), UINT32_MAX);
    assert_null(tokenizer_chat_template(tokenizer));
    tokenizer_close(tokenizer);
}

static void control_and_user_defined_tokens_are_added_ones(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = made_of((struct parts){0});

    check_ids(tokenizer, "a<s>b<think>", "0 10 1 12");
    check_ids(tokenizer, "<｜tool▁sep｜>", "11");
    assert_true(tokenizer_is_added(tokenizer, 10));
    assert_true(tokenizer_is_special(tokenizer, 10));
    assert_false(tokenizer_is_special(tokenizer, 12));
    /* DeepSeek's marks of a tool call stay in the answer. */
    assert_true(tokenizer_is_added(tokenizer, 11));
    assert_false(tokenizer_is_special(tokenizer, 11));
    tokenizer_close(tokenizer);
}

static void an_unused_id_has_no_token(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = made_of((struct parts){0});
    size_t length = 1;

    assert_int_equal(tokenizer_find(tokenizer, "[PAD13]"), UINT32_MAX);
    (void)tokenizer_bytes(tokenizer, 13, &length);
    assert_int_equal(length, 0);
    tokenizer_close(tokenizer);
}

static void each_name_has_its_patterns(void **state)
{
    (void)state;
    static const struct {
        const char *pre;
        const char *ids; /* of "1111ab" with merges of 11, 111 and ab */
    } rows[] = {
        {"llama-bpe", "2 0 4"},        {"llama3", "2 0 4"},
        {"llama-v3", "2 0 4"},         {"deepseek-v3", "2 0 4"},
        {"qwen2", "0 0 0 0 4"},        {"deepseek-r1-qwen", "0 0 0 0 4"},
        {"deepseek-llm", "0 0 0 0 4"}, {"deepseek-coder", "0 0 0 0 4"},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        struct tokenizer *tokenizer =
            made_of((struct parts){.pre = rows[i].pre,
                                   .tokens = {"1", "11", "111", "a", "ab", "b"},
                                   .merges = {"1 1", "11 1", "a b"}});

        check_ids(tokenizer, "1111ab", rows[i].ids);
        tokenizer_close(tokenizer);
    }
}

static void llama_takes_whole_pieces(void **state)
{
    (void)state;
    struct parts parts = {.tokens = {"a", "b", "c", "abc", "ab"}, .merges = {"a b"}};

    struct tokenizer *merging = made_of(parts);
    parts.pre = "llama-bpe";
    struct tokenizer *taking = made_of(parts);
    check_ids(merging, "abc", "4 2");
    check_ids(taking, "abc", "3");
    tokenizer_close(merging);
    tokenizer_close(taking);
}

static void the_begin_token_is_added_if_key_or_family_says_so(void **state)
{
    (void)state;
    static const struct {
        struct parts parts;
        bool adds;
    } rows[] = {
        {{.bos = 11, .add_bos = BOS_ADDED}, true},
        {{.bos = 11}, false},
        {{.bos = 11, .pre = "llama-bpe"}, true},
        {{.bos = 11, .pre = "llama-bpe", .add_bos = BOS_NOT_ADDED}, false},
        {{.pre = "llama-bpe"}, false},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        struct tokenizer *tokenizer = made_of(rows[i].parts);

        assert_int_equal(tokenizer_adds_bos(tokenizer), rows[i].adds);
        assert_string_equal(tokenizer_bos_text(tokenizer), rows[i].parts.bos != 0 ? "<s>" : "");
        tokenizer_close(tokenizer);
    }
}

static void end_token_and_template_are_read(void **state)
{
    (void)state;
    struct tokenizer *tokenizer =
        made_of((struct parts){.eos = 13, .chat_template = "{{ messages }}"});

    assert_int_equal(tokenizer_eos(tokenizer), 12);
    assert_string_equal(tokenizer_eos_text(tokenizer), "<think>");
    assert_string_equal(tokenizer_chat_template(tokenizer), "{{ messages }}");
    tokenizer_close(tokenizer);
}

static void wrong_names_are_refused_with_the_known_ones(void **state)
{
    (void)state;
    check_refused((struct parts){.model = "llama"},
                  "key \"" KEY("model") "\" is \"llama\"; "
                                        "supported: gpt2 (byte-level BPE)");
    check_refused((struct parts){.model = NONE_AT_ALL},
                  "key \"" KEY("model") "\" is missing; it must be a string");
    check_refused(
        (struct parts){.pre = "default"},
        "key \"" KEY("pre") "\" is \"default\"; supported: deepseek-llm, deepseek-coder, "
                            "deepseek-v3, llama-bpe (llama3, llama-v3), qwen2 (deepseek-r1-qwen)");
    check_refused((struct parts){.pre = NONE_AT_ALL},
                  "key \"" KEY("pre") "\" is missing; it must be a string");
}

static void wrong_tokens_are_refused(void **state)
{
    (void)state;
    check_refused((struct parts){.tokens = {NONE_AT_ALL}, .types_count = 1},
                  "key \"" KEY("tokens") "\" is missing; it must be an array of string");
    check_refused((struct parts){.types_count = 3},
                  "key \"" KEY("token_type") "\" has 3 elements for 14 tokens");
    check_refused((struct parts){.tokens = {"a", "a"}},
                  "key \"" KEY("tokens") "\": token 1: the token is there twice");
    check_refused((struct parts){.tokens = {"a", "<s>", "<s>"}, .types = {1, 3, 4}},
                  "key \"" KEY("tokens") "\": token 2: content \"<s>\" is there twice");
    check_refused(
        (struct parts){.tokens = {"a", "<0x0A>"}, .types = {1, 6}},
        "key \"" KEY("tokens") "\": token 1: type 6 is not supported: only normal (1), "
                               "unknown (2), control (3), user defined (4) and unused (5)");
    check_refused(
        (struct parts){.tokens = {"a", "b"}, .types = {1, -1}},
        "key \"" KEY("tokens") "\": token 1: type -1 is not supported: only normal (1), "
                               "unknown (2), control (3), user defined (4) and unused (5)");
}

static void wrong_merges_are_refused(void **state)
{
    (void)state;
    check_refused((struct parts){.merges = {NONE_AT_ALL}},
                  "key \"" KEY("merges") "\" is missing; it must be an array of string");
    check_refused((struct parts){.merges = {"a b", "ab"}},
                  "key \"" KEY("merges") "\": element 1: is not two tokens with a space between");
    check_refused((struct parts){.merges = {"a b c"}},
                  "key \"" KEY("merges") "\": element 0: is not two tokens with a space between");
    check_refused((struct parts){.merges = {"a z"}},
                  "key \"" KEY("merges") "\": element 0: \"z\" is not in the vocabulary");
    check_refused((struct parts){.merges = {"b a"}},
                  "key \"" KEY("merges") "\": element 0: the two joined are not in the vocabulary");
    check_refused((struct parts){.merges = {"a b", "a b"}},
                  "key \"" KEY("merges") "\": element 1: this pair is there twice");
}

static void wrong_markers_are_refused(void **state)
{
    (void)state;
    check_refused((struct parts){.bos = 15},
                  "key \"" KEY("bos_token_id") "\" is 14, which is no token");
    check_refused((struct parts){.eos = 14}, /* unused */
                  "key \"" KEY("eos_token_id") "\" is 13, which is no token");
    check_refused((struct parts){.add_bos = BOS_ADDED},
                  "key \"" KEY("add_bos_token") "\" is true, but no begin token is named");
}

static void memory_that_runs_out_is_an_error(void **state)
{
    (void)state;
    struct buffer file = file_of(&(struct parts){0});
    struct gguf_header header;
    struct error err = {0};
    bool opened = false;

    assert_int_equal(gguf_header_init(&header, file.data, file.length, file.length, &err),
                     GGUF_PARSED);
    for (uint64_t n = 1; !opened; n++) {
        mem_fail_after(n);
        struct tokenizer *tokenizer = tokenizer_from_gguf(&header, &err);
        mem_fail_after(0);
        opened = tokenizer != NULL;
        assert_true(opened || err.code == ERROR_LIMIT);
        assert_true(n > 1 || !opened);
        tokenizer_close(tokenizer);
    }
    gguf_header_deinit(&header);
    buffer_deinit(&file);
}

static void a_file_is_opened_by_its_name(void **state)
{
    (void)state;
    struct buffer file = file_of(&(struct parts){.bos = 11});
    struct buffer wrong = file_of(&(struct parts){.pre = "x"});
    struct scratch scratch;
    struct error err = {0};

    scratch_open(&scratch);
    const char *path = scratch_path(&scratch, "m.gguf");
    assert_true(file_write(path, file.data, file.length, 0600, &err));
    struct tokenizer *tokenizer = tokenizer_open(path, &err);
    assert_non_null(tokenizer);
    assert_int_equal(tokenizer_bos(tokenizer), 10);
    tokenizer_close(tokenizer);
    assert_true(file_write(path, wrong.data, wrong.length, 0600, &err));
    assert_null(tokenizer_open(path, &err));
    assert_non_null(strstr(err.message, "m.gguf: key \"" KEY("pre") "\" is \"x\""));
    scratch_close(&scratch);
    buffer_deinit(&file);
    buffer_deinit(&wrong);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_becomes_tokens_as_the_file_says),
        cmocka_unit_test(control_and_user_defined_tokens_are_added_ones),
        cmocka_unit_test(an_unused_id_has_no_token),
        cmocka_unit_test(each_name_has_its_patterns),
        cmocka_unit_test(llama_takes_whole_pieces),
        cmocka_unit_test(the_begin_token_is_added_if_key_or_family_says_so),
        cmocka_unit_test(end_token_and_template_are_read),
        cmocka_unit_test(wrong_names_are_refused_with_the_known_ones),
        cmocka_unit_test(wrong_tokens_are_refused),
        cmocka_unit_test(wrong_merges_are_refused),
        cmocka_unit_test(wrong_markers_are_refused),
        cmocka_unit_test(memory_that_runs_out_is_an_error),
        cmocka_unit_test(a_file_is_opened_by_its_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
