/* main.c - shoal-worker: signals, limits, MPI, then the communication thread.
 *
 * The first SIGTERM or SIGINT asks the worker to leave in order, a second one ends it at once. A
 * worker that a coordinator started ignores SIGINT: Ctrl-C in their terminal is the coordinator's.
 */
#include "worker/stage/worker.h"

#include "common/base/log.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* MPI_Finalize waits for every rank of the world; one that left alone must not wait for ever. */
#define FINALIZE_SECONDS 4

static volatile int signals_seen;
static struct waker signal_waker;

static void on_signal(int number)
{
    if (++signals_seen > 1) {
        _exit(128 + number);
    }
    waker_wake(&signal_waker);
}

static void on_alarm(int number)
{
    (void)number;
    _exit(0);
}

static void handle_signal(int number, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler};

    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(number, &action, NULL);
}

static void catch_signals(const struct worker_options *options)
{
    handle_signal(SIGTERM, on_signal);
    handle_signal(SIGINT, options->launch_token[0] != '\0' ? SIG_IGN : on_signal);
    handle_signal(SIGPIPE, SIG_IGN);
    handle_signal(SIGALRM, on_alarm);
}

/* Shards, sockets and links: as many descriptors as the system lets us have. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int run(struct worker *worker, const struct worker_options *options)
{
    struct error err;
    int exit_code = 1;

    if (worker_open(worker, options, &err)) {
        exit_code = worker_run(worker, &signals_seen);
    } else {
        log_error("%s", err.message);
        exit_code = err.code == ERROR_USAGE ? 2 : 1;
    }
    worker_close(worker);
    return exit_code;
}

int main(int argc, char **argv)
{
    static struct worker worker;
    struct worker_options options;
    struct error err;
    int exit_code;

    worker_options_parse(argc, argv, &options);
    log_init("worker", LOG_INFO);
    if (!waker_open(&signal_waker)) {
        log_error("eventfd failed");
        return 1;
    }
    worker.waker = signal_waker;
    if (!mpi_world_init(&worker.world, &err)) {
        log_error("%s", err.message);
        return 1;
    }
    catch_signals(&options); /* after MPI, which sets handlers of its own */
    raise_descriptor_limit();
    exit_code = run(&worker, &options);
    if (worker.world.id != 0) {
        (void)alarm(FINALIZE_SECONDS);
    }
    mpi_world_finalize(&worker.world);
    waker_close(&signal_waker);
    return exit_code;
}
