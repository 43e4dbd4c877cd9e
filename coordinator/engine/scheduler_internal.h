#ifndef SHOAL_ENGINE_SCHEDULER_INTERNAL_H
#define SHOAL_ENGINE_SCHEDULER_INTERNAL_H

/* The scheduler's state, shared by its files:
 *   scheduler.c            life cycle, outcomes, figures
 *   scheduler_request.c    what clients want: submit, cancel
 *   scheduler_admission.c  the queue: classes, aging, which lane
 *   scheduler_memory.c     blocks on demand: eviction, preemption
 *   scheduler_prefix.c     prompt beginnings that sequences share
 *   scheduler_step.c       the forming of steps
 *   scheduler_decode.c     …whose next tokens
 *   scheduler_prefill.c    …whose prompts
 *   scheduler_report.c     what comes back from the workers
 *   scheduler_epoch.c      one placement after another
 *   scheduler_retry.c      what does not: further attempts
 *   scheduler_check.c      the invariants
 */
#include "coordinator/engine/bug.h"
#include "coordinator/engine/draft_policy.h"
#include "coordinator/engine/flight.h"
#include "coordinator/engine/lane.h"
#include "coordinator/engine/pace.h"
#include "coordinator/engine/scheduler.h"
#include "coordinator/engine/sequence.h"

#define REQUEST_CLASSES 2

struct outcome_queue {
    struct outcome *outcomes; /* ring of `capacity`, a power of two */
    uint32_t capacity;
    uint32_t head;
    uint32_t count;
};

struct scheduler {
    struct scheduler_config config; /* its arrays are our copies; suspended: no lanes */
    uint32_t *member_counts;
    uint32_t *eos_ids;
    int64_t now_ns; /* of the last event */

    struct sequence_pool pool;
    struct sequence_list waiting[REQUEST_CLASSES]; /* by arrival */
    struct lane *lanes;
    struct flight_deck deck;
    struct pace pace;
    struct draft_policy draft_policy;
    struct outcome_queue outcomes;
    uint64_t step_next;
    uint32_t attempt;
    uint32_t retry_count;         /* since a step came back, or it was quiet for long */
    int64_t retry_ns;             /* when the last attempt began */
    uint64_t decode_turns;        /* steps with decoding rows: whose lane is first next time */
    uint64_t prefill_turns;       /* steps with prompt rows, likewise */
    uint64_t prompt_rows_waiting; /* when a step was formed last */
    uint32_t chunk_rows;          /* see scheduler_chunk_rows */
    uint64_t arrival_next;
    uint32_t batch_admitted; /* admitted sequences of class batch */
    int64_t aging_ns;        /* when the next batch request may become an interactive one */
    double finish_gap_ns;    /* running mean between requests that finish; 0: unknown */
    int64_t finish_ns;       /* when the last one did */

    /* The step lent by scheduler_next. */
    struct step_entry *entries; /* [entries_max] */
    uint32_t entries_max;

    struct scheduler_stats stats; /* the counters that only grow */
};

/* The step under construction. */
struct step_build {
    struct flight *flight;
    uint32_t steps_wanted; /* in flight, with this one */
    uint32_t steps_others; /* in flight now */
    uint32_t chunk_rows;   /* of prompts that a step is worth; 0: none wait */
    uint32_t draft_depth;
    uint32_t decode_rows_max;
    uint32_t decode_count;  /* sequences */
    uint32_t lookup_tokens; /* that lookups have been told of */
};

static inline uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static inline uint64_t divide_up(uint64_t a, uint64_t b)
{
    return (a + b - 1) / b;
}

static inline uint32_t sequence_generated(const struct sequence *sequence)
{
    return sequence->token_count - sequence->prompt_count;
}

/* Whether it wants something of its prompt's rows, so that they must be computed. */
static inline bool sequence_wants_rows(const struct sequence *sequence)
{
    return sequence->wants != 0 || sequence->sampling.prompt_logprobs > 0;
}

/* Takes, and gives back, what belongs to a placement: lanes, steps in flight, what is measured. */
void scheduler_epoch_begin(struct scheduler *scheduler, const struct scheduler_config *config);
void scheduler_epoch_end(struct scheduler *scheduler);

uint32_t scheduler_waiting_count(const struct scheduler *scheduler);
void scheduler_emit(struct scheduler *scheduler, const struct outcome *outcome);
/* Tells the client that nothing follows, and forgets the id; the caller decides what becomes of the
 * sequence's place. */
void scheduler_finish(struct scheduler *scheduler, uint32_t index, enum finish_reason reason);
/* Gives back lane, slot, blocks and place of an admitted sequence with no step in flight. */
void scheduler_release(struct scheduler *scheduler, uint32_t index);
/* Out of the list that it stands in; the lane's figures follow. */
void scheduler_unlist(struct scheduler *scheduler, uint32_t index);

/* Aging, then as many of the queue as there is room for. */
void scheduler_admit(struct scheduler *scheduler);

/* Blocks for the sequence's first `token_count` positions, taken from sequences that rank behind it
 * if need be. False: there are none now; some may be on their way. */
bool scheduler_blocks_get(struct scheduler *scheduler, uint32_t index, uint32_t token_count);
/* Takes a sequence's memory for others: at once if none of its steps is in flight, else when they
 * are back. */
void scheduler_preempt(struct scheduler *scheduler, uint32_t index);
/* The YIELDING sequence has no step in flight any more: back into the queue. */
void scheduler_requeue(struct scheduler *scheduler, uint32_t index);
/* The sequence of the lane to be preempted first among those that rank behind `sequence` (NULL: any
 * of class batch), or SEQUENCE_NONE. */
uint32_t scheduler_victim(const struct scheduler *scheduler, const struct lane *lane,
                          const struct sequence *sequence);
/* Whether a sequence of the lane gives blocks back as soon as its steps are back. */
bool scheduler_blocks_return(const struct scheduler *scheduler, const struct lane *lane);

/* How many blocks of the sequence's beginning the lane has; *idle: those held by nobody. */
uint32_t scheduler_prefix_find(const struct lane *lane, const struct sequence *sequence,
                               uint32_t *idle);
/* The prefilling sequence takes what the lane has of its next blocks; its position moves on. */
void scheduler_prefix_take(struct scheduler *scheduler, uint32_t index);
/* The sequence's full prompt blocks can be shared: all their rows are issued. */
void scheduler_prefix_note(struct scheduler *scheduler, struct sequence *sequence);

/* Adds the sequence's next `count` rows, the last `draft_count` of them drafts; it has the blocks
 * for them. */
void scheduler_rows_add(struct scheduler *scheduler, struct step_build *build, uint32_t index,
                        uint32_t count, uint32_t draft_count);
/* The entry as it was and as workers get it; everything in it is as at its first issue as long as
 * its step is in flight. */
void scheduler_entry_fill(const struct scheduler *scheduler, const struct flight_entry *flown,
                          struct step_entry *entry);
/* Overdue counts from now for all that is in flight, as the step waits behind the others. */
void scheduler_deadline_set(struct scheduler *scheduler, struct flight *flight);
/* The oldest step in flight that the current attempt has not issued yet; false: none. */
bool scheduler_reissue(struct scheduler *scheduler, struct step *out);
void scheduler_decode_add(struct scheduler *scheduler, struct step_build *build);
/* Rows of prompts that a step is worth; 0: none wait. */
uint32_t scheduler_chunk_rows(struct scheduler *scheduler);
void scheduler_prefill_add(struct scheduler *scheduler, struct step_build *build);

#endif
