/* tokenizer_vocab.c - the vocabulary of tokenizer.json: model.vocab, model.merges, added_tokens.
 *
 * Everything is checked here once, so that encoding and decoding need no checks: ids are in range
 * and unique, every merge joins two tokens to a third, and nothing that we do not implement is
 * passed over.
 */
#include "common/text/tokenizer_internal.h"

#include "common/base/json.h"
#include "common/base/mem.h"

#include <string.h>

/* model fields that change the result and that byte-level models do not use. */
static const char *const unused_model_fields[] = {"dropout", "continuing_subword_prefix",
                                                  "end_of_word_suffix", "byte_fallback"};
static const char *const unused_added_fields[] = {"single_word", "lstrip", "rstrip"};

/* null, false, "" and 0 all say that a field is not used. */
static bool is_unused(const json_t *value)
{
    return value == NULL || json_is_null(value) || json_is_false(value) ||
           (json_is_string(value) && json_string_length(value) == 0) ||
           (json_is_number(value) && json_number_value(value) == 0.0);
}

static bool fields_unused(const json_t *object, const char *const *fields, size_t count,
                          struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (!is_unused(json_object_get(object, fields[i]))) {
            return error_set(err, ERROR_INPUT, "%s is not supported", fields[i]);
        }
    }
    return true;
}

static bool id_read(const json_t *value, uint32_t *id, struct error *err)
{
    if (!json_is_integer(value)) {
        return error_set(err, ERROR_INPUT, "the id must be an integer, got %s",
                         json_type_word(value));
    }
    json_int_t number = json_integer_value(value);
    if (number < 0 || number >= VOCAB_TOKENS_MAX) {
        return error_set(err, ERROR_INPUT, "id %lld is not in 0..%u", (long long)number,
                         VOCAB_TOKENS_MAX - 1);
    }
    *id = (uint32_t)number;
    return true;
}

/* The highest id + 1 of both lists. */
static bool token_count_read(json_t *words, json_t *added, uint32_t *count, struct error *err)
{
    const char *word;
    json_t *value;
    size_t index;
    uint32_t id;

    *count = 0;
    json_object_foreach(words, word, value)
    {
        if (!id_read(value, &id, err)) {
            return error_wrap(err, "model.vocab[\"%.60s\"]", word);
        }
        *count = id >= *count ? id + 1 : *count;
    }
    json_array_foreach(added, index, value)
    {
        if (!id_read(json_object_get(value, "id"), &id, err)) {
            return error_wrap(err, "added_tokens[%zu]", index);
        }
        *count = id >= *count ? id + 1 : *count;
    }
    return true;
}

static bool words_read(struct vocab *vocab, json_t *words, struct error *err)
{
    const char *word;
    json_t *value;

    json_object_foreach(words, word, value)
    {
        uint32_t id = (uint32_t)json_integer_value(value);

        if (!vocab_add_model(vocab, id, word, strlen(word), err)) {
            return error_wrap(err, "model.vocab[\"%.60s\"]", word);
        }
    }
    return true;
}

static bool added_token_read(struct tokenizer *tokenizer, const json_t *entry, struct error *err)
{
    uint32_t id = (uint32_t)json_integer_value(json_object_get(entry, "id"));
    const char *content = NULL;
    bool special = false;

    if (!json_get_string(entry, "content", &content, err) ||
        !json_get_bool_or(entry, "special", false, &special, err) ||
        !fields_unused(entry, unused_added_fields, ARRAY_LENGTH(unused_added_fields), err)) {
        return false;
    }
    struct added_token token = {content, strlen(content), special};
    return tokenizer_add_added(tokenizer, id, &token, err);
}

static bool added_tokens_read(struct tokenizer *tokenizer, json_t *added, struct error *err)
{
    json_t *entry;
    size_t index;

    json_array_foreach(added, index, entry)
    {
        if (!added_token_read(tokenizer, entry, err)) {
            return error_wrap(err, "added_tokens[%zu]", index);
        }
    }
    return true;
}

/* "a b" or ["a", "b"]. */
static bool merge_read(const json_t *merge, struct merge_pair *out, struct error *err)
{
    const json_t *left = json_array_get(merge, 0);
    const json_t *right = json_array_get(merge, 1);

    if (json_array_size(merge) == 2 && json_is_string(left) && json_is_string(right)) {
        *out = (struct merge_pair){json_string_value(left), json_string_length(left),
                                   json_string_value(right), json_string_length(right)};
        return true;
    }
    if (!json_is_string(merge) ||
        !merge_pair_split(json_string_value(merge), json_string_length(merge), out)) {
        return error_set(err, ERROR_INPUT, "a merge is \"a b\" or [\"a\", \"b\"], got %s",
                         json_type_word(merge));
    }
    return true;
}

static bool merges_read(struct tokenizer *tokenizer, json_t *merges, struct error *err)
{
    struct buffer bytes = {0};
    struct merge_pair pair = {0};
    json_t *merge;
    size_t index;
    bool ok = true;

    json_array_foreach(merges, index, merge)
    {
        ok = merge_read(merge, &pair, err) &&
             tokenizer_add_merge(tokenizer, &pair, (uint32_t)index, &bytes, err);
        if (!ok) {
            error_wrap(err, "model.merges[%zu]", index);
            break;
        }
    }
    buffer_deinit(&bytes);
    return ok;
}

/* The type is missing in old files; what counts are the fields. */
static bool model_check(const json_t *model, struct error *err)
{
    const char *type = NULL;

    if (!json_get_string_or(model, "type", "BPE", &type, err)) {
        return error_wrap(err, "model");
    }
    if (strcmp(type, "BPE") != 0) {
        return error_set(err, ERROR_INPUT, "model.type \"%.40s\" is not supported, only BPE", type);
    }
    if (!json_is_object(json_object_get(model, "vocab"))) {
        return error_set(err, ERROR_INPUT, "model.vocab must be an object, got %s",
                         json_type_word(json_object_get(model, "vocab")));
    }
    if (!json_is_array(json_object_get(model, "merges"))) {
        return error_set(err, ERROR_INPUT, "model.merges must be an array, got %s",
                         json_type_word(json_object_get(model, "merges")));
    }
    if (!fields_unused(model, unused_model_fields, ARRAY_LENGTH(unused_model_fields), err)) {
        return error_wrap(err, "model");
    }
    return true;
}

bool tokenizer_read_vocab(struct tokenizer *tokenizer, const json_t *root, struct error *err)
{
    json_t *model = NULL;
    json_t *added = NULL;
    bool ignore_merges = false;
    uint32_t count = 0;

    if (!json_get_object_or_null(root, "model", &model, err) ||
        !json_get_array_or_null(root, "added_tokens", &added, err)) {
        return false;
    }
    if (model == NULL) {
        return error_set(err, ERROR_INPUT, "field \"model\" is missing");
    }
    if (!model_check(model, err) ||
        !json_get_bool_or(model, "ignore_merges", false, &ignore_merges, err)) {
        return false;
    }
    json_t *words = json_object_get(model, "vocab");
    json_t *merges = json_object_get(model, "merges");
    return token_count_read(words, added, &count, err) &&
           vocab_init(&tokenizer->vocab, count, err) && words_read(&tokenizer->vocab, words, err) &&
           added_tokens_read(tokenizer, added, err) &&
           bpe_init(&tokenizer->bpe, &tokenizer->vocab, json_array_size(merges),
                    ignore_merges ? BPE_TAKE_WHOLE : BPE_MERGE_ALWAYS, err) &&
           merges_read(tokenizer, merges, err);
}
