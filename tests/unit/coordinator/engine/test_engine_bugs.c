/* test_engine_bugs.c - the simulation finds faults, each within a thousand histories.
 *
 * This program has the engine's sources compiled with ENGINE_BUGS, so that one fault at a time can
 * be switched on (bug.h). A fault may well end in an assertion, so each runs in a process of its
 * own.
 */
#include "tests/unit/coordinator/engine/sim_history.h"

#include "coordinator/engine/bug.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define SEEDS_MAX     1000
#define SEEDS_SOUND   20 /* histories without a fault, to show that it is the faults that fail */
#define SECONDS_MAX   60 /* of CPU time: a fault must not end in a loop */
#define STATUS_CAUGHT 3

uint32_t engine_bug;

static const struct bug {
    uint32_t number;
    const char *what;
} bugs[] = {
    {1, "a step's blocks are free when its last stage has answered, not all workers"},
    {2, "a cached block is found by its own tokens, whatever came before them"},
    {3, "the position stays behind rejected drafts"},
    {4, "a sample stands though the draft before it was wrong"},
    {5, "the whole prompt may be taken from the cache, the last token too"},
    {6, "recomputed generated tokens are of class prompt"},
    {7, "a block is shared before its last row is issued"},
    {8, "blocks that others hold are given away"},
    {9, "what is wanted of rows is asked for again when they are recomputed"},
    {10, "batch requests never age"},
    {11, "a step that is issued again does not tell of its blocks again"},
    {12, "steps are issued again with the newest first"},
    {13, "a further attempt forgets who has answered"},
    {14, "only the oldest step is issued again"},
    {15, "what lost steps should have answered is not asked for again"},
    {16, "a cancelled sequence comes back after a loss"},
    {17, "a new placement takes what it cannot hold"},
    {18, "recomputed after a loss, a sequence says nothing of its first blocks"},
};

static uint64_t seed_now;

/* Not fail_msg: there is no test to return to in this process. */
static void on_failure(const char *text)
{
    (void)printf("  seed %llu: %.150s\n", (unsigned long long)seed_now, text);
    (void)fflush(stdout);
    _exit(STATUS_CAUGHT);
}

static void child_run(uint32_t bug, uint64_t seeds)
{
    struct rlimit no_core = {0, 0};
    struct rlimit cpu = {SECONDS_MAX, SECONDS_MAX + 1};

    (void)setrlimit(RLIMIT_CORE, &no_core);
    (void)setrlimit(RLIMIT_CPU, &cpu);
    engine_bug = bug;
    sim_on_failure = on_failure;
    for (seed_now = 1; seed_now <= seeds; seed_now++) {
        (void)sim_history_run(seed_now);
    }
    _exit(0);
}

/* Whether the simulation, or an assertion, notices the fault. */
static bool caught(uint32_t bug, uint64_t seeds)
{
    int status = 0;
    pid_t child;

    (void)fflush(stdout);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        child_run(bug, seeds);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status)) {
        assert_int_not_equal(WTERMSIG(status), SIGXCPU);
        return true;
    }
    return WEXITSTATUS(status) != 0;
}

static void a_sound_engine_is_not_blamed(void **state)
{
    (void)state;
    assert_false(caught(0, SEEDS_SOUND));
}

static void each_fault_is_caught_within_a_thousand_histories(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bugs) / sizeof(bugs[0]); i++) {
        print_message("fault %u: %s\n", bugs[i].number, bugs[i].what);
        if (!caught(bugs[i].number, SEEDS_MAX)) {
            fail_msg("fault %u was not caught in %d histories", bugs[i].number, SEEDS_MAX);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_engine_is_not_blamed),
        cmocka_unit_test(each_fault_is_caught_within_a_thousand_histories),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
