/* test_scheduler.c - directed cases of the scheduler, and how busy it keeps a virtual cluster. */
#include "tests/unit/coordinator/engine/scheduler_driver.h"
#include "tests/unit/coordinator/engine/sim_cluster.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void a_sequence_prefills_decodes_and_ends_at_its_limit(void **state)
{
    struct scheduler_config config = driver_config_small();
    struct scheduler *scheduler = scheduler_create(&config);
    struct step step;

    (void)state;
    driver_add(scheduler, 7, 3, 2);
    assert_true(scheduler_next(scheduler, 0, &step));
    assert_int_equal(step.epoch, 9);
    assert_int_equal(step.entry_count, 1);
    assert_int_equal(step.entries[0].sequence, 7);
    assert_int_equal(step.entries[0].token_count, 3);
    assert_int_equal(step.entries[0].tokens[2], 7002);
    assert_int_equal(step.entries[0].generated_begin, 3);
    assert_int_equal(step.entries[0].block_count, 1);
    assert_int_equal(step.entries[0].wants, WANT_SAMPLE);
    assert_int_equal(driver_stats_of(scheduler).kv_blocks_used, 1);
    assert_false(scheduler_next(scheduler, 0, &step));
    driver_answer(scheduler, &step, 42, MS);
    assert_token(scheduler, 7, 42);
    assert_true(scheduler_next(scheduler, MS, &step));
    assert_int_equal(step.entries[0].position, 3);
    assert_int_equal(step.entries[0].tokens[0], 42);
    assert_int_equal(step.entries[0].block_count, 0);
    driver_answer(scheduler, &step, 43, 2 * MS);
    assert_token(scheduler, 7, 43);
    assert_finished(scheduler, 7, FINISH_LENGTH);
    assert_silent(scheduler);
    assert_false(scheduler_next(scheduler, 2 * MS, &step));
    assert_int_equal(driver_stats_of(scheduler).kv_blocks_used, 0);
    assert_int_equal(driver_stats_of(scheduler).generated_tokens, 2);
    assert_int_equal(driver_stats_of(scheduler).prompt_tokens, 3);
    scheduler_destroy(scheduler);
}

static void an_end_token_stops_and_is_not_delivered(void **state)
{
    struct scheduler_config config = driver_config_small();
    struct scheduler *scheduler = scheduler_create(&config);
    struct step step;

    (void)state;
    driver_add(scheduler, 1, 3, 9);
    assert_true(scheduler_next(scheduler, 0, &step));
    driver_answer(scheduler, &step, 5, MS);
    assert_finished(scheduler, 1, FINISH_STOP);
    assert_silent(scheduler);
    scheduler_destroy(scheduler);
}

static void ignore_eos_delivers_end_tokens(void **state)
{
    struct scheduler_config config = driver_config_small();
    struct scheduler *scheduler = scheduler_create(&config);
    uint32_t prompt = 11;
    struct scheduler_request request = {
        .sequence = 1, .prompt = &prompt, .prompt_count = 1, .tokens_max = 1, .ignore_eos = true};
    struct error err;
    struct step step;

    (void)state;
    assert_true(scheduler_submit(scheduler, &request, 0, &err));
    assert_true(scheduler_next(scheduler, 0, &step));
    driver_answer(scheduler, &step, 5, MS);
    assert_token(scheduler, 1, 5);
    assert_finished(scheduler, 1, FINISH_LENGTH);
    scheduler_destroy(scheduler);
}

static void prefill_only_wants_no_sample_and_cuts_entries_for_logits(void **state)
{
    struct scheduler_config config = driver_config_small();
    struct scheduler *scheduler = scheduler_create(&config);
    uint32_t prompt[6] = {1, 2, 3, 4, 5, 6};
    struct scheduler_request request = {
        .sequence = 1, .prompt = prompt, .prompt_count = 6, .wants = WANT_LOGITS};
    struct error err;
    struct step step;

    (void)state;
    assert_true(scheduler_submit(scheduler, &request, 0, &err));
    assert_true(scheduler_next(scheduler, 0, &step));
    assert_int_equal(step.entries[0].token_count, 4);
    assert_int_equal(step.entries[0].wants, WANT_LOGITS);
    driver_answer(scheduler, &step, 0, MS);
    assert_silent(scheduler);
    assert_true(scheduler_next(scheduler, MS, &step));
    assert_int_equal(step.entries[0].token_count, 2);
    driver_answer(scheduler, &step, 0, 2 * MS);
    assert_finished(scheduler, 1, FINISH_LENGTH);
    scheduler_destroy(scheduler);
}

static void what_does_not_fit_is_refused_with_figures(void **state)
{
    struct scheduler_config config = driver_config_small();
    struct scheduler *scheduler;
    struct error err;

    (void)state;
    config.context_tokens_max = 300;
    config.kv_block_count = 2;
    scheduler = scheduler_create(&config);
    assert_false(driver_submit(scheduler, 1, 300, 1, &err));
    assert_int_equal(err.code, ERROR_USAGE);
    assert_string_equal(err.message,
                        "the prompt has 300 tokens and wants an answer, the context holds 300");
    assert_false(driver_submit(scheduler, 1, 0, 1, &err));
    assert_int_equal(err.code, ERROR_USAGE);
    assert_false(driver_submit(scheduler, 1, 100, 29, &err));
    assert_int_equal(err.code, ERROR_USAGE);
    assert_string_equal(err.message, "prompt of 100 tokens and up to 29 new ones need 3 KV blocks "
                                     "of 64 tokens, there are 2");
    driver_add(scheduler, 1, 100, 28);
    assert_false(driver_submit(scheduler, 1, 1, 1, &err));
    assert_string_equal(err.message, "sequence 1 is in use");
    driver_add(scheduler, 2, 1, 1);
    driver_add(scheduler, 3, 1, 1);
    driver_add(scheduler, 4, 1, 1);
    assert_false(driver_submit(scheduler, 5, 1, 1, &err));
    assert_int_equal(err.code, ERROR_LIMIT);
    assert_string_equal(err.message, "the queue is full: 4 requests are waiting");
    scheduler_destroy(scheduler);
}

static void a_big_request_at_the_head_is_not_overtaken(void **state)
{
    struct scheduler_config config = driver_config_small();
    struct scheduler *scheduler;
    struct step step;

    (void)state;
    config.kv_block_count = 3;
    scheduler = scheduler_create(&config);
    driver_add(scheduler, 1, 65, 1);  /* two blocks */
    driver_add(scheduler, 2, 129, 1); /* three: must wait */
    driver_add(scheduler, 3, 1, 1);   /* one would be free */
    while (scheduler_next(scheduler, 0, &step)) {
        assert_int_equal(step.entry_count, 1);
        assert_int_equal(step.entries[0].sequence, 1);
        driver_answer(scheduler, &step, 42, MS);
        if (driver_stats_of(scheduler).waiting < 2 || driver_stats_of(scheduler).finished == 1) {
            break;
        }
    }
    assert_true(scheduler_next(scheduler, MS, &step));
    assert_int_equal(step.entries[0].sequence, 2);
    assert_int_equal(driver_stats_of(scheduler).waiting, 1);
    scheduler_destroy(scheduler);
}

static void sequences_go_to_the_lane_with_most_room(void **state)
{
    struct scheduler_config config = driver_config_small();
    struct scheduler *scheduler;
    struct step step;

    (void)state;
    config.lane_count = 2;
    config.step_rows_max = 512;
    scheduler = scheduler_create(&config);
    driver_add(scheduler, 1, 200, 10);
    driver_add(scheduler, 2, 10, 1);
    driver_add(scheduler, 3, 10, 1);
    assert_true(scheduler_next(scheduler, 0, &step));
    assert_int_equal(step.entry_count, 3);
    assert_int_equal(step.entries[0].lane, 0);
    assert_int_equal(step.entries[1].lane, 1);
    assert_int_equal(step.entries[2].lane, 1);
    scheduler_destroy(scheduler);
}

static void a_cancelled_sequence_leaves_at_once_but_its_blocks_wait_for_the_step(void **state)
{
    struct scheduler_config config = driver_config_small();
    struct scheduler *scheduler = scheduler_create(&config);
    struct step step;
    struct error err;
    seq_id id;
    uint32_t position;

    (void)state;
    driver_add(scheduler, 1, 3, 9);
    assert_true(scheduler_next(scheduler, 0, &step));
    scheduler_cancel(scheduler, 1, MS);
    assert_finished(scheduler, 1, FINISH_CANCELLED);
    assert_int_equal(driver_stats_of(scheduler).kv_blocks_used, 1);
    assert_true(scheduler_check(scheduler, &err));
    assert_true(scheduler_step_entry(scheduler, step.number, 0, &id, &position));
    assert_int_equal(id, 1);
    assert_false(scheduler_step_entry(scheduler, step.number, 1, &id, &position));
    scheduler_cancel(scheduler, 1, MS); /* unknown by now */
    driver_answer(scheduler, &step, 42, 2 * MS);
    assert_silent(scheduler);
    assert_int_equal(driver_stats_of(scheduler).kv_blocks_used, 0);
    assert_int_equal(driver_stats_of(scheduler).cancelled, 1);
    assert_false(scheduler_step_entry(scheduler, step.number, 0, &id, &position));
    scheduler_destroy(scheduler);
}

static void an_id_may_be_used_again_while_its_cancelled_sequence_leaves(void **state)
{
    struct scheduler_config config = driver_config_small();
    struct scheduler *scheduler = scheduler_create(&config);
    struct step step;

    (void)state;
    driver_add(scheduler, 1, 3, 9);
    assert_true(scheduler_next(scheduler, 0, &step));
    scheduler_cancel(scheduler, 1, MS);
    assert_finished(scheduler, 1, FINISH_CANCELLED);
    driver_add(scheduler, 1, 4, 1);
    driver_answer(scheduler, &step, 42, MS);
    assert_silent(scheduler);
    assert_true(scheduler_next(scheduler, MS, &step));
    assert_int_equal(step.entries[0].token_count, 4);
    driver_answer(scheduler, &step, 43, 2 * MS);
    assert_token(scheduler, 1, 43);
    assert_finished(scheduler, 1, FINISH_LENGTH);
    scheduler_destroy(scheduler);
}

static void a_waiting_sequence_is_cancelled_in_the_queue(void **state)
{
    struct scheduler_config config = driver_config_small();
    struct scheduler *scheduler = scheduler_create(&config);
    struct step step;

    (void)state;
    driver_add(scheduler, 1, 3, 9);
    driver_add(scheduler, 2, 3, 9);
    scheduler_cancel(scheduler, 1, 0);
    assert_finished(scheduler, 1, FINISH_CANCELLED);
    assert_true(scheduler_next(scheduler, 0, &step));
    assert_int_equal(step.entry_count, 1);
    assert_int_equal(step.entries[0].sequence, 2);
    scheduler_destroy(scheduler);
}

static void wrong_reports_are_refused_without_effect(void **state)
{
    struct scheduler_config config = driver_config_small();
    struct scheduler *scheduler;
    struct step_sample samples[] = {{.entry = 0, .token = 42}, {.entry = 0, .token = 43}};
    struct step_report report = {.step = 1, .stage = 1, .sample_count = 2, .samples = samples};
    struct step step;
    struct error err;

    (void)state;
    config.stage_count = 2;
    scheduler = scheduler_create(&config);
    driver_add(scheduler, 1, 3, 1);
    assert_true(scheduler_next(scheduler, 0, &step));
    assert_false(scheduler_report(scheduler, &report, MS, &err)); /* twice the same entry */
    assert_int_equal(err.code, ERROR_PEER);
    samples[0].entry = 1;
    assert_false(scheduler_report(scheduler, &report, MS, &err)); /* no such entry */
    samples[0].entry = 0;
    report.sample_count = 0;
    assert_false(scheduler_report(scheduler, &report, MS, &err)); /* a sample is missing */
    assert_string_equal(err.message, "step 1: 0 samples of 1");
    report.sample_count = 1;
    report.stage = 0;
    assert_false(scheduler_report(scheduler, &report, MS, &err)); /* not the last stage */
    report.stage = 2;
    assert_false(scheduler_report(scheduler, &report, MS, &err)); /* no such stage */
    report.stage = 1;
    report.member = 1;
    assert_false(scheduler_report(scheduler, &report, MS, &err)); /* no such member */
    report.member = 0;
    assert_true(scheduler_report(scheduler, &report, MS, &err));
    assert_silent(scheduler); /* stage 0 has not answered */
    assert_true(scheduler_report(scheduler, &report, MS, &err));
    assert_int_equal(driver_stats_of(scheduler).ignored_reports, 1);
    report.stage = 0;
    report.sample_count = 0;
    assert_true(scheduler_report(scheduler, &report, MS, &err));
    assert_token(scheduler, 1, 42);
    assert_finished(scheduler, 1, FINISH_LENGTH);
    assert_true(scheduler_report(scheduler, &report, MS, &err));
    assert_int_equal(driver_stats_of(scheduler).ignored_reports, 2);
    scheduler_destroy(scheduler);
}

static void fail_all_ends_everything_and_work_goes_on_after_it(void **state)
{
    struct scheduler_config config = driver_config_small();
    struct scheduler *scheduler = scheduler_create(&config);
    struct step step, lost;
    struct error err;

    (void)state;
    config.slot_count = 1;
    driver_add(scheduler, 1, 20, 9);
    driver_add(scheduler, 2, 3, 9);
    assert_true(scheduler_next(scheduler, 0, &lost));
    scheduler_cancel(scheduler, 2, 0);
    assert_finished(scheduler, 2, FINISH_CANCELLED);
    scheduler_fail_all(scheduler, MS);
    assert_finished(scheduler, 1, FINISH_FAILED);
    assert_silent(scheduler);
    assert_int_equal(driver_stats_of(scheduler).kv_blocks_used, 0);
    assert_int_equal(driver_stats_of(scheduler).steps_in_flight, 0);
    assert_true(scheduler_deadline_ns(scheduler) == INT64_MAX);
    assert_true(scheduler_check(scheduler, &err));
    driver_add(scheduler, 1, 3, 1);
    assert_true(scheduler_next(scheduler, 2 * MS, &step));
    assert_true(step.number > lost.number);
    driver_answer(scheduler, &step, 42, 3 * MS);
    assert_token(scheduler, 1, 42);
    scheduler_destroy(scheduler);
}

/* One sequence decodes, one prefills with a step in flight, one waits, one has been cancelled. */
static void sequences_outlive_their_placement(void **state)
{
    struct scheduler_config config = driver_config_small();
    struct scheduler *scheduler = scheduler_create(&config);
    struct step step;
    struct error err;

    (void)state;
    driver_add(scheduler, 1, 3, 3);
    assert_true(scheduler_next(scheduler, 0, &step));
    driver_answer(scheduler, &step, 42, MS);
    assert_token(scheduler, 1, 42);
    driver_add(scheduler, 2, 20, 9);
    driver_add(scheduler, 3, 400, 9);
    assert_true(scheduler_next(scheduler, MS, &step));
    scheduler_cancel(scheduler, 2, MS);
    assert_finished(scheduler, 2, FINISH_CANCELLED);
    assert_int_equal(scheduler_context_needed(scheduler), 409);

    scheduler_suspend(scheduler, 2 * MS);
    assert_silent(scheduler);
    assert_int_equal(driver_stats_of(scheduler).waiting, 2);
    assert_int_equal(driver_stats_of(scheduler).steps_in_flight, 0);
    assert_false(scheduler_next(scheduler, 2 * MS, &step));
    driver_add(scheduler, 4, 2, 1);
    assert_true(scheduler_check(scheduler, &err));

    config.kv_block_count = 5; /* not enough for 409 tokens */
    config.lane_count = 2;
    config.slot_count = 9;
    config.epoch = 77;
    scheduler_resume(scheduler, &config, 3 * MS);
    assert_finished(scheduler, 3, FINISH_FAILED);
    assert_true(scheduler_next(scheduler, 3 * MS, &step));
    assert_int_equal(step.epoch, 77);
    assert_int_equal(step.entry_count, 2);
    assert_int_equal(step.entries[0].sequence, 1);
    assert_int_equal(step.entries[0].token_count, 4); /* its prompt, and the token that it had */
    assert_int_equal(step.entries[0].tokens[3], 42);
    assert_int_equal(step.entries[0].generated_begin, 3);
    assert_int_equal(step.entries[1].sequence, 4);
    assert_true(scheduler_check(scheduler, &err));
    scheduler_destroy(scheduler);
}

static void steps_are_overdue_after_ten_times_the_measured_time(void **state)
{
    struct scheduler_config config = driver_config_small();
    struct scheduler *scheduler = scheduler_create(&config);
    struct step step;
    uint64_t overdue;
    int64_t now = 0;

    (void)state;
    assert_true(scheduler_deadline_ns(scheduler) == INT64_MAX);
    driver_add(scheduler, 1, 1, 100);
    assert_true(scheduler_next(scheduler, now, &step));
    /* Nothing is measured: a minute, and four seconds for the row. */
    assert_true(scheduler_deadline_ns(scheduler) == 64000 * MS);
    for (uint32_t i = 0; i < 50; i++) {
        now += 500 * MS;
        driver_answer(scheduler, &step, 42, now);
        assert_true(scheduler_next(scheduler, now, &step));
    }
    assert_true(scheduler_deadline_ns(scheduler) == now + 5000 * MS);
    assert_false(scheduler_overdue(scheduler, now + 4999 * MS, &overdue));
    assert_true(scheduler_overdue(scheduler, now + 5000 * MS, &overdue));
    assert_int_equal(overdue, step.number);
    scheduler_destroy(scheduler);
}

/* A large model on few cores: the first prompt takes minutes. */
static void the_first_steps_may_take_seconds_for_each_row(void **state)
{
    struct scheduler_config config = driver_config_small();
    struct scheduler *scheduler;
    struct step step;

    (void)state;
    config.step_rows_max = 512;
    scheduler = scheduler_create(&config);
    driver_add(scheduler, 1, 300, 5);
    assert_true(scheduler_next(scheduler, 0, &step));
    assert_int_equal(step.entries[0].token_count, 300);
    assert_true(scheduler_deadline_ns(scheduler) == 1260000 * MS);
    scheduler_destroy(scheduler);
}

static void a_prompt_is_cut_to_keep_both_stages_busy(void **state)
{
    struct scheduler_config config = driver_config_small();
    struct scheduler *scheduler;
    struct step step;

    (void)state;
    config.stage_count = 2;
    config.step_rows_max = 512;
    scheduler = scheduler_create(&config);
    driver_add(scheduler, 1, 300, 5);
    assert_true(scheduler_next(scheduler, 0, &step));
    assert_int_equal(step.entries[0].token_count, 100); /* 4 (32 + 100) < 3 (32 + 150) */
    assert_int_equal(step.entries[0].block_count, 2);
    assert_int_equal(step.entries[0].wants, 0);
    assert_true(scheduler_next(scheduler, 0, &step));
    assert_int_equal(step.entries[0].position, 100);
    assert_int_equal(step.entries[0].token_count, 100);
    assert_int_equal(step.entries[0].block_begin, 2);
    assert_int_equal(step.entries[0].block_count, 2);
    assert_int_equal(step.entries[0].wants, 0);
    assert_false(scheduler_next(scheduler, 0, &step));
    scheduler_destroy(scheduler);
}

static uint64_t tokens_received(const struct sim *sim)
{
    uint64_t tokens = 0;

    for (uint32_t i = 0; i < sim->client_count; i++) {
        tokens += sim->clients[i].known - sim->clients[i].request.prompt_count;
    }
    return tokens;
}

static void run_until(struct sim *sim, int64_t end_ns)
{
    while (sim->now_ns < end_ns) {
        assert_true(sim->report_count > 0);
        sim_report(sim);
    }
}

/* How a cluster with so many stages decodes 16 sequences; the tokens that come in the window. */
static uint64_t decode_sixteen(struct sim *sim, uint32_t stages, const struct sim_timing *timing)
{
    struct scheduler_config config = {
        .lane_count = 1,
        .stage_count = stages,
        .slot_count = 16,
        .kv_block_count = 16 * 8,
        .context_tokens_max = 512,
        .step_rows_max = 512,
        .steps_in_flight_max = stages + 2,
        .queue_max = 64,
    };
    uint64_t tokens_before;

    sim_init(sim, 1, &config, timing);
    sim->window_begin_ns = 300 * MS;
    sim->window_end_ns = 1800 * MS;
    for (uint32_t i = 0; i < 16; i++) {
        (void)sim_submit(sim, &(struct sim_request){.prompt_count = 10 + i * 7 % 50,
                                                    .tokens_max = 400,
                                                    .ignore_eos = true});
        sim_settle(sim);
        while (i % 3 != 0 && sim->report_count > 0 && sim->reports[0].when_ns < (int64_t)i * MS) {
            sim_report(sim); /* arrivals are spread over the first steps */
        }
    }
    run_until(sim, sim->window_begin_ns);
    tokens_before = tokens_received(sim);
    run_until(sim, sim->window_end_ns);
    return tokens_received(sim) - tokens_before;
}

static uint32_t busy_percent(const struct sim *sim, uint32_t stage)
{
    return (uint32_t)(sim->busy_ns[stage] * 100 / (sim->window_end_ns - sim->window_begin_ns));
}

static void two_equal_stages_are_busy_more_than_nine_tenths_of_the_time(void **state)
{
    static const int64_t turns_ns[] = {0, MS / 10, MS / 2, 7 * MS / 10};

    (void)state;
    for (size_t i = 0; i < sizeof(turns_ns) / sizeof(turns_ns[0]); i++) {
        for (uint32_t jitter = 0; jitter <= 10; jitter += 5) {
            struct sim_timing timing = {.stage_ns = {4 * MS, 4 * MS},
                                        .row_ns = {MS / 8, MS / 8},
                                        .turn_ns = turns_ns[i],
                                        .jitter_percent = jitter};
            struct sim sim;

            (void)decode_sixteen(&sim, 2, &timing);
            print_message("turn %.1f ms, jitter %u %%: busy %u %% and %u %%, %u to %u rows\n",
                          (double)turns_ns[i] / MS, jitter, busy_percent(&sim, 0),
                          busy_percent(&sim, 1), sim.decode_rows_min, sim.decode_rows_max);
            assert_true(busy_percent(&sim, 0) > 90);
            assert_true(busy_percent(&sim, 1) > 90);
            sim_deinit(&sim);
        }
    }
}

/* A third step in flight would hide the turn and read the weights once more: when it pays depends
 * on the turn. */
static void a_long_turn_is_hidden_only_where_that_brings_tokens(void **state)
{
    (void)state;
    for (int64_t turn_ns = MS; turn_ns <= 9 * MS; turn_ns += 2 * MS) {
        struct sim_timing timing = {
            .stage_ns = {4 * MS, 4 * MS}, .row_ns = {MS / 8, MS / 8}, .turn_ns = turn_ns};
        int64_t round_ns = INT64_MAX; /* of all sequences, at the best number of steps */
        struct sim sim;
        double share;

        for (int64_t steps = 1; steps <= 4; steps++) {
            int64_t stage_ns = 4 * MS + (16 + steps - 1) / steps * MS / 8;
            int64_t passage_ns = 2 * stage_ns + turn_ns;
            int64_t cycle_ns = steps * stage_ns > passage_ns ? steps * stage_ns : passage_ns;

            round_ns = cycle_ns < round_ns ? cycle_ns : round_ns;
        }
        share = (double)decode_sixteen(&sim, 2, &timing) * (double)round_ns / 16 /
                (double)(sim.window_end_ns - sim.window_begin_ns);
        print_message("turn %d ms: %.2f of the best number's tokens\n", (int)(turn_ns / MS), share);
        assert_true(share > 0.95);
        sim_deinit(&sim);
    }
}

static void one_stage_keeps_its_batch_whole(void **state)
{
    struct sim_timing timing = {.stage_ns = {4 * MS}, .row_ns = {MS / 16}, .turn_ns = MS / 2};
    struct sim sim;

    (void)state;
    (void)decode_sixteen(&sim, 1, &timing);
    assert_int_equal(sim.decode_rows_min, 16);
    assert_true(busy_percent(&sim, 0) > 85);
    sim_deinit(&sim);
}

static void four_stages_share_sixteen_sequences_evenly(void **state)
{
    struct sim_timing timing = {
        .stage_ns = {4 * MS, 4 * MS, 4 * MS, 4 * MS}, .turn_ns = MS / 4, .jitter_percent = 3};
    struct sim sim;

    (void)state;
    (void)decode_sixteen(&sim, 4, &timing);
    assert_true(sim.decode_rows_min >= 3);
    for (uint32_t stage = 0; stage < 4; stage++) {
        assert_true(busy_percent(&sim, stage) > 90);
    }
    sim_deinit(&sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sequence_prefills_decodes_and_ends_at_its_limit),
        cmocka_unit_test(an_end_token_stops_and_is_not_delivered),
        cmocka_unit_test(ignore_eos_delivers_end_tokens),
        cmocka_unit_test(prefill_only_wants_no_sample_and_cuts_entries_for_logits),
        cmocka_unit_test(what_does_not_fit_is_refused_with_figures),
        cmocka_unit_test(a_big_request_at_the_head_is_not_overtaken),
        cmocka_unit_test(sequences_go_to_the_lane_with_most_room),
        cmocka_unit_test(a_cancelled_sequence_leaves_at_once_but_its_blocks_wait_for_the_step),
        cmocka_unit_test(an_id_may_be_used_again_while_its_cancelled_sequence_leaves),
        cmocka_unit_test(a_waiting_sequence_is_cancelled_in_the_queue),
        cmocka_unit_test(wrong_reports_are_refused_without_effect),
        cmocka_unit_test(sequences_outlive_their_placement),
        cmocka_unit_test(fail_all_ends_everything_and_work_goes_on_after_it),
        cmocka_unit_test(steps_are_overdue_after_ten_times_the_measured_time),
        cmocka_unit_test(the_first_steps_may_take_seconds_for_each_row),
        cmocka_unit_test(a_prompt_is_cut_to_keep_both_stages_busy),
        cmocka_unit_test(two_equal_stages_are_busy_more_than_nine_tenths_of_the_time),
        cmocka_unit_test(a_long_turn_is_hidden_only_where_that_brings_tokens),
        cmocka_unit_test(one_stage_keeps_its_batch_whole),
        cmocka_unit_test(four_stages_share_sixteen_sequences_evenly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
