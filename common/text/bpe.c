/* bpe.c - a piece's tokens: whole, from the cache, or merged.
 *
 * Words repeat, so short pieces are looked up in a small direct-mapped cache first. It belongs to
 * one encoding, and a text shorter than the cache would be worth goes without.
 */
#include "common/text/bpe.h"

#include "common/base/hash.h"
#include "common/base/mem.h"

#include <string.h>

#define CACHED_BYTES         22
#define CACHED_IDS           10
#define CACHE_ENTRIES_MAX    16384
#define CACHE_TEXT_BYTES_MIN 4096

struct bpe_cached {
    unsigned char length; /* 0: free */
    unsigned char id_count;
    char bytes[CACHED_BYTES];
    uint32_t ids[CACHED_IDS];
};

void bpe_scratch_init(struct bpe_scratch *scratch, size_t text_bytes)
{
    size_t entry_count = 256;

    memset(scratch, 0, sizeof *scratch);
    if (text_bytes < CACHE_TEXT_BYTES_MIN) {
        return;
    }
    while (entry_count < CACHE_ENTRIES_MAX && entry_count < text_bytes / 16) {
        entry_count *= 2;
    }
    scratch->cache = mem_new_array(struct bpe_cached, entry_count);
    scratch->cache_mask = entry_count - 1;
}

void bpe_scratch_deinit(struct bpe_scratch *scratch)
{
    mem_free(scratch->symbols);
    mem_free(scratch->queue);
    mem_free(scratch->cache);
    token_list_deinit(&scratch->window);
    token_list_deinit(&scratch->joint);
    token_list_deinit(&scratch->pair);
    memset(scratch, 0, sizeof *scratch);
}

static bool all_have_tokens(const struct bpe *bpe, const char *piece, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (bpe->byte_ids[(unsigned char)piece[i]] == VOCAB_NO_TOKEN) {
            return false;
        }
    }
    return true;
}

static void encode_uncached(const struct bpe *bpe, struct bpe_scratch *scratch, const char *piece,
                            size_t length, struct token_list *out)
{
    if (bpe->whole_piece == BPE_TAKE_WHOLE) {
        uint32_t id = vocab_find_model(bpe->vocab, piece, length);

        /* A control token that the vocabulary repeats is no way round SPECIAL_TEXT. */
        if (id != VOCAB_NO_TOKEN && (bpe->vocab->entries[id].flags & VOCAB_ADDED) == 0) {
            token_list_append(out, id);
            return;
        }
    }
    if (length > BPE_WINDOW_BYTES && all_have_tokens(bpe, piece, length)) {
        bpe_merge_long(bpe, scratch, piece, length, out);
    } else {
        bpe_merge_bytes(bpe, scratch, piece, length, out);
    }
}

static void cache_store(struct bpe_cached *entry, const char *piece, size_t length,
                        const uint32_t *ids, size_t id_count)
{
    if (id_count > CACHED_IDS) {
        return;
    }
    entry->length = (unsigned char)length;
    entry->id_count = (unsigned char)id_count;
    memcpy(entry->bytes, piece, length);
    if (id_count > 0) {
        memcpy(entry->ids, ids, id_count * sizeof *ids);
    }
}

void bpe_encode(const struct bpe *bpe, struct bpe_scratch *scratch, const char *piece,
                size_t length, struct token_list *out)
{
    ASSERT(length < UINT32_MAX);
    if (length == 0) {
        return;
    }
    if (scratch->cache == NULL || length > CACHED_BYTES) {
        encode_uncached(bpe, scratch, piece, length, out);
        return;
    }
    struct bpe_cached *entry = &scratch->cache[hash_bytes(piece, length) & scratch->cache_mask];
    if (entry->length == length && memcmp(entry->bytes, piece, length) == 0) {
        token_list_extend(out, entry->ids, entry->id_count);
        return;
    }
    size_t count_before = out->count;
    encode_uncached(bpe, scratch, piece, length, out);
    size_t id_count = out->count - count_before;
    if (id_count > 0) {
        cache_store(entry, piece, length, out->ids + count_before, id_count);
    }
}
