#ifndef SHOAL_TEXT_VOCAB_H
#define SHOAL_TEXT_VOCAB_H

/* Token ids, their bytes, and the way back from bytes to the id.
 *
 * Files of byte-level BPE write each byte as one of 256 printable characters (GPT-2's alphabet);
 * the vocabulary keeps the real bytes. Two name spaces: model tokens by bytes, which merging may
 * produce, and added tokens by content. Built by one thread, then immutable.
 */
#include "common/base/buffer.h"
#include "common/base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VOCAB_NO_TOKEN UINT32_MAX
#define VOCAB_TOKENS_MAX                                                                           \
    (1u << 22) /* a table entry for each: 16 times the largest vocabulary known */

enum vocab_flags {
    VOCAB_PRESENT = 1,
    VOCAB_ADDED = 2,
    VOCAB_SPECIAL = 4,
    VOCAB_MODEL = 8,  /* in model.vocab */
    VOCAB_BYTES = 16, /* spelled in the byte alphabet: merging may produce it */
};

struct vocab_text { /* a part of struct vocab's text */
    uint32_t begin;
    uint32_t length;
};

struct vocab_entry {
    struct vocab_text model; /* what merging makes of it, if VOCAB_MODEL */
    struct vocab_text added; /* its content as text, if VOCAB_ADDED: that is what it decodes to */
    uint32_t flags;
};

struct vocab_index { /* open addressing, ids; VOCAB_NO_TOKEN is free */
    uint32_t *slots;
    size_t mask;
};

struct vocab {
    struct vocab_entry *entries; /* [count] */
    uint32_t count;              /* highest id + 1 */
    struct buffer text;
    struct vocab_index model; /* of entries with VOCAB_BYTES */
    struct vocab_index added;
};

/* Room for ids below `count`, of which at most `count` go into each index. */
bool vocab_init(struct vocab *vocab, uint32_t count, struct error *err) MUST_CHECK;
void vocab_deinit(struct vocab *vocab);

/* `text` as the file spells it. ERROR_INPUT when id or text is there already. */
bool vocab_add_model(struct vocab *vocab, uint32_t id, const char *text, size_t length,
                     struct error *err) MUST_CHECK;
/* After all model tokens. The id may be that of the same text in the model. */
bool vocab_add_added(struct vocab *vocab, uint32_t id, const char *text, size_t length,
                     struct error *err) MUST_CHECK;
void vocab_mark_special(struct vocab *vocab, uint32_t id);

uint32_t vocab_find_model(const struct vocab *vocab, const char *bytes, size_t length);
uint32_t vocab_find_added(const struct vocab *vocab, const char *text, size_t length);
const char *vocab_bytes(const struct vocab *vocab, uint32_t id, size_t *length);

/* Appends the bytes that `text` spells in the byte alphabet; false if it uses other characters
 * (then nothing was appended). */
bool vocab_unspell(const char *text, size_t length, struct buffer *out);

#endif
