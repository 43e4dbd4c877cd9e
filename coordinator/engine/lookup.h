#ifndef SHOAL_ENGINE_LOOKUP_H
#define SHOAL_ENGINE_LOOKUP_H

/* Prompt-lookup drafts: what followed when the sequence's own text, prompt and generated tokens
 * alike, last read as it does now. Good for answers that quote, edit or repeat; no model, no IO.
 *
 * The next token by the text's last n tokens, n = 1..4: every place where these n tokens stood
 * before voted for the token behind it. A vote for the favourite makes it one stronger, up to 3;
 * another takes one from it, and replaces it when nothing is left. The longest n that occurred
 * before decides, and it proposes its favourite only if n + votes >= 4: one token must have agreed
 * three times, three need to have been seen once. Each draft counts as text for the next, so that a
 * draft may leave the place where it began.
 *
 * Sources: Saxena, Prompt Lookup Decoding (github.com/apoorvumang/prompt-lookup-decoding, 2023);
 * Yang et al., Inference with Reference (LLMA), arXiv:2304.04487, section 3. They, vLLM's `ngram`
 * and transformers' prompt_lookup_num_tokens search the text for the longest match and copy what
 * stands behind one of its places; llama.cpp's lookup counts continuations as we do, but keeps all
 * of them. */
#include <stdint.h>

struct lookup;

/* More tokens than this cannot be appended, nor any with a larger id. */
#define LOOKUP_TOKENS_MAX (1u << 28)
#define LOOKUP_TOKEN_LAST ((1u << 24) - 1)

struct lookup *lookup_create(void);
void lookup_destroy(struct lookup *lookup); /* NULL is legal */
/* The text goes on; tokens are copied. O(1) a token, amortised; memory O(tokens). */
void lookup_append(struct lookup *lookup, const uint32_t *tokens, uint32_t count);
/* Writes at most `max` tokens that may follow the text, returns how many: 0 when its end says
 * nothing. O(max). */
uint32_t lookup_propose(const struct lookup *lookup, uint32_t max, uint32_t *out);

#endif
