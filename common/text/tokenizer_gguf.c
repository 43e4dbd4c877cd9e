/* tokenizer_gguf.c - a tokenizer from the metadata of a GGUF file.
 *
 * GGUF keeps tokens with a type each, merges as "left right", and one word for how text is split
 * (pre_tokenizer.c). What it does not keep:
 *  - which added tokens tokenizer.json calls special, so that decoding skips them. Writers make
 *    those control tokens, but also all that look like "<|…|>". So here control tokens are special,
 *    save the ones known to be text of an answer in DeepSeek's files (shown_control). Qwen's
 *    <|fim_prefix|> and the like are skipped from GGUF and shown from tokenizer.json.
 *  - normalisers. Qwen's tokenizer.json composes text (NFC) and its GGUF does not: decomposed
 *    accents give other tokens, in llama.cpp too.
 *  - whether a piece that is a token is taken as it is (Llama 3), or <bos> added: by the word.
 */
#include "common/base/mem.h"
#include "common/model/gguf.h"
#include "common/text/pre_tokenizer.h"
#include "common/text/tokenizer_internal.h"

#include <inttypes.h>
#include <string.h>

#define KEY(name) "tokenizer.ggml." name

enum token_type { /* as in the files */
                  TOKEN_NORMAL = 1,
                  TOKEN_UNKNOWN, /* stands for what has no token: byte-level vocabularies never need
                                    it */
                  TOKEN_CONTROL,
                  TOKEN_USER_DEFINED,
                  TOKEN_UNUSED, /* an id without a token */
};

/* Written as control tokens for their looks, not special in DeepSeek's tokenizer.json: a tool call
 * would lose its marks. By their beginnings. */
static const char *const shown_control[] = {"<｜User｜>", "<｜Assistant｜>", "<｜tool▁", "<｜fim▁"};

static bool is_shown(struct gguf_string text)
{
    for (size_t i = 0; i < ARRAY_LENGTH(shown_control); i++) {
        size_t length = strlen(shown_control[i]);

        if (text.length >= length && memcmp(text.text, shown_control[i], length) == 0) {
            return true;
        }
    }
    return false;
}

static bool type_check(int64_t type, struct error *err)
{
    if (type >= TOKEN_NORMAL && type <= TOKEN_UNUSED) {
        return true;
    }
    return error_set(err, ERROR_INPUT,
                     "type %" PRId64 " is not supported: only normal (1), unknown (2), control "
                     "(3), user defined (4) and unused (5)",
                     type);
}

static bool token_is_model(int64_t type)
{
    return type == TOKEN_NORMAL;
}

static bool token_is_added(int64_t type)
{
    return type == TOKEN_CONTROL || type == TOKEN_USER_DEFINED;
}

struct token_arrays {
    struct gguf_array texts;
    struct gguf_array types;
};

static bool model_tokens_read(struct tokenizer *tokenizer, struct token_arrays arrays,
                              struct error *err)
{
    struct gguf_string text;

    for (uint32_t id = 0; gguf_array_next(&arrays.texts, &text); id++) {
        int64_t type = gguf_array_integer(&arrays.types, id);

        if (!type_check(type, err) ||
            (token_is_model(type) &&
             !vocab_add_model(&tokenizer->vocab, id, text.text, text.length, err))) {
            return error_wrap(err, "token %u", id);
        }
    }
    return true;
}

static bool added_tokens_read(struct tokenizer *tokenizer, struct token_arrays arrays,
                              struct error *err)
{
    struct gguf_string text;

    for (uint32_t id = 0; gguf_array_next(&arrays.texts, &text); id++) {
        int64_t type = gguf_array_integer(&arrays.types, id);
        struct added_token token = {text.text, text.length,
                                    type == TOKEN_CONTROL && !is_shown(text)};

        if (token_is_added(type) && !tokenizer_add_added(tokenizer, id, &token, err)) {
            return error_wrap(err, "token %u", id);
        }
    }
    return true;
}

static bool tokens_read(struct tokenizer *tokenizer, const struct gguf_header *header,
                        struct error *err)
{
    struct token_arrays arrays;

    if (!gguf_get_array(header, KEY("tokens"), GGUF_STRING, &arrays.texts, err) ||
        !gguf_get_array(header, KEY("token_type"), GGUF_I32, &arrays.types, err)) {
        return false;
    }
    if (arrays.texts.count != arrays.types.count) {
        return error_set(err, ERROR_INPUT,
                         "key \"" KEY("token_type") "\" has %" PRIu64 " elements for %" PRIu64
                                                    " tokens",
                         arrays.types.count, arrays.texts.count);
    }
    if (arrays.texts.count > VOCAB_TOKENS_MAX) {
        return error_set(err, ERROR_LIMIT,
                         "key \"" KEY("tokens") "\" has %" PRIu64 " elements; at most %u can be "
                                                "used",
                         arrays.texts.count, VOCAB_TOKENS_MAX);
    }
    if (!vocab_init(&tokenizer->vocab, (uint32_t)arrays.texts.count, err)) {
        return false;
    }
    return (model_tokens_read(tokenizer, arrays, err) &&
            added_tokens_read(tokenizer, arrays, err)) ||
           error_wrap(err, "key \"" KEY("tokens") "\"");
}

static bool merges_add(struct tokenizer *tokenizer, struct gguf_array merges, struct error *err)
{
    struct buffer bytes = {0};
    struct gguf_string text;
    bool ok = true;

    for (uint32_t rank = 0; ok && gguf_array_next(&merges, &text); rank++) {
        struct merge_pair pair;

        ok = merge_pair_split(text.text, text.length, &pair)
                 ? tokenizer_add_merge(tokenizer, &pair, rank, &bytes, err)
                 : error_set(err, ERROR_INPUT, "is not two tokens with a space between");
        if (!ok) {
            error_wrap(err, "key \"" KEY("merges") "\": element %u", rank);
        }
    }
    buffer_deinit(&bytes);
    return ok;
}

static bool merges_read(struct tokenizer *tokenizer, const struct gguf_header *header,
                        enum bpe_whole_piece whole_piece, struct error *err)
{
    struct gguf_array merges;

    if (!gguf_get_array(header, KEY("merges"), GGUF_STRING, &merges, err)) {
        return false;
    }
    if (merges.count > VOCAB_TOKENS_MAX) {
        return error_set(err, ERROR_LIMIT,
                         "key \"" KEY("merges") "\" has %" PRIu64 " elements; at most %u can be "
                                                "used",
                         merges.count, VOCAB_TOKENS_MAX);
    }
    return bpe_init(&tokenizer->bpe, &tokenizer->vocab, (size_t)merges.count, whole_piece, err) &&
           merges_add(tokenizer, merges, err);
}

static bool name_refused(const char *key, struct gguf_string name, const char *known,
                         struct error *err)
{
    return error_set(err, ERROR_INPUT, "key \"%s\" is \"%.*s\"; supported: %s", key,
                     name.length < 40 ? (int)name.length : 40, name.text, known);
}

static bool model_check(const struct gguf_header *header, struct error *err)
{
    struct gguf_string name;

    if (!gguf_get_string(header, KEY("model"), &name, err)) {
        return false;
    }
    return gguf_string_equals(name, "gpt2") ||
           name_refused(KEY("model"), name, "gpt2 (byte-level BPE)", err);
}

static bool pre_read(struct tokenizer *tokenizer, const struct gguf_header *header,
                     const struct pre_tokenizer **out, struct error *err)
{
    struct gguf_string name;

    if (!gguf_get_string(header, KEY("pre"), &name, err)) {
        return false;
    }
    const struct pre_tokenizer *pre = pre_tokenizer_find(name.text, name.length);
    if (pre == NULL) {
        return name_refused(KEY("pre"), name, pre_tokenizer_names(), err);
    }
    for (const char *const *pattern = pre->patterns; *pattern != NULL; pattern++) {
        if (!splitter_add(&tokenizer->splitter, *pattern, SPLIT_REGEX, SPLIT_KEEP_BOTH, err)) {
            return error_wrap(err, "pre-tokenizer %s", pre->name);
        }
    }
    *out = pre;
    return true;
}

static bool marker_read(const struct tokenizer *tokenizer, const struct gguf_header *header,
                        const char *key, struct marker *marker, struct error *err)
{
    size_t length = 0;
    uint32_t id = VOCAB_NO_TOKEN;

    if (!gguf_get_u32_or(header, key, VOCAB_NO_TOKEN, &id, err)) {
        return false;
    }
    if (id == VOCAB_NO_TOKEN) {
        return true;
    }
    const char *text = vocab_bytes(&tokenizer->vocab, id, &length);
    if (length == 0) {
        return error_set(err, ERROR_INPUT, "key \"%s\" is %u, which is no token", key, id);
    }
    marker->id = id;
    marker->text = mem_strndup(text, length);
    return true;
}

static bool markers_read(struct tokenizer *tokenizer, const struct gguf_header *header,
                         const struct pre_tokenizer *pre, struct error *err)
{
    static const char adds[] = KEY("add_bos_token");

    if (!marker_read(tokenizer, header, KEY("bos_token_id"), &tokenizer->bos, err) ||
        !marker_read(tokenizer, header, KEY("eos_token_id"), &tokenizer->eos, err)) {
        return false;
    }
    bool by_family = pre->adds_bos && tokenizer->bos.id != VOCAB_NO_TOKEN;
    return gguf_get_bool_or(header, adds, by_family, &tokenizer->adds_bos, err) &&
           tokenizer_check_bos(tokenizer, "key \"" KEY("add_bos_token") "\"", err);
}

static bool template_read(struct tokenizer *tokenizer, const struct gguf_header *header,
                          struct error *err)
{
    static const char key[] = "tokenizer.chat_template";
    struct gguf_string text;

    if (gguf_find(header, key) == NULL) {
        return true;
    }
    if (!gguf_get_string(header, key, &text, err)) {
        return false;
    }
    tokenizer->chat_template = mem_strndup(text.text, text.length);
    return true;
}

struct tokenizer *tokenizer_from_gguf(const struct gguf_header *header, struct error *err)
{
    struct tokenizer *tokenizer = tokenizer_new();
    const struct pre_tokenizer *pre = NULL;

    if (!model_check(header, err) || !pre_read(tokenizer, header, &pre, err) ||
        !tokens_read(tokenizer, header, err) ||
        !merges_read(tokenizer, header, pre->whole_piece, err) ||
        !markers_read(tokenizer, header, pre, err) || !template_read(tokenizer, header, err)) {
        tokenizer_close(tokenizer);
        return NULL;
    }
    return tokenizer;
}

struct tokenizer *tokenizer_open_gguf(const char *path, struct error *err)
{
    struct gguf *gguf = gguf_open(path, err);

    if (gguf == NULL) {
        return NULL;
    }
    struct tokenizer *tokenizer = tokenizer_from_gguf(&gguf->header, err);
    if (tokenizer == NULL) {
        error_wrap(err, "%s", path);
    }
    gguf_close(gguf);
    return tokenizer;
}
