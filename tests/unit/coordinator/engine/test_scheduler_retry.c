/* Further attempts: what is issued again, what answers count, and when it is given up. */
#include "tests/unit/coordinator/engine/scheduler_driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* Two stages, two steps of one prompt in flight. */
static struct scheduler *two_steps_in_flight(struct step steps[2])
{
    struct scheduler_config config = driver_config_small();
    struct scheduler *scheduler;

    config.stage_count = 2;
    scheduler = scheduler_create(&config);
    driver_add(scheduler, 1, 32, 4);
    assert_true(scheduler_next(scheduler, 0, &steps[0]));
    assert_true(scheduler_next(scheduler, 0, &steps[1]));
    return scheduler;
}

static bool answer(struct scheduler *scheduler, uint64_t step, uint32_t attempt, uint32_t stage)
{
    struct step_sample sample = {.token = 42};
    struct step_report report = {.step = step, .attempt = attempt, .stage = stage};
    bool counts = scheduler_awaits(scheduler, &report);
    struct error err;

    if (stage == 1 && step == 2) {
        report.sample_count = 1;
        report.samples = &sample;
    }
    if (!scheduler_report(scheduler, &report, MS, &err)) {
        fail_msg("%s", err.message);
    }
    assert_true(scheduler_check(scheduler, &err));
    return counts;
}

static void retry(struct scheduler *scheduler, int64_t now_ns)
{
    struct error err;

    if (!scheduler_retry(scheduler, now_ns, &err)) {
        fail_msg("%s", err.message);
    }
}

static void all_that_is_in_flight_is_issued_again_in_order(void **state)
{
    struct step first[2], again;
    struct scheduler *scheduler = two_steps_in_flight(first);

    (void)state;
    assert_int_equal(first[1].attempt, 0);
    retry(scheduler, MS);
    assert_int_equal(scheduler_attempt(scheduler), 1);
    for (uint32_t i = 0; i < 2; i++) {
        assert_true(scheduler_next(scheduler, MS, &again));
        assert_int_equal(again.number, i + 1);
        assert_int_equal(again.attempt, 1);
        assert_int_equal(again.entry_count, 1);
        assert_int_equal(again.entries[0].position, 16 * i);
        assert_int_equal(again.entries[0].token_count, 16);
        assert_int_equal(again.entries[0].tokens[0], 1000 + 16 * i);
        assert_int_equal(again.entries[0].block_begin, i); /* the first tells of the block */
        assert_int_equal(again.entries[0].block_count, 1 - i);
        assert_int_equal(again.entries[0].wants, i == 1 ? WANT_SAMPLE : 0);
    }
    assert_false(scheduler_next(scheduler, MS, &again) && again.number < 3);
    assert_int_equal(driver_stats_of(scheduler).steps_reissued, 2);
    assert_int_equal(driver_stats_of(scheduler).steps, 2);
    scheduler_destroy(scheduler);
}

static void answers_count_once_and_late_ones_not_at_all(void **state)
{
    struct step steps[2], again;
    struct scheduler *scheduler = two_steps_in_flight(steps);

    (void)state;
    assert_true(answer(scheduler, 1, 0, 0));
    retry(scheduler, MS);
    assert_true(scheduler_next(scheduler, MS, &again) && scheduler_next(scheduler, MS, &again));
    assert_false(answer(scheduler, 1, 0, 1)); /* of the first attempt */
    assert_false(answer(scheduler, 1, 1, 0)); /* it has answered before */
    assert_true(answer(scheduler, 1, 1, 1));
    assert_int_equal(driver_stats_of(scheduler).ignored_reports, 2);
    assert_int_equal(driver_stats_of(scheduler).steps_in_flight, 1);
    assert_true(answer(scheduler, 2, 1, 0));
    assert_silent(scheduler);
    assert_true(answer(scheduler, 2, 1, 1));
    assert_token(scheduler, 1, 42);
    assert_false(answer(scheduler, 2, 1, 1));
    assert_silent(scheduler);
    scheduler_destroy(scheduler);
}

static void steps_formed_later_belong_to_the_attempt(void **state)
{
    struct scheduler_config config = driver_config_small();
    struct scheduler *scheduler = scheduler_create(&config);
    struct step step;

    (void)state;
    retry(scheduler, 0); /* nothing is in flight: links alone are opened anew */
    driver_add(scheduler, 1, 3, 1);
    assert_true(scheduler_next(scheduler, MS, &step));
    assert_int_equal(step.attempt, 1);
    scheduler_destroy(scheduler);
}

static void a_step_may_be_overdue_once(void **state)
{
    struct step steps[2], again;
    struct scheduler *scheduler = two_steps_in_flight(steps);
    int64_t deadline_ns = scheduler_deadline_ns(scheduler);
    struct error err;
    uint64_t step;

    (void)state;
    assert_true(scheduler_overdue(scheduler, deadline_ns, &step));
    retry(scheduler, deadline_ns);
    assert_false(scheduler_overdue(scheduler, deadline_ns + RETRY_NS, &step));
    assert_true(scheduler_next(scheduler, deadline_ns, &again));
    deadline_ns = scheduler_deadline_ns(scheduler);
    assert_true(scheduler_overdue(scheduler, deadline_ns, &step));
    assert_false(scheduler_retry(scheduler, deadline_ns, &err));
    assert_int_equal(err.code, ERROR_PEER);
    assert_string_equal(err.message, "step 1 is overdue for the second time");
    assert_int_equal(scheduler_attempt(scheduler), 1);
    scheduler_destroy(scheduler);
}

/* Answers and quiet times make earlier ones forgotten. */
static void attempts_in_a_row_come_to_an_end(void **state)
{
    struct step steps[2], again;
    struct scheduler *scheduler = two_steps_in_flight(steps);
    int64_t now_ns = 0;
    struct error err;

    (void)state;
    for (uint32_t i = 0; i < 2 * RETRIES_MAX; i++) {
        now_ns += 11000 * MS; /* far apart, yet before the deadline that each sets anew */
        retry(scheduler, now_ns);
    }
    for (uint32_t i = 1; i < RETRIES_MAX; i++) {
        retry(scheduler, now_ns);
    }
    assert_false(scheduler_retry(scheduler, now_ns, &err));
    assert_string_equal(err.message, "9 attempts and no step came back");
    assert_true(scheduler_next(scheduler, now_ns, &again));
    assert_true(answer(scheduler, 1, again.attempt, 0) && answer(scheduler, 1, again.attempt, 1));
    retry(scheduler, now_ns);
    scheduler_destroy(scheduler);
}

/* A round trip with a mishap in it says nothing of the next one. */
static void what_was_issued_again_is_not_measured(void **state)
{
    struct scheduler_config config = driver_config_small();
    struct scheduler *scheduler = scheduler_create(&config);
    struct step step;
    int64_t now_ns = 0;
    int64_t patience_ns;

    (void)state;
    driver_add(scheduler, 1, 1, 100);
    for (uint32_t i = 0; i < 50; i++) {
        assert_true(scheduler_next(scheduler, now_ns, &step));
        now_ns += 500 * MS;
        driver_answer(scheduler, &step, 42, now_ns);
    }
    assert_true(scheduler_next(scheduler, now_ns, &step));
    patience_ns = scheduler_deadline_ns(scheduler) - now_ns;
    now_ns += patience_ns;
    retry(scheduler, now_ns);
    assert_true(scheduler_deadline_ns(scheduler) == now_ns + patience_ns + RETRY_NS);
    assert_true(scheduler_next(scheduler, now_ns, &step));
    driver_answer(scheduler, &step, 42, now_ns + 500 * MS);
    assert_true(scheduler_next(scheduler, now_ns, &step));
    assert_true(scheduler_deadline_ns(scheduler) == now_ns + patience_ns);
    scheduler_destroy(scheduler);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_that_is_in_flight_is_issued_again_in_order),
        cmocka_unit_test(answers_count_once_and_late_ones_not_at_all),
        cmocka_unit_test(steps_formed_later_belong_to_the_attempt),
        cmocka_unit_test(a_step_may_be_overdue_once),
        cmocka_unit_test(attempts_in_a_row_come_to_an_end),
        cmocka_unit_test(what_was_issued_again_is_not_measured),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
