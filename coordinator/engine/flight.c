/* flight.c - the records of steps in flight.
 *
 * There are few (stages + 2 by default), so places are searched in order. Records never move: only
 * their indices do.
 */
#include "coordinator/engine/flight.h"

#include "common/base/check.h"
#include "common/base/mem.h"

#include <string.h>

void flight_deck_init(struct flight_deck *deck, uint32_t capacity, uint32_t entries_max,
                      uint32_t stage_count, const uint32_t *member_counts)
{
    *deck = (struct flight_deck){.capacity = capacity, .stage_count = stage_count};
    for (uint32_t stage = 0; stage < stage_count; stage++) {
        deck->worker_count += member_counts[stage];
    }
    deck->last_member_count = member_counts[stage_count - 1];
    deck->flights = mem_new_array(struct flight, capacity);
    deck->order = mem_new_array(uint32_t, capacity);
    for (uint32_t i = 0; i < capacity; i++) {
        struct flight *flight = &deck->flights[i];

        flight->entries = mem_new_array(struct flight_entry, entries_max);
        flight->answered = mem_new_array(bool, deck->worker_count);
        flight->compute_ns = mem_new_array(int64_t, stage_count);
        deck->order[i] = i;
    }
}

void flight_deck_deinit(struct flight_deck *deck)
{
    for (uint32_t i = 0; i < deck->capacity; i++) {
        mem_free(deck->flights[i].entries);
        mem_free(deck->flights[i].answered);
        mem_free(deck->flights[i].compute_ns);
    }
    mem_free(deck->flights);
    mem_free(deck->order);
}

struct flight *flight_deck_at(const struct flight_deck *deck, uint32_t place)
{
    DEBUG_ASSERT(place < deck->count);
    return &deck->flights[deck->order[place]];
}

struct flight *flight_deck_add(struct flight_deck *deck, uint64_t step, int64_t now_ns)
{
    struct flight *flight;

    ASSERT(deck->count < deck->capacity);
    flight = &deck->flights[deck->order[deck->count++]];
    *flight = (struct flight){
        .step = step,
        .issued_ns = now_ns,
        .outstanding_count = deck->worker_count,
        .outstanding_last = deck->last_member_count,
        .entries = flight->entries,
        .answered = flight->answered,
        .compute_ns = flight->compute_ns,
    };
    memset(flight->answered, 0, deck->worker_count * sizeof(*flight->answered));
    memset(flight->compute_ns, 0, deck->stage_count * sizeof(*flight->compute_ns));
    return flight;
}

uint32_t flight_deck_find(const struct flight_deck *deck, uint64_t step)
{
    uint32_t place = 0;

    while (place < deck->count && deck->flights[deck->order[place]].step != step) {
        place++;
    }
    return place;
}

void flight_deck_remove(struct flight_deck *deck, uint32_t place)
{
    uint32_t index = deck->order[place];

    ASSERT(place < deck->count);
    deck->count--;
    for (; place < deck->count; place++) {
        deck->order[place] = deck->order[place + 1];
    }
    deck->order[deck->count] = index;
}

void flight_deck_clear(struct flight_deck *deck)
{
    deck->count = 0;
}
