/* test_tokenizer_file.c - what tokenizer.json may say, and how it is refused when it is wrong. */
#include "common/text/tokenizer.h"

#include "common/base/buffer.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define BYTE_LEVEL       "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"
#define BYTE_LEVEL_REGEX "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}"
#define VOCAB            "\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"abc\":4,\"Ġ\":5,\"1\":6,\"é\":7,\"Ã\":8,\"©\":9"
#define MERGES           "\"a b\",[\"ab\",\"c\"]"

/* A whole file from its variable parts; NULL stands for something that is right. */
struct parts {
    const char *vocab;
    const char *merges;
    const char *model_more; /* further fields, with a comma in front */
    const char *added;
    const char *pre;
    const char *root_more;
};

static char *file_of(const struct parts *parts)
{
    return mem_printf(
        "{\"added_tokens\":[%s],\"pre_tokenizer\":%s,"
        "\"model\":{\"type\":\"BPE\",\"vocab\":{%s},\"merges\":[%s]%s}%s}",
        parts->added != NULL ? parts->added : "", parts->pre != NULL ? parts->pre : BYTE_LEVEL,
        parts->vocab != NULL ? parts->vocab : VOCAB, parts->merges != NULL ? parts->merges : MERGES,
        parts->model_more != NULL ? parts->model_more : "",
        parts->root_more != NULL ? parts->root_more : "");
}

static struct tokenizer *parse(const char *json, const char *config, struct error *err)
{
    return tokenizer_parse(json, strlen(json), config, config != NULL ? strlen(config) : 0, "t",
                           err);
}

static void check_text_refused(const char *json, const char *config, const char *message)
{
    struct error err = {0};

    assert_null(parse(json, config, &err));
    assert_int_equal(err.code, ERROR_INPUT);
    assert_string_equal(err.message, message);
}

static void check_refused(struct parts parts, const char *message)
{
    char *json = file_of(&parts);

    check_text_refused(json, NULL, message);
    mem_free(json);
}

static struct tokenizer *made_of(struct parts parts)
{
    struct error err = {0};
    char *json = file_of(&parts);
    struct tokenizer *tokenizer = parse(json, NULL, &err);

    if (tokenizer == NULL) {
        print_error("%s\n", err.message);
    }
    assert_non_null(tokenizer);
    mem_free(json);
    return tokenizer;
}

/* Checks the ids of `text`, added tokens recognised, as a list "0 1 2". */
static void check_ids(struct parts parts, const char *text, const char *expected)
{
    struct tokenizer *tokenizer = made_of(parts);
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
    tokenizer_close(tokenizer);
}

static void merges_may_be_strings_or_pairs(void **state)
{
    (void)state;
    check_ids((struct parts){0}, "abcab", "4 3");
    check_ids((struct parts){.merges = "[\"a\",\"b\"]"}, "abc", "3 2");
}

static void the_lowest_rank_merges_first(void **state)
{
    (void)state;
    const char *vocab = "\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"bc\":4";

    check_ids((struct parts){.vocab = vocab, .merges = "\"a b\",\"b c\""}, "abc", "3 2");
    check_ids((struct parts){.vocab = vocab, .merges = "\"b c\",\"a b\""}, "abc", "0 4");
}

static void ignore_merges_takes_whole_pieces(void **state)
{
    (void)state;
    struct parts parts = {.merges = "\"a b\"", .model_more = ",\"ignore_merges\":true"};

    check_ids(parts, "abc", "4");
    check_ids(parts, "abcc", "3 2 2");
}

static void byte_level_can_split_itself(void **state)
{
    (void)state;
    const char *vocab = "\"a\":0,\"Ġ\":1,\"Ġa\":2,\"ĠĠ\":3,\"aĠ\":4";
    const char *merges = "\"a Ġ\",\"Ġ Ġ\",\"Ġ a\"";

    check_ids((struct parts){.vocab = vocab, .merges = merges, .pre = BYTE_LEVEL_REGEX}, "a  a",
              "0 1 2");
    check_ids((struct parts){.vocab = vocab, .merges = merges}, "a  a", "4 2");
}

static void steps_may_isolate_remove_or_cut_digits(void **state)
{
    (void)state;
    const char *digits = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\","
                         "\"individual_digits\":true}," BYTE_LEVEL "]}";
    const char *removed =
        "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"String\":"
        "\" \"},\"behavior\":\"Removed\"}," BYTE_LEVEL "]}";
    const char *kept =
        "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
        "\"b+\"},\"behavior\":\"Removed\",\"invert\":true}," BYTE_LEVEL "]}";
    const char *vocab = "\"1\":0,\"11\":1,\"a\":2,\"b\":3,\"ab\":4,\"Ġ\":5";

    check_ids((struct parts){.vocab = vocab, .merges = "\"1 1\"", .pre = digits}, "1111",
              "0 0 0 0");
    check_ids((struct parts){.vocab = vocab, .merges = "\"1 1\""}, "1111", "1 1");
    check_ids((struct parts){.vocab = vocab, .merges = "\"a b\"", .pre = removed}, "ab a b",
              "4 2 3");
    check_ids((struct parts){.vocab = vocab, .merges = "\"a b\"", .pre = kept}, "abba", "3 3");
}

static void the_longest_added_token_wins(void **state)
{
    (void)state;
    const char *added = "{\"id\":20,\"content\":\"<a\"},{\"id\":21,\"content\":\"<abc\"},"
                        "{\"id\":22,\"content\":\"bc>\"}";

    check_ids((struct parts){.added = added}, "<abc><ab", "21 20 1");
    check_ids((struct parts){.added = added}, "abc>", "0 22");
}

static void text_is_composed_where_the_file_says_so(void **state)
{
    (void)state;
    const char *nfc = ",\"normalizer\":{\"type\":\"NFC\"}";
    const char *empty = ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[]}";
    const char *vocab = "\"e\":0,\"Ì\":1,\"ģ\":2,\"Ã\":3,\"©\":4";

    check_ids((struct parts){.vocab = vocab, .merges = "", .root_more = nfc}, "e\xCC\x81", "3 4");
    check_ids((struct parts){.vocab = vocab, .merges = "", .root_more = empty}, "e\xCC\x81",
              "0 1 2");
}

static void wrong_vocabularies_are_refused(void **state)
{
    (void)state;
    check_refused((struct parts){.vocab = "\"a\":\"x\"", .merges = ""},
                  "t: model.vocab[\"a\"]: the id must be an integer, got a string");
    check_refused((struct parts){.vocab = "\"a\":-1", .merges = ""},
                  "t: model.vocab[\"a\"]: id -1 is not in 0..4194303");
    check_refused((struct parts){.vocab = "\"a\":4194304", .merges = ""},
                  "t: model.vocab[\"a\"]: id 4194304 is not in 0..4194303");
    check_refused((struct parts){.vocab = "\"a\":0,\"b\":0", .merges = ""},
                  "t: model.vocab[\"b\"]: id 0 is taken by another token already");
    check_refused((struct parts){.vocab = "\"\":0", .merges = ""},
                  "t: model.vocab[\"\"]: the token's text is empty or too long");
}

static void wrong_merges_are_refused(void **state)
{
    (void)state;
    check_refused((struct parts){.merges = "\"a z\""},
                  "t: model.merges[0]: \"z\" is not in the vocabulary");
    check_refused((struct parts){.merges = "\"z a\""},
                  "t: model.merges[0]: \"z\" is not in the vocabulary");
    check_refused((struct parts){.merges = "\"b c\""},
                  "t: model.merges[0]: the two joined are not in the vocabulary");
    check_refused((struct parts){.merges = "\"a b\",\"a b\""},
                  "t: model.merges[1]: this pair is there twice");
    check_refused((struct parts){.merges = "\"ab\""},
                  "t: model.merges[0]: a merge is \"a b\" or [\"a\", \"b\"], got a string");
    check_refused((struct parts){.merges = "[\"a\"]"},
                  "t: model.merges[0]: a merge is \"a b\" or [\"a\", \"b\"], got an array");
}

static void wrong_added_tokens_are_refused(void **state)
{
    (void)state;
    check_refused((struct parts){.added = "{\"content\":\"x\"}"},
                  "t: added_tokens[0]: the id must be an integer, got nothing");
    check_refused((struct parts){.added = "{\"id\":20}"},
                  "t: added_tokens[0]: field \"content\" is missing");
    check_refused((struct parts){.added = "{\"id\":20,\"content\":\"\"}"},
                  "t: added_tokens[0]: content is empty or too long");
    check_refused((struct parts){.added = "{\"id\":0,\"content\":\"x\"}"},
                  "t: added_tokens[0]: id 0 is taken by another token already");
    check_refused((struct parts){.added = "{\"id\":20,\"content\":\"x\"},{\"id\":21,\"content\":"
                                          "\"x\"}"},
                  "t: added_tokens[1]: content \"x\" is there twice");
    check_refused((struct parts){.added = "{\"id\":20,\"content\":\"x\",\"lstrip\":true}"},
                  "t: added_tokens[0]: lstrip is not supported");
}

static void an_added_token_may_repeat_the_vocabulary(void **state)
{
    (void)state;
    struct parts parts = {.added = "{\"id\":3,\"content\":\"ab\"},{\"id\":7,\"content\":\"é\"}"};

    check_ids(parts, "xabé", "3 7");
    struct tokenizer *tokenizer = made_of(parts);
    size_t length = 0;
    assert_memory_equal(tokenizer_bytes(tokenizer, 7, &length), "é", 2);
    assert_int_equal(length, 2); /* as text; the token of the model is the byte E9 */
    tokenizer_close(tokenizer);
}

static void what_is_not_implemented_is_refused_by_name(void **state)
{
    (void)state;
    check_refused((struct parts){.pre = "{\"type\":\"Metaspace\"}"},
                  "t: pre_tokenizer: \"Metaspace\" is not supported, only Sequence, Split, Digits "
                  "and ByteLevel");
    check_refused((struct parts){.pre = "null"}, "t: pre_tokenizer has no ByteLevel step: only "
                                                 "byte-level BPE is supported");
    check_refused((struct parts){.pre = "{\"type\":\"ByteLevel\"}"},
                  "t: pre_tokenizer: add_prefix_space is not supported");
    check_refused((struct parts){.pre = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
                                        "\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":"
                                        "\"Contiguous\"}]}"},
                  "t: pre_tokenizer: pretokenizers[0]: behavior \"Contiguous\" is not supported, "
                  "only Isolated and Removed");
    check_refused((struct parts){.root_more = ",\"normalizer\":{\"type\":\"NFKC\"}"},
                  "t: normalizer: normalizer \"NFKC\" is not supported, only NFC");
    check_refused((struct parts){.model_more = ",\"byte_fallback\":true"},
                  "t: model: byte_fallback is not supported");
}

static void wrong_patterns_are_refused(void **state)
{
    (void)state;
    const char *pre =
        "{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"(a\"}}";

    check_refused((struct parts){.pre = pre}, "t: pre_tokenizer: the pattern does not compile: "
                                              "missing closing parenthesis at byte 2");
    check_refused(
        (struct parts){.pre = "{\"type\":\"Split\",\"behavior\":\"Isolated\"}"},
        "t: pre_tokenizer: pattern must be {\"Regex\": …} or {\"String\": …}, got nothing");
}

static void files_without_the_main_parts_are_refused(void **state)
{
    (void)state;
    check_text_refused("[]", NULL, "t: must be an object, got an array");
    check_text_refused("{}", NULL, "t: field \"model\" is missing");
    check_text_refused("{\"model\":{\"vocab\":{\"a\":0}}}", NULL,
                       "t: model.merges must be an array, got nothing");
    check_text_refused("{\"model\":{\"merges\":[]}}", NULL,
                       "t: model.vocab must be an object, got nothing");
    check_text_refused("{\"model\":{\"type\":\"Unigram\"}}", NULL,
                       "t: model.type \"Unigram\" is not supported, only BPE");
}

static void the_configuration_names_the_markers(void **state)
{
    (void)state;
    char *json = file_of(&(struct parts){.added = "{\"id\":20,\"content\":\"<s>\"}"});
    struct error err = {0};
    struct tokenizer *tokenizer =
        parse(json,
              "{\"add_bos_token\":true,\"bos_token\":{\"content\":\"<s>\"},\"eos_token\":\"a\","
              "\"model_max_length\":1000000000000000019884624838656,"
              "\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"x\"},"
              "{\"name\":\"default\",\"template\":\"y\"}]}",
              &err);

    assert_non_null(tokenizer);
    assert_true(tokenizer_adds_bos(tokenizer));
    assert_int_equal(tokenizer_bos(tokenizer), 20);
    assert_int_equal(tokenizer_eos(tokenizer), 0);
    assert_string_equal(tokenizer_bos_text(tokenizer), "<s>");
    assert_string_equal(tokenizer_chat_template(tokenizer), "y");
    tokenizer_close(tokenizer);
    check_text_refused(
        json, "{\"bos_token\":\"<t>\"}",
        "t (tokenizer_config.json): bos_token \"<t>\" is no token of tokenizer.json");
    check_text_refused(
        json, "{\"add_bos_token\":true}",
        "t (tokenizer_config.json): add_bos_token is true, but no begin token is named");
    check_text_refused(json, "{\"eos_token\":5}",
                       "t (tokenizer_config.json): field \"eos_token\" must be a string, got an "
                       "integer");
    mem_free(json);
}

static void a_post_processor_can_name_bos(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = made_of((struct parts){
        .added = "{\"id\":20,\"content\":\"<s>\"}",
        .root_more = ",\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":"
                     "\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}}]}]}"});

    assert_true(tokenizer_adds_bos(tokenizer));
    assert_int_equal(tokenizer_bos(tokenizer), 20);
    assert_int_equal(tokenizer_eos(tokenizer), UINT32_MAX);
    assert_string_equal(tokenizer_eos_text(tokenizer), "");
    tokenizer_close(tokenizer);
}

static void a_file_cut_anywhere_is_refused(void **state)
{
    (void)state;
    char *json = file_of(&(struct parts){.added = "{\"id\":20,\"content\":\"<s>\"}"});

    for (size_t length = 0; length < strlen(json); length++) {
        struct error err = {0};

        assert_null(tokenizer_parse(json, length, NULL, 0, "t", &err));
        assert_int_equal(err.code, ERROR_INPUT);
    }
    mem_free(json);
}

static void memory_that_runs_out_is_an_error(void **state)
{
    (void)state;
    char *json = file_of(&(struct parts){0});
    bool opened = false;

    for (uint64_t n = 1; !opened; n++) {
        struct error err = {0};

        mem_fail_after(n);
        struct tokenizer *tokenizer = parse(json, NULL, &err);
        mem_fail_after(0);
        opened = tokenizer != NULL;
        assert_true(opened || err.code == ERROR_LIMIT);
        assert_true(n > 1 || !opened);
        tokenizer_close(tokenizer);
    }
    mem_free(json);
}

static void a_directory_is_read_with_its_template_file(void **state)
{
    (void)state;
    struct scratch scratch;
    struct error err = {0};
    char *json = file_of(&(struct parts){0});
    const char *config = "{\"chat_template\":\"old\"}";

    scratch_open(&scratch);
    assert_null(tokenizer_open(scratch.folder, &err));
    assert_non_null(strstr(err.message, "tokenizer.json"));
    assert_true(
        file_write(scratch_path(&scratch, "tokenizer.json"), json, strlen(json), 0600, &err));
    struct tokenizer *tokenizer = tokenizer_open(scratch.folder, &err);
    assert_non_null(tokenizer);
    assert_null(tokenizer_chat_template(tokenizer));
    assert_false(tokenizer_adds_bos(tokenizer));
    tokenizer_close(tokenizer);
    assert_true(file_write(scratch_path(&scratch, "tokenizer_config.json"), config, strlen(config),
                           0600, &err));
    assert_true(file_write(scratch_path(&scratch, "chat_template.jinja"), "new", 3, 0600, &err));
    tokenizer = tokenizer_open(scratch.folder, &err);
    assert_non_null(tokenizer);
    assert_string_equal(tokenizer_chat_template(tokenizer), "new");
    tokenizer_close(tokenizer);
    scratch_close(&scratch);
    mem_free(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_may_be_strings_or_pairs),
        cmocka_unit_test(the_lowest_rank_merges_first),
        cmocka_unit_test(ignore_merges_takes_whole_pieces),
        cmocka_unit_test(byte_level_can_split_itself),
        cmocka_unit_test(steps_may_isolate_remove_or_cut_digits),
        cmocka_unit_test(the_longest_added_token_wins),
        cmocka_unit_test(text_is_composed_where_the_file_says_so),
        cmocka_unit_test(wrong_vocabularies_are_refused),
        cmocka_unit_test(wrong_merges_are_refused),
        cmocka_unit_test(wrong_added_tokens_are_refused),
        cmocka_unit_test(an_added_token_may_repeat_the_vocabulary),
        cmocka_unit_test(what_is_not_implemented_is_refused_by_name),
        cmocka_unit_test(wrong_patterns_are_refused),
        cmocka_unit_test(files_without_the_main_parts_are_refused),
        cmocka_unit_test(the_configuration_names_the_markers),
        cmocka_unit_test(a_post_processor_can_name_bos),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
        cmocka_unit_test(memory_that_runs_out_is_an_error),
        cmocka_unit_test(a_directory_is_read_with_its_template_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
