#ifndef SHOAL_ENGINE_LOOKUP_H
#define SHOAL_ENGINE_LOOKUP_H

/* Prompt-lookup drafts: what followed the last time that the sequence's own text, prompt and
 * generated tokens alike, read as it does now. */
#include <stdint.h>

struct lookup;

/* More tokens than this cannot be appended. */
#define LOOKUP_TOKENS_MAX (1u << 28)

struct lookup *lookup_create(void);
void lookup_destroy(struct lookup *lookup); /* NULL is legal */
/* The text goes on; tokens are copied. O(1) a token, amortised; memory O(tokens). */
void lookup_append(struct lookup *lookup, const uint32_t *tokens, uint32_t count);
/* Writes at most `max` tokens that may follow the text, returns how many: 0 when its end has not
 * been seen before. */
uint32_t lookup_propose(const struct lookup *lookup, uint32_t max, uint32_t *out);

#endif
