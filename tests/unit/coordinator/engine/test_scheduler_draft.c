/* test_scheduler_draft.c - drafts: what stands, what falls, and what is asked for next. */
#include "tests/unit/coordinator/engine/scheduler_driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct scheduler_config config_of(enum draft_mode mode)
{
    struct scheduler_config config = driver_config_small();

    config.draft_mode = mode;
    config.draft_max = 3;
    return config;
}

/* The only worker answers the step's only entry, with proposals perhaps. */
static bool answer(struct scheduler *scheduler, const struct step *step, const uint32_t *tokens,
                   const struct step_proposal *proposal, struct error *err)
{
    struct step_sample samples[8];
    struct step_report report = {.step = step->number,
                                 .compute_ns = MS,
                                 .samples = samples,
                                 .proposal_count = proposal != NULL,
                                 .proposals = proposal};

    assert_int_equal(step->entry_count, 1);
    for (uint32_t i = 0; i <= step->entries[0].draft_count; i++) {
        samples[report.sample_count++] = (struct step_sample){.index = i, .token = tokens[i]};
    }
    return scheduler_report(scheduler, &report, (int64_t)step->number * MS, err) &&
           scheduler_check(scheduler, err);
}

static void must_answer(struct scheduler *scheduler, const struct step *step,
                        const uint32_t *tokens, const struct step_proposal *proposal)
{
    struct error err;

    if (!answer(scheduler, step, tokens, proposal, &err)) {
        fail_msg("%s", err.message);
    }
}

/* A sequence 1 whose prompt of 3 tokens is computed, and which has these proposals. */
static struct scheduler *scheduler_drafting(uint32_t tokens_max, const uint32_t *proposed,
                                            uint32_t count, struct step *step)
{
    struct scheduler_config config = config_of(DRAFT_LAYER);
    struct scheduler *scheduler = scheduler_create(&config);
    struct step_proposal proposal = {.count = count, .tokens = proposed};
    uint32_t token = 10;

    driver_add(scheduler, 1, 3, tokens_max);
    assert_true(scheduler_next(scheduler, 0, step));
    /* Nothing is measured yet: one draft is tried. */
    assert_int_equal(step->entries[0].propose_max, tokens_max > 2 ? 1 : 0);
    must_answer(scheduler, step, &token, count > 0 ? &proposal : NULL);
    assert_token(scheduler, 1, 10);
    assert_silent(scheduler);
    assert_true(scheduler_next(scheduler, 0, step));
    return scheduler;
}

static void a_right_draft_gives_two_tokens(void **state)
{
    uint32_t proposed[] = {11};
    uint32_t tokens[] = {11, 12};
    struct step step;
    struct scheduler *scheduler = scheduler_drafting(9, proposed, 1, &step);

    (void)state;
    assert_int_equal(step.entries[0].position, 3);
    assert_int_equal(step.entries[0].token_count, 2);
    assert_int_equal(step.entries[0].draft_count, 1);
    assert_int_equal(step.entries[0].tokens[0], 10);
    assert_int_equal(step.entries[0].tokens[1], 11);
    assert_int_equal(step.entries[0].next_token, STEP_TOKEN_NONE);
    must_answer(scheduler, &step, tokens, NULL);
    assert_token(scheduler, 1, 11);
    assert_token(scheduler, 1, 12);
    assert_silent(scheduler);
    assert_int_equal(driver_stats_of(scheduler).drafted, 1);
    assert_int_equal(driver_stats_of(scheduler).accepted, 1);
    assert_true(scheduler_next(scheduler, 0, &step));
    assert_int_equal(step.entries[0].position, 5);
    assert_int_equal(step.entries[0].tokens[0], 12);
    assert_int_equal(step.entries[0].draft_count, 0);
    scheduler_destroy(scheduler);
}

static void a_wrong_draft_s_row_is_computed_again(void **state)
{
    uint32_t proposed[] = {99};
    uint32_t tokens[] = {11, 12};
    struct step step;
    struct scheduler *scheduler = scheduler_drafting(9, proposed, 1, &step);

    (void)state;
    must_answer(scheduler, &step, tokens, NULL);
    assert_token(scheduler, 1, 11);
    assert_silent(scheduler);
    assert_int_equal(driver_stats_of(scheduler).accepted, 0);
    assert_true(scheduler_next(scheduler, 0, &step));
    assert_int_equal(step.entries[0].position, 4);
    assert_int_equal(step.entries[0].tokens[0], 11);
    scheduler_destroy(scheduler);
}

static void an_end_token_among_the_drafts_ends_the_sequence(void **state)
{
    uint32_t proposed[] = {5}; /* an end token */
    uint32_t tokens[] = {5, 12};
    struct step step;
    struct scheduler *scheduler = scheduler_drafting(9, proposed, 1, &step);

    (void)state;
    must_answer(scheduler, &step, tokens, NULL);
    assert_finished(scheduler, 1, FINISH_STOP);
    assert_silent(scheduler);
    scheduler_destroy(scheduler);
}

static void drafts_never_exceed_the_token_limit(void **state)
{
    uint32_t proposed[] = {11};
    uint32_t tokens[] = {11, 12};
    struct step step;
    struct scheduler *scheduler = scheduler_drafting(3, proposed, 1, &step);

    (void)state;
    assert_int_equal(step.entries[0].draft_count, 1); /* tokens 2 and 3 may come at once */
    assert_int_equal(step.entries[0].propose_max, 0); /* and then none is left to guess */
    must_answer(scheduler, &step, tokens, NULL);
    assert_token(scheduler, 1, 11);
    assert_token(scheduler, 1, 12);
    assert_finished(scheduler, 1, FINISH_LENGTH);
    scheduler_destroy(scheduler);
    scheduler = scheduler_drafting(2, NULL, 0, &step); /* asks for no proposal */
    assert_int_equal(step.entries[0].draft_count, 0);
    scheduler_destroy(scheduler);
}

static void proposals_that_were_not_asked_for_are_refused_without_effect(void **state)
{
    uint32_t proposed[] = {11, 12, 13};
    uint32_t tokens[] = {11};
    struct step_proposal proposal = {.count = 2, .tokens = proposed};
    struct step step;
    struct scheduler *scheduler = scheduler_drafting(9, NULL, 0, &step);
    struct error err;

    (void)state;
    assert_false(answer(scheduler, &step, tokens, &proposal, &err));
    assert_int_equal(err.code, ERROR_PEER);
    assert_string_equal(err.message, "step 2: 2 proposals for entry 0, which does not want them");
    proposal = (struct step_proposal){.entry = 1, .count = 1, .tokens = proposed};
    assert_false(answer(scheduler, &step, tokens, &proposal, &err));
    proposal = (struct step_proposal){.count = 1, .tokens = proposed};
    must_answer(scheduler, &step, tokens, &proposal);
    assert_token(scheduler, 1, 11);
    scheduler_destroy(scheduler);
}

static void a_sample_of_no_row_is_refused(void **state)
{
    uint32_t proposed[] = {11};
    struct step_sample samples[] = {{.index = 0, .token = 11}, {.index = 2, .token = 12}};
    struct step step;
    struct scheduler *scheduler = scheduler_drafting(9, proposed, 1, &step);
    struct step_report report = {.step = step.number, .sample_count = 2, .samples = samples};
    struct error err;

    (void)state;
    assert_false(scheduler_report(scheduler, &report, MS, &err));
    assert_string_equal(err.message, "step 2: sample 2 for entry 0, which does not want it");
    samples[1].index = 1;
    assert_true(scheduler_report(scheduler, &report, MS, &err));
    scheduler_destroy(scheduler);
}

static void sequences_that_want_their_rows_have_no_drafts(void **state)
{
    struct scheduler_config config = config_of(DRAFT_LAYER);
    struct scheduler *scheduler = scheduler_create(&config);
    uint32_t prompt[] = {7, 8, 7, 8};
    struct scheduler_request request = {
        .sequence = 1, .prompt = prompt, .prompt_count = 4, .tokens_max = 9, .wants = WANT_LOGITS};
    struct step step;

    (void)state;
    driver_add_request(scheduler, &request, 0);
    assert_true(scheduler_next(scheduler, 0, &step));
    assert_int_equal(step.entries[0].propose_max, 0);
    scheduler_destroy(scheduler);
}

static void a_repeated_text_is_looked_up(void **state)
{
    struct scheduler_config config = config_of(DRAFT_LOOKUP);
    struct scheduler *scheduler = scheduler_create(&config);
    uint32_t prompt[] = {21, 22, 23, 24, 21, 22, 23};
    struct scheduler_request request = {
        .sequence = 1, .prompt = prompt, .prompt_count = 7, .tokens_max = 9};
    uint32_t tokens[] = {24, 0};
    struct step step;

    (void)state;
    driver_add_request(scheduler, &request, 0);
    assert_true(scheduler_next(scheduler, 0, &step));
    assert_int_equal(step.entries[0].propose_max, 0);
    must_answer(scheduler, &step, tokens, NULL);
    assert_token(scheduler, 1, 24);
    assert_true(scheduler_next(scheduler, 0, &step));
    assert_int_equal(step.entries[0].draft_count, 1);
    assert_int_equal(step.entries[0].tokens[1], 21);
    tokens[0] = 21;
    tokens[1] = 22;
    must_answer(scheduler, &step, tokens, NULL);
    assert_token(scheduler, 1, 21);
    assert_token(scheduler, 1, 22);
    assert_silent(scheduler);
    scheduler_destroy(scheduler);
}

/* Looking up thousands of tokens must not hold the next step up. */
static void a_long_prompt_is_made_known_over_several_steps(void **state)
{
    struct scheduler_config config = config_of(DRAFT_LOOKUP);
    struct scheduler *scheduler;
    uint32_t prompt[3000];
    struct scheduler_request request = {
        .sequence = 1, .prompt = prompt, .prompt_count = 3000, .tokens_max = 99};
    uint32_t tokens[] = {21, 22, 23, 24};
    struct step step;

    (void)state;
    config.context_tokens_max = 4096;
    config.kv_block_count = 64;
    config.step_rows_max = 4096;
    scheduler = scheduler_create(&config);
    for (uint32_t i = 0; i < 3000; i++) {
        prompt[i] = 21 + i % 4; /* the last is 24 */
    }
    driver_add_request(scheduler, &request, 0);
    assert_true(scheduler_next(scheduler, 0, &step));
    assert_int_equal(step.entries[0].token_count, 3000);
    for (uint32_t i = 0; i < 2; i++) {
        must_answer(scheduler, &step, &tokens[i], NULL);
        assert_true(scheduler_next(scheduler, 0, &step));
        assert_int_equal(step.entries[0].draft_count, 0);
    }
    must_answer(scheduler, &step, &tokens[2], NULL);
    assert_true(scheduler_next(scheduler, 0, &step));
    assert_int_equal(step.entries[0].draft_count, 1);
    assert_int_equal(step.entries[0].tokens[1], 24);
    scheduler_destroy(scheduler);
}

static void drafts_leave_rows_for_every_sequence_of_a_step(void **state)
{
    struct scheduler_config config = config_of(DRAFT_LOOKUP);
    struct scheduler *scheduler;
    uint32_t prompt[] = {1, 1, 1, 1};
    struct step step;

    (void)state;
    config.step_rows_max = 12;
    config.steps_in_flight_max = 1;
    scheduler = scheduler_create(&config);
    for (uint32_t i = 0; i < 3; i++) {
        struct scheduler_request request = {
            .sequence = i, .prompt = prompt, .prompt_count = 4, .tokens_max = 99};

        driver_add_request(scheduler, &request, 0);
    }
    for (uint32_t i = 0; i < 60; i++) {
        assert_true(scheduler_next(scheduler, i * MS, &step));
        assert_true(step_row_count(&step) <= 12);
        assert_int_equal(step.entry_count, 3);
        driver_answer(scheduler, &step, 1, (i + 1) * MS);
        while (scheduler_outcome(scheduler, &(struct outcome){0})) {
        }
        if (driver_stats_of(scheduler).finished > 0) {
            break;
        }
    }
    assert_int_equal(driver_stats_of(scheduler).drafted, driver_stats_of(scheduler).accepted);
    assert_true(driver_stats_of(scheduler).accepted > 50);
    scheduler_destroy(scheduler);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_right_draft_gives_two_tokens),
        cmocka_unit_test(a_wrong_draft_s_row_is_computed_again),
        cmocka_unit_test(an_end_token_among_the_drafts_ends_the_sequence),
        cmocka_unit_test(drafts_never_exceed_the_token_limit),
        cmocka_unit_test(proposals_that_were_not_asked_for_are_refused_without_effect),
        cmocka_unit_test(a_sample_of_no_row_is_refused),
        cmocka_unit_test(sequences_that_want_their_rows_have_no_drafts),
        cmocka_unit_test(a_repeated_text_is_looked_up),
        cmocka_unit_test(a_long_prompt_is_made_known_over_several_steps),
        cmocka_unit_test(drafts_leave_rows_for_every_sequence_of_a_step),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
