/* vocab.c - ids to bytes and bytes to ids.
 *
 * All bytes lie in one string, an entry per id points into it, and two hash tables of ids lead
 * back. A model token spelled outside the byte alphabet (control tokens that a file repeats in its
 * vocabulary) keeps its text as its bytes and stays out of the index: no piece of text may become
 * it.
 */
#include "common/text/vocab.h"

#include "common/base/hash.h"
#include "common/base/mem.h"

#include <string.h>

#define TEXT_MAX UINT32_MAX

/* GPT-2's alphabet: printable Latin-1 stands for itself, the others follow from U+0100 in order. */
static bool stands_for_itself(unsigned value)
{
    return (value >= 0x21 && value <= 0x7E) || (value >= 0xA1 && value <= 0xAC) ||
           (value >= 0xAE && value <= 0xFF);
}

/* The byte that a character of the alphabet stands for, or -1. */
static int byte_of(unsigned character)
{
    if (character < 0x100) {
        return stands_for_itself(character) ? (int)character : -1;
    }
    /* The bytes without a character of their own: 00..20, 7F..A0, AD: U+0100 to U+0143. */
    unsigned rank = character - 0x100;
    if (rank <= 0x20) {
        return (int)rank;
    }
    if (rank <= 0x42) {
        return (int)(0x7F + rank - 0x21);
    }
    return rank == 0x43 ? 0xAD : -1;
}

bool vocab_unspell(const char *text, size_t length, struct buffer *out)
{
    const unsigned char *in = (const unsigned char *)text;
    size_t length_before = out->length;

    for (size_t i = 0; i < length; i++) {
        unsigned character = in[i];

        if (character >= 0xC2 && character <= 0xDF && i + 1 < length) {
            character = (character & 0x1Fu) << 6 | (in[++i] & 0x3Fu);
        } else if (character >= 0x80) {
            character = 0; /* three bytes or more: outside the alphabet */
        }
        int byte = byte_of(character);
        if (byte < 0) {
            out->length = length_before;
            return false;
        }
        buffer_append_char(out, (char)byte);
    }
    return true;
}

static bool index_init(struct vocab_index *index, uint32_t count, struct error *err)
{
    size_t slot_count = 16;

    while (slot_count < 2 * (size_t)count) {
        slot_count *= 2;
    }
    index->slots = mem_try_array(uint32_t, slot_count, err);
    if (index->slots == NULL) {
        return false;
    }
    memset(index->slots, 0xFF, slot_count * sizeof *index->slots);
    index->mask = slot_count - 1;
    return true;
}

static bool text_equals(const struct vocab *vocab, const struct vocab_text *text, const char *bytes,
                        size_t length)
{
    return text->length == length && memcmp(vocab->text.data + text->begin, bytes, length) == 0;
}

/* The slot that holds these bytes, or the free one where they belong. */
static uint32_t *index_slot(const struct vocab *vocab, const struct vocab_index *index,
                            const char *bytes, size_t length)
{
    size_t at = hash_bytes(bytes, length) & index->mask;

    for (;; at = (at + 1) & index->mask) {
        uint32_t id = index->slots[at];

        if (id == VOCAB_NO_TOKEN) {
            return &index->slots[at];
        }
        const struct vocab_entry *entry = &vocab->entries[id];
        const struct vocab_text *text = index == &vocab->added ? &entry->added : &entry->model;
        if (text_equals(vocab, text, bytes, length)) {
            return &index->slots[at];
        }
    }
}

bool vocab_init(struct vocab *vocab, uint32_t count, struct error *err)
{
    ASSERT(count <= VOCAB_TOKENS_MAX);
    memset(vocab, 0, sizeof *vocab);
    buffer_reserve(&vocab->text, 1); /* data is never NULL */
    vocab->count = count;
    vocab->entries = mem_try_array(struct vocab_entry, count, err);
    return vocab->entries != NULL && index_init(&vocab->model, count, err) &&
           index_init(&vocab->added, count, err);
}

void vocab_deinit(struct vocab *vocab)
{
    mem_free(vocab->entries);
    mem_free(vocab->model.slots);
    mem_free(vocab->added.slots);
    buffer_deinit(&vocab->text);
    memset(vocab, 0, sizeof *vocab);
}

bool vocab_add_model(struct vocab *vocab, uint32_t id, const char *text, size_t length,
                     struct error *err)
{
    ASSERT(id < vocab->count);
    struct vocab_entry *entry = &vocab->entries[id];
    size_t begin = vocab->text.length;

    if (entry->flags != 0) {
        return error_set(err, ERROR_INPUT, "id %u is taken by another token already", id);
    }
    if (length == 0 || length > TEXT_MAX - begin) {
        return error_set(err, ERROR_INPUT, "the token's text is empty or too long");
    }
    entry->flags = VOCAB_PRESENT | VOCAB_MODEL;
    if (vocab_unspell(text, length, &vocab->text)) {
        entry->flags |= VOCAB_BYTES;
    } else {
        buffer_append(&vocab->text, text, length);
    }
    entry->model.begin = (uint32_t)begin;
    entry->model.length = (uint32_t)(vocab->text.length - begin);
    if (entry->flags & VOCAB_BYTES) {
        uint32_t *slot =
            index_slot(vocab, &vocab->model, vocab->text.data + begin, entry->model.length);

        if (*slot != VOCAB_NO_TOKEN) { /* the spelling is one to one, so the text is there twice */
            return error_set(err, ERROR_INPUT, "the token is there twice");
        }
        *slot = id;
    }
    return true;
}

/* Do this model token and an added token's content read the same in the file? */
static bool same_spelling(const struct vocab *vocab, const struct vocab_entry *entry,
                          const char *content, size_t length)
{
    struct buffer bytes = {0};
    bool same;

    if ((entry->flags & VOCAB_BYTES) == 0) {
        return text_equals(vocab, &entry->model, content, length);
    }
    same = vocab_unspell(content, length, &bytes) &&
           text_equals(vocab, &entry->model, buffer_text(&bytes), bytes.length);
    buffer_deinit(&bytes);
    return same;
}

bool vocab_add_added(struct vocab *vocab, uint32_t id, const char *text, size_t length,
                     struct error *err)
{
    ASSERT(id < vocab->count);
    struct vocab_entry *entry = &vocab->entries[id];

    if (length == 0 || length > TEXT_MAX - vocab->text.length) {
        return error_set(err, ERROR_INPUT, "content is empty or too long");
    }
    if (entry->flags & VOCAB_ADDED ||
        (entry->flags & VOCAB_MODEL && !same_spelling(vocab, entry, text, length))) {
        return error_set(err, ERROR_INPUT, "id %u is taken by another token already", id);
    }
    uint32_t *slot = index_slot(vocab, &vocab->added, text, length);
    if (*slot != VOCAB_NO_TOKEN) {
        return error_set(err, ERROR_INPUT, "content \"%.*s\" is there twice",
                         length < 60 ? (int)length : 60, text);
    }
    entry->added.begin = (uint32_t)vocab->text.length;
    entry->added.length = (uint32_t)length;
    buffer_append(&vocab->text, text, length);
    entry->flags |= VOCAB_PRESENT | VOCAB_ADDED;
    *slot = id;
    return true;
}

void vocab_mark_special(struct vocab *vocab, uint32_t id)
{
    ASSERT(id < vocab->count && vocab->entries[id].flags & VOCAB_ADDED);
    vocab->entries[id].flags |= VOCAB_SPECIAL;
}

uint32_t vocab_find_model(const struct vocab *vocab, const char *bytes, size_t length)
{
    return *index_slot(vocab, &vocab->model, bytes, length);
}

uint32_t vocab_find_added(const struct vocab *vocab, const char *text, size_t length)
{
    return *index_slot(vocab, &vocab->added, text, length);
}

const char *vocab_bytes(const struct vocab *vocab, uint32_t id, size_t *length)
{
    *length = 0;
    if (id >= vocab->count) {
        return "";
    }
    const struct vocab_entry *entry = &vocab->entries[id];
    const struct vocab_text *text = entry->flags & VOCAB_ADDED ? &entry->added : &entry->model;
    *length = text->length;
    return vocab->text.data + text->begin;
}
