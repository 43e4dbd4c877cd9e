#ifndef SHOAL_TESTS_ENGINE_SIM_CLUSTER_H
#define SHOAL_TESTS_ENGINE_SIM_CLUSTER_H

/* A virtual cluster around the scheduler: workers, their KV, clients, and time.
 *
 * The virtual model is a pure function: what the cache holds for a position is a hash of all tokens
 * up to it and of their classes, and the token that follows is a hash of that and of the sampling
 * parameters. Workers compute it as real ones do: a row reads the entry before it through its block
 * table and writes its own; so a wrong block, token, class or order gives wrong entries and tokens.
 * Clients know their tokens and compare every position that a row attends, and every token.
 *
 * Stages work on steps in step order, and in each layer write all rows of a step before they
 * attend, so all stages hold the same at the same step, and the whole course of a step is known
 * when it is issued; only the answers come as events, in any order. What stages at different steps
 * add is one rule: a block gets a new use only when all workers have answered every step that
 * touches it.
 */
#include "common/plan/placement.h"
#include "coordinator/engine/scheduler.h"
#include "tests/support/sim_random.h"

#define SIM_STAGES_MAX 8
#define SIM_EOS        7
#define SIM_DOCUMENTS  2

struct sim_timing {
    int64_t stage_ns[SIM_STAGES_MAX];    /* of a step, beside its rows */
    int64_t row_ns[SIM_STAGES_MAX];      /* of a row on the fullest lane */
    int64_t position_ns[SIM_STAGES_MAX]; /* of a position that a row attends, all lanes */
    int64_t hop_ns;                      /* between stages */
    int64_t turn_ns;                     /* from the coordinator and back, with its own work */
    uint32_t jitter_percent;             /* of stage times */
    int64_t report_delay_ns_max;         /* random, for each report: reorders them */
    uint32_t duplicate_percent;          /* of reports without samples, which come twice */
};

struct sim_request {
    uint32_t prompt_count;
    uint32_t document;     /* which one the prompt begins with */
    uint32_t shared_count; /* so many tokens of it */
    uint32_t tokens_max;
    bool ignore_eos;
    uint32_t wants;
    uint32_t prompt_logprobs;
    enum request_class request_class;
    uint32_t bias_token; /* 0: no bias */
    float repetition_penalty;
    uint64_t seed;
};

struct sim_client {
    seq_id id;
    struct sim_request request; /* tokens_max cut to the context */
    uint32_t block_need;
    uint32_t *tokens;       /* [prompt_count + tokens_max] */
    uint64_t *chain;        /* likewise: what the cache must hold for each */
    uint32_t known;         /* prompt and received */
    uint32_t row_next;      /* of the rows issued since its last admission */
    uint32_t admissions;    /* seen in steps */
    uint32_t losses;        /* placements lost in a row with flights of it that did not return */
    uint32_t skipped;       /* rows that were never computed for it */
    uint32_t wanted;        /* rows below were asked for what the request wants */
    uint32_t flights;       /* steps */
    bool decoding;          /* it got a token since its last admission */
    uint64_t sampling_step; /* that awaits a sample; 0: none */
    uint64_t ready_step;    /* last step issued when it last made progress */
    uint32_t reached;       /* rows that were issued once */
    bool finished;
    bool cancelled; /* by us */
    enum finish_reason reason;
    int64_t cancel_ns; /* INT64_MAX: never */
};

struct sim_report {
    int64_t when_ns;
    uint64_t order; /* breaks ties */
    struct step_report report;
};

/* A step that has not been answered by all workers. */
struct sim_flight {
    uint64_t step;
    uint32_t outstanding;
    uint32_t entry_count;
    seq_id *entries;     /* [entry_count] */
    uint32_t *positions; /* [entry_count] of their first rows */
    uint32_t touched_count;
    uint32_t *touched; /* [touched_count] lane × blocks + block */
    uint64_t content;  /* hash of the step, but for its attempt */
    struct sim_extent {
        uint32_t lane, slot;
        uint32_t length_before; /* of the slot's table */
        uint32_t position, token_count;
    } * extents; /* [entry_count] */
};

struct sim {
    uint64_t seed;
    struct sim_random random;
    struct scheduler_config config;
    uint32_t member_counts[SIM_STAGES_MAX];
    struct sim_timing timing;
    uint32_t alphabet;            /* different tokens, beside the end token */
    uint32_t draft_right_percent; /* of the draft layer's proposals */
    struct scheduler *scheduler;
    int64_t now_ns;

    struct sim_client *clients; /* [client_count], by id: clients[id] */
    uint32_t client_count;
    uint32_t client_capacity;
    uint32_t live_count; /* accepted, not finished */
    bool failing;        /* inside sim_fail_all */
    bool suspended;      /* between two placements */
    bool resuming;       /* inside sim_resume */

    struct sim_report *reports; /* binary heap */
    uint32_t report_count;
    uint32_t report_capacity;
    uint64_t report_order;

    struct sim_flight *flights; /* [steps_in_flight_max] the first flight_count */
    uint32_t flight_count;
    uint32_t *tables;        /* [lane][slot][block] block tables of the workers */
    uint32_t *table_lengths; /* [lane][slot] */
    uint64_t *contents;      /* [lane][block][64] what each place of the cache holds */
    uint32_t *touches;       /* [lane][block] unanswered steps that touch it */
    uint32_t table_blocks;

    int64_t stage_free_ns[SIM_STAGES_MAX];
    int64_t busy_ns[SIM_STAGES_MAX]; /* inside the window */
    int64_t window_begin_ns, window_end_ns;
    uint64_t step_last;       /* number of the last step issued */
    uint32_t broken_stage;    /* it and those behind wait for a frame that was lost */
    uint64_t broken_step;     /* …of this step; 0 and SIM_STAGES_MAX: all is well */
    uint32_t late_reports;    /* that were ignored */
    uint32_t decode_rows_max; /* sequences of one step */
    uint32_t decode_rows_min; /* of steps that begin in the window */
    bool check;               /* scheduler_check after every event */
    void (*on_step)(struct sim *sim, const struct step *step); /* of a test that looks on */
    void *context;                                             /* the test's */
};

/* Called with the failure's text before the test ends; for programs that must not end. */
extern void (*sim_on_failure)(const char *text);

void sim_init(struct sim *sim, uint64_t seed, const struct scheduler_config *config,
              const struct sim_timing *timing);
void sim_deinit(struct sim *sim);
/* Ends the test with a message, the seed and how to replay it. */
void sim_fail(const struct sim *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Submits a request with a new id; false if the scheduler refused, which must be for the reason
 * that the figures tell. */
bool sim_submit(struct sim *sim, const struct sim_request *request);
void sim_cancel(struct sim *sim, seq_id id);
void sim_fail_all(struct sim *sim);
/* The placement is gone: what is on its way never comes. Nothing is issued until sim_resume, with
 * whatever placement. */
void sim_suspend(struct sim *sim);
void sim_resume(struct sim *sim, const struct scheduler_config *config,
                const struct sim_timing *timing);
/* Issues what can be issued, fetches outcomes, checks. After every event. */
void sim_settle(struct sim *sim);
/* Time of the next report; INT64_MAX: none. */
int64_t sim_next_ns(const struct sim *sim);
/* Advances the time and hands the next report over. */
void sim_report(struct sim *sim);
/* Reports until nothing is in flight; then nothing may be left. */
void sim_run_out(struct sim *sim);

/* sim_retry.c: what goes wrong between the workers. */

/* A frame of a step in flight to this stage is lost: it and the stages behind answer that step and
 * all later ones no more. What was on its way to the coordinator from them is lost, too. False:
 * nothing is in flight. */
bool sim_break(struct sim *sim, uint32_t stage);
/* The cluster tries again; nothing of the steps in flight is left on the workers, and answers of
 * the last attempt come late. False: the scheduler gave up. */
bool sim_retry(struct sim *sim, bool repaired);
/* A step that is issued again is what it was. */
void sim_reissue_check(struct sim *sim, const struct step *step);
uint64_t sim_step_content(const struct step *step);

/* sim_entry.c: the entry is what its client must get next. Notes what it has got with it. */
void sim_entry_check(struct sim *sim, const struct step *step, const struct step_entry *entry);
/* Within so many steps every request must get on, whatever comes between. */
uint64_t sim_steps_max(const struct sim *sim);
/* Whether the request wants something of its prompt's rows. */
bool sim_wants_rows(const struct sim_client *client);

/* sim_cache.c: the workers' memory and the virtual model. */

/* Token of a document, or of a client's own text. */
uint32_t sim_document_token(const struct sim *sim, uint32_t document, uint32_t position);
uint32_t sim_own_token(const struct sim *sim, seq_id id, uint32_t position);
/* The entry that follows `before` (0 at the beginning). */
uint64_t sim_chain(uint64_t before, uint32_t token, bool generated);
/* The token that follows what an entry stands for. */
uint32_t sim_sample(const struct sim *sim, uint64_t chain, const struct sampling_params *sampling);
void sim_cache_init(struct sim *sim);
void sim_cache_deinit(struct sim *sim);
/* The step's rows are computed: tables, writes, then reads, all checked. */
void sim_cache_run(struct sim *sim, const struct step *step);
/* What the cache holds for a position of the entry's sequence. */
uint64_t sim_cache_at(const struct sim *sim, const struct step_entry *entry, uint32_t position);
/* The rows of a step in flight are computed once more. */
void sim_cache_rerun(struct sim *sim, const struct step *step);
/* Workers know nothing more of the steps in flight. */
void sim_cache_forget(struct sim *sim);
/* A worker has answered the step. */
void sim_cache_answered(struct sim *sim, uint64_t step);
/* All steps in flight are lost. */
void sim_cache_lose(struct sim *sim);

#endif
