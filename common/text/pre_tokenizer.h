#ifndef SHOAL_TEXT_PRE_TOKENIZER_H
#define SHOAL_TEXT_PRE_TOKENIZER_H

/* What the one word tokenizer.ggml.pre stands for: the split patterns that tokenizer.json spells
 * out, and what else a family's tokenizer.json says that GGUF does not. Constant data. */
#include "common/text/bpe.h"

#include <stdbool.h>
#include <stddef.h>

struct pre_tokenizer {
    const char *name;
    const char *const *patterns; /* in order, ended by NULL; all keep matches and gaps */
    enum bpe_whole_piece whole_piece;
    bool adds_bos; /* unless tokenizer.ggml.add_bos_token says otherwise */
};

/* NULL if there is none of this name. */
const struct pre_tokenizer *pre_tokenizer_find(const char *name, size_t length);
/* "deepseek-llm, deepseek-coder, …", for messages. */
const char *pre_tokenizer_names(void);

#endif
