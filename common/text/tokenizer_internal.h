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
