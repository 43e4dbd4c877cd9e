#ifndef SHOAL_CLUSTER_CLUSTER_H
#define SHOAL_CLUSTER_CLUSTER_H

/* The cluster as the rest of the coordinator sees it: start it, give it sequences, get tokens back.
 *
 * One thread (started by cluster_start) owns the control channel, the scheduler, membership and the
 * epoch: collect what arrived, hand it to the scheduler, carry out what comes back, once per turn.
 * The functions below may be called from any thread; they send messages to it.
 *
 * Life: GATHERING (fewer workers than the layout needs) → LOADING (assign … all loaded) →
 * CONNECTING (links up and measured) → SERVING → DRAINING. A lost worker fails the sequences in
 * flight with a message that names it and goes back to GATHERING; when the layout is complete again
 * a new epoch begins. FAILED is final: the model does not fit, a worker refused its assignment, a
 * local worker died while loading; `status.problem` says why.
 */
#include "common/base/error.h"
#include "common/model/catalog.h"
#include "common/model/kv_type.h"
#include "common/net/keys.h"
#include "common/plan/placement.h"
#include "common/plan/step.h"
#include "coordinator/engine/scheduler.h"

#include <stdbool.h>
#include <stdint.h>

enum cluster_link { CLUSTER_LINK_ZMQ, CLUSTER_LINK_MPI, CLUSTER_LINK_MIXED };

#define CLUSTER_QUEUE_DEFAULT 4096u

/* When a worker computed a step, in the coordinator's monotonic time: exact for workers started
 * here, else late by the quickest message that the worker ever sent. */
struct cluster_step_span {
    uint32_t worker, stage, member;
    uint64_t step;
    uint32_t rows;
    int64_t begin_ns, end_ns;
    int64_t wait_ns; /* of that, waiting for frames of peers */
};
/* Called on the cluster's thread for each result; must not block. */
typedef void (*cluster_step_fn)(void *context, const struct cluster_step_span *span);

struct cluster_config {
    const char *model; /* directory; borrowed for the cluster's life, as all pointers */
    const struct catalog *catalog;
    const char *control_endpoint; /* tcp://127.0.0.1:0 for a private one */
    const char *key_path;         /* --key FILE; NULL: none. Handed to local workers too */
    struct cluster_key key;
    enum keys_policy keys_policy;

    uint32_t local_count;         /* workers to start here; 0: remote ones register */
    enum cluster_link local_link; /* how the local ones are started */
    uint32_t stage_count;         /* --layout SxG; 0: the planner decides over the workers */
    uint32_t group_size;
    uint32_t remote_count;        /* --workers N: wait for so many; 0 with a local cluster */
    const char *worker_program;   /* path of shoal-worker; NULL: beside this executable */
    uint32_t threads;             /* per local worker; 0: cores / local_count, at least 1 */
    uint64_t worker_memory_bytes; /* --memory of local workers; 0: what is there */
    uint16_t fetch_port;          /* where remote workers get model files; 0: a free one */
    const char *placement_path;   /* --placement FILE; NULL: plan */
    double prompt_share;          /* planner_request.prompt_share */
    const char *step_log_path;    /* see the end of this file; NULL: off */
    cluster_step_fn step_sink;    /* NULL: none */
    void *step_context;

    enum numerics numerics; /* or NUMERICS_FAST: the first worker's */
    enum kv_type kv_type;
    uint32_t context_tokens_max;                   /* 0: the model's, cut to what memory holds */
    uint64_t kv_tokens;                            /* per lane; 0: the planner's */
    uint32_t slot_count, step_rows_max, batch_max; /* 0: defaults */
    uint32_t queue_max;                            /* waiting sequences; 0: CLUSTER_QUEUE_DEFAULT */
    int64_t max_step_ns;                           /* scheduler_config.max_step_ns */
    enum draft_mode draft_mode;                    /* DRAFT_LAYER: loads the model's draft layer */
    uint32_t draft_max;                            /* scheduler_config.draft_max */
    bool draft_layer_optional; /* nobody asked for it: where it does not fit, go without drafts */
    uint32_t preempt_tokens;   /* scheduler_config.preempt_tokens: for tests */
    bool prefix_cache_off;     /* else the lanes share the KV blocks of equal prompt beginnings */
};

struct cluster;
/* Listens and starts local workers; returns at once, state GATHERING. */
struct cluster *cluster_start(const struct cluster_config *config, struct error *err) MUST_CHECK;
/* Ends everything: fails what is left, tells workers to leave, waits for local ones (5 s, then
 * kills them), joins the thread. NULL is legal. */
void cluster_stop(struct cluster *cluster);
/* No new sequences from now on; running ones go on. */
void cluster_drain(struct cluster *cluster);

/* --- sequences --- */
enum cluster_event_kind {
    CLUSTER_TOKEN,
    CLUSTER_LOGPROBS, /* of the token at a position; before the tokens of the same step. Those of a
                         generated token may come several times, of rejected drafts too: the last
                         before the token counts */
    CLUSTER_LOGITS,   /* rows of the prompt, in order */
    CLUSTER_DRAFT_LOGITS, /* the draft layer's, likewise */
    CLUSTER_HIDDEN,       /* hand-over rows: stage, then rows */
    CLUSTER_ROUTING,      /* routed experts of some rows of one stage's layers */
    CLUSTER_FINISHED,
};
struct cluster_event {
    enum cluster_event_kind kind;
    uint32_t token;
    int64_t received_ns; /* TOKEN: when the worker's message was here, monotonic */
    uint32_t position;   /* of the first row, absolute (LOGITS, DRAFT_LOGITS, HIDDEN, ROUTING); of
                            the token (LOGPROBS) */
    uint32_t row_count, columns;
    const float *values;                  /* LOGITS, DRAFT_LOGITS, HIDDEN; lent for the call */
    const struct step_logprobs *logprobs; /* LOGPROBS; lent for the call */
    uint32_t boundary; /* HIDDEN: states before this layer; the embeddings are boundary 0 */
    uint32_t layer;    /* ROUTING: one layer's rows */
    uint32_t chosen_count;
    const uint32_t *experts; /* ROUTING: [row_count][chosen_count] */
    const float *expert_weights;
    enum finish_reason reason; /* FINISHED */
    uint32_t cached_tokens;    /* FINISHED: prompt tokens that were not computed */
    const char *problem;       /* FINISHED with FINISH_FAILED: why; lent for the call */
};
/* Called on the cluster's thread; must not block: it queues and wakes. */
typedef void (*cluster_sink_fn)(void *context, const struct cluster_event *event);

struct cluster_request {
    const uint32_t *prompt; /* copied */
    uint32_t prompt_count;
    uint32_t tokens_max;
    bool ignore_eos;
    uint32_t wants;                  /* WANT_LOGITS | WANT_ROUTING | WANT_HIDDEN; with a draft layer
                                        WANT_DRAFT_LOGITS */
    struct sampling_params sampling; /* its biases are copied */
    enum request_class request_class;
    cluster_sink_fn sink;
    void *context;
};
/* Takes the request or refuses it at once: ERROR_USAGE (does not fit the context: figures),
 * ERROR_LIMIT (queue full; cluster_status says when to come again), ERROR_PEER (not serving, with
 * the state; draining). On success exactly one CLUSTER_FINISHED follows, perhaps before this
 * returns. */
bool cluster_submit(struct cluster *cluster, const struct cluster_request *request, seq_id *out,
                    struct error *err) MUST_CHECK;
/* The FINISHED event still follows. Unknown or finished ids are ignored. */
void cluster_cancel(struct cluster *cluster, seq_id sequence);

/* --- state --- */
enum cluster_state {
    CLUSTER_GATHERING,
    CLUSTER_LOADING,
    CLUSTER_CONNECTING,
    CLUSTER_SERVING,
    CLUSTER_DRAINING,
    CLUSTER_FAILED,
};
const char *cluster_state_name(enum cluster_state state);

struct cluster_link_status {
    uint32_t peer;
    char kind[8];
    int64_t latency_ns;
    double bytes_per_s;
    uint64_t frames_sent, frames_received, bytes_sent, bytes_received, crc_errors, frames_dropped;
};
struct cluster_worker_status {
    uint32_t id;
    bool alive;
    char host[64];
    char cpu[64]; /* level and name */
    uint32_t pid, threads;
    uint32_t stage, member; /* PLACEMENT_NONE: no seat */
    uint32_t layer_begin, layer_end;
    uint32_t expert_slots;                      /* routed experts held, over all its layers */
    uint64_t load_done_bytes, load_total_bytes; /* to be read for its share */
    uint64_t load_kept_bytes; /* of files whose tensors it held from an epoch before */
    uint64_t ledger_bytes, limit_bytes, resident_bytes;
    uint64_t weight_bytes, kv_bytes;
    double busy_share;        /* of the time since start of the epoch, computing */
    double busy_share_recent; /* of the last heartbeat interval */
    uint64_t steps, rows;
    int64_t busy_ns;         /* computing, over the steps that it answered in this epoch */
    uint64_t frames_dropped; /* behind its links, in this epoch: their steps were over */
    uint32_t link_count;
    struct cluster_link_status *links;
};
struct cluster_status {
    enum cluster_state state;
    char problem[480]; /* "" when fine; "waiting for workers: 2 of 3" while gathering */
    char *misfit;      /* FAILED since the model does not fit: a table of every worker's ledger, of
                          several lines; else NULL */
    uint64_t epoch;
    char numerics_id[64];
    uint32_t stage_count, lane_count, context_tokens_max;
    uint32_t worker_count, worker_wanted;
    struct cluster_worker_status *workers;
    struct scheduler_stats scheduler;
    int64_t retry_after_ns; /* until a full queue has room again; 0: there is room */
    double tokens_per_s;    /* generated, while there was a sequence in the last 10 s */
    int64_t uptime_ns;
};
/* A snapshot, made for the caller; any thread. */
struct cluster_status *cluster_status(struct cluster *cluster);
void cluster_status_destroy(struct cluster_status *status);
const char *cluster_control_endpoint(const struct cluster *cluster);
/* Waits until SERVING or FAILED (then false with the problem), calling `progress` about four times
 * a second with a snapshot (NULL: none). `stop` may be set by a signal handler: ends the wait. */
typedef void (*cluster_progress_fn)(void *context, const struct cluster_status *status);
bool cluster_wait(struct cluster *cluster, cluster_progress_fn progress, void *context,
                  const volatile int *stop, struct error *err) MUST_CHECK;

/* The step log, for tests and profiles: when each worker computed each step, as results arrive. CSV
 * with the head line worker,stage,step,rows,begin_ns,end_ns; the times are the worker's monotonic
 * clock, comparable on one machine. --step-log FILE or SHOAL_STEP_LOG. */

#endif
