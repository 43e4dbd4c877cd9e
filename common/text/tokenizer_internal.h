#ifndef SHOAL_TEXT_TOKENIZER_INTERNAL_H
#define SHOAL_TEXT_TOKENIZER_INTERNAL_H

/* What a tokenizer consists of: shared by the files that read it and the one that runs it. */
#include "common/text/added_trie.h"
#include "common/text/bpe.h"
#include "common/text/splitter.h"
#include "common/text/tokenizer.h"
#include "common/text/vocab.h"

#include <jansson.h>

enum text_form {
    TEXT_AS_IS,
    TEXT_NFC, /* Unicode's composed form, between added tokens */
};

struct marker {
    uint32_t id; /* VOCAB_NO_TOKEN: none */
    char *text;  /* NULL: none */
};

struct tokenizer {
    struct vocab vocab;
    struct bpe bpe;
    struct splitter splitter;
    struct added_trie added;
    enum text_form form;
    bool adds_bos;
    struct marker bos;
    struct marker eos;
    char *chat_template; /* NULL: none */
};

/* --- what tokenizer.json and GGUF say alike (tokenizer_parts.c) --- */

struct added_token {
    const char *text; /* borrowed */
    size_t length;
    bool special;
};
/* After all model tokens. */
bool tokenizer_add_added(struct tokenizer *tokenizer, uint32_t id, const struct added_token *token,
                         struct error *err) MUST_CHECK;

/* Two tokens as the file spells them; borrowed. */
struct merge_pair {
    const char *left;
    size_t left_length;
    const char *right;
    size_t right_length;
};
/* "a b"; false if it is not of this form. */
bool merge_pair_split(const char *text, size_t length, struct merge_pair *out);
/* After bpe_init. `bytes` is working memory. */
bool tokenizer_add_merge(struct tokenizer *tokenizer, const struct merge_pair *pair, uint32_t rank,
                         struct buffer *bytes, struct error *err) MUST_CHECK;

struct tokenizer *tokenizer_new(void);
/* ERROR_INPUT if <bos> is to be added and there is none; `field` is what asks for it. */
bool tokenizer_check_bos(const struct tokenizer *tokenizer, const char *field,
                         struct error *err) MUST_CHECK;

/* --- files --- */

/* Errors name the file. */
struct tokenizer *tokenizer_open_gguf(const char *path, struct error *err) MUST_CHECK;

/* Each reads its part of tokenizer.json into a zeroed tokenizer. Errors name the field. */
bool tokenizer_read_vocab(struct tokenizer *tokenizer, const json_t *root,
                          struct error *err) MUST_CHECK; /* added_tokens, model */
bool tokenizer_read_steps(struct tokenizer *tokenizer, const json_t *root,
                          struct error *err) MUST_CHECK; /* normalizer, pre_tokenizer */
bool tokenizer_read_post_processor(struct tokenizer *tokenizer, const json_t *root,
                                   struct error *err) MUST_CHECK;
/* tokenizer_config.json; after the others. */
bool tokenizer_read_config(struct tokenizer *tokenizer, const json_t *config,
                           struct error *err) MUST_CHECK;

#endif
