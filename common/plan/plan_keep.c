/* plan_keep.c - see plan_keep.h.
 *
 * Greedy over all pairs of worker and seat that have something in common. An optimal assignment
 * would gain little: seats are few layers each, and what a worker holds was one of them.
 */
#include "common/plan/plan_keep.h"

#include "common/base/mem.h"

#include <stdlib.h>

#define WORD_BITS 64

static uint32_t word_count(uint32_t expert_count)
{
    return (expert_count + WORD_BITS - 1) / WORD_BITS;
}

struct plan_holding *plan_holding_create(const struct placement *placement,
                                         struct placement_seat seat)
{
    const struct placement_stage *stage = &placement->stages[seat.stage];
    uint32_t layer_count = placement_stage_layers(placement, seat.stage);
    uint32_t words = word_count(placement->expert_count);
    struct plan_holding *out = mem_new(struct plan_holding);
    bool is_last = seat.stage + 1 == placement->stage_count;

    out->layer_begin = stage->layer_begin;
    out->layer_end = stage->layer_begin + layer_count;
    out->has_embedding = seat.stage == 0 || out->layer_end > stage->layer_end;
    out->has_head = is_last;
    out->expert_count = placement->expert_count;
    out->experts = mem_new_array(uint64_t, (size_t)layer_count * words);
    for (uint32_t layer = 0; layer < layer_count; layer++) {
        uint32_t absolute = stage->layer_begin + layer;

        for (uint32_t expert = 0;
             expert < placement->expert_count && absolute >= placement->dense_layer_count;
             expert++) {
            if (placement_owns(placement, absolute, expert, seat.member)) {
                out->experts[(size_t)layer * words + expert / WORD_BITS] |= UINT64_C(1)
                                                                            << expert % WORD_BITS;
            }
        }
    }
    return out;
}

void plan_holding_destroy(struct plan_holding *holding)
{
    if (holding != NULL) {
        mem_free(holding->experts);
        mem_free(holding);
    }
}

static const uint64_t *experts_of(const struct plan_holding *holding, uint32_t layer)
{
    return holding->experts +
           (size_t)(layer - holding->layer_begin) * word_count(holding->expert_count);
}

uint64_t plan_holding_common_bytes(const struct planner_request *request,
                                   const struct plan_holding *a, const struct plan_holding *b)
{
    uint32_t begin = a->layer_begin > b->layer_begin ? a->layer_begin : b->layer_begin;
    uint32_t end = a->layer_end < b->layer_end ? a->layer_end : b->layer_end;
    uint64_t bytes = (a->has_embedding && b->has_embedding ? request->embedding_bytes : 0) +
                     (a->has_head && b->has_head ? request->head_bytes : 0);

    for (uint32_t layer = begin; layer < end; layer++) {
        const struct planner_layer *weights =
            layer < request->layer_count ? &request->layers[layer] : &request->draft;
        uint32_t experts = 0;

        for (uint32_t i = 0; i < word_count(a->expert_count); i++) {
            experts +=
                (uint32_t)__builtin_popcountll(experts_of(a, layer)[i] & experts_of(b, layer)[i]);
        }
        bytes += weights->common_bytes + experts * weights->expert_bytes;
    }
    return bytes;
}

/* --- seats --- */

struct seats {
    uint32_t count;
    struct plan_holding **wanted; /* [count], stage by stage */
    uint32_t *worker;             /* [count]: index into the request's, who sits there */
};

static uint32_t worker_index(const struct planner_request *request, uint32_t id)
{
    uint32_t index = 0;

    while (request->workers[index].id != id) {
        index++;
        ASSERT(index < request->worker_count);
    }
    return index;
}

static struct seats seats_make(const struct planner_request *request,
                               const struct placement *placement)
{
    struct seats seats = {.wanted = mem_new_array(struct plan_holding *, request->worker_count),
                          .worker = mem_new_array(uint32_t, request->worker_count)};

    ASSERT(placement_worker_count(placement) <= request->worker_count);
    for (uint32_t stage = 0; stage < placement->stage_count; stage++) {
        for (uint32_t m = 0; m < placement->stages[stage].member_count; m++) {
            struct placement_seat seat = {stage, m};

            seats.wanted[seats.count] = plan_holding_create(placement, seat);
            seats.worker[seats.count] = worker_index(request, placement->stages[stage].workers[m]);
            seats.count++;
        }
    }
    return seats;
}

static void seats_free(struct seats *seats)
{
    for (uint32_t i = 0; i < seats->count; i++) {
        plan_holding_destroy(seats->wanted[i]);
    }
    mem_free(seats->wanted);
    mem_free(seats->worker);
}

uint64_t plan_kept_bytes(const struct planner_request *request, const struct placement *placement,
                         const struct plan_holding *const *held)
{
    struct seats seats = seats_make(request, placement);
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < seats.count; i++) {
        const struct plan_holding *own = held[seats.worker[i]];

        bytes += own != NULL ? plan_holding_common_bytes(request, own, seats.wanted[i]) : 0;
    }
    seats_free(&seats);
    return bytes;
}

struct match {
    uint64_t bytes;
    uint32_t seat, worker;
};

/* The most bytes first; then the lower seat, the earlier worker. */
static int match_compare(const void *left, const void *right)
{
    const struct match *a = left;
    const struct match *b = right;

    if (a->bytes != b->bytes) {
        return a->bytes < b->bytes ? 1 : -1;
    }
    if (a->seat != b->seat) {
        return a->seat > b->seat ? 1 : -1;
    }
    return (a->worker > b->worker) - (a->worker < b->worker);
}

static bool is_loner(const struct planner_request *request, uint32_t worker)
{
    return request->workers[worker].island == 0;
}

/* Sorted; the caller owns them. */
static struct match *matches_find(const struct planner_request *request, const struct seats *seats,
                                  const struct plan_holding *const *held, uint32_t *count)
{
    struct match *matches = NULL;
    uint32_t room = 0;

    *count = 0;
    for (uint32_t seat = 0; seat < seats->count; seat++) {
        for (uint32_t i = 0; i < seats->count; i++) {
            uint32_t worker = seats->worker[i];
            uint64_t bytes =
                held[worker] == NULL || !is_loner(request, seats->worker[seat]) ||
                        !is_loner(request, worker)
                    ? 0
                    : plan_holding_common_bytes(request, held[worker], seats->wanted[seat]);

            if (bytes == 0) {
                continue;
            }
            if (*count == room) {
                room = room > 0 ? 2 * room : 64;
                matches = mem_resize(matches, room, sizeof(*matches));
            }
            matches[(*count)++] = (struct match){bytes, seat, worker};
        }
    }
    if (*count > 0) {
        qsort(matches, *count, sizeof(*matches), match_compare);
    }
    return matches;
}

bool plan_keep_seats(const struct planner_request *request, const struct placement *placement,
                     const struct plan_holding *const *held, uint64_t *keys)
{
    struct seats seats = seats_make(request, placement);
    bool *is_taken = mem_new_array(bool, seats.count);
    uint32_t match_count;
    struct match *matches = matches_find(request, &seats, held, &match_count);
    bool moves = false;

    for (uint32_t i = 0; i < request->worker_count; i++) {
        keys[i] = 0;
    }
    for (uint32_t i = 0; i < match_count; i++) {
        if (keys[matches[i].worker] == 0 && !is_taken[matches[i].seat]) {
            keys[matches[i].worker] = matches[i].seat + (uint64_t)1;
            is_taken[matches[i].seat] = true;
        }
    }
    for (uint32_t i = 0, seat = 0; i < seats.count; i++) {
        uint32_t worker = seats.worker[i];

        if (!is_loner(request, worker) || keys[worker] != 0) {
            continue;
        }
        while (is_taken[seat] || !is_loner(request, seats.worker[seat])) {
            seat++;
        }
        keys[worker] = seat + (uint64_t)1;
        is_taken[seat] = true;
    }
    for (uint32_t i = 0; i < seats.count; i++) {
        moves |= is_loner(request, seats.worker[i]) && keys[seats.worker[i]] != i + (uint64_t)1;
    }
    mem_free(matches);
    mem_free(is_taken);
    seats_free(&seats);
    return moves;
}
