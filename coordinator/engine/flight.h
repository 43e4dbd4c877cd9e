#ifndef SHOAL_ENGINE_FLIGHT_H
#define SHOAL_ENGINE_FLIGHT_H

/* Steps in flight: what was sent, who has answered, what was sampled. Oldest first. All memory is
 * taken when the scheduler is made. */
#include "coordinator/engine/pace.h"
#include "coordinator/engine/scheduler.h"

struct flight_entry {
    seq_id id;
    uint32_t sequence; /* index in the pool */
    uint32_t position;
    uint32_t token_count;
    bool wants_sample;
    bool decodes;          /* no prompt chunk */
    uint32_t draft_count;  /* of the tokens, the last */
    uint32_t sample_begin; /* 1 + draft_count places in flight.samples */
    uint32_t propose_max;
    uint32_t proposal_count;
    uint32_t block_begin, block_end; /* of the sequence's blocks, those that it told of */
};

struct flight {
    uint64_t step;
    uint32_t attempt;     /* the scheduler's, when it was issued last */
    uint32_t issue_count; /* how often so far */
    bool was_overdue;     /* in an earlier attempt */
    int64_t issued_ns;    /* first */
    int64_t expected_ns;  /* its round trip, by the pace of earlier ones */
    int64_t deadline_ns;
    struct step_load load; /* its rows */
    uint32_t entry_count;
    struct flight_entry *entries; /* [entries_max] */
    uint32_t sample_wanted_count;
    uint32_t sample_count;
    struct flight_sample {
        bool known;
        uint32_t token;
    } * samples;                /* [rows_max] */
    uint32_t *proposals;        /* [entries_max][draft_max] */
    uint32_t outstanding_count; /* workers that have not answered */
    uint32_t outstanding_last;  /* of these, members of the last stage */
    bool *answered;             /* [worker_count], stage after stage */
    int64_t *compute_ns;        /* [stage_count] the slowest member's */
};

struct flight_deck {
    struct flight *flights; /* [capacity] */
    uint32_t *order;        /* [capacity] indices: the first `count` in flight, oldest first */
    uint32_t capacity;
    uint32_t count;
    uint32_t worker_count;
    uint32_t stage_count;
    uint32_t last_member_count;
};

struct flight_sizes {
    uint32_t capacity;
    uint32_t entries_max;
    uint32_t rows_max;
    uint32_t draft_max; /* proposals of an entry */
    uint32_t stage_count;
    const uint32_t *member_counts; /* [stage_count] */
};

void flight_deck_init(struct flight_deck *deck, const struct flight_sizes *sizes);
void flight_deck_deinit(struct flight_deck *deck);
/* A new, empty flight behind the others; the deck must have room. */
struct flight *flight_deck_add(struct flight_deck *deck, uint64_t step, int64_t now_ns);
struct flight *flight_deck_at(const struct flight_deck *deck, uint32_t place);
/* Its place, or deck->count if no such step is in flight. */
uint32_t flight_deck_find(const struct flight_deck *deck, uint64_t step);
/* The others keep their order; the flight's contents stay readable until the next add. */
void flight_deck_remove(struct flight_deck *deck, uint32_t place);
void flight_deck_clear(struct flight_deck *deck);

#endif
