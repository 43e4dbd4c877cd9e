/* Sampling: truncation sets against a plain definition, determinism, and that noise has the
 * distribution it should have. */
#include "worker/stage/sampling.h"

#include "common/base/hash.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define VOCAB 12

static const float logits[VOCAB] = {1.0f, 3.0f,  -2.0f, 0.5f, 3.0f,  2.0f,
                                    0.0f, -1.0f, 2.5f,  1.5f, -4.0f, 0.25f};

static const struct sampling_params plain = {.temperature = 1.0f, .top_p = 1.0f};

/* A sampler for any row of this file. */
static struct sampler sampler_of(uint32_t vocab)
{
    static _Alignas(64) char memory[1 << 20];
    struct sampler sampler;

    assert_true(sampler_bytes(vocab) <= sizeof(memory));
    sampler_init(&sampler, kernels_for(CPU_REF, NUMERICS_EXACT), vocab, memory);
    return sampler;
}

static uint32_t kept_mask(const struct sampling_params *params)
{
    struct sampler sampler = sampler_of(VOCAB);
    uint32_t count = sampling_truncate(&sampler, logits, params);
    uint32_t mask = 0;

    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(mask & (1u << sampler.candidates[i].token), 0);
        mask |= 1u << sampler.candidates[i].token;
    }
    return mask;
}

static uint32_t choose(struct sampling_params params, uint32_t position)
{
    struct sampler sampler = sampler_of(VOCAB);

    return sampling_choose(&sampler, logits, &params, position);
}

static void greedy_takes_the_lowest_id_among_equals(void **state)
{
    (void)state;
    assert_int_equal(choose((struct sampling_params){.temperature = 0.0f}, 7), 1);
}

static void top_k_keeps_the_k_largest_lower_ids_first(void **state)
{
    struct sampling_params params = plain;

    (void)state;
    params.top_k = 1;
    assert_int_equal(kept_mask(&params), 1u << 1);
    params.top_k = 3;
    assert_int_equal(kept_mask(&params), 1u << 1 | 1u << 4 | 1u << 8);
    params.top_k = VOCAB;
    assert_int_equal(kept_mask(&params), (1u << VOCAB) - 1);
    params.top_k = 1000;
    assert_int_equal(kept_mask(&params), (1u << VOCAB) - 1);
}

static void top_p_keeps_the_fewest_that_reach_it(void **state)
{
    struct sampling_params params = plain;
    double total = 0.0;
    double two;

    (void)state;
    for (uint32_t i = 0; i < VOCAB; i++) {
        total += exp((double)logits[i]);
    }
    two = 2.0 * exp(3.0) / total;
    params.top_p = (float)(two - 1e-3);
    assert_int_equal(kept_mask(&params), 1u << 1 | 1u << 4);
    params.top_p = (float)(two + 1e-3);
    assert_int_equal(kept_mask(&params), 1u << 1 | 1u << 4 | 1u << 8);
    params.top_p = 0.0f;
    assert_int_equal(kept_mask(&params), 1u << 1);
}

static void top_p_looks_at_what_top_k_left(void **state)
{
    struct sampling_params params = plain;

    (void)state;
    params.top_k = 2;
    params.top_p = 0.5f; /* the first of two equals has exactly half */
    assert_int_equal(kept_mask(&params), 1u << 1);
    params.top_p = 0.51f;
    assert_int_equal(kept_mask(&params), 1u << 1 | 1u << 4);
}

static void min_p_is_relative_to_the_most_probable(void **state)
{
    struct sampling_params params = plain;

    (void)state;
    params.min_p = 0.6f; /* exp(-0.5) = 0.607 */
    assert_int_equal(kept_mask(&params), 1u << 1 | 1u << 4 | 1u << 8);
    params.min_p = 0.61f;
    assert_int_equal(kept_mask(&params), 1u << 1 | 1u << 4);
    params.temperature = 2.0f; /* exp(-0.25) = 0.779, exp(-0.5) = 0.607 for logit 2 */
    params.min_p = 0.6f;
    assert_int_equal(kept_mask(&params), 1u << 1 | 1u << 4 | 1u << 8 | 1u << 5);
}

static void a_sample_depends_on_its_four_numbers_only(void **state)
{
    struct sampling_params params = plain;
    bool differs[3] = {false};

    (void)state;
    for (uint32_t position = 0; position < 200; position++) {
        struct sampling_params seed = params;
        struct sampling_params choice = params;
        uint32_t token = choose(params, position);

        assert_int_equal(choose(params, position), token);
        seed.seed = 1;
        choice.choice = 1;
        differs[0] = differs[0] || choose(seed, position) != token;
        differs[1] = differs[1] || choose(choice, position) != token;
        differs[2] = differs[2] || choose(params, position + 1) != token;
    }
    assert_true(differs[0] && differs[1] && differs[2]);
}

/* The quick bound in sampling_choose must never change who wins. */
static void the_winner_is_the_largest_sum_of_logit_and_noise(void **state)
{
    struct sampling_params params = plain;

    (void)state;
    params.temperature = 0.7f;
    for (uint32_t position = 0; position < 3000; position++) {
        double best = -INFINITY;
        uint32_t token = 0;

        for (uint32_t i = 0; i < VOCAB; i++) {
            double value = (double)logits[i] / (double)params.temperature +
                           sampling_noise(&params, position, i);

            token = value > best ? i : token;
            best = value > best ? value : best;
        }
        assert_int_equal(choose(params, position), token);
    }
}

static void samples_follow_the_softmax(void **state)
{
    enum { DRAWS = 40000 };
    uint32_t counts[VOCAB] = {0};
    struct sampling_params params = plain;
    double total = 0.0;
    double chi_square = 0.0;

    (void)state;
    params.temperature = 1.3f;
    for (uint32_t i = 0; i < DRAWS; i++) {
        params.seed = 1000 + i;
        counts[choose(params, 5)]++;
    }
    for (uint32_t i = 0; i < VOCAB; i++) {
        total += exp((double)logits[i] / (double)params.temperature);
    }
    for (uint32_t i = 0; i < VOCAB; i++) {
        double expected = DRAWS * exp((double)logits[i] / (double)params.temperature) / total;

        chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
    }
    assert_true(chi_square < 31.26); /* 11 degrees of freedom, p = 0.001 */
}

static void truncated_tokens_are_never_drawn(void **state)
{
    struct sampling_params params = plain;

    (void)state;
    params.top_k = 3;
    params.temperature = 5.0f;
    for (uint32_t position = 0; position < 2000; position++) {
        uint32_t token = choose(params, position);

        assert_true(token == 1 || token == 4 || token == 8);
    }
}

/* --- against the definition --- */

#define WIDE 700

static uint64_t numbers;

static uint64_t next_bits(void)
{
    return hash_counter(7, 0, 0, numbers++);
}

static double next_uniform(void)
{
    return (double)(next_bits() >> 11) * 0x1p-53;
}

/* Many ties: values are multiples of `grain`. */
static void fill_row(float *row, uint32_t vocab, double spread, double grain)
{
    for (uint32_t i = 0; i < vocab; i++) {
        double value = (next_uniform() + next_uniform() + next_uniform() - 1.5) * spread;

        row[i] = (float)(floor(value / grain) * grain);
    }
}

static const float *order_row;

static int by_rank(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    if (order_row[x] != order_row[y]) {
        return order_row[x] > order_row[y] ? -1 : 1;
    }
    return x < y ? -1 : 1;
}

/* order: ids by rank. How many of them top-k, top-p and min-p leave, by libm; `slack` shifts the
 * two thresholds by what rounding may. */
static uint32_t defined_count(const uint32_t *order, uint32_t vocab,
                              const struct sampling_params *params, double slack)
{
    const double temperature = (double)params->temperature;
    uint32_t count = params->top_k > 0 && params->top_k < vocab ? params->top_k : vocab;
    double total = 0.0;
    double reached = 0.0;
    uint32_t kept = 0;
    uint32_t probable = 0;

    for (uint32_t i = 0; i < count; i++) {
        total += exp(((double)order_row[order[i]] - (double)order_row[order[0]]) / temperature);
    }
    while (kept < count && (kept == 0 || reached < ((double)params->top_p + slack) * total)) {
        reached +=
            exp(((double)order_row[order[kept]] - (double)order_row[order[0]]) / temperature);
        kept++;
    }
    kept = params->top_p < 1.0f ? kept : count;
    while (probable < kept &&
           exp(((double)order_row[order[probable]] - (double)order_row[order[0]]) / temperature) >=
               (double)params->min_p - slack) {
        probable++;
    }
    return probable;
}

static struct sampling_params random_params(uint32_t vocab)
{
    struct sampling_params params = {.top_p = 1.0f, .seed = next_bits()};

    params.temperature = (float)(0.05 + 2.0 * next_uniform());
    params.top_k = next_bits() % 2 == 0 ? (uint32_t)(next_bits() % (vocab + 2)) : 0;
    params.top_p = next_bits() % 3 != 0 ? (float)next_uniform() : 1.0f;
    params.min_p = next_bits() % 3 == 0 ? (float)(next_uniform() * next_uniform()) : 0.0f;
    return params;
}

/* The kept ones are the first by rank, and as many as the definition says. */
static uint32_t check_kept(const struct sampler *sampler, uint32_t count, const uint32_t *order,
                           const struct sampling_params *params)
{
    static bool is_kept[WIDE];
    uint32_t least = defined_count(order, sampler->vocab, params, -1e-12);
    uint32_t most = defined_count(order, sampler->vocab, params, 1e-12);

    assert_in_range(count, least < most ? least : most, least < most ? most : least);
    memset(is_kept, 0, sizeof(is_kept));
    for (uint32_t i = 0; i < count; i++) {
        is_kept[sampler->candidates[i].token] = true;
    }
    for (uint32_t i = 0; i < count; i++) {
        assert_true(is_kept[order[i]]);
    }
    return count;
}

static uint32_t defined_winner(const uint32_t *order, uint32_t count,
                               const struct sampling_params *params, uint32_t position)
{
    double best = -INFINITY;
    uint32_t token = 0;

    for (uint32_t i = 0; i < count; i++) {
        double value = (double)order_row[order[i]] / (double)params->temperature +
                       sampling_noise(params, position, order[i]);

        token = value > best || (value == best && order[i] < token) ? order[i] : token;
        best = value > best ? value : best;
    }
    return token;
}

static void any_parameters_give_what_the_definition_gives(void **state)
{
    static float row[WIDE];
    static uint32_t order[WIDE];
    const double grains[] = {1e-6, 0.125, 1.0, 100.0}; /* the last: nearly all are equal */

    (void)state;
    order_row = row;
    for (uint32_t turn = 0; turn < 3000; turn++) {
        uint32_t vocab = 1 + (uint32_t)(next_bits() % (turn % 10 == 0 ? WIDE : 40));
        struct sampling_params params = random_params(vocab);
        struct sampler sampler = sampler_of(vocab);
        uint32_t count;

        fill_row(row, vocab, 1.0 + 20.0 * next_uniform(), grains[turn % 4]);
        for (uint32_t i = 0; i < vocab; i++) {
            order[i] = i;
        }
        qsort(order, vocab, sizeof(order[0]), by_rank);
        count = check_kept(&sampler, sampling_truncate(&sampler, row, &params), order, &params);
        assert_int_equal(sampling_choose(&sampler, row, &params, turn),
                         defined_winner(order, count, &params, turn));
        params.temperature = 0.0f;
        assert_int_equal(sampling_choose(&sampler, row, &params, turn), order[0]);
    }
}

static void every_cpu_level_keeps_and_chooses_the_same(void **state)
{
    static float row[WIDE];
    struct sampler ref = sampler_of(WIDE);

    (void)state;
    for (uint32_t level = 0; level < CPU_LEVEL_COUNT; level++) {
        struct sampler sampler = ref;

        if (!cpu_level_available((enum cpu_level)level)) {
            print_message("this machine lacks %s\n", cpu_level_name((enum cpu_level)level));
            continue;
        }
        sampler.kernels = kernels_for((enum cpu_level)level, NUMERICS_EXACT);
        for (uint32_t turn = 0; turn < 200; turn++) {
            struct sampling_params params = random_params(WIDE);
            uint32_t kept;

            fill_row(row, WIDE, 10.0, 1e-6);
            kept = sampling_truncate(&ref, row, &params);
            assert_int_equal(sampling_truncate(&sampler, row, &params), kept);
            assert_int_equal(sampling_choose(&sampler, row, &params, turn),
                             sampling_choose(&ref, row, &params, turn));
        }
    }
}

static void extreme_numbers_stay_in_range(void **state)
{
    static const float row[] = {3e38f, -3e38f, 1e-45f, 3e38f, 0.0f};
    struct sampler sampler = sampler_of(5);
    struct sampling_params params = {.temperature = 1e-45f, .top_p = 0.999f};

    (void)state;
    assert_in_range(sampling_choose(&sampler, row, &params, 3), 0, 3);
    params.top_p = 1.0f;
    params.min_p = 1.0f;
    assert_int_equal(sampling_truncate(&sampler, row, &params), 2);
    params.min_p = 0.0f;
    params.temperature = 3e38f;
    assert_int_equal(sampling_truncate(&sampler, row, &params), 5);
    assert_in_range(sampling_choose(&sampler, row, &params, 4), 0, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_lowest_id_among_equals),
        cmocka_unit_test(top_k_keeps_the_k_largest_lower_ids_first),
        cmocka_unit_test(top_p_keeps_the_fewest_that_reach_it),
        cmocka_unit_test(top_p_looks_at_what_top_k_left),
        cmocka_unit_test(min_p_is_relative_to_the_most_probable),
        cmocka_unit_test(a_sample_depends_on_its_four_numbers_only),
        cmocka_unit_test(the_winner_is_the_largest_sum_of_logit_and_noise),
        cmocka_unit_test(samples_follow_the_softmax),
        cmocka_unit_test(truncated_tokens_are_never_drawn),
        cmocka_unit_test(any_parameters_give_what_the_definition_gives),
        cmocka_unit_test(every_cpu_level_keeps_and_chooses_the_same),
        cmocka_unit_test(extreme_numbers_stay_in_range),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
