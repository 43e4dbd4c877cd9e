/* Biases and penalties against the reference servers' formulas, over histories that lie in blocks
 * of a cache. */
#include "worker/stage/penalties.h"

#include "common/base/hash.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define VOCAB   50
#define HISTORY 300
#define BLOCKS  5

static _Alignas(64) char memory[8192];
static struct sampler sampler;
static struct kv_cache *cache;
static uint32_t tokens[HISTORY];
static float row[VOCAB];

static int make(void **state)
{
    const struct kv_config config = {.layer_end = 1,
                                     .lane_count = 2,
                                     .block_count = 9,
                                     .slot_count = 2,
                                     .blocks_per_slot_max = BLOCKS,
                                     .layout = {.type = KV_F16, .block_bytes = 128},
                                     .has_tokens = true};
    const uint32_t blocks[BLOCKS] = {7, 2, 8, 0, 4};
    struct error err;

    (void)state;
    assert_true(sampler_bytes(VOCAB) <= sizeof(memory));
    sampler_init(&sampler, kernels_for(CPU_REF, NUMERICS_EXACT), VOCAB, memory);
    cache = kv_cache_create(&config, &err);
    assert_non_null(cache);
    assert_true(kv_cache_extend(cache, 1, 1, 0, blocks, BLOCKS, &err));
    for (uint32_t i = 0; i < HISTORY; i++) {
        tokens[i] = (uint32_t)(hash_counter(1, 2, 3, i) % (VOCAB - 10));
        *kv_cache_token(cache, 1, 1, i) = tokens[i];
    }
    for (uint32_t i = 0; i < VOCAB; i++) {
        row[i] = (float)(hash_counter(4, 5, 6, i) % 1000) / 50.0f - 10.0f;
    }
    return 0;
}

static int release(void **state)
{
    (void)state;
    kv_cache_destroy(cache);
    return 0;
}

static struct token_history history_of(uint32_t count, uint32_t generated_begin)
{
    return (struct token_history){.cache = cache,
                                  .lane = 1,
                                  .slot = 1,
                                  .token_count = count,
                                  .generated_begin = generated_begin};
}

/* As vLLM writes it: logit_bias, then repetition, frequency and presence. */
static double defined(uint32_t token, const struct sampling_params *params,
                      const struct token_history *history)
{
    double logit = (double)row[token];
    uint32_t seen = 0;
    uint32_t generated = 0;

    for (uint32_t i = 0; i < params->bias_count; i++) {
        logit += params->biases[i].token == token ? (double)params->biases[i].bias : 0.0;
    }
    for (uint32_t i = 0; i < history->token_count; i++) {
        seen += tokens[i] == token ? 1 : 0;
        generated += tokens[i] == token && i >= history->generated_begin ? 1 : 0;
    }
    if (seen > 0 && params->repetition_penalty != 0.0f) {
        logit = logit > 0 ? logit / (double)params->repetition_penalty
                          : logit * (double)params->repetition_penalty;
    }
    logit -= (double)params->frequency_penalty * generated;
    logit -= (double)params->presence_penalty * (generated > 0 ? 1 : 0);
    return logit;
}

static void check(const struct sampling_params *params, struct token_history history)
{
    const float *adjusted = penalties_apply(&sampler, row, params, &history);

    for (uint32_t token = 0; token < VOCAB; token++) {
        double wanted = defined(token, params, &history);

        assert_true(fabs((double)adjusted[token] - wanted) <= 1e-6 * (1.0 + fabs(wanted)));
        assert_int_equal(sampler.counts[token], 0);
    }
}

static void each_penalty_follows_its_formula(void **state)
{
    const uint32_t counts[] = {0, 1, 63, 64, 65, 200, HISTORY};
    const uint32_t begins[] = {0, 1, 64, 130, HISTORY, 100000};

    (void)state;
    for (size_t c = 0; c < ARRAY_LENGTH(counts); c++) {
        for (size_t b = 0; b < ARRAY_LENGTH(begins); b++) {
            struct token_history history = history_of(counts[c], begins[b]);

            check(&(struct sampling_params){.repetition_penalty = 1.3f}, history);
            check(&(struct sampling_params){.repetition_penalty = 0.7f}, history);
            check(&(struct sampling_params){.presence_penalty = 0.9f}, history);
            check(&(struct sampling_params){.frequency_penalty = -0.4f}, history);
            check(&(struct sampling_params){.repetition_penalty = 1.1f,
                                            .presence_penalty = -1.5f,
                                            .frequency_penalty = 2.0f},
                  history);
        }
    }
}

static void biases_come_before_the_penalties(void **state)
{
    const struct token_bias biases[] = {{3, 25.0f}, {4, -25.0f}, {VOCAB - 1, 0.5f}};
    struct sampling_params params = {.bias_count = 3, .biases = biases};

    (void)state;
    check(&params, history_of(0, 0));
    params.repetition_penalty = 2.0f;
    params.presence_penalty = 0.25f;
    check(&params, history_of(HISTORY, 100));
}

static void a_row_that_nothing_changes_is_the_row_itself(void **state)
{
    /* no cache: the history must not be looked at */
    const struct token_history none = {.token_count = HISTORY};
    const struct token_bias bias = {1, 1.0f};
    struct sampling_params params = {.repetition_penalty = 1.0f};

    (void)state;
    assert_ptr_equal(penalties_apply(&sampler, row, &params, &none), row);
    params.repetition_penalty = 0.0f;
    assert_ptr_equal(penalties_apply(&sampler, row, &params, &none), row);
    params.bias_count = 1;
    params.biases = &bias;
    assert_ptr_equal(penalties_apply(&sampler, row, &params, &none), sampler.adjusted);
}

static void no_penalty_leaves_the_finite_numbers(void **state)
{
    struct sampling_params params = {.repetition_penalty = 1e-45f, .frequency_penalty = -3e38f};
    struct token_history history = history_of(HISTORY, 0);
    const float *adjusted = penalties_apply(&sampler, row, &params, &history);

    (void)state;
    for (uint32_t token = 0; token < VOCAB; token++) {
        assert_true(isfinite(adjusted[token]));
    }
    assert_true(adjusted[tokens[0]] == FLT_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_penalty_follows_its_formula),
        cmocka_unit_test(biases_come_before_the_penalties),
        cmocka_unit_test(a_row_that_nothing_changes_is_the_row_itself),
        cmocka_unit_test(no_penalty_leaves_the_finite_numbers),
    };

    return cmocka_run_group_tests(tests, make, release);
}
