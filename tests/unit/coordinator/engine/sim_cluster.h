#ifndef SHOAL_TESTS_ENGINE_SIM_CLUSTER_H
#define SHOAL_TESTS_ENGINE_SIM_CLUSTER_H

/* A virtual cluster around the scheduler: workers, their KV, clients, and time.
 *
 * Stages work on steps in order, so the whole course of a step is known when it is issued; only the
 * answers come as events. The model's token after position p of a sequence is a hash of both, which
 * makes every step entry and every outcome predictable. Block tables and KV contents are kept as a
 * worker would keep them; a wrong position, token or block ends the test with its seed.
 */
#include "common/plan/placement.h"
#include "coordinator/engine/scheduler.h"
#include "tests/support/sim_random.h"

#define SIM_STAGES_MAX 8
#define SIM_EOS        7

struct sim_timing {
    int64_t stage_ns[SIM_STAGES_MAX]; /* of a step, beside its rows */
    int64_t row_ns[SIM_STAGES_MAX];   /* of a row on the fullest lane */
    int64_t hop_ns;                   /* between stages */
    int64_t turn_ns;                  /* from the coordinator and back, with its own work */
    uint32_t jitter_percent;          /* of stage times */
    int64_t report_delay_ns_max;      /* random, for each report: reorders them */
};

struct sim_client {
    seq_id id;
    uint32_t prompt_count;
    uint32_t tokens_max; /* cut to the context */
    uint32_t block_need;
    bool ignore_eos;
    uint32_t wants;
    uint32_t rows; /* seen in steps */
    uint32_t received;
    uint64_t ready_step; /* last step issued when its newest token came */
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

struct sim {
    uint64_t seed;
    struct sim_random random;
    struct scheduler_config config;
    uint32_t member_counts[SIM_STAGES_MAX];
    struct sim_timing timing;
    struct scheduler *scheduler;
    int64_t now_ns;

    struct sim_client *clients; /* [client_count], by id: clients[id] */
    uint32_t client_count;
    uint32_t client_capacity;
    uint32_t live_count; /* accepted, not finished */
    bool failing;        /* inside sim_fail_all */

    struct sim_report *reports; /* binary heap */
    uint32_t report_count;
    uint32_t report_capacity;
    uint64_t report_order;

    uint32_t *tables;        /* [lane][slot][block] block tables of the workers */
    uint32_t *table_lengths; /* [lane][slot] */
    uint64_t *contents;      /* [lane][block][64] what each place of the cache holds */
    uint32_t table_blocks;

    int64_t stage_free_ns[SIM_STAGES_MAX];
    int64_t busy_ns[SIM_STAGES_MAX]; /* inside the window */
    int64_t window_begin_ns, window_end_ns;
    uint64_t step_last;       /* number of the last step issued */
    uint32_t decode_rows_max; /* of one step */
    uint32_t decode_rows_min; /* of steps that begin in the window */
    bool check;               /* scheduler_check after every event */
};

void sim_init(struct sim *sim, uint64_t seed, const struct scheduler_config *config,
              const struct sim_timing *timing);
void sim_deinit(struct sim *sim);
/* Ends the test with a message, the seed and how to replay it. */
void sim_fail(const struct sim *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Submits a request with a new id; false if the scheduler refused, which must be for the reason
 * that the figures tell. */
bool sim_submit(struct sim *sim, uint32_t prompt_count, uint32_t tokens_max, bool ignore_eos,
                uint32_t wants);
void sim_cancel(struct sim *sim, seq_id id);
void sim_fail_all(struct sim *sim);
/* Issues what can be issued, fetches outcomes, checks. After every event. */
void sim_settle(struct sim *sim);
/* Time of the next report; INT64_MAX: none. */
int64_t sim_next_ns(const struct sim *sim);
/* Advances the time and hands the next report over. */
void sim_report(struct sim *sim);
/* Reports until nothing is in flight; then nothing may be left. */
void sim_run_out(struct sim *sim);

uint32_t sim_token(const struct sim *sim, seq_id id, uint32_t position);

#endif
