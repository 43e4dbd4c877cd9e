/* scheduler_driver.c - the small steps of tests that drive a scheduler by hand. */
#include "tests/unit/coordinator/engine/scheduler_driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define PROMPT_MAX  512
#define SAMPLES_MAX 64

struct scheduler_config driver_config_small(void)
{
    static const uint32_t eos_ids[] = {2, 5};

    return (struct scheduler_config){
        .lane_count = 1,
        .stage_count = 1,
        .slot_count = 4,
        .kv_block_count = 8,
        .context_tokens_max = PROMPT_MAX,
        .step_rows_max = 16,
        .steps_in_flight_max = 3,
        .queue_max = 4,
        .logits_rows_max = 4,
        .eos_count = 2,
        .eos_ids = eos_ids,
        .epoch = 9,
    };
}

bool driver_submit(struct scheduler *scheduler, seq_id id, uint32_t prompt_count,
                   uint32_t tokens_max, struct error *err)
{
    uint32_t prompt[PROMPT_MAX];
    struct scheduler_request request = {
        .sequence = id, .prompt = prompt, .prompt_count = prompt_count, .tokens_max = tokens_max};

    for (uint32_t i = 0; i < PROMPT_MAX; i++) {
        prompt[i] = (uint32_t)id * 1000 + i;
    }
    return scheduler_submit(scheduler, &request, 0, err);
}

void driver_add(struct scheduler *scheduler, seq_id id, uint32_t prompt_count, uint32_t tokens_max)
{
    struct error err;

    if (!driver_submit(scheduler, id, prompt_count, tokens_max, &err)) {
        fail_msg("%s", err.message);
    }
}

void driver_add_request(struct scheduler *scheduler, const struct scheduler_request *request,
                        int64_t now_ns)
{
    struct error err;

    if (!scheduler_submit(scheduler, request, now_ns, &err)) {
        fail_msg("%s", err.message);
    }
}

void driver_answer(struct scheduler *scheduler, const struct step *step, uint32_t token,
                   int64_t now_ns)
{
    struct step_sample samples[SAMPLES_MAX];
    struct step_report report = {
        .step = step->number, .attempt = step->attempt, .compute_ns = MS, .samples = samples};
    struct error err;

    for (uint32_t i = 0; i < step->entry_count; i++) {
        for (uint32_t j = 0;
             (step->entries[i].wants & WANT_SAMPLE) != 0 && j <= step->entries[i].draft_count;
             j++) {
            assert_true(report.sample_count < SAMPLES_MAX);
            samples[report.sample_count++] =
                (struct step_sample){.entry = i, .index = j, .token = token};
        }
    }
    assert_true(scheduler_report(scheduler, &report, now_ns, &err));
    assert_true(scheduler_check(scheduler, &err));
}

struct scheduler_stats driver_stats_of(const struct scheduler *scheduler)
{
    struct scheduler_stats stats;

    scheduler_stats(scheduler, &stats);
    return stats;
}

void assert_token(struct scheduler *scheduler, seq_id id, uint32_t token)
{
    struct outcome outcome;

    assert_true(scheduler_outcome(scheduler, &outcome));
    assert_int_equal(outcome.kind, OUTCOME_TOKEN);
    assert_int_equal(outcome.sequence, id);
    assert_int_equal(outcome.token, token);
}

void assert_finished(struct scheduler *scheduler, seq_id id, enum finish_reason reason)
{
    struct outcome outcome;

    assert_true(scheduler_outcome(scheduler, &outcome));
    assert_int_equal(outcome.kind, OUTCOME_FINISHED);
    assert_int_equal(outcome.sequence, id);
    assert_int_equal(outcome.reason, reason);
}

void assert_silent(struct scheduler *scheduler)
{
    struct outcome outcome;

    assert_false(scheduler_outcome(scheduler, &outcome));
}
