#ifndef SHOAL_CLUSTER_INTERNAL_H
#define SHOAL_CLUSTER_INTERNAL_H

/* Inside of the room: the cluster and who touches what.
 *
 *   cluster.c         public functions: the mailbox in, the snapshot out
 *   cluster_loop.c    the thread: waits, receives, dispatches, sends steps, ends in order
 *   membership.c      workers: registration, heartbeats, loss
 *   epoch.c           GATHERING → LOADING → CONNECTING → SERVING, and back
 *   epoch_plan.c      the placement of an epoch
 *   sequences.c       sequences and their sinks; step results
 *   retry.c           further attempts over fresh links
 *   status.c          the snapshot
 *   local_workers.c   processes on this machine
 *   model_bytes.c, placement_file.c: values
 *
 * Everything in struct cluster belongs to the cluster's thread but for the fields under "shared".
 */
#include "common/base/arena.h"
#include "common/base/clock.h"
#include "common/base/ring.h"
#include "common/model/model_hash.h"
#include "common/net/control.h"
#include "common/plan/plan_keep.h"
#include "common/plan/planner.h"
#include "coordinator/cluster/cluster.h"
#include "coordinator/cluster/local_workers.h"
#include "coordinator/cluster/model_service.h"
#include "coordinator/cluster/token_rate.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>

#define HEARTBEAT_NS          (1 * NS_PER_S)
#define HEARTBEAT_TIMEOUT_NS  (10 * NS_PER_S)
#define GATHER_TIMEOUT_NS     (30 * NS_PER_S) /* local workers: until all are registered */
#define LOAD_STALL_NS         (60 * NS_PER_S) /* without a further byte */
#define CONNECT_TIMEOUT_NS    (30 * NS_PER_S)
#define LEAVE_TIMEOUT_NS      (20 * NS_PER_S) /* a leaving worker waits so long for sequences */
#define STOP_TIMEOUT_NS       (5 * NS_PER_S)  /* local workers: until SIGTERM */
#define TERM_TIMEOUT_NS       (2 * NS_PER_S)  /* then until SIGKILL */
#define SETTLE_NS             (150 * NS_PER_MS)
#define SETTLE_MAX_NS         (30 * NS_PER_S) /* after epochs that ended without a step */
#define GROW_NS               (1 * NS_PER_S)  /* a joined worker waits so long for others */
#define BENCH_NS              (30 * NS_PER_S) /* no seat for who could not take its last one */
#define STATUS_INTERVAL_NS    (100 * NS_PER_MS)
#define TICK_NS               (250 * NS_PER_MS)
#define MESSAGES_PER_TURN_MAX 256
#define MEMBERS_MAX           4096
#define SEQUENCE_BUCKETS      1024
#define EPOCH_FAILURES_MAX    3 /* in a row, before the cluster has ever served */
#define LOGITS_BYTES_MAX      ((uint64_t)64 << 20) /* of one step's answer */

enum member_phase { MEMBER_IDLE, MEMBER_LOADING, MEMBER_LOADED, MEMBER_CONNECTING, MEMBER_READY };

/* A registered worker. */
struct member {
    uint32_t id;
    uint64_t connection;
    bool local;
    bool leaving;     /* it asked to; takes no seat in the next epoch, if others have room */
    bool needed;      /* …which they have not */
    int64_t leave_ns; /* since when */
    int64_t join_ns;
    int64_t benched_until_ns; /* takes no seat before */
    int64_t heard_ns;

    char host[64], cpu[64], data_endpoint[128];
    uint32_t pid, thread_count, kernels_version, protocol_minor;
    enum numerics fast_numerics; /* what it calls fast */
    uint64_t memory_bytes;
    double read_bytes_per_s;
    uint64_t world_id;
    uint32_t world_rank;
    /* The seat whose weights it held when it registered, as one number that sorts like seats;
     * UINT64_MAX: none of this model. */
    uint64_t held_seat;

    /* In the current epoch. */
    bool seated;
    struct placement_seat seat;
    enum member_phase phase;
    int64_t progress_ns;                        /* when bytes last progressed */
    uint64_t load_done_bytes, load_total_bytes; /* to be read */
    uint64_t load_kept_bytes;                   /* of files whose tensors it held already */
    struct plan_holding *holding;               /* what it loaded last; NULL: nothing yet */
    uint64_t ledger_bytes, limit_bytes;
    struct planner_share share;
    uint64_t next_step; /* the first that it has not answered */
    uint64_t steps, rows;
    int64_t busy_ns;

    /* Worker's clock to ours: the least that a message was late by its own time stamp; 0 for local
     * members, which share our clock. */
    bool clock_known;
    int64_t clock_lag_ns;

    /* From heartbeats. */
    uint64_t resident_bytes;
    uint64_t frames_dropped;            /* behind its links */
    int64_t beat_sent_ns, beat_busy_ns; /* of the last one */
    double busy_share_recent;
    uint32_t link_count;
    struct cluster_link_status *links;
};

/* One kind of rows: the layer of routing, the boundary of hidden states. */
struct row_mark {
    enum cluster_event_kind kind;
    uint32_t place;
    uint32_t next; /* rows below have been handed on */
};

struct sequence {
    seq_id id;
    struct sequence *next; /* in the bucket */
    cluster_sink_fn sink;
    void *context;
    uint32_t mark_count;
    struct row_mark *marks; /* what it has had, so that rows computed again are not told again */
};

/* Which links of the epoch were opened anew, and in which attempt. */
struct retry {
    uint64_t epoch;
    uint32_t all_attempt; /* every link; 0: only the pairs */
    struct retry_pair {
        uint32_t low, high; /* worker ids */
        uint32_t attempt;
    } * pairs;
    uint32_t pair_count;
};

enum mail_kind { MAIL_SUBMIT, MAIL_CANCEL };
/* SUBMIT lies on the stack of the caller, who waits for `answered`; CANCEL on the heap. */
struct mail {
    struct mpsc_node node;
    enum mail_kind kind;
    const struct cluster_request *request;
    seq_id sequence;
    bool accepted;
    struct error *err;
    sem_t answered;
};

struct cluster {
    struct cluster_config config; /* immutable after start, as all up to the next blank line */
    char *model_path;             /* absolute */
    char model_hash[MODEL_HASH_BYTES];
    char weights[WEIGHTS_CHOICE_BYTES]; /* as workers are told */
    char control_endpoint[160];
    struct placement *file_placement; /* --placement: workers are indices; NULL: plan */
    uint32_t worker_wanted;
    int64_t start_ns;
    struct arena arena; /* for the cluster's life */

    /* Shared. */
    pthread_t thread;
    struct mpsc_list mailbox;
    struct waker waker;
    atomic_bool drain_wish, stop_wish;
    atomic_bool closed;     /* the mailbox takes nothing more */
    atomic_uint submitters; /* inside cluster_submit */
    sem_t started;          /* the thread has listened and spawned, or failed to */
    bool start_good;        /* read after `started` */
    struct error start_error;
    pthread_mutex_t status_mutex; /* guards `status` */
    pthread_cond_t status_changed;
    struct cluster_status *status; /* the published snapshot */

    /* The thread's own from here on. */
    struct poller *poller;
    struct control_server *server;
    struct local_workers *local;   /* NULL: none */
    struct model_service *service; /* NULL: all workers are here, or weights are dummy */
    struct arena message_arena;    /* reset after each message */
    enum cluster_state state;
    char problem[480];
    char *misfit; /* the table of a plan that was refused; NULL: none was */
    int64_t state_since_ns;
    bool draining;

    uint32_t member_count;
    struct member *members; /* [member_count], by rising id */
    uint32_t next_remote_id;

    uint64_t epoch;
    struct arena epoch_arena;
    struct planner_request plan; /* of the epoch */
    struct placement *placement; /* NULL: none */
    struct scheduler *scheduler; /* from the first epoch on; suspended between epochs */
    struct scheduler_stats past; /* counts of one that is no more */
    uint32_t seats_offered;      /* workers that the epoch's plan could use */
    int64_t epoch_start_ns;
    uint64_t epoch_seen;     /* the latest that a member had from another coordinator */
    uint32_t epoch_failures; /* epochs in a row that ended without a step */
    struct retry retry;
    char epoch_end_reason[300]; /* of the last one; "" when there was none */
    int64_t settle_until_ns;    /* no new epoch before: who else is gone shows first */
    bool served_once;

    seq_id next_sequence;
    struct sequence *sequences[SEQUENCE_BUCKETS];
    struct token_rate rate;

    FILE *step_log;
    bool status_stale;
    int64_t status_ns; /* when it was last published */
};

/* --- cluster_loop.c --- */
void *cluster_thread(void *cluster);

/* --- membership.c --- */
struct member *membership_by_connection(struct cluster *cluster, uint64_t connection);
struct member *membership_by_id(struct cluster *cluster, uint32_t id);
/* May take a seat. */
bool membership_usable(const struct member *member, int64_t now_ns);
uint32_t membership_usable_count(const struct cluster *cluster, int64_t now_ns);
/* The smallest id of the member's island: islands stay together, in order of registration. */
uint32_t membership_island(const struct cluster *cluster, const struct member *member);
/* Usable members, islands together, as the planner and placement files count them; returns how
 * many were written, at most `capacity`. */
uint32_t membership_order(struct cluster *cluster, int64_t now_ns, struct member **out,
                          uint32_t capacity);
void membership_register(struct cluster *cluster, struct control_peer from,
                         const struct register_message *message, int64_t now_ns);
/* A message with the worker's own time stamp has come. */
void membership_clock(struct member *member, int64_t stamp_ns, int64_t now_ns);
void membership_heartbeat(struct cluster *cluster, struct member *member,
                          const struct heartbeat_message *message, int64_t now_ns);
void membership_wants_to_leave(struct cluster *cluster, struct member *member, int64_t now_ns);
/* The worker is gone: removes it, and ends the epoch if it had a seat. */
void membership_lose(struct cluster *cluster, struct member *member, const char *why,
                     int64_t now_ns);
void membership_tick(struct cluster *cluster, int64_t now_ns);
void membership_destroy(struct cluster *cluster);
/* "worker 2 (host, stage 1)" */
const char *membership_name(const struct member *member, char *text, size_t bytes);
/* Sends; a member whose queue is full or whose connection is gone is lost. False: it is gone, and
 * `member` with it. */
bool membership_send(struct cluster *cluster, struct member *member, const struct message *message,
                     int64_t now_ns);

/* --- epoch.c --- */
void epoch_try_begin(struct cluster *cluster, int64_t now_ns); /* when enough are there */
void epoch_progress(struct cluster *cluster, struct member *member,
                    const struct progress_message *message, int64_t now_ns);
void epoch_loaded(struct cluster *cluster, struct member *member,
                  const struct loaded_message *message, int64_t now_ns);
void epoch_ready(struct cluster *cluster, struct member *member,
                 const struct ready_message *message, int64_t now_ns);
void epoch_tick(struct cluster *cluster, int64_t now_ns);
/* Ends the epoch: sequences wait for the next one; GATHERING. */
void epoch_abandon(struct cluster *cluster, const char *why, int64_t now_ns);
/* The member could not take its seat, or keep its links: it is benched for a while and the epoch
 * ends; the cluster fails if it has never served. */
void epoch_refuse(struct cluster *cluster, struct member *member, const char *why, int64_t now_ns);
/* FAILED for good: sequences fail. */
void epoch_fail_cluster(struct cluster *cluster, int64_t now_ns, const char *format, ...)
    FORMAT_PRINTF(3, 4);
/* The coordinator stops: sequences fail, nobody joins any more. */
void epoch_stop(struct cluster *cluster, int64_t now_ns);
void epoch_set_state(struct cluster *cluster, enum cluster_state state, int64_t now_ns);
/* "waiting for workers: 2 of 3" */
void epoch_describe_gathering(struct cluster *cluster, int64_t now_ns);
bool epoch_is_running(const struct cluster *cluster); /* a placement is loading or serving */

/* --- epoch_plan.c --- */
/* The placement for these workers, in the epoch's arena; fills cluster->plan. */
struct placement *epoch_plan(struct cluster *cluster, struct member **order, uint32_t count,
                             struct error *err) MUST_CHECK;

/* --- retry.c --- */
/* A worker says that a link of the epoch broke: it is opened anew and all steps in flight are
 * issued again, unless that has happened meanwhile. False: there is no further attempt, err says
 * why. */
bool retry_link_lost(struct cluster *cluster, struct member *member,
                     const struct link_lost_message *message, int64_t now_ns,
                     struct error *err) MUST_CHECK;
/* A step is overdue: all links are opened anew, likewise. */
bool retry_overdue(struct cluster *cluster, uint64_t step, int64_t now_ns,
                   struct error *err) MUST_CHECK;

/* --- sequences.c --- */
bool sequences_submit(struct cluster *cluster, const struct cluster_request *request, seq_id *out,
                      int64_t now_ns, struct error *err) MUST_CHECK;
/* Hands the scheduler's outcomes to their sinks; `problem` goes with FINISH_FAILED. */
void sequences_deliver(struct cluster *cluster, const char *problem, int64_t now_ns);
void sequences_handle_result(struct cluster *cluster, struct member *member,
                             const struct step_result *result, int64_t now_ns);

/* --- status.c --- */
/* Counters of the scheduler that ends live on in `past`. */
void status_keep_counts(struct cluster *cluster);
void status_publish(struct cluster *cluster, int64_t now_ns);
struct cluster_status *status_copy(const struct cluster_status *status);

#endif
