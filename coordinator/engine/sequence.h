#ifndef SHOAL_ENGINE_SEQUENCE_H
#define SHOAL_ENGINE_SEQUENCE_H

/* Sequences of the scheduler: a pool of fixed size, found by id, chained in lists by index.
 *
 *   WAITING → PREFILLING → IN_STEP ⇄ READY → (released)
 *                 │           └→ DRAINING: finished, earlier steps still in flight
 *                 └→ DRAINING: prefill only, all rows issued
 *   any admitted state → LEAVING: cancelled, steps still in flight
 *
 * A sequence is in one list at most: WAITING in the queue, PREFILLING in the prefill list, READY in
 * its lane's ready list, the others in none.
 */
#include "coordinator/engine/scheduler.h"

#define SEQUENCE_NONE UINT32_MAX

enum sequence_state {
    SEQUENCE_FREE,       /* a place in the pool without a sequence */
    SEQUENCE_WAITING,    /* for a slot and blocks */
    SEQUENCE_PREFILLING, /* prompt rows are left to be issued */
    SEQUENCE_READY,      /* its next token can be computed */
    SEQUENCE_IN_STEP,    /* a sample is awaited */
    SEQUENCE_DRAINING,   /* nothing more to issue; finishes when its steps are back */
    SEQUENCE_LEAVING,    /* the client has been told; goes when its steps are back */
};

struct sequence {
    seq_id id;
    enum sequence_state state;
    uint32_t next, previous; /* in its list; next also chains free places */

    uint32_t *prompt; /* [prompt_count], owned */
    uint32_t prompt_count;
    uint32_t tokens_max;
    uint32_t generated;  /* tokens delivered */
    uint32_t last_token; /* the input of the next decoding row */
    uint32_t wants;
    bool ignore_eos;
    struct sampling_params sampling;
    enum finish_reason reason; /* DRAINING */

    uint32_t lane; /* from admission on */
    uint32_t slot;
    uint32_t position;    /* of the next row to be issued; all before are issued */
    uint32_t block_need;  /* blocks that prompt and tokens_max take */
    uint32_t block_count; /* of these, handed out */
    uint32_t *blocks;     /* [block_need]; in the memory of prompt */
    uint32_t steps_in_flight;
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
void sequence_pool_deinit(struct sequence_pool *pool);
/* A zeroed place known by `id`, which must be new. The pool must have room. */
uint32_t sequence_pool_add(struct sequence_pool *pool, seq_id id);
/* SEQUENCE_NONE if unknown. */
uint32_t sequence_pool_find(const struct sequence_pool *pool, seq_id id);
/* The id may be used again; the place stays taken. */
void sequence_pool_forget(struct sequence_pool *pool, uint32_t index);
/* Frees the place and the prompt of a forgotten sequence. */
void sequence_pool_remove(struct sequence_pool *pool, uint32_t index);

void sequence_list_init(struct sequence_list *list);
void sequence_list_append(struct sequence_pool *pool, struct sequence_list *list, uint32_t index);
void sequence_list_remove(struct sequence_pool *pool, struct sequence_list *list, uint32_t index);

#endif
