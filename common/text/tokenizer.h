#ifndef SHOAL_TEXT_TOKENIZER_H
#define SHOAL_TEXT_TOKENIZER_H

/* Byte-level BPE from Hugging Face's tokenizer.json or from the metadata of a GGUF file.
 *
 * Added tokens are cut out first (leftmost, longest), then the pre-tokenizer's Split patterns are
 * applied in order (PCRE2 with JIT), then every piece is mapped byte by byte to GPT-2's printable
 * stand-ins and merged by rank, in time linear in the length. The only
 * normaliser is NFC. Immutable after opening: any number of threads may encode and decode with one
 * tokenizer at a time (per-thread match data is made inside).
 */
#include "common/base/buffer.h"
#include "common/base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tokenizer;

/* A growing list of token ids; zero it to begin, mem_free(ids) in the end. */
struct token_list {
    uint32_t *ids;
    size_t count;
    size_t capacity;
};
void token_list_append(struct token_list *list, uint32_t id);
void token_list_extend(struct token_list *list, const uint32_t *ids, size_t count);
void token_list_deinit(struct token_list *list);

/* Which added tokens a span of text may become. */
enum special_mode {
    SPECIAL_TEXT,  /* none: all is plain text. What users write: control tokens can't be forged */
    SPECIAL_PARSE, /* all added tokens are recognised (templates; --parse-special) */
};

/* From a directory: its tokenizer.json, and add_bos_token, bos/eos and the chat template of
 * tokenizer_config.json if that is there. From NAME.gguf (the only file or the first split, with
 * tensors or without): its metadata; tokenizer_gguf.c says what these leave open. Errors name file
 * and field or key. */
struct tokenizer *tokenizer_open(const char *path, struct error *err) MUST_CHECK;
/* From the two texts (config may be NULL); `name` is for messages. For tests and the fuzzer. */
struct tokenizer *tokenizer_parse(const char *json, size_t json_bytes, const char *config,
                                  size_t config_bytes, const char *name,
                                  struct error *err) MUST_CHECK;
struct gguf_header;
/* From a GGUF file's metadata (borrowed for the call); errors name the key. */
struct tokenizer *tokenizer_from_gguf(const struct gguf_header *header,
                                      struct error *err) MUST_CHECK;
void tokenizer_close(struct tokenizer *tokenizer); /* NULL is legal */

/* A span of a prompt; spans join to one string before the patterns see it, but added tokens are
 * recognised only inside spans that say SPECIAL_PARSE. */
struct text_span {
    const char *text; /* UTF-8; invalid bytes are encoded as bytes, never refused */
    size_t length;
    enum special_mode special;
};
/* Appends the ids; never adds <bos>. Fails only with ERROR_LIMIT: text over 1 GiB, or a pattern of
 * the file that gives up on it. */
bool tokenizer_encode(const struct tokenizer *tokenizer, const struct text_span *spans,
                      size_t span_count, struct token_list *out, struct error *err) MUST_CHECK;

uint32_t tokenizer_token_count(const struct tokenizer *tokenizer); /* highest id + 1 */
/* The token's bytes; length 0 for an id without a token. Lent as long as the tokenizer. */
const char *tokenizer_bytes(const struct tokenizer *tokenizer, uint32_t id, size_t *length);
bool tokenizer_is_special(const struct tokenizer *tokenizer, uint32_t id); /* "special": true */
bool tokenizer_is_added(const struct tokenizer *tokenizer, uint32_t id);
/* UINT32_MAX if there is no such token. `text` is an added token's content or a whole token. */
uint32_t tokenizer_find(const struct tokenizer *tokenizer, const char *text);
uint32_t tokenizer_bos(const struct tokenizer *tokenizer); /* UINT32_MAX: none */
uint32_t tokenizer_eos(const struct tokenizer *tokenizer);
bool tokenizer_adds_bos(const struct tokenizer *tokenizer);
const char *tokenizer_bos_text(const struct tokenizer *tokenizer); /* "" if none */
const char *tokenizer_eos_text(const struct tokenizer *tokenizer);
/* The model's own template text (tokenizer_config.json or chat_template.jinja); NULL if none. */
const char *tokenizer_chat_template(const struct tokenizer *tokenizer);

/* Streaming decoder: never emits half a character, nor U+FFFD for one that may still come.
 * Zero it to begin. */
struct detokenizer {
    unsigned char held[4]; /* an incomplete character */
    uint32_t held_count;
};
enum special_output { SPECIAL_SKIP, SPECIAL_SHOW };
/* Appends the text that is certain now. */
void detokenizer_push(struct detokenizer *state, const struct tokenizer *tokenizer, uint32_t id,
                      enum special_output special, struct buffer *out);
/* Appends U+FFFD for what never became a character (one per maximal invalid part). */
void detokenizer_finish(struct detokenizer *state, struct buffer *out);
/* Appends raw bytes as valid UTF-8 the same way (used for decode --text). */
void utf8_append_lossy(struct buffer *out, const char *bytes, size_t length);

#endif
