#ifndef SHOAL_STAGE_WORKER_H
#define SHOAL_STAGE_WORKER_H

/* The worker process as seen by its main thread, the communication thread: it owns the control
 * client, the mesh (MPI wants the main thread) and the poller, never blocks, and sends heartbeats
 * also while others load or compute.
 *
 *   JOINING → IDLE → PREPARING → LOADED → CONNECTING → READY → SERVING
 *                      ↑___________ a new assignment, from anywhere ____|
 *
 * BROKEN: the epoch failed here and was reported; a new assignment is awaited.
 */
#include "common/base/ring.h"
#include "common/net/control.h"
#include "common/net/mesh.h"
#include "worker/stage/compute.h"
#include "worker/stage/facts.h"
#include "worker/stage/options.h"
#include "worker/stage/prepare.h"

enum worker_phase {
    WORKER_JOINING,
    WORKER_IDLE,
    WORKER_PREPARING,
    WORKER_LOADED,
    WORKER_CONNECTING,
    WORKER_READY,
    WORKER_SERVING,
    WORKER_BROKEN,
};

/* What the next coordinator is told about weights that are in memory. */
struct worker_held {
    char model[MODEL_HASH_BYTES]; /* "": none */
    uint64_t bytes;
    uint32_t stage, member;
};

struct worker {
    struct worker_options options;
    struct cluster_key key;
    struct mpi_world world;
    struct poller *poller;
    struct waker waker;
    struct control_client *control;
    struct mesh *mesh;
    struct team *team; /* used by the loading thread, then by the compute thread */
    enum cpu_level cpu_level;
    struct facts facts;
    char bind_host[256];
    int parent; /* process that started us */

    enum worker_phase phase;
    uint32_t id;
    uint32_t protocol_minor; /* the one that is spoken */
    int64_t heartbeat_ns;
    int64_t joined_ns; /* the last REGISTER, or when the connection for it came to stand */
    int64_t heard_ns;  /* the last message of the coordinator */
    int64_t beat_ns;   /* the last heartbeat */
    int64_t begin_ns;  /* of the run */
    int64_t lost_ns;   /* since when there is no coordinator; 0: never had one, or there is */
    int64_t told_ns;   /* when that was logged last */
    int64_t progress_ns;
    struct arena arena; /* of the message being handled */

    /* the epoch */
    struct prepare *prepare;
    struct prepared *epoch;
    struct prepare *preload;    /* beside the epoch */
    struct prepared *preloaded; /* holds what the next epoch will need; its model is another's */
    uint64_t preload_epoch;
    struct compute *compute;
    struct model *model; /* kept while neither an epoch nor a load holds it */
    struct worker_held held;
    uint64_t last_epoch; /* that was assigned */
    bool ends_epoch;     /* what is there must go: a new assignment, or the coordinator is lost */
    bool has_assignment; /* to be begun when the old epoch is gone */
    struct assign_message assignment;
    struct arena assignment_arena;
    struct frame *frame_held; /* the compute thread had no room */
    bool step_is_held;        /* nor for this; nothing is received meanwhile */
    struct message step_held; /* in its arena */
    struct arena step_arena;
    struct work *result_held;       /* the control channel had no room */
    struct compute_counters before; /* of earlier epochs */

    /* the end */
    bool is_leaving; /* a signal, or the coordinator said so */
    int64_t leaving_ns;
    int64_t may_leave_ns; /* when the coordinator agreed; 0: not yet */
    bool is_over;
    int exit_code;
};

/* worker_open.c */
bool worker_open(struct worker *worker, const struct worker_options *options, struct error *err);
void worker_close(struct worker *worker);

/* worker.c: registration, heartbeats, messages, the end */
int worker_run(struct worker *worker, const volatile int *signals);
void worker_send(struct worker *worker, const struct message *message);
void worker_send_error(struct worker *worker, const struct error *err, uint64_t epoch,
                       uint64_t step);
void worker_end(struct worker *worker, int exit_code);

/* worker_assign.c: what is loaded, and told of it */
#define WORKER_PROGRESS_NS (250 * NS_PER_MS)
/* Only when nothing of the old epoch is left. */
void worker_assign_begin(struct worker *worker);
/* Loads beside what runs, and answers. */
void worker_assign_preload(struct worker *worker, const struct assign_message *assign);
void worker_assign_turn(struct worker *worker);
/* True when nothing loads any more; otherwise it was asked to end. */
bool worker_assign_cancel(struct worker *worker);
void worker_assign_destroy(struct worker *worker); /* waits */

/* worker_epoch.c: from an assignment to results */
void worker_epoch_assign(struct worker *worker, struct message *message);
void worker_epoch_connect(struct worker *worker, uint64_t epoch);
void worker_epoch_start(struct worker *worker, uint64_t epoch);
void worker_epoch_step(struct worker *worker, struct message *message);
void worker_epoch_attempt(struct worker *worker, const struct attempt_message *attempt);
/* Does what can be done now; called once per turn. */
void worker_epoch_turn(struct worker *worker);
/* The epoch can't go on here: that is told, and another one awaited. */
void worker_epoch_break(struct worker *worker, const struct error *err, uint64_t epoch);
/* Everything of the epoch ends as soon as its threads allow; the weights stay. */
void worker_epoch_abandon(struct worker *worker);
/* The same at once, waiting for the threads. */
void worker_epoch_destroy(struct worker *worker);
uint32_t worker_epoch_open_steps(const struct worker *worker);
uint64_t worker_epoch_number(const struct worker *worker); /* 0: none */
/* How long the main thread may sleep, as far as the epoch is concerned; -1: for ever. */
int64_t worker_epoch_wait_ns(struct worker *worker);
struct compute_counters worker_epoch_counters(const struct worker *worker);

#endif
