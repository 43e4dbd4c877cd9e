/* test_scheduler_memory.c - blocks on demand, preemption, shared prompt beginnings. */
#include "tests/unit/coordinator/engine/scheduler_driver.h"
#include "tests/unit/coordinator/engine/sim_cluster.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct sim_timing timing = {
    .stage_ns = {MS, MS}, .row_ns = {MS / 100, MS / 100}, .turn_ns = MS / 10};

static struct scheduler_config config_of(uint32_t blocks)
{
    return (struct scheduler_config){
        .lane_count = 1,
        .stage_count = 2,
        .slot_count = 64,
        .kv_block_count = blocks,
        .context_tokens_max = 2048,
        .step_rows_max = 512,
        .steps_in_flight_max = 4,
        .queue_max = 64,
        .prefix_cache = true,
    };
}

static void submit(struct sim *sim, const struct sim_request *request)
{
    assert_true(sim_submit(sim, request));
}

static void sixty_four_requests_with_one_beginning_compute_it_once(void **state)
{
    (void)state;
    for (uint32_t rows_max = 100; rows_max <= 512; rows_max += 103) {
        struct scheduler_config config = config_of(1024);
        struct sim sim;
        uint64_t cached;

        config.step_rows_max = rows_max;
        sim_init(&sim, 1, &config, &timing);
        for (uint32_t i = 0; i < 64; i++) {
            submit(&sim, &(struct sim_request){
                             .prompt_count = 1050, .shared_count = 1000, .tokens_max = 3});
        }
        sim_settle(&sim);
        sim_run_out(&sim);
        cached = 1000 / PLAN_BLOCK_TOKENS * PLAN_BLOCK_TOKENS;
        assert_int_equal(driver_stats_of(sim.scheduler).prompt_rows_computed,
                         cached + 64 * (1050 - cached));
        assert_int_equal(driver_stats_of(sim.scheduler).prefix_hit_tokens, 63 * cached);
        assert_int_equal(driver_stats_of(sim.scheduler).prefix_query_tokens, 64 * 1050);
        assert_int_equal(driver_stats_of(sim.scheduler).prompt_tokens, 64 * 1050);
        sim_deinit(&sim);
    }
}

/* Runs one request alone and returns how many of its tokens were cached. */
static uint32_t cached_of(struct sim *sim, const struct sim_request *request)
{
    uint32_t client = sim->client_count;

    submit(sim, request);
    sim_settle(sim);
    sim_run_out(sim);
    assert_true(sim->clients[client].finished);
    return sim->clients[client].skipped; /* compared with the outcome by the simulation */
}

static void a_beginning_outlives_its_sequence_and_its_last_token_is_computed(void **state)
{
    struct scheduler_config config = config_of(64);
    struct sim_request request = {.prompt_count = 200, .shared_count = 200, .tokens_max = 2};
    struct sim sim;

    (void)state;
    sim_init(&sim, 1, &config, &timing);
    assert_int_equal(cached_of(&sim, &request), 0);
    assert_int_equal(cached_of(&sim, &request), 192);
    request.prompt_count = 128;
    request.shared_count = 128;
    assert_int_equal(cached_of(&sim, &request), 64);
    request.document = 1;
    assert_int_equal(cached_of(&sim, &request), 0);
    sim_deinit(&sim);
}

static void rows_of_which_something_is_wanted_are_computed_but_fill_the_cache(void **state)
{
    struct scheduler_config config = config_of(64);
    struct sim_request plain = {.prompt_count = 200, .shared_count = 200, .tokens_max = 2};
    struct sim_request logits = plain, logprobs = plain, penalty = plain;
    struct sim sim;

    (void)state;
    logits.wants = WANT_LOGITS;
    logprobs.prompt_logprobs = 1;
    penalty.repetition_penalty = 1.2f; /* the last stage knows the tokens of cached blocks */
    sim_init(&sim, 1, &config, &timing);
    assert_int_equal(cached_of(&sim, &logits), 0);
    assert_int_equal(cached_of(&sim, &plain), 192);
    assert_int_equal(cached_of(&sim, &logits), 0);
    assert_int_equal(cached_of(&sim, &logprobs), 0);
    assert_int_equal(cached_of(&sim, &penalty), 192);
    sim_deinit(&sim);
    config.prefix_cache = false;
    sim_init(&sim, 1, &config, &timing);
    assert_int_equal(cached_of(&sim, &plain), 0);
    assert_int_equal(cached_of(&sim, &plain), 0);
    assert_int_equal(driver_stats_of(sim.scheduler).prefix_query_tokens, 0);
    sim_deinit(&sim);
}

static void what_was_not_used_for_longest_is_evicted(void **state)
{
    struct scheduler_config config = config_of(9);
    struct sim_request request = {.prompt_count = 150, .shared_count = 150, .tokens_max = 2};
    struct sim_request other = {.prompt_count = 400, .tokens_max = 2};
    struct sim sim;

    (void)state;
    sim_init(&sim, 1, &config, &timing);
    assert_int_equal(cached_of(&sim, &request), 0);
    request.document = 1;
    assert_int_equal(cached_of(&sim, &request), 0);
    request.document = 0;
    assert_int_equal(cached_of(&sim, &request), 128); /* so that document 1 is the older one */
    assert_int_equal(driver_stats_of(sim.scheduler).evictions, 0);
    assert_int_equal(cached_of(&sim, &other), 0); /* 7 of 9 blocks, 5 are free */
    assert_int_equal(driver_stats_of(sim.scheduler).evictions, 2);
    assert_int_equal(driver_stats_of(sim.scheduler).preemptions, 0);
    assert_int_equal(cached_of(&sim, &request), 128);
    sim_deinit(&sim);
}

static void requests_go_to_the_lane_that_has_their_beginning_unless_it_is_full(void **state)
{
    struct scheduler_config config = config_of(64);
    struct sim_request request = {.prompt_count = 200, .shared_count = 200, .tokens_max = 400};
    struct sim sim;

    (void)state;
    config.lane_count = 4;
    sim_init(&sim, 1, &config, &timing);
    assert_int_equal(cached_of(&sim, &request), 0);
    request.ignore_eos = true;
    for (uint32_t i = 0; i < 6; i++) { /* together */
        submit(&sim, &request);
    }
    sim_settle(&sim);
    for (uint32_t i = 0; i < 20; i++) {
        sim_report(&sim);
    }
    /* The first ones share, the others are worth a lane of their own. */
    assert_true(driver_stats_of(sim.scheduler).prefix_hit_tokens >= 2 * 192);
    sim_run_out(&sim);
    assert_int_equal(cached_of(&sim, &request), 192);
    sim_deinit(&sim);
}

static void the_oldest_sequence_grows_and_the_youngest_gives_way(void **state)
{
    struct scheduler_config config = config_of(6);
    struct sim sim;

    (void)state;
    sim_init(&sim, 1, &config, &timing);
    for (uint32_t i = 0; i < 3; i++) {
        submit(&sim,
               &(struct sim_request){.prompt_count = 10, .tokens_max = 250, .ignore_eos = true});
    }
    sim_settle(&sim);
    sim_run_out(&sim);
    assert_true(driver_stats_of(sim.scheduler).preemptions > 0);
    assert_int_equal(sim.clients[0].admissions, 1);
    assert_true(sim.clients[2].admissions > 1);
    /* Each of them ended, with the tokens of an undisturbed run: the simulation compares them. */
    assert_int_equal(driver_stats_of(sim.scheduler).finished, 3);
    /* The claim keeps thrashing away: a victim is not let in again just to be thrown out. */
    assert_true(driver_stats_of(sim.scheduler).preemptions <= 4);
    sim_deinit(&sim);
}

static void batch_sequences_are_preempted_before_interactive_ones(void **state)
{
    struct scheduler_config config = config_of(6);
    struct sim sim;

    (void)state;
    sim_init(&sim, 1, &config, &timing);
    for (uint32_t i = 0; i < 3; i++) {
        submit(&sim, &(struct sim_request){.prompt_count = 10,
                                           .tokens_max = 180,
                                           .ignore_eos = true,
                                           .request_class =
                                               i == 0 ? REQUEST_BATCH : REQUEST_INTERACTIVE});
    }
    sim_settle(&sim);
    sim_run_out(&sim);
    assert_true(sim.clients[0].admissions > 1);
    assert_int_equal(sim.clients[1].admissions, 1);
    assert_int_equal(sim.clients[2].admissions, 1);
    sim_deinit(&sim);
}

static void a_request_of_all_blocks_runs_alone(void **state)
{
    struct scheduler_config config = config_of(4);
    struct sim sim;

    (void)state;
    sim_init(&sim, 1, &config, &timing);
    for (uint32_t i = 0; i < 3; i++) {
        submit(&sim,
               &(struct sim_request){.prompt_count = 6, .tokens_max = 250, .ignore_eos = true});
    }
    sim_settle(&sim);
    sim_run_out(&sim);
    assert_int_equal(driver_stats_of(sim.scheduler).finished, 3);
    sim_deinit(&sim);
}

/* Looks on how the last sequence is computed again. */
static void recompute_see(struct sim *sim, const struct step *step)
{
    uint32_t *chunks = sim->context;

    for (uint32_t i = 0; i < step->entry_count; i++) {
        const struct step_entry *entry = &step->entries[i];

        if (entry->block_begin == 0 && entry->block_count > 0 && entry->sequence == 2 &&
            sim->clients[2].known > sim->clients[2].request.prompt_count) {
            *chunks += 1;
            assert_true(entry->token_count > 16); /* a prefill, prompt and generated together */
            assert_int_equal(entry->generated_begin, 10);
        }
    }
}

static void a_preempted_sequence_is_computed_again_in_chunks_of_both_classes(void **state)
{
    struct scheduler_config config = config_of(6);
    struct sim sim;
    uint32_t chunks = 0;

    (void)state;
    sim_init(&sim, 1, &config, &timing);
    sim.on_step = recompute_see;
    sim.context = &chunks;
    for (uint32_t i = 0; i < 3; i++) {
        submit(&sim,
               &(struct sim_request){.prompt_count = 10, .tokens_max = 250, .ignore_eos = true});
    }
    sim_settle(&sim);
    sim_run_out(&sim);
    assert_true(chunks > 0);
    sim_deinit(&sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sixty_four_requests_with_one_beginning_compute_it_once),
        cmocka_unit_test(a_beginning_outlives_its_sequence_and_its_last_token_is_computed),
        cmocka_unit_test(rows_of_which_something_is_wanted_are_computed_but_fill_the_cache),
        cmocka_unit_test(what_was_not_used_for_longest_is_evicted),
        cmocka_unit_test(requests_go_to_the_lane_that_has_their_beginning_unless_it_is_full),
        cmocka_unit_test(the_oldest_sequence_grows_and_the_youngest_gives_way),
        cmocka_unit_test(batch_sequences_are_preempted_before_interactive_ones),
        cmocka_unit_test(a_request_of_all_blocks_runs_alone),
        cmocka_unit_test(a_preempted_sequence_is_computed_again_in_chunks_of_both_classes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
