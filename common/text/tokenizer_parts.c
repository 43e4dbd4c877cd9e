/* tokenizer_parts.c - what a tokenizer is put together from, whichever file it comes from. */
#include "common/base/mem.h"
#include "common/text/tokenizer_internal.h"

#include <string.h>

#define ADDED_BYTES_MAX ((size_t)16 << 20) /* the trie has a node for each */

struct tokenizer *tokenizer_new(void)
{
    struct tokenizer *tokenizer = mem_new(struct tokenizer);

    tokenizer->bos.id = VOCAB_NO_TOKEN;
    tokenizer->eos.id = VOCAB_NO_TOKEN;
    splitter_init(&tokenizer->splitter);
    added_trie_init(&tokenizer->added);
    return tokenizer;
}

void tokenizer_close(struct tokenizer *tokenizer)
{
    if (tokenizer == NULL) {
        return;
    }
    bpe_deinit(&tokenizer->bpe);
    vocab_deinit(&tokenizer->vocab);
    splitter_deinit(&tokenizer->splitter);
    added_trie_deinit(&tokenizer->added);
    mem_free(tokenizer->bos.text);
    mem_free(tokenizer->eos.text);
    mem_free(tokenizer->chat_template);
    mem_free(tokenizer);
}

bool tokenizer_add_added(struct tokenizer *tokenizer, uint32_t id, const struct added_token *token,
                         struct error *err)
{
    if (token->length > ADDED_BYTES_MAX - tokenizer->added.count) {
        return error_set(err, ERROR_LIMIT, "the added tokens have more than %zu bytes",
                         ADDED_BYTES_MAX);
    }
    if (!vocab_add_added(&tokenizer->vocab, id, token->text, token->length, err)) {
        return false;
    }
    if (token->special) {
        vocab_mark_special(&tokenizer->vocab, id);
    }
    added_trie_add(&tokenizer->added, token->text, token->length, id);
    return true;
}

bool merge_pair_split(const char *text, size_t length, struct merge_pair *out)
{
    const char *end = text + length;
    const char *space = memchr(text, ' ', length);

    if (space == NULL || memchr(space + 1, ' ', (size_t)(end - space - 1)) != NULL) {
        return false;
    }
    *out = (struct merge_pair){text, (size_t)(space - text), space + 1, (size_t)(end - space - 1)};
    return true;
}

/* Appends the token's bytes to `bytes`. */
static bool merge_part_find(const struct vocab *vocab, const char *text, size_t length,
                            struct buffer *bytes, uint32_t *id)
{
    size_t begin = bytes->length;

    if (!vocab_unspell(text, length, bytes)) {
        return false;
    }
    *id = vocab_find_model(vocab, buffer_text(bytes) + begin, bytes->length - begin);
    return *id != VOCAB_NO_TOKEN;
}

static bool part_missing(const char *text, size_t length, struct error *err)
{
    return error_set(err, ERROR_INPUT, "\"%.*s\" is not in the vocabulary",
                     length < 60 ? (int)length : 60, text);
}

bool tokenizer_add_merge(struct tokenizer *tokenizer, const struct merge_pair *pair, uint32_t rank,
                         struct buffer *bytes, struct error *err)
{
    const struct vocab *vocab = &tokenizer->vocab;
    uint32_t left = 0;
    uint32_t right = 0;

    buffer_clear(bytes);
    if (!merge_part_find(vocab, pair->left, pair->left_length, bytes, &left)) {
        return part_missing(pair->left, pair->left_length, err);
    }
    if (!merge_part_find(vocab, pair->right, pair->right_length, bytes, &right)) {
        return part_missing(pair->right, pair->right_length, err);
    }
    uint32_t result = vocab_find_model(vocab, bytes->data, bytes->length);
    if (result == VOCAB_NO_TOKEN) {
        return error_set(err, ERROR_INPUT, "the two joined are not in the vocabulary");
    }
    if (!bpe_add_merge(&tokenizer->bpe, left, right, (struct bpe_outcome){rank, result})) {
        return error_set(err, ERROR_INPUT, "this pair is there twice");
    }
    return true;
}

bool tokenizer_check_bos(const struct tokenizer *tokenizer, const char *field, struct error *err)
{
    if (tokenizer->adds_bos && tokenizer->bos.id == VOCAB_NO_TOKEN) {
        return error_set(err, ERROR_INPUT, "%s is true, but no begin token is named", field);
    }
    return true;
}
