#ifndef SHOAL_ENGINE_SCHEDULER_INTERNAL_H
#define SHOAL_ENGINE_SCHEDULER_INTERNAL_H

/* The scheduler's state, shared by its files:
 *   scheduler.c         life cycle, requests, outcomes, figures
 *   scheduler_step.c    admission and the forming of steps
 *   scheduler_report.c  what comes back from the workers
 *   scheduler_check.c   the invariants
 */
#include "coordinator/engine/flight.h"
#include "coordinator/engine/lane.h"
#include "coordinator/engine/pace.h"
#include "coordinator/engine/scheduler.h"
#include "coordinator/engine/sequence.h"

struct outcome_queue {
    struct outcome *outcomes; /* ring of `capacity`, a power of two */
    uint32_t capacity;
    uint32_t head;
    uint32_t count;
};

struct scheduler {
    struct scheduler_config config; /* its arrays are our copies */
    uint32_t *member_counts;
    uint32_t *eos_ids;

    struct sequence_pool pool;
    struct sequence_list waiting;    /* first come first */
    struct sequence_list prefilling; /* in the order of admission */
    struct lane *lanes;
    struct flight_deck deck;
    struct pace pace;
    struct outcome_queue outcomes;
    uint64_t step_next;

    /* The step lent by scheduler_next. */
    struct step_entry *entries; /* [entries_max] */
    uint32_t *tokens;           /* [step_rows_max] */
    uint32_t *blocks;           /* [step_rows_max]: a new block holds a row of the step */
    uint32_t entries_max;
    uint32_t *lane_rows; /* [lane_count] scratch: rows that a lane has in the step, or may have */

    struct scheduler_stats stats; /* the counters that only grow */
};

void scheduler_emit(struct scheduler *scheduler, const struct outcome *outcome);
/* Tells the client that nothing follows, and forgets the id; the caller decides what becomes of the
 * sequence's place. */
void scheduler_finish(struct scheduler *scheduler, uint32_t index, enum finish_reason reason);
/* Gives back lane, slot, blocks and place of an admitted sequence with no step in flight. */
void scheduler_release(struct scheduler *scheduler, uint32_t index);
/* Out of the list that it stands in; the lane's figures follow. */
void scheduler_unlist(struct scheduler *scheduler, uint32_t index);

#endif
