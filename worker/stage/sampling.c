/* sampling.c - greedy, or Gumbel-max after truncation.
 *
 * A vocabulary has a hundred thousand tokens and a nucleus a few hundred, so only what can be in it
 * is copied out: top-k by a small heap, top-p by a bound below which all tokens together weigh less
 * than 1 - p. Inside, the nucleus is found by partition, never by a sort. The noise of a token
 * costs two logarithms; a cheap upper bound of it shows for nearly all tokens that they can't win,
 * without touching the result.
 */
#include "worker/stage/sampling.h"

#include "common/base/check.h"
#include "common/base/hash.h"
#include "common/model/portable_math.h"
#include "worker/stage/largest.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>

#define LN2_ABOVE       0.69314718056 /* a little more than ln 2 */
#define WEIGHT_BATCH    64
#define FOUND_RUN       16
#define NOISE_BATCH     256
#define PARTITION_LEAST 8 /* fewer are sorted */

/* --- memory --- */

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

uint64_t sampler_bytes(uint32_t vocab)
{
    return aligned((uint64_t)vocab * sizeof(struct sampling_candidate)) +
           aligned((uint64_t)vocab * sizeof(uint32_t)) + aligned((uint64_t)vocab * sizeof(float));
}

void sampler_init(struct sampler *sampler, const struct kernels *kernels, uint32_t vocab,
                  void *memory)
{
    char *at = memory;

    *sampler = (struct sampler){.kernels = kernels, .vocab = vocab};
    sampler->candidates = (struct sampling_candidate *)at;
    at += aligned((uint64_t)vocab * sizeof(struct sampling_candidate));
    sampler->counts = (uint32_t *)at;
    at += aligned((uint64_t)vocab * sizeof(uint32_t));
    sampler->adjusted = (float *)at;
}

/* --- candidates --- */

static bool is_larger(const struct sampling_candidate *a, const struct sampling_candidate *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->token < b->token);
}

static double scaled(float logit, const struct sampling_params *params)
{
    return (double)logit / (double)params->temperature;
}

static void weigh(const struct sampler *sampler, uint32_t count, float max,
                  const struct sampling_params *params)
{
    double weights[WEIGHT_BATCH];

    for (uint32_t begin = 0; begin < count; begin += WEIGHT_BATCH) {
        struct sampling_candidate *batch = sampler->candidates + begin;
        uint32_t size = count - begin < WEIGHT_BATCH ? count - begin : WEIGHT_BATCH;

        for (uint32_t i = 0; i < size; i++) {
            weights[i] = scaled(batch[i].logit, params) - scaled(max, params);
        }
        sampler->kernels->exp_each(weights, size);
        for (uint32_t i = 0; i < size; i++) {
            batch[i].weight = weights[i];
        }
    }
}

/* Tokens whose weight's logarithm reaches `cutoff` (-infinity: all), and some a little below. */
static uint32_t collect(const struct sampler *sampler, const float *logits,
                        const struct sampling_params *params, float max, double cutoff)
{
    double reach = cutoff * (double)params->temperature;
    double limit = (double)max + reach - 1e-6 * (fabs((double)max) - reach);
    float limit_below = nextafterf(limit > -FLT_MAX ? (float)limit : -INFINITY, -INFINITY);
    uint32_t count = 0;
    uint32_t token = 0;

    while (token < sampler->vocab) {
        uint32_t end;

        token = (uint32_t)sampler->kernels->find_from(logits, token, sampler->vocab, limit_below);
        end = sampler->vocab - token < FOUND_RUN ? sampler->vocab : token + FOUND_RUN;
        for (; token < end; token++) { /* where one is there may be more */
            if (logits[token] >= limit_below) {
                sampler->candidates[count++] =
                    (struct sampling_candidate){.logit = logits[token], .token = token};
            }
        }
    }
    weigh(sampler, count, max, params);
    return count;
}

/* --- truncation --- */

/* The k largest, sorted; of them the first whose weights reach p of all. */
static uint32_t keep_top_k(const struct sampler *sampler, const float *logits,
                           const struct sampling_params *params)
{
    struct sampling_candidate *candidates = sampler->candidates;
    uint32_t *tokens = (uint32_t *)candidates; /* each is read before its place is taken */
    uint32_t count = params->top_k;
    double total = 0.0;
    double reached = 0.0;
    uint32_t kept = 0;

    largest_tokens(sampler->kernels, logits, sampler->vocab, count, tokens);
    for (uint32_t i = count; i-- > 0;) {
        uint32_t token = tokens[i];

        candidates[i] = (struct sampling_candidate){.logit = logits[token], .token = token};
    }
    weigh(sampler, count, candidates[0].logit, params);
    if (!(params->top_p < 1.0f)) {
        return count;
    }
    for (uint32_t i = 0; i < count; i++) {
        total += candidates[i].weight;
    }
    do {
        reached += candidates[kept++].weight;
    } while (kept < count && reached < (double)params->top_p * total);
    return kept;
}

static void exchange(struct sampling_candidate *a, struct sampling_candidate *b)
{
    struct sampling_candidate kept = *a;

    *a = *b;
    *b = kept;
}

/* The median of first, middle and last goes to the front. */
static void choose_pivot(struct sampling_candidate *candidates, uint32_t count)
{
    struct sampling_candidate *middle = &candidates[count / 2];
    struct sampling_candidate *last = &candidates[count - 1];

    if (is_larger(last, middle)) {
        exchange(last, middle);
    }
    if (is_larger(&candidates[0], middle)) { /* the middle is the larger of the others */
        exchange(&candidates[0], middle);
    } else if (is_larger(last, &candidates[0])) {
        exchange(&candidates[0], last);
    }
}

/* Those larger than the first one go before it; returns its place, which is 1 or more if any is
 * larger; *weight is that of all before it. */
static uint32_t partition(struct sampling_candidate *candidates, uint32_t count, double *weight)
{
    struct sampling_candidate pivot = candidates[0];
    uint32_t place = 0;

    *weight = 0.0;
    for (uint32_t i = 1; i < count; i++) {
        if (is_larger(&candidates[i], &pivot)) {
            *weight += candidates[i].weight;
            place++;
            exchange(&candidates[place], &candidates[i]);
        }
    }
    exchange(&candidates[0], &candidates[place]);
    return place;
}

static void insertion_sort(struct sampling_candidate *candidates, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        for (uint32_t j = i; j > 0 && is_larger(&candidates[j], &candidates[j - 1]); j--) {
            exchange(&candidates[j], &candidates[j - 1]);
        }
    }
}

/* Brings the fewest largest whose weights reach `target` to the front; returns their number, at
 * least 1. Sums are taken as the partitions fall, which the candidates and their order decide. */
static uint32_t keep_weight(struct sampling_candidate *candidates, uint32_t count, double target)
{
    uint32_t begin = 0;
    uint32_t end = count; /* [0, begin) is kept, [end, count) is not */
    double reached = 0.0;

    while (end - begin > PARTITION_LEAST) {
        double weight;
        uint32_t place;

        choose_pivot(candidates + begin, end - begin);
        place = partition(candidates + begin, end - begin, &weight);
        if (place > 0 && reached + weight >= target) {
            end = begin + place;
        } else {
            reached += weight + candidates[begin + place].weight;
            begin += place + 1;
            if (reached >= target) {
                return begin;
            }
        }
    }
    insertion_sort(candidates + begin, end - begin);
    while (begin < end && (begin == 0 || reached < target)) {
        reached += candidates[begin++].weight;
    }
    return begin;
}

/* Tokens that weigh less than total (1 - p) / vocab weigh, all of them, less than 1 - p; half of
 * that leaves room for rounding. */
static uint32_t keep_top_p(const struct sampler *sampler, const float *logits,
                           const struct sampling_params *params, float max)
{
    double p = (double)params->top_p;
    double total =
        sampler->kernels->exp_total(logits, sampler->vocab, max, 1.0 / (double)params->temperature);
    double least = 0.5 * (1.0 - p) * total / sampler->vocab;
    uint32_t count = collect(sampler, logits, params, max, portable_log(least));

    return keep_weight(sampler->candidates, count, p * total);
}

static uint32_t keep_min_p(struct sampling_candidate *candidates, uint32_t count, double min_p)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < count; i++) {
        if (candidates[i].weight >= min_p) {
            candidates[kept++] = candidates[i];
        }
    }
    return kept;
}

static bool has_top_k(const struct sampler *sampler, const struct sampling_params *params)
{
    return params->top_k > 0 && params->top_k < sampler->vocab;
}

static bool has_truncation(const struct sampler *sampler, const struct sampling_params *params)
{
    return has_top_k(sampler, params) || params->top_p < 1.0f || params->min_p > 0.0f;
}

uint32_t sampling_truncate(struct sampler *sampler, const float *logits,
                           const struct sampling_params *params)
{
    double min_p = (double)params->min_p;
    uint32_t count;

    ASSERT(params->temperature > 0.0f);
    if (has_top_k(sampler, params)) {
        count = keep_top_k(sampler, logits, params);
    } else {
        float max = sampler->kernels->max(logits, sampler->vocab);

        count = params->top_p < 1.0f ? keep_top_p(sampler, logits, params, max)
                                     : collect(sampler, logits, params, max,
                                               min_p > 0.0 ? portable_log(min_p) : -INFINITY);
    }
    return min_p > 0.0 ? keep_min_p(sampler->candidates, count, min_p) : count;
}

/* --- noise --- */

/* -log(-log(u)), u = (bits + 1/2) / 2^52: exact, and never 0 or 1. */
static double noise_of(uint64_t hash)
{
    return -portable_log(-portable_log(((double)(hash >> 12) + 0.5) * 0x1p-52));
}

/* Never below noise_of: -log(u) >= 1 - u = v, and v >= 2^exponent. */
static double noise_above(uint64_t hash)
{
    uint64_t rest = (UINT64_C(1) << 52) - 1 - (hash >> 12);
    int exponent = rest == 0 ? -53 : 63 - __builtin_clzll(rest) - 52;

    return -(double)exponent * LN2_ABOVE;
}

double sampling_noise(const struct sampling_params *params, uint32_t position, uint32_t token)
{
    return noise_of(hash_counter(params->seed, params->choice, position, token));
}

struct winner {
    uint32_t token;
    double value; /* logit / temperature + noise */
};

static void compete(struct winner *winner, uint32_t token, double scaled_logit, uint64_t hash)
{
    double value;

    if (scaled_logit + noise_above(hash) < winner->value) {
        return;
    }
    value = scaled_logit + noise_of(hash);
    if (value > winner->value || (value == winner->value && token < winner->token)) {
        *winner = (struct winner){.token = token, .value = value};
    }
}

static uint32_t choose_among_all(const struct sampler *sampler, const float *logits,
                                 const struct sampling_params *params, uint32_t position)
{
    struct winner winner = {.token = UINT32_MAX, .value = -INFINITY};
    uint64_t hashes[NOISE_BATCH];

    for (uint32_t begin = 0; begin < sampler->vocab; begin += NOISE_BATCH) {
        uint32_t rest = sampler->vocab - begin;
        uint32_t count = rest < NOISE_BATCH ? rest : NOISE_BATCH;

        hash_counter_run(params->seed, params->choice, position, begin, count, hashes);
        for (uint32_t i = 0; i < count; i++) {
            compete(&winner, begin + i, scaled(logits[begin + i], params), hashes[i]);
        }
    }
    return winner.token;
}

uint32_t sampling_greedy(const struct kernels *kernels, const float *logits, uint32_t vocab)
{
    return (uint32_t)kernels->find_from(logits, 0, vocab, kernels->max(logits, vocab));
}

uint32_t sampling_choose(struct sampler *sampler, const float *logits,
                         const struct sampling_params *params, uint32_t position)
{
    struct winner winner = {.token = UINT32_MAX, .value = -INFINITY};
    uint32_t count;

    if (!(params->temperature > 0.0f)) {
        return sampling_greedy(sampler->kernels, logits, sampler->vocab);
    }
    if (!has_truncation(sampler, params)) {
        return choose_among_all(sampler, logits, params, position);
    }
    count = sampling_truncate(sampler, logits, params);
    for (uint32_t i = 0; i < count; i++) {
        const struct sampling_candidate *candidate = &sampler->candidates[i];

        compete(&winner, candidate->token, scaled(candidate->logit, params),
                hash_counter(params->seed, params->choice, position, candidate->token));
    }
    return winner.token;
}
