/* test_logprob_inbox.c - the last word about each position counts. */
#include "coordinator/api/logprob_inbox.h"

#include "common/base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define PROMPT 4

static void put(struct logprob_inbox *inbox, uint32_t position, uint32_t token, float logprob)
{
    const uint32_t tops[] = {token, 99};
    const float values[] = {logprob, logprob - 1};
    const struct step_logprobs logprobs = {.token = token,
                                           .logprob = logprob,
                                           .rank = 1,
                                           .top_count = 2,
                                           .top_tokens = tops,
                                           .top_logprobs = values};

    logprob_inbox_put(inbox, position, &logprobs);
}

static void expect_take(struct logprob_inbox *inbox, uint32_t token, float logprob)
{
    struct token_logprobs *taken = logprob_inbox_take(inbox, token);

    assert_non_null(taken);
    assert_int_equal(taken->token, token);
    assert_float_equal(taken->logprob, logprob, 0);
    assert_int_equal(taken->top_count, 2);
    assert_int_equal(taken->top_tokens[1], 99);
    assert_float_equal(taken->top_logprobs[1], logprob - 1, 0);
    mem_free(taken);
}

static void each_token_gets_the_latest_of_its_position(void **state)
{
    struct logprob_inbox *inbox = logprob_inbox_create(PROMPT, LOGPROB_PROMPT_DROP);

    (void)state;
    put(inbox, 4, 10, -1);
    put(inbox, 5, 11, -2); /* of drafts: 11 stands, what followed it does not */
    put(inbox, 6, 12, -3);
    expect_take(inbox, 10, -1);
    expect_take(inbox, 11, -2);
    put(inbox, 6, 13, -4);
    put(inbox, 7, 14, -5);
    expect_take(inbox, 13, -4);
    expect_take(inbox, 14, -5);
    logprob_inbox_destroy(inbox);
}

static void a_token_without_its_own_gets_none(void **state)
{
    struct logprob_inbox *inbox = logprob_inbox_create(PROMPT, LOGPROB_PROMPT_DROP);

    (void)state;
    assert_null(logprob_inbox_take(inbox, 10));
    put(inbox, 5, 11, -1);
    assert_null(logprob_inbox_take(inbox, 12)); /* of another token */
    put(inbox, 4, 10, -1);                      /* of a token that is gone */
    put(inbox, UINT32_MAX, 10, -1);             /* nowhere near */
    put(inbox, 6 + 64, 10, -1);                 /* would fall on the next one's place */
    assert_null(logprob_inbox_take(inbox, 10));
    logprob_inbox_destroy(inbox);
}

static void the_prompts_are_kept_once_for_each_position(void **state)
{
    struct logprob_inbox *inbox = logprob_inbox_create(PROMPT, LOGPROB_PROMPT_KEEP);
    const struct token_logprobs *const *prompt = logprob_inbox_prompt(inbox);

    (void)state;
    put(inbox, 1, 21, -1);
    put(inbox, 3, 23, -3);
    put(inbox, 3, 24, -4);
    put(inbox, 0, 20, -9);
    assert_false(logprob_inbox_prompt_complete(inbox));
    put(inbox, 2, 22, -2);
    assert_true(logprob_inbox_prompt_complete(inbox));
    assert_null(prompt[0]);
    for (uint32_t i = 1; i < PROMPT; i++) {
        assert_int_equal(prompt[i]->token, 20 + i);
    }
    logprob_inbox_destroy(inbox);

    inbox = logprob_inbox_create(PROMPT, LOGPROB_PROMPT_DROP);
    put(inbox, 1, 21, -1);
    assert_null(logprob_inbox_prompt(inbox));
    assert_true(logprob_inbox_prompt_complete(inbox));
    logprob_inbox_destroy(inbox);
    logprob_inbox_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_token_gets_the_latest_of_its_position),
        cmocka_unit_test(a_token_without_its_own_gets_none),
        cmocka_unit_test(the_prompts_are_kept_once_for_each_position),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
