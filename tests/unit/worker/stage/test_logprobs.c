/* Log-probabilities against their definition in long double, ranks against a count, and that
 * nothing shows the CPU. */
#include "worker/stage/logprobs.h"

#include "common/base/hash.h"
#include "worker/stage/largest.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define VOCAB_MAX 3000
#define TOP       20

static float row[VOCAB_MAX];
static uint64_t counter;

static const struct kernels *ref(void)
{
    return kernels_for(CPU_REF, NUMERICS_EXACT);
}

/* Rising with `spread`: from all alike to one that has nearly everything. */
static void fill(uint32_t vocab, double spread, double grain)
{
    for (uint32_t i = 0; i < vocab; i++) {
        double value = (double)(hash_counter(5, 0, 0, counter++) >> 40) * 0x1p-24 * spread;

        row[i] = (float)(floor(value / grain) * grain - 7.0);
    }
}

static long double defined_logprob(uint32_t vocab, uint32_t token)
{
    long double max = -INFINITY;
    long double total = 0.0L;

    for (uint32_t i = 0; i < vocab; i++) {
        max = (long double)row[i] > max ? (long double)row[i] : max;
    }
    for (uint32_t i = 0; i < vocab; i++) {
        total += expl((long double)row[i] - max);
    }
    return (long double)row[token] - max - logl(total);
}

static uint32_t defined_rank(uint32_t vocab, uint32_t token)
{
    uint32_t rank = 1;

    for (uint32_t i = 0; i < vocab; i++) {
        rank += row[i] > row[token] || (row[i] == row[token] && i < token) ? 1 : 0;
    }
    return rank;
}

static void check(uint32_t vocab)
{
    struct logprobs_row values;
    long double probability = 0.0L;

    logprobs_row_init(&values, ref(), row, vocab);
    for (uint32_t token = 0; token < vocab; token += vocab < 50 ? 1 : 37) {
        long double wanted = defined_logprob(vocab, token);
        double got = (double)logprobs_value(&values, token);

        /* half a unit of f32, and the rounding of doubles around a sum from 1 on */
        assert_true(fabsl((long double)got - wanted) <= fabsl(wanted) * 0x1.02p-24L + 1e-13L);
        assert_int_equal(logprobs_rank(&values, token), defined_rank(vocab, token));
    }
    for (uint32_t token = 0; token < vocab; token++) {
        probability += expl((long double)logprobs_value(&values, token));
    }
    assert_true(fabsl(probability - 1.0L) < 1e-5L);
}

static void values_and_ranks_follow_the_definition(void **state)
{
    const uint32_t vocabs[] = {1, 2, 16, 17, 31, 500, VOCAB_MAX};
    const double spreads[] = {1e-3, 1.0, 30.0, 2000.0};
    const double grains[] = {1e-6, 0.5};

    (void)state;
    for (size_t v = 0; v < ARRAY_LENGTH(vocabs); v++) {
        for (size_t s = 0; s < ARRAY_LENGTH(spreads); s++) {
            for (size_t g = 0; g < ARRAY_LENGTH(grains); g++) {
                fill(vocabs[v], spreads[s], grains[g]);
                check(vocabs[v]);
            }
        }
    }
}

static void the_most_likely_come_first_lower_ids_first_among_equals(void **state)
{
    struct logprobs_row values;
    uint32_t tokens[TOP];
    float top[TOP];

    (void)state;
    fill(VOCAB_MAX, 30.0, 0.5);
    logprobs_row_init(&values, ref(), row, VOCAB_MAX);
    logprobs_top(&values, TOP, tokens, top);
    for (uint32_t i = 0; i < TOP; i++) {
        assert_int_equal(logprobs_rank(&values, tokens[i]), i + 1);
        assert_true(top[i] == logprobs_value(&values, tokens[i]));
    }
    logprobs_top(&values, 0, NULL, NULL);
}

/* Clients call a token greedy if its value equals the largest in its list. */
static void the_greedy_token_has_the_largest_value_of_the_list(void **state)
{
    struct logprobs_row values;
    uint32_t tokens[TOP];
    float top[TOP];

    (void)state;
    for (uint32_t turn = 0; turn < 200; turn++) {
        float largest = -INFINITY;

        fill(100, 1e-4 + turn, 1e-7);
        logprobs_row_init(&values, ref(), row, 100);
        logprobs_top(&values, TOP, tokens, top);
        for (uint32_t i = 0; i < TOP; i++) {
            largest = top[i] > largest ? top[i] : largest;
        }
        assert_true(logprobs_value(&values, tokens[0]) == largest);
        assert_true(top[0] == largest);
    }
}

static void every_cpu_level_gives_the_same_bits(void **state)
{
    (void)state;
    for (uint32_t level = 0; level < CPU_LEVEL_COUNT; level++) {
        if (!cpu_level_available((enum cpu_level)level)) {
            print_message("this machine lacks %s\n", cpu_level_name((enum cpu_level)level));
            continue;
        }
        for (uint32_t vocab = 1; vocab < 200; vocab += 7) {
            struct logprobs_row a, b;

            fill(vocab, 25.0, 1e-6);
            logprobs_row_init(&a, ref(), row, vocab);
            logprobs_row_init(&b, kernels_for((enum cpu_level)level, NUMERICS_EXACT), row, vocab);
            assert_memory_equal(&a.log_total, &b.log_total, sizeof(double));
            assert_true(a.max == b.max);
            assert_int_equal(logprobs_rank(&a, vocab / 2), logprobs_rank(&b, vocab / 2));
        }
    }
}

static void a_certain_token_has_probability_one(void **state)
{
    struct logprobs_row values;

    (void)state;
    row[0] = -1e30f;
    row[1] = 1e30f;
    logprobs_row_init(&values, ref(), row, 2);
    assert_true(logprobs_value(&values, 1) == 0.0f);
    assert_true(isfinite(logprobs_value(&values, 0)));
    assert_int_equal(logprobs_rank(&values, 0), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_ranks_follow_the_definition),
        cmocka_unit_test(the_most_likely_come_first_lower_ids_first_among_equals),
        cmocka_unit_test(the_greedy_token_has_the_largest_value_of_the_list),
        cmocka_unit_test(every_cpu_level_gives_the_same_bits),
        cmocka_unit_test(a_certain_token_has_probability_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
