/* bpe.c - merging the bytes of a piece into tokens.
 *
 * The symbols of a piece form a doubly linked list over an array. Every pair of neighbours that has
 * a merge is a candidate in a binary heap, ordered by rank, then by place. A merge replaces the
 * left symbol and unlinks the right one, so older candidates may name pairs that are gone: they are
 * known by their result and skipped when they come up.
 *
 * Words repeat, so short pieces are looked up in a small direct-mapped cache first. It belongs to
 * one encoding, and a text shorter than the cache would be worth goes without.
 */
#include "common/text/bpe.h"

#include "common/base/hash.h"
#include "common/base/mem.h"

#include <string.h>

#define FREE_PAIR            UINT64_MAX
#define NO_SYMBOL            UINT32_MAX
#define CACHED_BYTES         22
#define CACHED_IDS           10
#define CACHE_ENTRIES_MAX    16384
#define CACHE_TEXT_BYTES_MIN 4096

struct bpe_symbol {
    uint32_t id;
    uint32_t previous; /* NO_SYMBOL at the ends */
    uint32_t next;
};

struct bpe_candidate {
    uint32_t rank;
    uint32_t left;   /* index of the left symbol */
    uint32_t right;  /* and of the right one, when this was made */
    uint32_t result; /* and what they become */
    uint64_t pair;
};

struct bpe_cached {
    unsigned char length; /* 0: free */
    unsigned char id_count;
    char bytes[CACHED_BYTES];
    uint32_t ids[CACHED_IDS];
};

static uint64_t pair_of(uint32_t left, uint32_t right)
{
    return (uint64_t)left << 32 | right;
}

static struct bpe_merge *merge_slot(const struct bpe *bpe, uint64_t pair)
{
    size_t at = hash_mix(pair) & bpe->mask;

    while (bpe->merges[at].pair != FREE_PAIR && bpe->merges[at].pair != pair) {
        at = (at + 1) & bpe->mask;
    }
    return &bpe->merges[at];
}

bool bpe_init(struct bpe *bpe, const struct vocab *vocab, size_t merge_count,
              enum bpe_whole_piece whole_piece, struct error *err)
{
    size_t slot_count = 16;

    while (slot_count < 2 * merge_count) {
        slot_count *= 2;
    }
    *bpe = (struct bpe){.vocab = vocab, .mask = slot_count - 1, .whole_piece = whole_piece};
    bpe->merges = mem_try_array(struct bpe_merge, slot_count, err);
    if (bpe->merges == NULL) {
        return false;
    }
    for (size_t i = 0; i < slot_count; i++) {
        bpe->merges[i].pair = FREE_PAIR;
    }
    for (int byte = 0; byte < 256; byte++) {
        char text = (char)byte;

        bpe->byte_ids[byte] = vocab_find_model(vocab, &text, 1);
    }
    return true;
}

void bpe_deinit(struct bpe *bpe)
{
    mem_free(bpe->merges);
    bpe->merges = NULL;
}

bool bpe_add_merge(struct bpe *bpe, uint32_t left, uint32_t right, uint32_t rank, uint32_t result)
{
    struct bpe_merge *slot = merge_slot(bpe, pair_of(left, right));

    if (slot->pair != FREE_PAIR) {
        return false;
    }
    *slot = (struct bpe_merge){.pair = pair_of(left, right), .rank = rank, .result = result};
    return true;
}

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
    memset(scratch, 0, sizeof *scratch);
}

static bool comes_before(const struct bpe_candidate *a, const struct bpe_candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->left < b->left;
}

static void queue_push(struct bpe_scratch *scratch, struct bpe_candidate candidate)
{
    if (scratch->queue_count == scratch->queue_capacity) {
        scratch->queue_capacity = scratch->queue_capacity == 0 ? 64 : 2 * scratch->queue_capacity;
        scratch->queue =
            mem_resize(scratch->queue, scratch->queue_capacity, sizeof *scratch->queue);
    }
    struct bpe_candidate *heap = scratch->queue;
    size_t at = scratch->queue_count++;
    while (at > 0 && comes_before(&candidate, &heap[(at - 1) / 2])) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = candidate;
}

static struct bpe_candidate queue_pop(struct bpe_scratch *scratch)
{
    struct bpe_candidate *heap = scratch->queue;
    struct bpe_candidate first = heap[0];
    struct bpe_candidate last = heap[--scratch->queue_count];
    size_t count = scratch->queue_count;
    size_t at = 0;

    for (;;) {
        size_t child = 2 * at + 1;

        if (child + 1 < count && comes_before(&heap[child + 1], &heap[child])) {
            child++;
        }
        if (child >= count || !comes_before(&heap[child], &last)) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
    return first;
}

/* The list of the piece's bytes; returns its length. */
static size_t symbols_fill(const struct bpe *bpe, struct bpe_scratch *scratch, const char *piece,
                           size_t length)
{
    size_t count = 0;

    if (scratch->symbol_capacity < length) {
        scratch->symbol_capacity = length < 64 ? 64 : length;
        mem_free(scratch->symbols);
        scratch->symbols = mem_new_array(struct bpe_symbol, scratch->symbol_capacity);
    }
    for (size_t i = 0; i < length; i++) {
        uint32_t id = bpe->byte_ids[(unsigned char)piece[i]];

        if (id != VOCAB_NO_TOKEN) {
            scratch->symbols[count] = (struct bpe_symbol){
                .id = id, .previous = (uint32_t)count - 1, .next = (uint32_t)count + 1};
            count++;
        }
    }
    if (count > 0) {
        scratch->symbols[0].previous = NO_SYMBOL;
        scratch->symbols[count - 1].next = NO_SYMBOL;
    }
    return count;
}

static void consider(const struct bpe *bpe, struct bpe_scratch *scratch, uint32_t left,
                     uint32_t right)
{
    uint64_t pair = pair_of(scratch->symbols[left].id, scratch->symbols[right].id);
    const struct bpe_merge *merge = merge_slot(bpe, pair);

    if (merge->pair != FREE_PAIR) {
        queue_push(scratch, (struct bpe_candidate){.rank = merge->rank,
                                                   .left = left,
                                                   .right = right,
                                                   .result = merge->result,
                                                   .pair = pair});
    }
}

/* Symbols that were merged away have the id VOCAB_NO_TOKEN, which is in no pair. */
static void merge_all(const struct bpe *bpe, struct bpe_scratch *scratch, size_t count)
{
    struct bpe_symbol *symbols = scratch->symbols;

    scratch->queue_count = 0;
    for (size_t i = 0; i + 1 < count; i++) {
        consider(bpe, scratch, (uint32_t)i, (uint32_t)i + 1);
    }
    while (scratch->queue_count > 0) {
        struct bpe_candidate best = queue_pop(scratch);
        struct bpe_symbol *left = &symbols[best.left];
        struct bpe_symbol *right = &symbols[best.right];

        if (left->next != best.right || pair_of(left->id, right->id) != best.pair) {
            continue;
        }
        left->id = best.result;
        left->next = right->next;
        right->id = VOCAB_NO_TOKEN;
        if (left->next != NO_SYMBOL) {
            symbols[left->next].previous = best.left;
            consider(bpe, scratch, best.left, left->next);
        }
        if (left->previous != NO_SYMBOL) {
            consider(bpe, scratch, left->previous, best.left);
        }
    }
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
    size_t count = symbols_fill(bpe, scratch, piece, length);
    merge_all(bpe, scratch, count);
    for (uint32_t at = count > 0 ? 0 : NO_SYMBOL; at != NO_SYMBOL; at = scratch->symbols[at].next) {
        token_list_append(out, scratch->symbols[at].id);
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
    ASSERT(length < NO_SYMBOL);
    if (length == 0) {
        return;
    }
    if (scratch->cache == NULL || length > CACHED_BYTES) {
        encode_uncached(bpe, scratch, piece, length, out);
        return;
    }
    struct bpe_cached *entry = &scratch->cache[hash_bytes(piece, length) & scratch->cache_mask];
    if (entry->length == length && memcmp(entry->bytes, piece, length) == 0) {
        for (size_t i = 0; i < entry->id_count; i++) {
            token_list_append(out, entry->ids[i]);
        }
        return;
    }
    size_t count_before = out->count;
    encode_uncached(bpe, scratch, piece, length, out);
    size_t id_count = out->count - count_before;
    if (id_count > 0) {
        cache_store(entry, piece, length, out->ids + count_before, id_count);
    }
}
