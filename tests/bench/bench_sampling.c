/* bench_sampling.c - what the choice of one token from a vocabulary costs one thread.
 *
 * Usage: bench.sampling [vocabulary]; SHOAL_CPU chooses the level. Two rows: one as a language
 * model gives (logits fall with the logarithm of the rank), one flat (normal numbers), where a
 * nucleus holds most of the vocabulary. Each figure is the best of some rounds, and stands beside
 * one pass over the row's memory.
 */
#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "worker/stage/answer.h"
#include "worker/stage/logprobs.h"
#include "worker/stage/penalties.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define ROUNDS       40
#define HISTORY      32768
#define TOP_LOGPROBS 20

struct bench {
    struct sampler sampler;
    float *logits;
    struct kv_cache *cache;
    uint32_t sink; /* keeps results alive */
};

typedef void (*case_fn)(struct bench *bench, const struct sampling_params *params, uint32_t round);

static void choose(struct bench *bench, const struct sampling_params *params, uint32_t round)
{
    const struct token_history history = {
        .cache = bench->cache, .token_count = HISTORY, .generated_begin = HISTORY / 2};
    const float *logits = penalties_apply(&bench->sampler, bench->logits, params, &history);

    bench->sink += sampling_choose(&bench->sampler, logits, params, round);
}

static void likely(struct bench *bench, const struct sampling_params *params, uint32_t round)
{
    uint32_t tokens[TOP_LOGPROBS];
    float values[TOP_LOGPROBS];
    struct logprobs_row row;

    (void)params;
    logprobs_row_init(&row, bench->sampler.kernels, bench->logits, bench->sampler.vocab);
    logprobs_top(&row, TOP_LOGPROBS, tokens, values);
    bench->sink += tokens[round % TOP_LOGPROBS] + logprobs_rank(&row, round);
}

static void check_finite(struct bench *bench, const struct sampling_params *params, uint32_t round)
{
    (void)params;
    bench->sink += answer_is_finite(bench->logits, bench->sampler.vocab - round) ? 1 : 0;
}

static void measure(struct bench *bench, const char *row, const char *name, case_fn run,
                    struct sampling_params params)
{
    int64_t best_ns = INT64_MAX;

    for (uint32_t round = 0; round < ROUNDS; round++) {
        int64_t start_ns = clock_monotonic_ns();
        int64_t ns;

        run(bench, &params, round);
        ns = clock_monotonic_ns() - start_ns;
        best_ns = ns < best_ns ? ns : best_ns;
    }
    printf("%-5s %-28s %8.1f us\n", row, name, (double)best_ns / NS_PER_US);
}

static void measure_all(struct bench *bench, const char *row)
{
    static const struct {
        const char *name;
        struct sampling_params params;
    } cases[] = {
        {"greedy", {.temperature = 0.0f}},
        {"T 1", {.temperature = 1.0f, .top_p = 1.0f}},
        {"T 0.6, top-p 0.95", {.temperature = 0.6f, .top_p = 0.95f}},
        {"T 0.7, top-k 40, top-p 0.95", {.temperature = 0.7f, .top_p = 0.95f, .top_k = 40}},
        {"T 1, min-p 0.05", {.temperature = 1.0f, .top_p = 1.0f, .min_p = 0.05f}},
        {"greedy, penalties, 32k tokens", {.temperature = 0.0f, .repetition_penalty = 1.1f}},
    };

    measure(bench, row, "one pass: is it finite", check_finite, (struct sampling_params){0});
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        measure(bench, row, cases[i].name, choose, cases[i].params);
    }
    measure(bench, row, "logprob, rank, top 20", likely, (struct sampling_params){0});
}

static double uniform(uint64_t counter)
{
    return ((double)(hash_counter(1, 2, 3, counter) >> 12) + 0.5) * 0x1p-52;
}

static void fill_ranked(float *logits, uint32_t vocab)
{
    for (uint32_t i = 0; i < vocab; i++) {
        logits[i] = (float)(20.0 - 1.1 * log(i + 1.0));
    }
    for (uint32_t i = vocab - 1; i > 0; i--) {
        uint32_t other = (uint32_t)(uniform(i) * (i + 1));
        float kept = logits[i];

        logits[i] = logits[other];
        logits[other] = kept;
    }
}

static void fill_normal(float *logits, uint32_t vocab)
{
    for (uint32_t i = 0; i < vocab; i++) {
        logits[i] = (float)(sqrt(-2.0 * log(uniform(2 * (uint64_t)i))) *
                            cos(6.283185307 * uniform(2 * (uint64_t)i + 1)));
    }
}

static struct kv_cache *history_make(uint32_t vocab, struct error *err)
{
    const struct kv_config config = {.layer_end = 1,
                                     .lane_count = 1,
                                     .block_count = HISTORY / KV_BLOCK_TOKENS,
                                     .slot_count = 1,
                                     .blocks_per_slot_max = HISTORY / KV_BLOCK_TOKENS,
                                     .layout = {.type = KV_F16, .block_bytes = 128},
                                     .has_tokens = true};
    struct kv_cache *cache = kv_cache_create(&config, err);
    uint32_t blocks[HISTORY / KV_BLOCK_TOKENS];

    for (uint32_t i = 0; i < ARRAY_LENGTH(blocks); i++) {
        blocks[i] = i;
    }
    if (cache == NULL || !kv_cache_extend(cache, 0, 0, 0, blocks, ARRAY_LENGTH(blocks), err)) {
        kv_cache_destroy(cache);
        return NULL;
    }
    for (uint32_t i = 0; i < HISTORY; i++) {
        *kv_cache_token(cache, 0, 0, i) = (uint32_t)(uniform(i) * uniform(i + 7) * vocab);
    }
    return cache;
}

int main(int argc, char **argv)
{
    const uint32_t vocab = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 129280;
    struct bench bench = {0};
    enum cpu_level level;
    struct error err;
    void *memory;

    if (!cpu_level_choose(&level, &err) || (bench.cache = history_make(vocab, &err)) == NULL ||
        (memory = mem_map_pages(sampler_bytes(vocab), &err)) == NULL) {
        fprintf(stderr, "bench.sampling: %s\n", err.message);
        return 1;
    }
    sampler_init(&bench.sampler, kernels_for(level, NUMERICS_EXACT), vocab, memory);
    bench.logits = mem_new_array(float, vocab);
    printf("level %s, vocabulary %u\n", cpu_level_name(level), vocab);
    fill_ranked(bench.logits, vocab);
    measure_all(&bench, "model");
    fill_normal(bench.logits, vocab);
    measure_all(&bench, "flat");
    kv_cache_destroy(bench.cache);
    mem_free(bench.logits);
    mem_unmap_pages(memory, sampler_bytes(vocab));
    return bench.sink == 1; /* it never is; the compiler does not know */
}
