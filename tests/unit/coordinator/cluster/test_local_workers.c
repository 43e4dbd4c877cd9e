/* Child processes: started, named when they end, and never left behind. Scripts stand in for the
 * worker. */
#include "coordinator/cluster/local_workers.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define PATIENCE_NS (20 * NS_PER_S)

struct fixture {
    struct scratch scratch;
    struct poller *poller;
    char program[512];
};

static int children_setup(void **state)
{
    static struct fixture fixture;

    log_init("test", LOG_ERROR);
    scratch_open(&fixture.scratch);
    fixture.poller = poller_create();
    (void)snprintf(fixture.program, sizeof(fixture.program), "%s",
                   scratch_path(&fixture.scratch, "worker"));
    *state = &fixture;
    return 0;
}

static int children_teardown(void **state)
{
    struct fixture *fixture = *state;

    poller_destroy(fixture->poller);
    scratch_close(&fixture->scratch);
    return 0;
}

static struct local_workers *start(struct fixture *fixture, const char *script, uint32_t count)
{
    struct local_workers_config config = {.count = count,
                                          .link = CLUSTER_LINK_ZMQ,
                                          .program = fixture->program,
                                          .endpoint = "tcp://127.0.0.1:1"};
    struct local_workers *workers;
    struct error err;

    assert_true(file_write(fixture->program, script, strlen(script), 0755, &err));
    workers = local_workers_start(&config, fixture->poller, &err);
    if (workers == NULL) {
        fail_msg("%s", err.message);
    }
    return workers;
}

static struct local_exit wait_exit(struct fixture *fixture, struct local_workers *workers)
{
    int64_t end_ns = clock_monotonic_ns() + PATIENCE_NS;
    struct local_exit ended;

    while (!local_workers_reap(workers, &ended)) {
        assert_true(clock_monotonic_ns() < end_ns);
        poller_wait(fixture->poller, 100 * NS_PER_MS);
    }
    return ended;
}

static void an_exit_status_is_named(void **state)
{
    struct local_workers *workers = start(*state, "#!/bin/sh\nexit 3\n", 1);
    struct local_exit ended = wait_exit(*state, workers);

    assert_non_null(strstr(ended.what, "local worker 0"));
    assert_non_null(strstr(ended.what, "exit status 3"));
    assert_false(ended.orderly);
    assert_int_equal(local_workers_running(workers), 0);
    local_workers_destroy(workers);
}

static void a_signal_is_named(void **state)
{
    struct local_workers *workers = start(*state, "#!/bin/sh\nkill -9 $$\n", 1);
    struct local_exit ended = wait_exit(*state, workers);

    assert_non_null(strstr(ended.what, "killed by signal 9"));
    local_workers_destroy(workers);
}

static void a_missing_program_is_an_error(void **state)
{
    struct fixture *fixture = *state;
    struct local_workers_config config = {
        .count = 1, .program = "/nowhere/shoal-worker", .endpoint = "tcp://127.0.0.1:1"};
    struct error err;

    assert_null(local_workers_start(&config, fixture->poller, &err));
    assert_int_equal(err.code, ERROR_SYSTEM);
    assert_non_null(strstr(err.message, "/nowhere/shoal-worker"));
}

static void a_program_that_cannot_run_is_an_error(void **state)
{
    struct fixture *fixture = *state;
    struct local_workers_config config = {
        .count = 1, .program = fixture->program, .endpoint = "tcp://127.0.0.1:1"};
    struct error err;

    assert_true(file_write(fixture->program, "#!/nowhere/sh\n", 14, 0755, &err));
    assert_null(local_workers_start(&config, fixture->poller, &err));
    assert_int_equal(err.code, ERROR_SYSTEM);
}

/* Writes its launch token and its grandchild's pid, then waits for ever, deaf to SIGTERM. */
static void destroy_leaves_no_grandchild(void **state)
{
    struct fixture *fixture = *state;
    char script[2048], path[512];
    struct local_workers *workers;
    int64_t end_ns = clock_monotonic_ns() + PATIENCE_NS;
    struct error err;
    char *text = NULL;
    size_t length = 0;
    pid_t grandchild;

    (void)snprintf(path, sizeof(path), "%s", scratch_path(&fixture->scratch, "pid"));
    (void)snprintf(script, sizeof(script),
                   "#!/bin/sh\ntrap '' TERM\nsleep 1000 &\necho $! > %s.part\nmv %s.part %s\nwait\n"
                   "sleep 1000\n",
                   path, path, path);
    workers = start(fixture, script, 1);
    while (!file_exists(path)) {
        assert_true(clock_monotonic_ns() < end_ns);
        poller_wait(fixture->poller, 10 * NS_PER_MS);
    }
    assert_true(file_read(path, 100, &text, &length, &err));
    grandchild = (pid_t)strtol(text, NULL, 10);
    assert_int_equal(kill(grandchild, 0), 0);
    local_workers_destroy(workers);
    while (kill(grandchild, 0) == 0) { /* init reaps it */
        assert_true(clock_monotonic_ns() < end_ns);
        poller_wait(fixture->poller, 10 * NS_PER_MS);
    }
    assert_int_equal(errno, ESRCH);
    mem_free(text);
}

static void a_launch_token_names_its_worker(void **state)
{
    struct fixture *fixture = *state;
    char script[2048], path[512], *text = NULL, *end;
    int64_t end_ns = clock_monotonic_ns() + PATIENCE_NS;
    struct local_workers *workers;
    uint32_t worker = 99;
    struct error err;
    size_t length = 0;

    (void)snprintf(path, sizeof(path), "%s", scratch_path(&fixture->scratch, "token"));
    (void)snprintf(script, sizeof(script),
                   "#!/bin/sh\nwhile [ \"$1\" != --launch-token ]; do shift; done\n"
                   "case $2 in 1-*) echo $2 > %s.part; mv %s.part %s;; esac\nexec sleep 1000\n",
                   path, path, path);
    workers = start(fixture, script, 2);
    while (!file_exists(path)) {
        assert_true(clock_monotonic_ns() < end_ns);
        poller_wait(fixture->poller, 10 * NS_PER_MS);
    }
    assert_true(file_read(path, 100, &text, &length, &err));
    end = strchr(text, '\n');
    assert_non_null(end);
    *end = '\0';
    assert_true(local_workers_identify(workers, text, 0, &worker));
    assert_int_equal(worker, 1);
    assert_false(local_workers_identify(workers, text, 1, &worker));
    assert_false(local_workers_identify(workers, "1-0", 0, &worker));
    mem_free(text);
    local_workers_destroy(workers);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, children_setup, children_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(an_exit_status_is_named),       CASE(a_signal_is_named),
        CASE(a_missing_program_is_an_error), CASE(a_program_that_cannot_run_is_an_error),
        CASE(destroy_leaves_no_grandchild),  CASE(a_launch_token_names_its_worker),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
