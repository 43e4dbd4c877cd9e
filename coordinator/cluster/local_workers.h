#ifndef SHOAL_CLUSTER_LOCAL_WORKERS_H
#define SHOAL_CLUSTER_LOCAL_WORKERS_H

/* The shoal-worker processes that the coordinator starts on its own machine.
 *
 * A child is one worker (zmq) or one mpirun with several (mpi, mixed). Each child is a session of
 * its own, so that the terminal's Ctrl-C does not reach it and everything below it can be found
 * again; it gets SIGTERM when the thread that started it ends. A worker proves by its launch token
 * from which child it comes.
 *
 * Owner: the cluster's thread, which lives until the end; all calls from it.
 */
#include "common/base/error.h"
#include "common/net/keys.h"
#include "common/net/poller.h"
#include "coordinator/cluster/cluster.h"

struct local_workers_config {
    uint32_t count;
    enum cluster_link link;
    const char *program;  /* NULL: shoal-worker beside this executable */
    const char *endpoint; /* of the control channel */
    const char *key_path; /* NULL: none */
    enum keys_policy keys_policy;
    uint32_t threads;      /* per worker; 0: cores / count, at least 1 */
    uint64_t memory_bytes; /* 0: what is there */
};

struct local_workers;
/* What the configuration points to is borrowed for life. Starts all; the poller wakes when a child
 * ends. After a failure none is left. */
struct local_workers *local_workers_start(const struct local_workers_config *config,
                                          struct poller *poller, struct error *err) MUST_CHECK;
/* Kills what still runs, mpirun's ranks too, and frees. NULL is legal. */
void local_workers_destroy(struct local_workers *workers);

/* The worker number of a registration: false if no child has this token. */
bool local_workers_identify(const struct local_workers *workers, const char *token, uint32_t rank,
                            uint32_t *worker);

struct local_exit {
    uint32_t worker_begin, worker_end; /* workers of the child */
    bool orderly;                      /* exit status 0 */
    char what[160]; /* "local worker 2 (pid 71) was killed by signal 9 (Killed)" */
};
/* The next child that ended since the last call, or false. Never blocks. */
bool local_workers_reap(struct local_workers *workers, struct local_exit *out);
/* Starts again those that ended, each after a pause that doubles (100 ms … 10 s) while it does not
 * live for ten seconds. local_workers_restart_ns: when the next one is due; INT64_MAX: none. */
void local_workers_restart(struct local_workers *workers, int64_t now_ns);
int64_t local_workers_restart_ns(const struct local_workers *workers);
uint32_t local_workers_running(const struct local_workers *workers); /* children */
/* To every process of the children that still run. */
void local_workers_signal(struct local_workers *workers, int signal_number);

#endif
