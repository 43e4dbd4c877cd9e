#ifndef SHOAL_ENGINE_SCHEDULER_H
#define SHOAL_ENGINE_SCHEDULER_H

/* Decides which sequences compute which tokens in which step. Pure: events and the time go in,
 * steps and outcomes come out; no socket, clock, thread, file or log.
 *
 * Continuous batching. A sequence waits, is admitted to a lane (the one with most room) when its
 * lane has a free slot and KV blocks for its prompt and max_tokens (never overcommitted, so nothing
 * is ever thrown out), prefills in chunks, then decodes one token a step until an end token, its
 * token limit or a cancel. A decoding sequence is in one step at a time; prefill chunks of one
 * sequence may follow each other. Steps in flight: ceil((stage times + hop times + coordinator
 * turn) / slowest stage time), at least the number of stages, at most the placement's bound;
 * decoding sequences are spread evenly over them so that every stage has work. A part of a step in
 * flight below 15 % is cut off: splitting a batch in two to hide a short turn of the coordinator
 * costs more than the turn. Order is fair: first come, first served for admission, the head of the
 * queue waits for room and nothing overtakes it; who has waited longest for a row comes first
 * inside a step; prefill takes what decoding leaves of step_rows_max.
 *
 * An end token is not delivered: its sequence finishes with FINISH_STOP (unless ignore_eos).
 * tokens_max tokens, or a prefill-only prompt computed, make FINISH_LENGTH. FINISHED comes when no
 * step of the sequence is in flight any more, except for a cancelled one.
 *
 * A cancelled sequence leaves at once for its client; its slot and blocks are free again when its
 * last step in flight has come back.
 */
#include "common/base/error.h"
#include "common/plan/placement.h"
#include "common/plan/step.h"

#include <stdbool.h>
#include <stdint.h>

/* Chosen by the caller, unique among the sequences that have not finished. */
typedef uint64_t seq_id;

/* Who proposes drafts for decoding sequences; they change the speed only. */
enum draft_mode {
    DRAFT_NONE,
    DRAFT_LAYER,  /* the model's draft layer: proposals come back with the steps */
    DRAFT_LOOKUP, /* what followed the same tokens earlier in the sequence */
};

struct scheduler_config {
    uint32_t lane_count;
    uint32_t stage_count;
    const uint32_t *member_counts; /* [stage_count], copied; NULL: lane_count in every stage */
    uint32_t slot_count;           /* per lane */
    uint32_t kv_block_count;       /* per lane */
    uint32_t context_tokens_max;
    uint32_t step_rows_max;
    uint32_t steps_in_flight_max;
    uint32_t batch_max;       /* --max-batch: decoding sequences in one step; 0: no bound */
    uint32_t queue_max;       /* waiting sequences; beyond it submit fails with ERROR_LIMIT */
    uint32_t logits_rows_max; /* rows of an entry that wants logits: bounds the answer's bytes; 0:
                                 none */
    uint32_t eos_count;
    const uint32_t *eos_ids; /* copied */
    uint64_t epoch;
    bool prefix_cache;   /* sequences of a lane share the KV blocks of equal prompt beginnings */
    int64_t max_step_ns; /* a step with decoding rows should not keep a stage longer; 0: no bound */
    enum draft_mode draft_mode;
    uint32_t draft_max; /* drafts of a sequence in one step, at most */
};

/* Interactive requests come before batch ones, which age so that they are never starved. */
enum request_class { REQUEST_INTERACTIVE, REQUEST_BATCH };

struct scheduler_request {
    seq_id sequence;        /* ERROR_USAGE if it is still in use */
    const uint32_t *prompt; /* copied */
    uint32_t prompt_count;  /* at least 1 */
    uint32_t tokens_max;    /* to be generated; 0: prefill only (logits, routing) */
    bool ignore_eos;
    uint32_t wants; /* WANT_LOGITS | WANT_ROUTING | WANT_HIDDEN | WANT_DRAFT_LOGITS, every row */
    struct sampling_params sampling; /* its biases are copied */
    enum request_class request_class;
};

enum finish_reason { FINISH_STOP, FINISH_LENGTH, FINISH_CANCELLED, FINISH_FAILED };
enum outcome_kind {
    OUTCOME_TOKEN,    /* one more token of a sequence */
    OUTCOME_FINISHED, /* nothing follows for it */
};
struct outcome {
    enum outcome_kind kind;
    seq_id sequence;
    uint32_t token;
    enum finish_reason reason;
    uint32_t cached_tokens; /* with FINISHED: prompt tokens that were not computed */
};

struct scheduler;
struct scheduler *scheduler_create(const struct scheduler_config *config);
void scheduler_destroy(struct scheduler *scheduler); /* NULL is legal */

/* ERROR_USAGE: prompt (+ tokens_max cut to what is left, at least 1) does not fit the context, or
 * the KV budget could never hold it (figures in the message); ERROR_LIMIT: the queue is full. */
bool scheduler_submit(struct scheduler *scheduler, const struct scheduler_request *request,
                      int64_t now_ns, struct error *err) MUST_CHECK;
/* The outcome FINISHED/CANCELLED follows (unless it is already finished or unknown). */
void scheduler_cancel(struct scheduler *scheduler, seq_id sequence, int64_t now_ns);
/* One worker's result. When all workers of the placement have answered the last stage's samples are
 * applied. Results of unknown steps, epochs or attempts are ignored (counted). */
struct step_report {
    uint64_t step;
    uint32_t stage;
    uint32_t member;
    int64_t compute_ns; /* end - begin - wait */
    uint32_t sample_count;
    const struct step_sample *samples; /* of the last stage */
    uint32_t proposal_count;
    const struct step_proposal *proposals; /* of the last stage, with DRAFT_LAYER */
};
/* ERROR_PEER: samples that do not belong to the step, or a sample is missing, or a seat that does
 * not exist; the report has no effect then. */
bool scheduler_report(struct scheduler *scheduler, const struct step_report *report, int64_t now_ns,
                      struct error *err) MUST_CHECK;
/* The next step to be sent, or false: nothing to do now. out's arrays are lent until the next call
 * of scheduler_next. */
bool scheduler_next(struct scheduler *scheduler, int64_t now_ns, struct step *out);
/* The next outcome in order, or false. */
bool scheduler_outcome(struct scheduler *scheduler, struct outcome *out);
/* When a step in flight is overdue (10 × measured step time, at least 2 s; 60 s while few steps are
 * measured), INT64_MAX when none is in flight: the caller sleeps no longer than that, and asks
 * scheduler_overdue. */
int64_t scheduler_deadline_ns(const struct scheduler *scheduler);
bool scheduler_overdue(const struct scheduler *scheduler, int64_t now_ns, uint64_t *step);
/* Every sequence ends as FINISH_FAILED, nothing is in flight afterwards (a worker was lost). */
void scheduler_fail_all(struct scheduler *scheduler, int64_t now_ns);
/* Which entry of a step in flight belongs to which sequence (for logits and routing rows). */
bool scheduler_step_entry(const struct scheduler *scheduler, uint64_t step, uint32_t entry,
                          seq_id *sequence, uint32_t *position);

/* How long until a full queue has room again, as far as the pace of the last finished requests
 * tells; 0: there is room now. For Retry-After. */
int64_t scheduler_retry_after_ns(const struct scheduler *scheduler, int64_t now_ns);

struct scheduler_stats {
    uint32_t waiting, running, decoding;
    uint32_t steps_in_flight;
    uint32_t kv_blocks_used, kv_blocks_total; /* all lanes; reserved counts as used */
    uint64_t steps, rows, prompt_tokens, generated_tokens;
    uint64_t finished, cancelled, failed, ignored_reports;
    uint64_t prefix_query_tokens; /* prompt tokens that were looked up in the prefix cache */
    uint64_t prefix_hit_tokens;   /* of these, found */
    uint64_t prompt_rows_computed;
    uint64_t drafted, accepted; /* draft tokens */
    uint64_t preemptions;       /* sequences that gave their blocks to others */
    uint64_t evictions;         /* blocks of the prefix cache that were given to others */
};
void scheduler_stats(const struct scheduler *scheduler, struct scheduler_stats *out);
/* Checks every invariant of the module's documentation; for simulation. */
bool scheduler_check(const struct scheduler *scheduler, struct error *err) MUST_CHECK;

#endif
