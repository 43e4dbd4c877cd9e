/* lookup.c - drafts from the sequence's own text.
 *
 * For every length n a hash table maps the n-grams that have occurred to their favourite and its
 * votes, eight bytes a slot. An n-gram is known by 38 bits of its hash alone, so that the text need
 * not be kept or read: where two should meet in one slot, a draft is wrong, never an answer. With
 * hundreds of sequences at work no cache holds the tables, so the slots of all lengths are fetched
 * at once. 43 to 85 bytes a token when nothing repeats.
 */
#include "coordinator/engine/lookup.h"

#include "common/base/check.h"
#include "common/base/mem.h"

#include <stdbool.h>
#include <string.h>

#define GRAM_MIN 1
#define GRAM_MAX 4
#define TABLES   (GRAM_MAX - GRAM_MIN + 1)

#define SLOTS_FIRST 64

/* A slot is 0 or hash << TOKEN_BITS + VOTE_BITS | votes << TOKEN_BITS | token, votes above 0. */
#define TOKEN_BITS 24
#define VOTE_BITS  2
#define VOTES_MAX  3u
#define TAG_SHIFT  (TOKEN_BITS + VOTE_BITS)
#define TOKEN_MASK ((1u << TOKEN_BITS) - 1)

#define EVIDENCE_MIN 4 /* tokens that agree + votes */

/* Open addressing; a power of two of slots, of which the hash's lowest bits choose the first. */
struct table {
    uint64_t *slots;
    uint32_t slot_count;
    uint32_t used;
};

/* The last tokens of a text, oldest first. */
struct tail {
    uint32_t tokens[GRAM_MAX];
    uint32_t count;
};

struct lookup {
    uint32_t count; /* tokens in all */
    struct tail tail;
    struct table tables[TABLES];
};

struct lookup *lookup_create(void)
{
    struct lookup *lookup = mem_new(struct lookup);

    for (uint32_t i = 0; i < TABLES; i++) {
        lookup->tables[i].slot_count = SLOTS_FIRST;
        lookup->tables[i].slots = mem_new_array(uint64_t, SLOTS_FIRST);
    }
    return lookup;
}

void lookup_destroy(struct lookup *lookup)
{
    if (lookup == NULL) {
        return;
    }
    for (uint32_t i = 0; i < TABLES; i++) {
        mem_free(lookup->tables[i].slots);
    }
    mem_free(lookup);
}

static void tail_push(struct tail *tail, uint32_t token)
{
    if (tail->count == GRAM_MAX) {
        memmove(tail->tokens, tail->tokens + 1, (GRAM_MAX - 1) * sizeof(*tail->tokens));
        tail->count--;
    }
    tail->tokens[tail->count++] = token;
}

/* Hashes of the tail's last 1, 2, … tokens, each of 38 bits; fetches the slots where they begin. */
static void grams_hash(const struct lookup *lookup, const struct tail *tail,
                       uint64_t hashes[TABLES])
{
    uint64_t hash = 0;

    for (uint32_t i = 0; i < tail->count; i++) {
        const struct table *table = &lookup->tables[i];

        hash = (hash ^ tail->tokens[tail->count - 1 - i]) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 32;
        hashes[i] = hash & (UINT64_MAX >> TAG_SHIFT);
        __builtin_prefetch(&table->slots[hashes[i] & (table->slot_count - 1)]);
    }
}

/* The n-gram's slot, or the empty one where it belongs. */
static uint64_t *table_find(const struct table *table, uint64_t hash)
{
    uint64_t mask = table->slot_count - 1;
    uint64_t index = hash & mask;

    while (table->slots[index] != 0 && table->slots[index] >> TAG_SHIFT != hash) {
        index = (index + 1) & mask;
    }
    return &table->slots[index];
}

/* Room for so many n-grams more. */
static void table_reserve(struct table *table, uint32_t more)
{
    struct table old = *table;

    while (table->used + more > table->slot_count / 4 * 3) {
        table->slot_count *= 2;
    }
    if (table->slot_count == old.slot_count) {
        return;
    }
    table->slots = mem_new_array(uint64_t, table->slot_count);
    for (uint32_t i = 0; i < old.slot_count; i++) {
        if (old.slots[i] != 0) {
            *table_find(table, old.slots[i] >> TAG_SHIFT) = old.slots[i];
        }
    }
    mem_free(old.slots);
}

static uint32_t slot_votes(uint64_t slot)
{
    return (uint32_t)(slot >> TOKEN_BITS) & ((1u << VOTE_BITS) - 1);
}

/* The token has followed the n-gram. */
static void table_note(struct table *table, uint64_t hash, uint32_t token)
{
    uint64_t *slot = table_find(table, hash);
    uint32_t votes = slot_votes(*slot);
    uint32_t favourite = (uint32_t)*slot & TOKEN_MASK;

    if (*slot == 0) {
        table->used++;
    }
    if (votes == 0 || (votes == 1 && favourite != token)) {
        favourite = token;
        votes = 1;
    } else if (favourite != token) {
        votes--;
    } else if (votes < VOTES_MAX) {
        votes++;
    }
    *slot = hash << TAG_SHIFT | (uint64_t)votes << TOKEN_BITS | favourite;
}

void lookup_append(struct lookup *lookup, const uint32_t *tokens, uint32_t count)
{
    uint64_t hashes[2][TABLES];

    ASSERT(count <= LOOKUP_TOKENS_MAX - lookup->count);
    for (uint32_t n = 0; n < TABLES; n++) {
        table_reserve(&lookup->tables[n], count);
    }
    grams_hash(lookup, &lookup->tail, hashes[0]);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t lengths = lookup->tail.count;

        ASSERT(tokens[i] <= LOOKUP_TOKEN_LAST);
        tail_push(&lookup->tail, tokens[i]);
        grams_hash(lookup, &lookup->tail, hashes[(i + 1) % 2]); /* fetched meanwhile */
        for (uint32_t n = 0; n < lengths; n++) {
            table_note(&lookup->tables[n], hashes[i % 2][n], tokens[i]);
        }
    }
    lookup->count += count;
}

/* The token that may follow, by the longest suffix that occurred before. False: none did, or there
 * is too little to go by. */
static bool next_token(const struct lookup *lookup, const struct tail *tail, uint32_t *token)
{
    uint64_t hashes[TABLES];

    grams_hash(lookup, tail, hashes);
    for (uint32_t n = tail->count; n-- > 0;) {
        uint64_t slot = *table_find(&lookup->tables[n], hashes[n]);

        if (slot != 0) {
            *token = (uint32_t)slot & TOKEN_MASK;
            return n + GRAM_MIN + slot_votes(slot) >= EVIDENCE_MIN;
        }
    }
    return false;
}

uint32_t lookup_propose(const struct lookup *lookup, uint32_t max, uint32_t *out)
{
    struct tail tail = lookup->tail; /* of the text with the drafts so far */
    uint32_t drafted = 0;

    while (drafted < max && next_token(lookup, &tail, &out[drafted])) {
        tail_push(&tail, out[drafted++]);
    }
    return drafted;
}
