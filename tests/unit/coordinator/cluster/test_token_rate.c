/* test_token_rate.c - tokens per second of busy time. */
#include "coordinator/cluster/token_rate.h"

#include "common/base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define START (1000 * NS_PER_S + 300 * NS_PER_MS)

static void only_busy_time_counts(void **state)
{
    struct token_rate rate = {0};

    (void)state;
    token_rate_open(&rate, START);
    for (int i = 1; i <= 100; i++) {
        token_rate_count(&rate, START + i * 5 * NS_PER_MS);
    }
    token_rate_close(&rate, START + 500 * NS_PER_MS);
    assert_float_equal(token_rate_per_s(&rate, START + 4 * NS_PER_S), 200, 0.01);
}

static void two_sequences_share_the_time(void **state)
{
    struct token_rate rate = {0};

    (void)state;
    token_rate_open(&rate, START);
    token_rate_open(&rate, START + 100 * NS_PER_MS);
    for (int i = 0; i < 50; i++) {
        token_rate_count(&rate, START + (100 + i * 28) * NS_PER_MS);
    }
    token_rate_close(&rate, START + 1500 * NS_PER_MS);
    token_rate_close(&rate, START + 2000 * NS_PER_MS);
    assert_float_equal(token_rate_per_s(&rate, START + 2000 * NS_PER_MS), 25, 0.01);
}

static void what_is_older_than_the_window_is_forgotten(void **state)
{
    struct token_rate rate = {0};

    (void)state;
    token_rate_open(&rate, START);
    token_rate_count(&rate, START);
    token_rate_close(&rate, START + NS_PER_S);
    assert_float_equal(token_rate_per_s(&rate, START + 60 * NS_PER_S), 0, 0);
    token_rate_open(&rate, START + 60 * NS_PER_S);
    token_rate_count(&rate, START + 90 * NS_PER_S); /* busy all the time since */
    assert_true(token_rate_per_s(&rate, START + 90 * NS_PER_S) < 0.11);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_busy_time_counts),
        cmocka_unit_test(two_sequences_share_the_time),
        cmocka_unit_test(what_is_older_than_the_window_is_forgotten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
