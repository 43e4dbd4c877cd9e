#ifndef SHOAL_ENGINE_SEQUENCE_H
#define SHOAL_ENGINE_SEQUENCE_H

/* Sequences of the scheduler: a pool of fixed size, found by id, chained in lists by index.
 *
 *   WAITING → PREFILLING → IN_STEP ⇄ READY → (released)
 *      ↑          │           └→ DRAINING: finished, earlier steps still in flight
 *      │          └→ DRAINING: prefill only, all rows issued
 *      └── YIELDING: preempted, as soon as its steps are back
 *   any admitted state → LEAVING: cancelled, steps still in flight
 *
 * A sequence is in one list at most: WAITING in the queue of its class, PREFILLING in its lane's
 * prefill list, READY in its lane's ready list, the others in none.
 *
 * Rank: class, then arrival; the sequence that ranks before all others of its lane gets the memory
 * that it needs.
 */
#include "coordinator/engine/lookup.h"
#include "coordinator/engine/scheduler.h"

#define SEQUENCE_NONE UINT32_MAX

enum sequence_state {
    SEQUENCE_FREE,       /* a place in the pool without a sequence */
    SEQUENCE_WAITING,    /* for a slot and blocks */
    SEQUENCE_PREFILLING, /* known tokens are left to be computed */
    SEQUENCE_READY,      /* its next token can be computed */
    SEQUENCE_IN_STEP,    /* a sample is awaited */
    SEQUENCE_DRAINING,   /* nothing more to issue; finishes when its steps are back */
    SEQUENCE_YIELDING,   /* gets no more rows; gives its blocks back when its steps are back */
    SEQUENCE_LEAVING,    /* the client has been told; goes when its steps are back */
};

struct sequence {
    seq_id id;
    enum sequence_state state;
    uint32_t next, previous; /* in its list; next also chains free places */

    enum request_class request_class; /* a batch request that has waited long is interactive */
    uint64_t arrival;                 /* rising */
    int64_t progress_ns;              /* when rows were issued for the first time, or it arrived */
    uint32_t reached;                 /* all rows below have been issued once, or were cached */

    uint32_t *tokens; /* prompt, generated, then the drafts of the next or current step */
    uint32_t token_capacity;
    uint32_t token_count; /* prompt and generated */
    uint32_t prompt_count;
    uint32_t tokens_max;
    uint32_t draft_count;
    uint64_t *block_hashes; /* [prompt_count / PLAN_BLOCK_TOKENS] prefix_hash of the prompt */
    struct lookup *lookup;  /* DRAFT_LOOKUP, once drafts pay */
    uint32_t lookup_count;  /* tokens that it has */

    uint32_t wants;
    uint32_t answered; /* what is wanted of rows below has been answered */
    bool ignore_eos;
    struct sampling_params sampling;
    struct token_bias *biases; /* what sampling refers to */
    enum finish_reason reason; /* DRAINING */
    uint32_t admissions;       /* so far; more than one: it was preempted */
    uint32_t cached_tokens;    /* of the prompt, never computed for it */

    uint32_t lane; /* from admission on */
    uint32_t slot;
    uint32_t admitted_count; /* tokens known at admission */
    uint32_t position;       /* of the next row to be issued; all before are issued or cached */
    uint32_t *blocks;        /* [block_need] */
    uint32_t block_need;     /* blocks that prompt and tokens_max take */
    uint32_t block_count;    /* of these, held */
    uint32_t block_told;     /* of these, in the workers' tables */
    uint32_t node_count;     /* so many of the first are nodes of the prefix tree */
    bool nodes_end;          /* the next block is another's node: computed here, it stays private */
    uint32_t claim;          /* its part of lane.claimed */
    uint32_t context_counted; /* its part of lane.decoding_context */
    uint64_t considered_step; /* the last one that could take its prompt rows */
    uint32_t steps_in_flight;
    uint32_t losses; /* placements lost with steps of it in flight, none of which had come back */
};

struct sequence_list {
    uint32_t head, tail;
    uint32_t count;
};

struct sequence_pool {
    struct sequence *sequences; /* [capacity] */
    uint32_t capacity;
    uint32_t free_head;
    uint32_t live_count;
    uint32_t *table; /* [table_mask + 1] open addressing by id: index or SEQUENCE_NONE */
    uint32_t table_mask;
};

void sequence_pool_init(struct sequence_pool *pool, uint32_t capacity);
/* Room for so many, if there is less. */
void sequence_pool_grow(struct sequence_pool *pool, uint32_t capacity);
void sequence_pool_deinit(struct sequence_pool *pool);
/* A zeroed place known by `id`, which must be new. The pool must have room. */
uint32_t sequence_pool_add(struct sequence_pool *pool, seq_id id);
/* SEQUENCE_NONE if unknown. */
uint32_t sequence_pool_find(const struct sequence_pool *pool, seq_id id);
/* The id may be used again; the place stays taken. */
void sequence_pool_forget(struct sequence_pool *pool, uint32_t index);
/* Frees the place and what a forgotten sequence owns. */
void sequence_pool_remove(struct sequence_pool *pool, uint32_t index);

/* Whether a ranks before b. */
bool sequence_before(const struct sequence *a, const struct sequence *b);
/* Room for so many tokens in all. */
void sequence_tokens_reserve(struct sequence *sequence, uint32_t count);

void sequence_list_init(struct sequence_list *list);
void sequence_list_append(struct sequence_pool *pool, struct sequence_list *list, uint32_t index);
/* Behind all that rank before it. */
void sequence_list_insert(struct sequence_pool *pool, struct sequence_list *list, uint32_t index);
void sequence_list_remove(struct sequence_pool *pool, struct sequence_list *list, uint32_t index);

#endif
