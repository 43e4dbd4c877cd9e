/* test_scheduler_sim.c - random histories of a cluster, each repeatable from its seed.
 *
 * Arrivals, lengths, cancels, KV sizes, layouts and the order of answers are drawn at random; the
 * virtual cluster checks every step, every outcome and the scheduler's invariants after every
 * event. SHOAL_SIM_COUNT sets the number of histories, SHOAL_SEED runs a single one.
 */
#include "tests/unit/coordinator/engine/sim_cluster.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define HISTORIES 10000

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

struct history {
    struct sim sim;
    uint32_t member_counts[SIM_STAGES_MAX];
    uint32_t arrivals_left;
    int64_t arrival_ns;
    int64_t arrival_gap_ns_max;
    uint32_t cancel_percent;
    int64_t fail_ns; /* INT64_MAX: never */
};

static struct scheduler_config config_draw(struct history *history, struct sim_random *random)
{
    struct scheduler_config config = {
        .lane_count = sim_random_u32(random, 1, 4),
        .stage_count = sim_random_u32(random, 1, 4),
        .slot_count = sim_random_u32(random, 1, 5),
        .kv_block_count = sim_random_u32(random, 1, 8),
        .context_tokens_max = sim_random_u32(random, 1, 300),
        .step_rows_max = sim_random_u32(random, 1, sim_random_chance(random, 50) ? 6 : 200),
        .steps_in_flight_max = sim_random_u32(random, 1, 6),
        .batch_max = sim_random_chance(random, 30) ? sim_random_u32(random, 1, 3) : 0,
        .queue_max = sim_random_u32(random, 1, 20),
        .logits_rows_max = sim_random_u32(random, 0, 5),
        .epoch = sim_random_u64(random),
    };

    if (sim_random_chance(random, 25)) {
        for (uint32_t i = 0; i < config.stage_count; i++) {
            history->member_counts[i] = sim_random_u32(random, 1, config.lane_count);
        }
        config.member_counts = history->member_counts;
    }
    return config;
}

static struct sim_timing timing_draw(struct sim_random *random, uint32_t stage_count)
{
    struct sim_timing timing = {
        .hop_ns = (int64_t)sim_random_range(random, 0, 200000),
        .turn_ns = (int64_t)sim_random_range(random, 0, 1000000),
        .jitter_percent = sim_random_u32(random, 0, 50),
        .report_delay_ns_max =
            sim_random_chance(random, 50) ? (int64_t)sim_random_range(random, 0, 8000000) : 0,
    };

    for (uint32_t i = 0; i < stage_count; i++) {
        timing.stage_ns[i] = (int64_t)sim_random_range(random, 0, 2000000);
        timing.row_ns[i] = (int64_t)sim_random_range(random, 0, 50000);
    }
    return timing;
}

static void history_init(struct history *history, uint64_t seed)
{
    struct sim_random random = sim_random_from(seed ^ 0x5eed);
    struct scheduler_config config = config_draw(history, &random);
    struct sim_timing timing = timing_draw(&random, config.stage_count);

    sim_init(&history->sim, seed, &config, &timing);
    history->arrivals_left = sim_random_u32(&random, 1, 12);
    history->arrival_ns = 0;
    history->arrival_gap_ns_max = (int64_t)sim_random_range(&random, 0, 20000000);
    history->cancel_percent = sim_random_chance(&random, 60) ? sim_random_u32(&random, 0, 90) : 0;
    history->fail_ns =
        sim_random_chance(&random, 5) ? (int64_t)sim_random_range(&random, 0, 50000000) : INT64_MAX;
}

static void arrive(struct history *history)
{
    struct sim *sim = &history->sim;
    struct sim_random *random = &sim->random;
    uint32_t id = sim->client_count;
    uint32_t prompt_max = sim_random_chance(random, 70) ? 20 : 310;
    uint32_t tokens_max = sim_random_chance(random, 80) ? sim_random_u32(random, 1, 15)
                                                        : sim_random_u32(random, 0, 100);

    sim->now_ns = history->arrival_ns > sim->now_ns ? history->arrival_ns : sim->now_ns;
    if (sim_submit(sim, sim_random_u32(random, 0, prompt_max), tokens_max,
                   sim_random_chance(random, 30),
                   sim_random_chance(random, 20) ? sim_random_u32(random, 0, 7) << 1 : 0) &&
        sim_random_chance(random, history->cancel_percent)) {
        sim->clients[id].cancel_ns = sim->now_ns + (int64_t)sim_random_range(random, 0, 40000000);
    }
    history->arrivals_left--;
    history->arrival_ns =
        sim->now_ns + (int64_t)sim_random_range(random, 0, (uint64_t)history->arrival_gap_ns_max);
}

/* The client whose cancel is due first. */
static uint32_t next_cancel(const struct sim *sim)
{
    uint32_t first = UINT32_MAX;

    for (uint32_t i = 0; i < sim->client_count; i++) {
        if (sim->clients[i].cancel_ns < INT64_MAX &&
            (first == UINT32_MAX || sim->clients[i].cancel_ns < sim->clients[first].cancel_ns)) {
            first = i;
        }
    }
    return first;
}

static void cancel(struct sim *sim, uint32_t client)
{
    int64_t when = sim->clients[client].cancel_ns;

    sim->now_ns = when > sim->now_ns ? when : sim->now_ns;
    sim->clients[client].cancel_ns = INT64_MAX;
    sim_cancel(sim, client);
    sim_settle(sim);
}

/* One event, the earliest; false when there is none left. */
static bool history_turn(struct history *history)
{
    struct sim *sim = &history->sim;
    uint32_t client = next_cancel(sim);
    int64_t cancel_ns = client != UINT32_MAX ? sim->clients[client].cancel_ns : INT64_MAX;
    int64_t arrival_ns = history->arrivals_left > 0 ? history->arrival_ns : INT64_MAX;
    int64_t report_ns = sim_next_ns(sim);

    if (report_ns == INT64_MAX && arrival_ns == INT64_MAX && cancel_ns == INT64_MAX) {
        return false;
    }
    if (history->fail_ns < report_ns && history->fail_ns < arrival_ns) {
        sim->now_ns = history->fail_ns > sim->now_ns ? history->fail_ns : sim->now_ns;
        history->fail_ns = INT64_MAX;
        sim_fail_all(sim);
    } else if (arrival_ns <= report_ns && arrival_ns <= cancel_ns) {
        arrive(history);
        sim_settle(sim);
    } else if (cancel_ns <= report_ns) {
        cancel(sim, client);
    } else {
        sim_report(sim);
    }
    return true;
}

static uint64_t history_run(uint64_t seed)
{
    struct history history;
    uint64_t turns = 0;

    seed_now = seed;
    history_init(&history, seed);
    while (history_turn(&history)) {
        turns++;
    }
    if (history.sim.live_count > 0) {
        sim_fail(&history.sim, "%u sequences never finished", history.sim.live_count);
    }
    sim_deinit(&history.sim);
    return turns;
}

static void every_history_ends_with_all_answers_and_no_block_in_use(void **state)
{
    const char *seed = getenv("SHOAL_SEED");
    const char *count = getenv("SHOAL_SIM_COUNT");
    uint64_t histories = count != NULL ? strtoull(count, NULL, 10) : HISTORIES;
    uint64_t turns = 0;

    (void)state;
    if (seed != NULL) {
        (void)history_run(strtoull(seed, NULL, 10));
        return;
    }
    for (uint64_t i = 1; i <= histories; i++) {
        turns += history_run(i);
    }
    print_message("%llu histories, %llu events\n", (unsigned long long)histories,
                  (unsigned long long)turns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_history_ends_with_all_answers_and_no_block_in_use),
    };

    (void)signal(SIGABRT, on_abort);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
