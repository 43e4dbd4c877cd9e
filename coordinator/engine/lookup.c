/* lookup.c - drafts from the sequence's own text.
 *
 * For every length n a hash table maps the n-grams that have occurred to the last place that voted
 * for their favourite. A slot holds that place and the votes, four bytes; the n-gram itself is read
 * back from the text in front of the place, so that a lookup is exact. Together with the text that
 * is 28 to 56 bytes a token when nothing repeats.
 */
#include "coordinator/engine/lookup.h"

#include "common/base/check.h"
#include "common/base/mem.h"

#include <stdbool.h>
#include <string.h>

#define GRAM_MIN 1
#define GRAM_MAX 4
#define TABLES   (GRAM_MAX - GRAM_MIN + 1)

#define SLOTS_FIRST  64
#define TOKENS_FIRST 64

#define PLACE_BITS 28
#define PLACE_MASK (LOOKUP_TOKENS_MAX - 1)
#define VOTES_MAX  3u

#define EVIDENCE_MIN 4 /* tokens that agree + votes */

/* Open addressing. A slot is 0 or votes << PLACE_BITS | the place of the token that followed. */
struct table {
    uint32_t *slots;
    uint32_t slot_count; /* a power of two */
    uint32_t used;
};

struct lookup {
    uint32_t *tokens;
    uint32_t count;
    uint32_t capacity;
    struct table tables[TABLES];
};

struct lookup *lookup_create(void)
{
    struct lookup *lookup = mem_new(struct lookup);

    lookup->capacity = TOKENS_FIRST;
    lookup->tokens = mem_new_array(uint32_t, TOKENS_FIRST);
    for (uint32_t i = 0; i < TABLES; i++) {
        lookup->tables[i].slot_count = SLOTS_FIRST;
        lookup->tables[i].slots = mem_new_array(uint32_t, SLOTS_FIRST);
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
    mem_free(lookup->tokens);
    mem_free(lookup);
}

static uint32_t gram_hash(const uint32_t *gram, uint32_t length)
{
    uint64_t hash = length;

    for (uint32_t i = 0; i < length; i++) {
        hash = (hash ^ gram[i]) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 32;
    }
    return (uint32_t)hash;
}

/* The n-gram's slot, or the empty one where it belongs. */
static uint32_t *table_find(const struct lookup *lookup, uint32_t length, const uint32_t *gram)
{
    const struct table *table = &lookup->tables[length - GRAM_MIN];
    uint32_t mask = table->slot_count - 1;
    uint32_t index = gram_hash(gram, length) & mask;

    while (table->slots[index] != 0) {
        uint32_t place = table->slots[index] & PLACE_MASK;

        if (memcmp(&lookup->tokens[place - length], gram, length * sizeof(*gram)) == 0) {
            break;
        }
        index = (index + 1) & mask;
    }
    return &table->slots[index];
}

static void table_grow(struct lookup *lookup, uint32_t length)
{
    struct table *table = &lookup->tables[length - GRAM_MIN];
    struct table old = *table;

    table->slot_count *= 2;
    table->slots = mem_new_array(uint32_t, table->slot_count);
    for (uint32_t i = 0; i < old.slot_count; i++) {
        if (old.slots[i] != 0) {
            uint32_t place = old.slots[i] & PLACE_MASK;

            *table_find(lookup, length, &lookup->tokens[place - length]) = old.slots[i];
        }
    }
    mem_free(old.slots);
}

/* The token at `place` has followed the n-gram before it. */
static void table_note(struct lookup *lookup, uint32_t length, uint32_t place)
{
    struct table *table = &lookup->tables[length - GRAM_MIN];
    uint32_t *slot = table_find(lookup, length, &lookup->tokens[place - length]);
    uint32_t votes = *slot >> PLACE_BITS;

    if (*slot == 0) {
        *slot = 1u << PLACE_BITS | place;
        table->used++;
    } else if (lookup->tokens[*slot & PLACE_MASK] == lookup->tokens[place]) {
        *slot = (votes < VOTES_MAX ? votes + 1 : votes) << PLACE_BITS | place;
    } else if (votes == 1) {
        *slot = 1u << PLACE_BITS | place;
    } else {
        *slot -= 1u << PLACE_BITS;
    }
    if (table->used > table->slot_count / 3 * 2) {
        table_grow(lookup, length);
    }
}

void lookup_append(struct lookup *lookup, const uint32_t *tokens, uint32_t count)
{
    ASSERT(count <= LOOKUP_TOKENS_MAX - lookup->count);
    if (count == 0) {
        return;
    }
    if (lookup->count + count > lookup->capacity) {
        while (lookup->capacity < lookup->count + count) {
            lookup->capacity *= 2;
        }
        lookup->tokens = mem_resize(lookup->tokens, lookup->capacity, sizeof(*lookup->tokens));
    }
    memcpy(&lookup->tokens[lookup->count], tokens, count * sizeof(*tokens));
    for (uint32_t i = 0; i < count; i++) {
        uint32_t place = lookup->count++;

        for (uint32_t length = GRAM_MIN; length <= GRAM_MAX && length <= place; length++) {
            table_note(lookup, length, place);
        }
    }
}

/* The place of the token that may follow, by the longest suffix that occurred before; 0: none, or
 * there is too little to go by. */
static uint32_t next_place(const struct lookup *lookup, const uint32_t *end, uint32_t end_length)
{
    for (uint32_t length = end_length; length >= GRAM_MIN; length--) {
        uint32_t slot = *table_find(lookup, length, &end[end_length - length]);

        if (slot != 0) {
            bool enough = length + (slot >> PLACE_BITS) >= EVIDENCE_MIN;

            return enough ? slot & PLACE_MASK : 0;
        }
    }
    return 0;
}

uint32_t lookup_propose(const struct lookup *lookup, uint32_t max, uint32_t *out)
{
    uint32_t end[GRAM_MAX]; /* of the text with the drafts so far */
    uint32_t end_length = lookup->count < GRAM_MAX ? lookup->count : GRAM_MAX;
    uint32_t drafted = 0;

    memcpy(end, &lookup->tokens[lookup->count - end_length], end_length * sizeof(*end));
    while (drafted < max) {
        uint32_t place = next_place(lookup, end, end_length);

        if (place == 0) {
            break;
        }
        out[drafted] = lookup->tokens[place];
        if (end_length == GRAM_MAX) {
            memmove(end, end + 1, (GRAM_MAX - 1) * sizeof(*end));
            end_length--;
        }
        end[end_length++] = out[drafted++];
    }
    return drafted;
}
