/* test_scheduler_sim.c - random histories of a cluster, each repeatable from its seed.
 *
 * The virtual cluster checks every step, every outcome and the scheduler's invariants after every
 * event. SHOAL_SIM_COUNT sets the number of histories, SHOAL_SEED runs a single one.
 */
#include "tests/unit/coordinator/engine/sim_history.h"

#include "common/base/mem.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

/* Sanitized programs are slow. */
#if SHOAL_DEBUG_ASSERT
#define HISTORIES 600
#else
#define HISTORIES 10000
#endif

static uint64_t seed_now;

/* An assertion inside the scheduler: name the seed before the process ends. */
static void on_abort(int number)
{
    char text[120];
    int length =
        snprintf(text, sizeof(text), "replay: SHOAL_SEED=%llu ctest -R engine.scheduler_sim\n",
                 (unsigned long long)seed_now);

    (void)number;
    (void)!write(STDERR_FILENO, text, (size_t)length);
}

static int compare_u64(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static void sum_add(struct scheduler_stats *sum, const struct scheduler_stats *more)
{
    sum->steps += more->steps;
    sum->rows += more->rows;
    sum->prefix_query_tokens += more->prefix_query_tokens;
    sum->prefix_hit_tokens += more->prefix_hit_tokens;
    sum->drafted += more->drafted;
    sum->accepted += more->accepted;
    sum->preemptions += more->preemptions;
    sum->evictions += more->evictions;
    sum->retries += more->retries;
    sum->steps_reissued += more->steps_reissued;
    sum->ignored_reports += more->ignored_reports;
}

static void every_history_ends_with_all_answers_and_no_block_in_use(void **state)
{
    const char *seed = getenv("SHOAL_SEED");
    const char *count = getenv("SHOAL_SIM_COUNT");
    uint64_t histories = count != NULL ? strtoull(count, NULL, 10) : HISTORIES;
    uint64_t *events = mem_new_array(uint64_t, histories);
    struct scheduler_stats sum = {0};
    uint64_t all = 0;
    uint64_t losses = 0;

    (void)state;
    if (seed != NULL) {
        seed_now = strtoull(seed, NULL, 10);
        (void)sim_history_run(seed_now);
        mem_free(events);
        return;
    }
    for (uint64_t i = 0; i < histories; i++) {
        struct history_counts counts;

        seed_now = i + 1;
        counts = sim_history_run(seed_now);
        events[i] = counts.events;
        all += counts.events;
        losses += counts.losses;
        sum_add(&sum, &counts.stats);
    }
    qsort(events, histories, sizeof(*events), compare_u64);
    print_message("%llu histories, %llu events, median %llu; %llu steps, %llu rows, "
                  "%llu of %llu prompt tokens cached, %llu of %llu drafts accepted, "
                  "%llu preemptions, %llu evictions, %llu placements lost; %llu further attempts "
                  "with %llu steps, %llu answers ignored\n",
                  (unsigned long long)histories, (unsigned long long)all,
                  (unsigned long long)events[histories / 2], (unsigned long long)sum.steps,
                  (unsigned long long)sum.rows, (unsigned long long)sum.prefix_hit_tokens,
                  (unsigned long long)sum.prefix_query_tokens, (unsigned long long)sum.accepted,
                  (unsigned long long)sum.drafted, (unsigned long long)sum.preemptions,
                  (unsigned long long)sum.evictions, (unsigned long long)losses,
                  (unsigned long long)sum.retries, (unsigned long long)sum.steps_reissued,
                  (unsigned long long)sum.ignored_reports);
    if (histories >= 500) { /* the histories are what they should be */
        assert_true(events[histories / 2] >= 200);
        assert_true(sum.preemptions > histories / 10 && sum.evictions > histories / 10);
        assert_true(losses > histories / 2);
        assert_true(sum.retries > histories / 4 && sum.steps_reissued > sum.retries);
        assert_true(sum.ignored_reports > histories / 4);
        assert_true(sum.prefix_hit_tokens > 0 && sum.accepted > 0 && sum.accepted < sum.drafted);
    }
    mem_free(events);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_history_ends_with_all_answers_and_no_block_in_use),
    };

    (void)signal(SIGABRT, on_abort);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
