/* flight.c - the records of steps in flight.
 *
 * There are few (stages + 2 by default), so places are searched in order. Records never move: only
 * their indices do.
 */
#include "coordinator/engine/flight.h"

#include "common/base/check.h"
#include "common/base/mem.h"

#include <string.h>

void flight_deck_init(struct flight_deck *deck, const struct flight_sizes *sizes)
{
    *deck = (struct flight_deck){.capacity = sizes->capacity, .stage_count = sizes->stage_count};
    for (uint32_t stage = 0; stage < sizes->stage_count; stage++) {
        deck->worker_count += sizes->member_counts[stage];
    }
    deck->last_member_count = sizes->member_counts[sizes->stage_count - 1];
    deck->flights = mem_new_array(struct flight, sizes->capacity);
    deck->order = mem_new_array(uint32_t, sizes->capacity);
    for (uint32_t i = 0; i < sizes->capacity; i++) {
        struct flight *flight = &deck->flights[i];

        flight->entries = mem_new_array(struct flight_entry, sizes->entries_max);
        flight->samples = mem_new_array(struct flight_sample, sizes->rows_max);
        flight->proposals = mem_new_array(uint32_t, (size_t)sizes->entries_max * sizes->draft_max);
        flight->answered = mem_new_array(bool, deck->worker_count);
        flight->compute_ns = mem_new_array(int64_t, sizes->stage_count);
        deck->order[i] = i;
    }
}

void flight_deck_deinit(struct flight_deck *deck)
{
    for (uint32_t i = 0; i < deck->capacity; i++) {
        mem_free(deck->flights[i].entries);
        mem_free(deck->flights[i].samples);
        mem_free(deck->flights[i].proposals);
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
        .issue_count = 1,
        .issued_ns = now_ns,
        .outstanding_count = deck->worker_count,
        .outstanding_last = deck->last_member_count,
        .entries = flight->entries,
        .samples = flight->samples,
        .proposals = flight->proposals,
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
