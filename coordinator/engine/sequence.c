/* sequence.c - the pool of sequences, their index by id, and the lists they stand in.
 *
 * All memory but what a request brings is taken when the scheduler is made. The index is open
 * addressing with linear probing, at most half full; removal moves later entries back, so there are
 * no tombstones and a long life does not slow it down.
 */
#include "coordinator/engine/sequence.h"

#include "common/base/check.h"
#include "common/base/hash.h"
#include "common/base/mem.h"

#include <string.h>

static uint32_t table_home(const struct sequence_pool *pool, seq_id id)
{
    return (uint32_t)hash_mix(id) & pool->table_mask;
}

/* An empty table for so many sequences, at most half full. */
static void table_make(struct sequence_pool *pool, uint32_t capacity)
{
    uint32_t table_size = 2;

    ASSERT(capacity < (1u << 30));
    while (table_size < 2 * capacity) {
        table_size *= 2;
    }
    pool->table = mem_new_array(uint32_t, table_size);
    pool->table_mask = table_size - 1;
    memset(pool->table, 0xff, table_size * sizeof(*pool->table));
}

static void table_add(struct sequence_pool *pool, uint32_t index)
{
    uint32_t place = table_home(pool, pool->sequences[index].id);

    while (pool->table[place] != SEQUENCE_NONE) {
        DEBUG_ASSERT(pool->sequences[pool->table[place]].id != pool->sequences[index].id);
        place = (place + 1) & pool->table_mask;
    }
    pool->table[place] = index;
}

static void places_free(struct sequence_pool *pool, uint32_t begin)
{
    for (uint32_t i = pool->capacity; i-- > begin;) {
        pool->sequences[i].next = pool->free_head;
        pool->free_head = i;
    }
}

void sequence_pool_init(struct sequence_pool *pool, uint32_t capacity)
{
    pool->sequences = mem_new_array(struct sequence, capacity);
    pool->capacity = capacity;
    pool->live_count = 0;
    pool->free_head = SEQUENCE_NONE;
    table_make(pool, capacity);
    places_free(pool, 0);
}

void sequence_pool_grow(struct sequence_pool *pool, uint32_t capacity)
{
    uint32_t before = pool->capacity;
    uint32_t *table = pool->table;
    uint32_t table_size = pool->table_mask + 1;

    if (capacity <= before) {
        return;
    }
    pool->sequences = mem_resize(pool->sequences, capacity, sizeof(*pool->sequences));
    memset(&pool->sequences[before], 0, (capacity - before) * sizeof(*pool->sequences));
    pool->capacity = capacity;
    places_free(pool, before);
    table_make(pool, capacity);
    for (uint32_t i = 0; i < table_size; i++) {
        if (table[i] != SEQUENCE_NONE) {
            table_add(pool, table[i]);
        }
    }
    mem_free(table);
}

static void sequence_free(struct sequence *sequence)
{
    mem_free(sequence->tokens);
    mem_free(sequence->block_hashes);
    mem_free(sequence->blocks);
    mem_free(sequence->biases);
    lookup_destroy(sequence->lookup);
}

void sequence_pool_deinit(struct sequence_pool *pool)
{
    for (uint32_t i = 0; i < pool->capacity; i++) {
        sequence_free(&pool->sequences[i]);
    }
    mem_free(pool->sequences);
    mem_free(pool->table);
}

uint32_t sequence_pool_add(struct sequence_pool *pool, seq_id id)
{
    uint32_t index = pool->free_head;

    ASSERT(index != SEQUENCE_NONE);
    pool->free_head = pool->sequences[index].next;
    pool->live_count++;
    pool->sequences[index] =
        (struct sequence){.id = id, .next = SEQUENCE_NONE, .previous = SEQUENCE_NONE};
    table_add(pool, index);
    return index;
}

/* Where the table names the sequence, or the empty place where the search ended. */
static uint32_t table_place(const struct sequence_pool *pool, seq_id id)
{
    uint32_t place = table_home(pool, id);

    while (pool->table[place] != SEQUENCE_NONE && pool->sequences[pool->table[place]].id != id) {
        place = (place + 1) & pool->table_mask;
    }
    return place;
}

uint32_t sequence_pool_find(const struct sequence_pool *pool, seq_id id)
{
    return pool->table[table_place(pool, id)];
}

void sequence_pool_forget(struct sequence_pool *pool, uint32_t index)
{
    uint32_t hole = table_place(pool, pool->sequences[index].id);

    ASSERT(pool->table[hole] == index);
    for (uint32_t next = (hole + 1) & pool->table_mask; pool->table[next] != SEQUENCE_NONE;
         next = (next + 1) & pool->table_mask) {
        uint32_t home = table_home(pool, pool->sequences[pool->table[next]].id);

        /* An entry may move back to the hole unless its home lies behind it. */
        if (((next - home) & pool->table_mask) >= ((next - hole) & pool->table_mask)) {
            pool->table[hole] = pool->table[next];
            hole = next;
        }
    }
    pool->table[hole] = SEQUENCE_NONE;
}

void sequence_pool_remove(struct sequence_pool *pool, uint32_t index)
{
    struct sequence *sequence = &pool->sequences[index];

    sequence_free(sequence);
    *sequence = (struct sequence){.state = SEQUENCE_FREE, .next = pool->free_head};
    pool->free_head = index;
    pool->live_count--;
}

bool sequence_before(const struct sequence *a, const struct sequence *b)
{
    return a->request_class != b->request_class ? a->request_class < b->request_class
                                                : a->arrival < b->arrival;
}

void sequence_tokens_reserve(struct sequence *sequence, uint32_t count)
{
    uint32_t doubled =
        sequence->token_capacity < UINT32_MAX / 2 ? 2 * sequence->token_capacity : UINT32_MAX;

    if (count > sequence->token_capacity) {
        sequence->token_capacity = count > doubled ? count : doubled;
        sequence->tokens =
            mem_resize(sequence->tokens, sequence->token_capacity, sizeof(*sequence->tokens));
    }
}

void sequence_list_init(struct sequence_list *list)
{
    *list = (struct sequence_list){.head = SEQUENCE_NONE, .tail = SEQUENCE_NONE};
}

/* Behind `previous`, or in front. */
static void list_put(struct sequence_pool *pool, struct sequence_list *list, uint32_t index,
                     uint32_t previous)
{
    struct sequence *sequence = &pool->sequences[index];
    uint32_t next = previous == SEQUENCE_NONE ? list->head : pool->sequences[previous].next;

    sequence->previous = previous;
    sequence->next = next;
    if (previous == SEQUENCE_NONE) {
        list->head = index;
    } else {
        pool->sequences[previous].next = index;
    }
    if (next == SEQUENCE_NONE) {
        list->tail = index;
    } else {
        pool->sequences[next].previous = index;
    }
    list->count++;
}

void sequence_list_append(struct sequence_pool *pool, struct sequence_list *list, uint32_t index)
{
    list_put(pool, list, index, list->tail);
}

void sequence_list_insert(struct sequence_pool *pool, struct sequence_list *list, uint32_t index)
{
    uint32_t previous = list->tail;

    while (previous != SEQUENCE_NONE &&
           sequence_before(&pool->sequences[index], &pool->sequences[previous])) {
        previous = pool->sequences[previous].previous;
    }
    list_put(pool, list, index, previous);
}

void sequence_list_remove(struct sequence_pool *pool, struct sequence_list *list, uint32_t index)
{
    struct sequence *sequence = &pool->sequences[index];

    if (sequence->previous == SEQUENCE_NONE) {
        DEBUG_ASSERT(list->head == index);
        list->head = sequence->next;
    } else {
        pool->sequences[sequence->previous].next = sequence->next;
    }
    if (sequence->next == SEQUENCE_NONE) {
        DEBUG_ASSERT(list->tail == index);
        list->tail = sequence->previous;
    } else {
        pool->sequences[sequence->next].previous = sequence->previous;
    }
    sequence->next = SEQUENCE_NONE;
    sequence->previous = SEQUENCE_NONE;
    list->count--;
}
