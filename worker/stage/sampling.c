/* sampling.c - greedy, or Gumbel-max after truncation.
 *
 * Truncation needs the largest few in order, so candidates are a binary heap with the largest on
 * top, and only what is kept is taken off it. The noise of a token costs two logarithms; a cheap
 * upper bound of it shows for nearly all of a large vocabulary that they can't win, without
 * touching the result.
 */
#include "worker/stage/sampling.h"

#include "common/base/check.h"
#include "common/base/hash.h"
#include "common/model/portable_math.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define LN2_ABOVE 0.69314718056 /* a little more than ln 2 */
/* exp of less than this is below half a unit in the last place of any sum from 1 on. */
#define EXP_VANISHES (-37.5)

size_t sampling_scratch_bytes(uint32_t vocab)
{
    return (size_t)vocab * sizeof(struct sampling_candidate);
}

static uint32_t choose_greedy(const float *logits, uint32_t vocab)
{
    uint32_t best = 0;

    for (uint32_t token = 1; token < vocab; token++) {
        best = logits[token] > logits[best] ? token : best;
    }
    return best;
}

/* --- truncation --- */

static bool is_larger(const struct sampling_candidate *a, const struct sampling_candidate *b)
{
    return a->scaled > b->scaled || (a->scaled == b->scaled && a->token < b->token);
}

static void heap_sink(struct sampling_candidate *heap, uint32_t count, uint32_t at)
{
    struct sampling_candidate moved = heap[at];

    for (;;) {
        uint32_t child = 2 * at + 1;

        if (child >= count) {
            break;
        }
        if (child + 1 < count && is_larger(&heap[child + 1], &heap[child])) {
            child++;
        }
        if (!is_larger(&heap[child], &moved)) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

static void heap_make(struct sampling_candidate *heap, uint32_t count)
{
    for (uint32_t at = count / 2; at-- > 0;) {
        heap_sink(heap, count, at);
    }
}

/* Moves the largest behind the heap's end; it is then heap[count - 1]. */
static void heap_take(struct sampling_candidate *heap, uint32_t count)
{
    struct sampling_candidate largest = heap[0];

    heap[0] = heap[count - 1];
    heap_sink(heap, count - 1, 0);
    heap[count - 1] = largest;
}

/* The taken ones stand at the end; moves them to the front. */
static uint32_t keep_taken(struct sampling_candidate *candidates, uint32_t count, uint32_t taken)
{
    memmove(candidates, candidates + (count - taken), taken * sizeof(candidates[0]));
    return taken;
}

static uint32_t keep_top_k(struct sampling_candidate *candidates, uint32_t count, uint32_t k)
{
    if (k == 0 || k >= count) {
        return count;
    }
    heap_make(candidates, count);
    for (uint32_t i = 0; i < k; i++) {
        heap_take(candidates, count - i);
    }
    return keep_taken(candidates, count, k);
}

static double largest_scaled(const struct sampling_candidate *candidates, uint32_t count)
{
    double largest = candidates[0].scaled;

    for (uint32_t i = 1; i < count; i++) {
        largest = candidates[i].scaled > largest ? candidates[i].scaled : largest;
    }
    return largest;
}

static uint32_t keep_top_p(struct sampling_candidate *candidates, uint32_t count, double p)
{
    double largest = largest_scaled(candidates, count);
    double total = 0.0;
    double reached = 0.0;
    uint32_t kept = 0;

    if (!(p < 1.0)) {
        return count;
    }
    heap_make(candidates, count);
    /* The heap's top comes first and counts 1, so what vanishes need not be computed. */
    for (uint32_t i = 0; i < count; i++) {
        if (candidates[i].scaled - largest >= EXP_VANISHES) {
            total += portable_exp(candidates[i].scaled - largest);
        }
    }
    do {
        heap_take(candidates, count - kept);
        kept++;
        reached += portable_exp(candidates[count - kept].scaled - largest);
    } while (kept < count && reached < p * total);
    return keep_taken(candidates, count, kept);
}

static uint32_t keep_min_p(struct sampling_candidate *candidates, uint32_t count, double min_p)
{
    double largest = largest_scaled(candidates, count);
    double hopeless; /* below it no exp is needed to see that exp < min_p */
    uint32_t kept = 0;

    if (!(min_p > 0.0)) {
        return count;
    }
    hopeless = portable_log(min_p) - 1e-6;
    for (uint32_t i = 0; i < count; i++) {
        if (candidates[i].scaled - largest >= hopeless &&
            portable_exp(candidates[i].scaled - largest) >= min_p) {
            candidates[kept++] = candidates[i];
        }
    }
    return kept;
}

uint32_t sampling_truncate(const float *logits, uint32_t vocab,
                           const struct sampling_params *params,
                           struct sampling_candidate *candidates)
{
    double temperature = (double)params->temperature;
    uint32_t count = vocab;

    ASSERT(vocab > 0 && temperature > 0.0);
    for (uint32_t token = 0; token < vocab; token++) {
        candidates[token] =
            (struct sampling_candidate){.scaled = (double)logits[token] / temperature, token};
    }
    count = keep_top_k(candidates, count, params->top_k);
    count = keep_top_p(candidates, count, (double)params->top_p);
    return keep_min_p(candidates, count, (double)params->min_p);
}

/* --- noise --- */

static uint64_t noise_bits(const struct sampling_params *params, uint32_t position, uint32_t token)
{
    return hash_counter(params->seed, params->choice, position, token) >> 12;
}

/* -log(-log(u)), u = (bits + 1/2) / 2^52: exact, and never 0 or 1. */
static double noise_of_bits(uint64_t bits)
{
    return -portable_log(-portable_log(((double)bits + 0.5) * 0x1p-52));
}

/* Never below noise_of_bits: -log(u) >= 1 - u = v, and v >= 2^exponent. */
static double noise_above(uint64_t bits)
{
    uint64_t rest = (UINT64_C(1) << 52) - 1 - bits;
    int exponent = rest == 0 ? -53 : 63 - __builtin_clzll(rest) - 52;

    return -(double)exponent * LN2_ABOVE;
}

double sampling_noise(const struct sampling_params *params, uint32_t position, uint32_t token)
{
    return noise_of_bits(noise_bits(params, position, token));
}

uint32_t sampling_choose(const float *logits, uint32_t vocab, const struct sampling_params *params,
                         uint32_t position, struct sampling_candidate *candidates)
{
    uint32_t count;
    uint32_t best = 0;
    double best_value = -INFINITY;

    if (!(params->temperature > 0.0f)) {
        return choose_greedy(logits, vocab);
    }
    count = sampling_truncate(logits, vocab, params, candidates);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t bits = noise_bits(params, position, candidates[i].token);
        double value;

        if (candidates[i].scaled + noise_above(bits) < best_value) {
            continue;
        }
        value = candidates[i].scaled + noise_of_bits(bits);
        if (value > best_value || (value == best_value && candidates[i].token < best)) {
            best_value = value;
            best = candidates[i].token;
        }
    }
    return best;
}
