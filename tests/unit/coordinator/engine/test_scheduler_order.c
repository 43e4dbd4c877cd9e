/* test_scheduler_order.c - who comes first, and how much of a step each gets. */
#include "tests/unit/coordinator/engine/scheduler_driver.h"
#include "tests/unit/coordinator/engine/sim_cluster.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void add_class(struct scheduler *scheduler, seq_id id, uint32_t prompt_count,
                      uint32_t tokens_max, enum request_class request_class, int64_t now_ns)
{
    uint32_t prompt[512] = {0};
    struct scheduler_request request = {.sequence = id,
                                        .prompt = prompt,
                                        .prompt_count = prompt_count,
                                        .tokens_max = tokens_max,
                                        .request_class = request_class};

    driver_add_request(scheduler, &request, now_ns);
}

static void interactive_requests_come_before_batch_ones(void **state)
{
    struct scheduler_config config = driver_config_small();
    struct scheduler *scheduler;
    struct step step;

    (void)state;
    config.slot_count = 2;
    scheduler = scheduler_create(&config);
    add_class(scheduler, 1, 3, 9, REQUEST_BATCH, 0);
    add_class(scheduler, 2, 3, 9, REQUEST_INTERACTIVE, 0);
    add_class(scheduler, 3, 3, 9, REQUEST_INTERACTIVE, 0);
    assert_true(scheduler_next(scheduler, 0, &step));
    assert_int_equal(step.entry_count, 2);
    assert_int_equal(step.entries[0].sequence, 2);
    assert_int_equal(step.entries[1].sequence, 3);
    scheduler_destroy(scheduler);
}

static void an_interactive_request_takes_the_place_of_the_youngest_batch_sequence(void **state)
{
    struct scheduler_config config = driver_config_small();
    struct scheduler *scheduler;
    struct step step;

    (void)state;
    config.slot_count = 2;
    scheduler = scheduler_create(&config);
    add_class(scheduler, 1, 3, 9, REQUEST_BATCH, 0);
    add_class(scheduler, 2, 3, 9, REQUEST_BATCH, 0);
    assert_true(scheduler_next(scheduler, 0, &step));
    assert_int_equal(step.entry_count, 2);
    add_class(scheduler, 3, 3, 9, REQUEST_INTERACTIVE, MS);
    driver_answer(scheduler, &step, 42, MS);
    assert_token(scheduler, 1, 42);
    assert_token(scheduler, 2, 42);
    assert_true(scheduler_next(scheduler, MS, &step)); /* neither has a step in flight */
    assert_int_equal(step.entry_count, 2);
    assert_int_equal(step.entries[0].sequence, 1);
    assert_int_equal(step.entries[1].sequence, 3);
    assert_int_equal(driver_stats_of(scheduler).preemptions, 1);
    assert_int_equal(driver_stats_of(scheduler).waiting, 1);
    scheduler_destroy(scheduler);
}

/* Keeps interactive requests waiting; returns the step that has the sequence, or 0. */
static uint64_t flood(struct scheduler *scheduler, seq_id id, uint32_t steps, int64_t *now_ns)
{
    static seq_id next = 1000;
    struct step step;

    for (uint32_t i = 0; i < steps; i++) {
        while (driver_stats_of(scheduler).waiting < 6) {
            add_class(scheduler, next++, 2, 3, REQUEST_INTERACTIVE, *now_ns);
        }
        assert_true(scheduler_next(scheduler, *now_ns, &step));
        for (uint32_t entry = 0; entry < step.entry_count; entry++) {
            if (step.entries[entry].sequence == id) {
                driver_answer(scheduler, &step, 42, *now_ns + MS);
                return step.number;
            }
        }
        *now_ns += MS;
        driver_answer(scheduler, &step, 42, *now_ns);
        while (scheduler_outcome(scheduler, &(struct outcome){0})) {
        }
    }
    return 0;
}

static void a_batch_request_waits_no_longer_than_it_may(void **state)
{
    struct scheduler_config config = driver_config_small();
    struct scheduler *scheduler;
    int64_t now_ns = 0;

    (void)state;
    config.batch_age_ns = 200 * MS;
    config.queue_max = 8;
    scheduler = scheduler_create(&config);
    add_class(scheduler, 7, 3, 5, REQUEST_BATCH, 0);
    assert_int_equal(flood(scheduler, 7, 199, &now_ns), 0);
    assert_true(flood(scheduler, 7, 30, &now_ns) > 0);
    scheduler_destroy(scheduler);
}

static void one_batch_request_at_a_time_becomes_interactive(void **state)
{
    struct scheduler_config config = driver_config_small();
    struct scheduler *scheduler;
    int64_t now_ns = 0;

    (void)state;
    config.batch_age_ns = 100 * MS;
    config.queue_max = 8;
    scheduler = scheduler_create(&config);
    add_class(scheduler, 7, 3, 1, REQUEST_BATCH, 0);
    add_class(scheduler, 8, 3, 1, REQUEST_BATCH, 0);
    assert_true(flood(scheduler, 7, 120, &now_ns) > 0);
    assert_int_equal(flood(scheduler, 8, 80, &now_ns), 0);
    assert_true(flood(scheduler, 8, 30, &now_ns) > 0);
    scheduler_destroy(scheduler);
}

static void a_short_prompt_does_not_wait_for_a_long_one(void **state)
{
    struct scheduler_config config = driver_config_small();
    struct scheduler *scheduler;
    struct step step;

    (void)state;
    config.step_rows_max = 64;
    config.kv_block_count = 16;
    scheduler = scheduler_create(&config);
    driver_add(scheduler, 1, 400, 1);
    driver_add(scheduler, 2, 50, 1);
    driver_add(scheduler, 3, 20, 1);
    assert_true(scheduler_next(scheduler, 0, &step));
    assert_int_equal(step.entry_count, 3);
    assert_int_equal(step.entries[0].sequence, 1);
    assert_int_equal(step.entries[0].token_count, 32); /* half */
    assert_int_equal(step.entries[0].next_token, 1032);
    assert_int_equal(step.entries[1].sequence, 3);
    assert_int_equal(step.entries[1].token_count, 20);
    assert_int_equal(step.entries[1].next_token, STEP_TOKEN_NONE);
    assert_int_equal(step.entries[2].sequence, 2);
    assert_int_equal(step.entries[2].token_count, 12);
    scheduler_destroy(scheduler);
}

static void prompts_progress_however_many_sequences_decode(void **state)
{
    (void)state;
    for (uint32_t rows_max = 1; rows_max <= 4; rows_max++) {
        struct scheduler_config config = driver_config_small();
        struct scheduler *scheduler;
        struct step step;
        uint32_t prompt_rows = 0;

        config.step_rows_max = rows_max;
        config.slot_count = 8;
        config.kv_block_count = 64;
        config.queue_max = 8;
        config.steps_in_flight_max = 1;
        scheduler = scheduler_create(&config);
        for (uint32_t i = 0; i < 6; i++) {
            driver_add(scheduler, i, 1, 400);
        }
        for (uint32_t i = 0; i < 200 && prompt_rows < 40; i++) {
            if (i == 30) {
                driver_add(scheduler, 9, 40, 1);
            }
            assert_true(scheduler_next(scheduler, i * MS, &step));
            for (uint32_t entry = 0; entry < step.entry_count; entry++) {
                prompt_rows +=
                    step.entries[entry].sequence == 9 ? step.entries[entry].token_count : 0;
            }
            driver_answer(scheduler, &step, 42, (i + 1) * MS);
        }
        assert_int_equal(prompt_rows, 40);
        scheduler_destroy(scheduler);
    }
}

/* The longest step with decoding rows and prompt rows, by the rows it has. */
static void mixed_see(struct sim *sim, const struct step *step)
{
    uint32_t *rows_max = sim->context;
    bool decodes = false;

    for (uint32_t i = 0; i < step->entry_count; i++) {
        decodes = decodes || sim->clients[step->entries[i].sequence].decoding;
    }
    if (decodes && sim->now_ns > 500 * MS && step_row_count(step) > *rows_max) {
        *rows_max = step_row_count(step);
    }
}

/* Sequences that decode while long prompts come. Returns the rows of the largest mixed step. */
static uint32_t mixed_rows_max(int64_t max_step_ns)
{
    struct sim_timing timing = {.stage_ns = {2 * MS}, .row_ns = {MS / 20}, .turn_ns = MS / 10};
    struct scheduler_config config = {
        .lane_count = 1,
        .stage_count = 1,
        .slot_count = 16,
        .kv_block_count = 16 * 32,
        .context_tokens_max = 2048,
        .step_rows_max = 512,
        .steps_in_flight_max = 2,
        .queue_max = 64,
        .max_step_ns = max_step_ns,
    };
    struct sim sim;
    uint32_t rows_max = 0;

    sim_init(&sim, 1, &config, &timing);
    sim.on_step = mixed_see;
    sim.context = &rows_max;
    for (uint32_t i = 0; i < 4; i++) {
        assert_true(sim_submit(&sim, &(struct sim_request){.prompt_count = 20 + 100 * i,
                                                           .tokens_max = 600,
                                                           .ignore_eos = true}));
        sim_settle(&sim);
    }
    for (uint32_t i = 0; sim.report_count > 0 && i < 600; i++) {
        sim_report(&sim);
        if (i == 300 || i == 320) {
            assert_true(
                sim_submit(&sim, &(struct sim_request){.prompt_count = 1500, .tokens_max = 1}));
        }
    }
    sim_run_out(&sim);
    sim_deinit(&sim);
    return rows_max;
}

static void decoding_does_not_stall_behind_long_prompts(void **state)
{
    (void)state;
    assert_int_equal(mixed_rows_max(0), 512);
    /* 2 ms and 50 us a row: 10 ms are 160 rows. */
    assert_in_range(mixed_rows_max(10 * MS), 140, 166);
    /* Not even the decoding rows fit, but the prompts progress. */
    assert_in_range(mixed_rows_max(MS), 16 + 1, 16 + 4);
}

struct spread {
    uint32_t steps;
    uint32_t with_long, beside_long; /* steps with the long sequence, sequences beside it */
};

static void spread_see(struct sim *sim, const struct step *step)
{
    struct spread *spread = sim->context;

    if (sim->now_ns < 1500 * MS) {
        return;
    }
    spread->steps++;
    for (uint32_t i = 0; i < step->entry_count; i++) {
        if (step->entries[i].sequence == 0) {
            spread->with_long++;
            spread->beside_long += step->entry_count - 1;
        }
    }
}

/* Eight sequences over two stages, one with a context that costs as much as the seven others. */
static void sequences_are_spread_over_the_steps_by_what_they_cost(void **state)
{
    struct sim_timing timing = {.stage_ns = {MS, MS},
                                .row_ns = {MS / 10, MS / 10},
                                .position_ns = {1000, 1000},
                                .turn_ns = MS / 10};
    struct scheduler_config config = {
        .lane_count = 1,
        .stage_count = 2,
        .slot_count = 8,
        .kv_block_count = 8 * 32,
        .context_tokens_max = 2048,
        .step_rows_max = 512,
        .steps_in_flight_max = 2,
        .queue_max = 8,
    };
    struct spread spread = {0};
    struct sim sim;

    (void)state;
    sim_init(&sim, 1, &config, &timing);
    sim.on_step = spread_see;
    sim.context = &spread;
    for (uint32_t i = 0; i < 8; i++) {
        assert_true(sim_submit(&sim, &(struct sim_request){.prompt_count = i == 0 ? 1400 : 5 + i,
                                                           .tokens_max = 600,
                                                           .ignore_eos = true}));
    }
    sim_settle(&sim);
    while (sim.now_ns < 2500 * MS) {
        sim_report(&sim);
    }
    assert_true(spread.with_long > 20);
    assert_true(spread.with_long * 2 >= spread.steps - 2); /* it waits for none of its turns */
    assert_true(spread.beside_long <= 2 * spread.with_long);
    sim_run_out(&sim);
    sim_deinit(&sim);
}

static void a_full_queue_says_when_to_come_again(void **state)
{
    struct scheduler_config config = driver_config_small();
    struct scheduler *scheduler;
    struct step step;
    struct error err;
    int64_t now_ns = 0;

    (void)state;
    config.slot_count = 1;
    config.queue_max = 2;
    config.steps_in_flight_max = 1;
    scheduler = scheduler_create(&config);
    assert_true(scheduler_retry_after_ns(scheduler, 0) == 0);
    driver_add(scheduler, 1, 3, 1);
    driver_add(scheduler, 2, 3, 1);
    assert_false(driver_submit(scheduler, 3, 3, 1, &err));
    assert_int_equal(err.code, ERROR_LIMIT);
    assert_true(scheduler_retry_after_ns(scheduler, 0) == 1000 * MS); /* nothing is known */
    for (seq_id id = 3; id < 40; id++) {                              /* one in 100 ms */
        assert_true(scheduler_next(scheduler, now_ns, &step));
        driver_add(scheduler, id, 3, 1);
        now_ns += 100 * MS;
        driver_answer(scheduler, &step, 42, now_ns);
    }
    assert_true(scheduler_next(scheduler, now_ns, &step));
    driver_add(scheduler, 40, 3, 1);
    assert_in_range(scheduler_retry_after_ns(scheduler, now_ns), 99 * MS, 101 * MS);
    assert_in_range(scheduler_retry_after_ns(scheduler, now_ns + 60 * MS), 39 * MS, 41 * MS);
    assert_in_range(scheduler_retry_after_ns(scheduler, now_ns + 900 * MS), 99 * MS, 101 * MS);
    scheduler_destroy(scheduler);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(interactive_requests_come_before_batch_ones),
        cmocka_unit_test(an_interactive_request_takes_the_place_of_the_youngest_batch_sequence),
        cmocka_unit_test(a_batch_request_waits_no_longer_than_it_may),
        cmocka_unit_test(one_batch_request_at_a_time_becomes_interactive),
        cmocka_unit_test(a_short_prompt_does_not_wait_for_a_long_one),
        cmocka_unit_test(prompts_progress_however_many_sequences_decode),
        cmocka_unit_test(decoding_does_not_stall_behind_long_prompts),
        cmocka_unit_test(sequences_are_spread_over_the_steps_by_what_they_cost),
        cmocka_unit_test(a_full_queue_says_when_to_come_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
