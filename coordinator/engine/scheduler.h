#ifndef SHOAL_ENGINE_SCHEDULER_H
#define SHOAL_ENGINE_SCHEDULER_H

/* Decides which sequences compute which tokens in which step. Pure: events and the time go in,
 * steps and outcomes come out; no socket, clock, thread, file or log.
 *
 * Continuous batching. A sequence waits, is admitted to a lane that has a free slot and room for
 * its tokens, prefills in chunks, then decodes until an end token, its token limit or a cancel. KV
 * blocks are taken as rows reach them; when none is left, sequences that rank behind are preempted
 * and computed again later (scheduler_memory.c). Sequences of a lane share the blocks of equal
 * prompt beginnings (scheduler_prefix.c). Nobody's tokens change by any of it.
 *
 * A decoding sequence is in one step at a time; prefill chunks of one sequence may follow each
 * other. Steps in flight: as many as pay (pace.h), at most the placement's bound; decoding
 * sequences are spread over them by what their rows cost, so that every stage has work. With drafts
 * a decoding entry has the last token and guesses of the next ones: as many tokens stand as the
 * samples agree with, and one more.
 *
 * Order is fair: interactive requests before batch ones, inside a class first come, first served
 * (scheduler_admission.c); who has waited longest for a row comes first inside a step; prompts take
 * what decoding leaves of step_rows_max and max_step_ns (scheduler_prefill.c).
 *
 * An end token is not delivered: its sequence finishes with FINISH_STOP (unless ignore_eos).
 * tokens_max tokens, or a prefill-only prompt computed, make FINISH_LENGTH. FINISHED comes when no
 * step of the sequence is in flight any more, except for a cancelled one.
 *
 * A cancelled sequence leaves at once for its client; its slot and blocks are free again when its
 * last step in flight has come back.
 *
 * What a request wants of its rows (logits, routing, hidden states, log-probabilities) is asked for
 * once for each row, also when it is computed again. Such rows are never taken from the prefix
 * cache, and sequences with `wants` have no drafts, whose rows might not stand.
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
    uint32_t draft_max;      /* drafts of a sequence in one step, at most; <= DRAFT_POLICY_MAX */
    uint32_t preempt_tokens; /* for tests: a sequence is preempted whenever it has got so many
                                tokens since its admission, as if memory had run out; 0: off */
    int64_t batch_age_ns;    /* how long a batch request stands behind interactive ones; 0: 30 s */
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
    uint32_t cached_tokens; /* with FINISHED: prompt tokens that the prefix cache had */
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
 * applied. Results of unknown steps, of earlier attempts and of workers that have answered the step
 * already are ignored (counted). */
struct step_report {
    uint64_t step;
    uint32_t attempt;
    uint32_t stage;
    uint32_t member;
    int64_t compute_ns; /* end - begin - wait */
    uint32_t sample_count;
    const struct step_sample *samples; /* of the last stage */
    uint32_t proposal_count;
    const struct step_proposal *proposals; /* of the last stage, with DRAFT_LAYER */
};
/* ERROR_PEER: samples or proposals that do not belong to the step, or a sample is missing, or a
 * seat that does not exist; the report has no effect then. */
bool scheduler_report(struct scheduler *scheduler, const struct step_report *report, int64_t now_ns,
                      struct error *err) MUST_CHECK;
/* Whether the report would count, so that what comes with it (rows) is delivered once. */
bool scheduler_awaits(const struct scheduler *scheduler, const struct step_report *report);
/* The next step to be sent, or false: nothing to do now. out's arrays are lent until the next event
 * or step: any call that takes the time. */
bool scheduler_next(struct scheduler *scheduler, int64_t now_ns, struct step *out);
/* The next outcome in order, or false. */
bool scheduler_outcome(struct scheduler *scheduler, struct outcome *out);
/* When a step in flight is overdue (10 × measured step time, at least 2 s; 60 s while few steps are
 * measured), INT64_MAX when none is in flight: the caller sleeps no longer than that, and asks
 * scheduler_overdue. */
int64_t scheduler_deadline_ns(const struct scheduler *scheduler);
bool scheduler_overdue(const struct scheduler *scheduler, int64_t now_ns, uint64_t *step);
/* Something went wrong between the workers: a further attempt begins. All steps in flight are
 * issued again, as scheduler_next's next ones, oldest first, with all that was in them the first
 * time: whoever has computed one computes it again, to the same bits. What workers have answered so
 * far stays answered. Steps have the number of the attempt in which they were issued last; late
 * answers of an earlier one are ignored. The deadlines of the steps in flight begin anew, RETRY_NS
 * longer, since links may have to be opened first.
 * False, and nothing has happened: a step is overdue for the second time, or RETRIES_MAX attempts
 * began within a short time and no step came back. */
#define RETRY_NS    5000000000ll
#define RETRIES_MAX 8
bool scheduler_retry(struct scheduler *scheduler, int64_t now_ns, struct error *err) MUST_CHECK;
uint32_t scheduler_attempt(const struct scheduler *scheduler); /* 0, and one more by each retry */
/* The placement is no more (a worker was lost): no step is in flight afterwards, and every sequence
 * waits at the place of its arrival, to be computed again from its tokens; those that have all
 * theirs finish. A sequence of which steps were lost so often in a row, none coming back between,
 * may be what kills workers: it ends as FINISH_FAILED. Until scheduler_resume there is no step;
 * requests are accepted as before, into the queue. */
#define SCHEDULER_LOSSES_MAX 12
enum suspend_reason {
    SUSPEND_LOSS,  /* a worker died, or could not go on */
    SUSPEND_CHANGE /* one joins or leaves: no fault of any sequence */
};
void scheduler_suspend(struct scheduler *scheduler, enum suspend_reason reason, int64_t now_ns);
/* Goes on with another placement. What of it can't hold a sequence at full length ends that as
 * FINISH_FAILED. */
void scheduler_resume(struct scheduler *scheduler, const struct scheduler_config *config,
                      int64_t now_ns);
/* The most tokens that a sequence may come to, as accepted; 0: there is none. */
uint32_t scheduler_context_needed(const struct scheduler *scheduler);
/* Every sequence ends as FINISH_FAILED, nothing is in flight afterwards (nobody can compute them).
 */
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
    uint32_t kv_blocks_used, kv_blocks_total; /* all lanes; what is only cached is not used */
    uint64_t steps, rows, prompt_tokens, generated_tokens;
    uint64_t finished, cancelled, failed, ignored_reports;
    uint64_t retries, steps_reissued; /* attempts after the first; steps that they issued again */
    uint64_t prefix_query_tokens;  /* of prompts that could share blocks, once for each request */
    uint64_t prefix_hit_tokens;    /* of these, found in the prefix cache */
    uint64_t prompt_rows_computed; /* again after a preemption, too */
    uint64_t drafted, accepted;    /* draft tokens */
    uint64_t preemptions;          /* sequences that gave their blocks to others */
    uint64_t evictions;            /* blocks of the prefix cache that were given to others */
};
void scheduler_stats(const struct scheduler *scheduler, struct scheduler_stats *out);
/* Checks every invariant of the module's documentation; for simulation. */
bool scheduler_check(const struct scheduler *scheduler, struct error *err) MUST_CHECK;

#endif
