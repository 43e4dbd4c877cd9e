/* bpe_merge.c - merging a run of bytes into tokens.
 *
 * A few symbols are an array: the lowest rank is found by looking at all, and merging moves the
 * rest up. More of them form a doubly linked list over an array, and every pair of neighbours that
 * has a merge is a candidate in a binary heap, ordered by rank, then by place. A merge replaces the
 * left symbol and unlinks the right one; older candidates of a place are known by a rank that is
 * not the place's any more, and skipped when they come up.
 */
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "common/text/bpe.h"

#define NO_SYMBOL UINT32_MAX
#define FREE_PAIR UINT64_MAX
#define FEW       32

struct bpe_symbol {
    uint32_t id;
    uint32_t previous; /* NO_SYMBOL at the ends */
    uint32_t next;
    struct bpe_outcome merge; /* with the next one */
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

/* --- life --- */

bool bpe_init(struct bpe *bpe, const struct vocab *vocab, size_t merge_count,
              enum bpe_whole_piece whole_piece, struct error *err)
{
    static const struct bpe_outcome none = {BPE_NO_MERGE, VOCAB_NO_TOKEN};
    size_t slot_count = 16;

    while (slot_count < 2 * merge_count) {
        slot_count *= 2;
    }
    *bpe = (struct bpe){.vocab = vocab, .mask = slot_count - 1, .whole_piece = whole_piece};
    bpe->merges = mem_try_array(struct bpe_merge, slot_count, err);
    bpe->byte_merges = mem_new_array(struct bpe_outcome, 256 * 256);
    if (bpe->merges == NULL) {
        return false;
    }
    for (size_t i = 0; i < slot_count; i++) {
        bpe->merges[i] = (struct bpe_merge){FREE_PAIR, none};
    }
    for (size_t i = 0; i < 256 * 256; i++) {
        bpe->byte_merges[i] = none;
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
    mem_free(bpe->byte_merges);
    *bpe = (struct bpe){0};
}

bool bpe_add_merge(struct bpe *bpe, uint32_t left, uint32_t right, struct bpe_outcome outcome)
{
    struct bpe_merge *slot = merge_slot(bpe, pair_of(left, right));
    size_t left_length = 0;
    size_t right_length = 0;
    const char *left_bytes = vocab_bytes(bpe->vocab, left, &left_length);
    const char *right_bytes = vocab_bytes(bpe->vocab, right, &right_length);

    ASSERT(outcome.rank < BPE_NO_MERGE);
    if (slot->pair != FREE_PAIR) {
        return false;
    }
    *slot = (struct bpe_merge){pair_of(left, right), outcome};
    if (left_length == 1 && right_length == 1) {
        bpe->byte_merges[(unsigned char)left_bytes[0] << 8 | (unsigned char)right_bytes[0]] =
            outcome;
    }
    return true;
}

/* --- a few symbols --- */

struct few {
    uint32_t ids[FEW];
    uint32_t ranks[FEW]; /* of the merge with the next one; BPE_NO_MERGE for the last */
    uint32_t results[FEW];
    size_t count;
};

static void few_fill(const struct bpe *bpe, const unsigned char *bytes, size_t length,
                     struct few *few)
{
    unsigned char before = 0;

    few->count = 0;
    for (size_t i = 0; i < length; i++) {
        uint32_t id = bpe->byte_ids[bytes[i]];

        if (id == VOCAB_NO_TOKEN) {
            continue;
        }
        if (few->count > 0) {
            struct bpe_outcome merge = bpe->byte_merges[before << 8 | bytes[i]];

            few->ranks[few->count - 1] = merge.rank;
            few->results[few->count - 1] = merge.result;
        }
        before = bytes[i];
        few->ids[few->count] = id;
        few->ranks[few->count++] = BPE_NO_MERGE;
    }
}

static void few_set_merge(const struct bpe *bpe, struct few *few, size_t at)
{
    struct bpe_outcome merge = merge_slot(bpe, pair_of(few->ids[at], few->ids[at + 1]))->outcome;

    few->ranks[at] = merge.rank;
    few->results[at] = merge.result;
}

/* The symbol at `at` takes in the one behind it. */
static void few_merge(const struct bpe *bpe, struct few *few, size_t at)
{
    few->ids[at] = few->results[at];
    few->count--;
    few->ranks[at] = few->ranks[at + 1];
    for (size_t i = at + 1; i < few->count; i++) {
        few->ids[i] = few->ids[i + 1];
        few->ranks[i] = few->ranks[i + 1];
        few->results[i] = few->results[i + 1];
    }
    if (at + 1 < few->count) {
        few_set_merge(bpe, few, at);
    }
    if (at > 0) {
        few_set_merge(bpe, few, at - 1);
    }
}

static void merge_few(const struct bpe *bpe, const char *bytes, size_t length,
                      struct token_list *out)
{
    struct few few;

    few_fill(bpe, (const unsigned char *)bytes, length, &few);
    while (few.count > 1) {
        size_t best = 0;

        for (size_t i = 1; i + 1 < few.count; i++) {
            best = few.ranks[i] < few.ranks[best] ? i : best;
        }
        if (few.ranks[best] == BPE_NO_MERGE) {
            break;
        }
        few_merge(bpe, &few, best);
    }
    token_list_extend(out, few.ids, few.count);
}

/* --- many --- */

static void queue_reserve(struct bpe_scratch *scratch, size_t capacity)
{
    if (scratch->queue_capacity < capacity) {
        scratch->queue_capacity = capacity;
        scratch->queue = mem_resize(scratch->queue, capacity, sizeof *scratch->queue);
    }
}

/* Candidates as one number compare as they should. */
static void queue_push(struct bpe_scratch *scratch, uint32_t rank, uint32_t place)
{
    uint64_t candidate = (uint64_t)rank << 32 | place;
    uint64_t *heap = scratch->queue;
    size_t at = scratch->queue_count++;

    while (at > 0 && candidate < heap[(at - 1) / 2]) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = candidate;
}

static uint64_t queue_pop(struct bpe_scratch *scratch)
{
    uint64_t *heap = scratch->queue;
    uint64_t first = heap[0];
    uint64_t last = heap[--scratch->queue_count];
    size_t count = scratch->queue_count;
    size_t at = 0;

    for (;;) {
        size_t child = 2 * at + 1;

        if (child + 1 < count && heap[child + 1] < heap[child]) {
            child++;
        }
        if (child >= count || heap[child] >= last) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
    return first;
}

static void symbol_set_merge(struct bpe_scratch *scratch, uint32_t place, struct bpe_outcome merge)
{
    scratch->symbols[place].merge = merge;
    if (merge.rank != BPE_NO_MERGE) {
        queue_push(scratch, merge.rank, place);
    }
}

/* The list of the bytes that have tokens, and the first candidates; returns its length. */
static size_t symbols_fill(const struct bpe *bpe, struct bpe_scratch *scratch,
                           const unsigned char *bytes, size_t length)
{
    struct bpe_symbol *symbols = scratch->symbols;
    unsigned char before = 0;
    uint32_t count = 0;

    for (size_t i = 0; i < length; i++) {
        uint32_t id = bpe->byte_ids[bytes[i]];

        if (id == VOCAB_NO_TOKEN) {
            continue;
        }
        symbols[count] = (struct bpe_symbol){
            .id = id, .previous = count - 1, .next = count + 1, .merge.rank = BPE_NO_MERGE};
        if (count > 0) {
            symbol_set_merge(scratch, count - 1, bpe->byte_merges[before << 8 | bytes[i]]);
        }
        before = bytes[i];
        count++;
    }
    if (count > 0) {
        symbols[0].previous = NO_SYMBOL; /* which is what 0 - 1 gave */
        symbols[count - 1].next = NO_SYMBOL;
    }
    return count;
}

static void symbol_take_next(const struct bpe *bpe, struct bpe_scratch *scratch, uint32_t place)
{
    struct bpe_symbol *symbols = scratch->symbols;
    struct bpe_symbol *left = &symbols[place];
    struct bpe_symbol *right = &symbols[left->next];

    left->id = left->merge.result;
    left->next = right->next;
    left->merge.rank = BPE_NO_MERGE;
    right->merge.rank = BPE_NO_MERGE;
    if (left->next != NO_SYMBOL) {
        symbols[left->next].previous = place;
        symbol_set_merge(scratch, place,
                         merge_slot(bpe, pair_of(left->id, symbols[left->next].id))->outcome);
    }
    if (left->previous != NO_SYMBOL) {
        uint64_t pair = pair_of(symbols[left->previous].id, left->id);

        symbol_set_merge(scratch, left->previous, merge_slot(bpe, pair)->outcome);
    }
}

static void merge_many(const struct bpe *bpe, struct bpe_scratch *scratch, const char *bytes,
                       size_t length, struct token_list *out)
{
    if (scratch->symbol_capacity < length) {
        scratch->symbol_capacity = length;
        mem_free(scratch->symbols);
        scratch->symbols = mem_new_array(struct bpe_symbol, length);
    }
    queue_reserve(scratch, 3 * length); /* one a symbol, two a merge */
    scratch->queue_count = 0;
    size_t count = symbols_fill(bpe, scratch, (const unsigned char *)bytes, length);
    while (scratch->queue_count > 0) {
        uint64_t best = queue_pop(scratch);
        uint32_t place = (uint32_t)best;

        if (scratch->symbols[place].merge.rank == (uint32_t)(best >> 32)) {
            symbol_take_next(bpe, scratch, place);
        }
    }
    for (uint32_t at = count > 0 ? 0 : NO_SYMBOL; at != NO_SYMBOL; at = scratch->symbols[at].next) {
        token_list_append(out, scratch->symbols[at].id);
    }
}

void bpe_merge_bytes(const struct bpe *bpe, struct bpe_scratch *scratch, const char *bytes,
                     size_t length, struct token_list *out)
{
    if (length <= FEW) {
        merge_few(bpe, bytes, length, out);
    } else {
        merge_many(bpe, scratch, bytes, length, out);
    }
}
