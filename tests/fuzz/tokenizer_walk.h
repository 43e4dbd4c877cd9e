#ifndef SHOAL_TESTS_FUZZ_TOKENIZER_WALK_H
#define SHOAL_TESTS_FUZZ_TOKENIZER_WALK_H

/* Any text through a tokenizer that came from any bytes. What comes out is decoded again; the bytes
 * agree unless the file lacks bytes, removes text or composes it, so only bounds are checked. */
#include "common/text/tokenizer.h"

static inline void tokenizer_walk(const struct tokenizer *tokenizer, const char *text,
                                  size_t length)
{
    struct text_span spans[] = {{text, length / 2, SPECIAL_PARSE},
                                {text + length / 2, length - length / 2, SPECIAL_TEXT}};
    struct token_list ids = {0};
    struct detokenizer state = {.held_count = 0};
    struct buffer out = {0};
    struct error err = {0};

    if (!tokenizer_encode(tokenizer, spans, 2, &ids, &err)) {
        ASSERT(err.code == ERROR_LIMIT);
        ASSERT(ids.count == 0);
    }
    for (size_t i = 0; i < ids.count; i++) {
        ASSERT(ids.ids[i] < tokenizer_token_count(tokenizer));
        detokenizer_push(&state, tokenizer, ids.ids[i], SPECIAL_SHOW, &out);
    }
    detokenizer_finish(&state, &out);
    token_list_deinit(&ids);
    buffer_deinit(&out);
}

#endif
