/* What each storage type of the cache costs, against the oracle's logits and tokens.
 *
 * A type's own error is the rms of one rounding, relative to the values' size:
 *
 *   f16   0.0002   an ulp of 2^-10, uniform in it and over a binade
 *   bf16  0.0016   eight times that
 *   q8    0.0055   (max / 127) / sqrt(12), max = 2.4 times the size for parts of 16 to 64 values
 *
 * A model multiplies it by a number of its own, which is nearly the same for every type, as long as
 * the error stays small: measured 1.0 to 4.0 over all positions of the dense models, and 0.7 to 7
 * for the median position of those with experts (there a choice flips now and then, and everything
 * behind it differs: positions whose routing is not the oracle's are left out). Bounds are 5 and 10
 * times the type's own error, and dense models must show q8 between bf16 and six times bf16. Their
 * greedy tokens are the oracle's but where its margin is within a few errors.
 */
#include "common/base/mem.h"
#include "tests/unit/worker/layers/golden_case.h"
#include "tests/unit/worker/layers/model_fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define GREEDY_TOKENS 32
#define DENSE_FACTOR  5.0
#define MOE_FACTOR    10.0
#define MARGIN_ERRORS 6.0 /* 4.2 sigma of the difference of two logits */

static const double own_error[KV_TYPE_COUNT] = {
    [KV_F32] = 0.0, [KV_F16] = 0.0002, [KV_BF16] = 0.0016, [KV_Q8] = 0.0055};

struct accuracy {
    struct engine *engine;
    const struct arch *arch;
    struct golden_case golden;
    double std;     /* of the oracle's logits */
    bool *agrees;   /* [position]: its routing is the oracle's */
    double *errors; /* [position]: rms over the vocabulary, of std */
    uint32_t prompt;
};

static enum cpu_level best_level(void)
{
    enum cpu_level best = CPU_REF;

    for (enum cpu_level level = CPU_REF; level < CPU_LEVEL_COUNT; level++) {
        best = cpu_level_available(level) ? level : best;
    }
    return best;
}

static double std_of(const float *values, size_t count)
{
    double sum = 0.0, squares = 0.0;

    for (size_t i = 0; i < count; i++) {
        sum += (double)values[i];
        squares += (double)values[i] * (double)values[i];
    }
    return sqrt(squares / (double)count - sum / (double)count * sum / (double)count);
}

static struct accuracy accuracy_open(const char *name, enum kv_type type)
{
    struct engine_options options = {
        .level = best_level(),
        .thread_count = 2,
        .kv_type = type,
        .rows_max = 256,
        .context_tokens_max = 256,
    };
    struct accuracy a = {.engine = engine_open(name, &options)};

    a.arch = &a.engine->model.weights->arch;
    a.golden = golden_case_open(name, a.arch->layer_count, a.arch->router.chosen_count);
    a.std = std_of(a.golden.logits, a.golden.logits_bytes / sizeof(float));
    a.agrees = mem_new_array(bool, a.golden.position_count);
    a.errors = mem_new_array(double, a.golden.position_count);
    for (uint32_t i = 0; i < a.golden.position_count; i++) {
        a.agrees[i] = true;
    }
    return a;
}

static void accuracy_close(struct accuracy *a)
{
    mem_free(a->agrees);
    mem_free(a->errors);
    golden_case_close(&a->golden);
    engine_close(a->engine);
}

static void routing_compare(void *context, uint32_t layer, const struct expert_choice *choices,
                            uint32_t row_count)
{
    struct accuracy *a = context;
    uint32_t first = a->golden.prompts[a->prompt].logits_row;
    uint32_t chosen = a->arch->router.chosen_count;

    for (uint32_t r = 0; r < row_count; r++) {
        const struct golden_route *route =
            &a->golden.routes[(size_t)layer * a->golden.position_count + first + r];

        for (uint32_t i = 0; i < chosen; i++) {
            if (choices[(size_t)r * chosen + i].expert != route->experts[i]) {
                a->agrees[first + r] = false;
            }
        }
    }
}

static double rms_difference(const float *a, const float *b, size_t count)
{
    double squares = 0.0;

    for (size_t i = 0; i < count; i++) {
        double difference = (double)a[i] - (double)b[i];

        squares += difference * difference;
    }
    return sqrt(squares / (double)count);
}

static uint32_t highest_logit(const float *logits, uint32_t vocab)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < vocab; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return best;
}

/* All prompts, each in one step; logits of their last positions into last [prompt][vocab]. */
static void prompts_run(struct accuracy *a, float *last)
{
    const uint32_t vocab = a->arch->vocab;
    float *logits = mem_new_array(float, (size_t)256 * vocab);

    for (uint32_t id = 0; id < GOLDEN_PROMPTS; id++) {
        const struct golden_prompt *prompt = &a->golden.prompts[id];
        struct engine_taps taps = {a, NULL,
                                   a->arch->router.expert_count > 0 ? routing_compare : NULL};
        struct forward_row rows[256];

        a->prompt = id;
        for (uint32_t i = 0; i < prompt->token_count; i++) {
            rows[i] = (struct forward_row){.slot = id, .position = i, .token = prompt->tokens[i]};
        }
        engine_step(a->engine, rows, prompt->token_count, &taps, logits);
        for (uint32_t i = 0; i < prompt->token_count; i++) {
            size_t position = prompt->logits_row + i;

            a->errors[position] = rms_difference(logits + (size_t)i * vocab,
                                                 a->golden.logits + position * vocab, vocab) /
                                  a->std;
        }
        memcpy(last + (size_t)id * vocab, logits + (size_t)(prompt->token_count - 1) * vocab,
               vocab * sizeof(float));
    }
    mem_free(logits);
}

/* Greedy tokens of a prompt until the first that is not the oracle's; returns how many are. */
static uint32_t greedy_run(struct accuracy *a, uint32_t id, const float *last)
{
    const struct golden_prompt *prompt = &a->golden.prompts[id];
    float *logits = mem_new_array(float, a->arch->vocab);
    uint32_t step = 0;

    memcpy(logits, last + (size_t)id * a->arch->vocab, a->arch->vocab * sizeof(float));
    while (step < GREEDY_TOKENS && highest_logit(logits, a->arch->vocab) == prompt->greedy[step]) {
        struct forward_row row = {.slot = id,
                                  .position = prompt->token_count + step,
                                  .token = prompt->greedy[step],
                                  .token_class = TOKEN_GENERATED};

        engine_step(a->engine, &row, 1, NULL, logits);
        step++;
    }
    mem_free(logits);
    return step;
}

static int by_size(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static double median_error(const struct accuracy *a, uint32_t *count)
{
    double *kept = mem_new_array(double, a->golden.position_count);
    double median;

    *count = 0;
    for (uint32_t i = 0; i < a->golden.position_count; i++) {
        if (a->agrees[i]) {
            kept[(*count)++] = a->errors[i];
        }
    }
    assert_true(*count > 0);
    qsort(kept, *count, sizeof(*kept), by_size);
    median = kept[*count / 2];
    mem_free(kept);
    return median;
}

static double rms_error(const struct accuracy *a)
{
    double squares = 0.0;

    for (uint32_t i = 0; i < a->golden.position_count; i++) {
        squares += a->errors[i] * a->errors[i];
    }
    return sqrt(squares / a->golden.position_count);
}

struct outcome {
    double error;             /* of all positions, or the median of those whose routing agrees */
    uint32_t positions_agree; /* in their routing */
    uint32_t positions;
    uint32_t tokens_agree; /* of GOLDEN_PROMPTS * GREEDY_TOKENS */
    double margin_lost;    /* the largest of the first other tokens, of the logits' std */
};

static struct outcome measure(const char *name, enum kv_type type)
{
    struct accuracy a = accuracy_open(name, type);
    float *last = mem_new_array(float, (size_t)GOLDEN_PROMPTS *a.arch->vocab);
    struct outcome out = {.positions = a.golden.position_count};

    prompts_run(&a, last);
    out.error = median_error(&a, &out.positions_agree);
    if (a.arch->router.expert_count == 0) {
        out.error = rms_error(&a);
    }
    for (uint32_t id = 0; id < GOLDEN_PROMPTS; id++) {
        uint32_t count = greedy_run(&a, id, last);

        out.tokens_agree += count;
        if (count < GREEDY_TOKENS) {
            out.margin_lost = fmax(out.margin_lost, a.golden.prompts[id].margins[count] / a.std);
        }
    }
    print_message("%s, %s: error %.5f of std, routing of %u of %u positions, %u greedy tokens, "
                  "margin lost %.4f\n",
                  name, kv_type_name(type), out.error, out.positions_agree, out.positions,
                  out.tokens_agree, out.margin_lost);
    mem_free(last);
    accuracy_close(&a);
    return out;
}

static void dense_models_err_as_much_as_the_type_does(void **state)
{
    static const char *const names[] = {"llama-bf16", "llama-tied", "qwen2-bf16", "qwen2-untied"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        struct outcome out[KV_TYPE_COUNT];

        for (enum kv_type type = KV_F16; type < KV_TYPE_COUNT; type++) {
            out[type] = measure(names[i], type);
            assert_true(out[type].error <= DENSE_FACTOR * own_error[type]);
            assert_true(out[type].margin_lost <= MARGIN_ERRORS * out[type].error);
        }
        assert_true(out[KV_F16].error < out[KV_BF16].error);
        assert_true(out[KV_BF16].error < out[KV_Q8].error);
        assert_true(out[KV_Q8].error < 6.0 * out[KV_BF16].error);
        assert_int_equal(out[KV_F16].tokens_agree, GOLDEN_PROMPTS * GREEDY_TOKENS);
    }
}

static void models_with_experts_err_as_much_where_routing_agrees(void **state)
{
    static const char *const names[] = {"qwen3_moe-bf16", "deepseek_v2-lite-bf16",
                                        "deepseek_v2-bf16", "deepseek_v3-bf16", "deepseek_v3-fp8"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        for (enum kv_type type = KV_F16; type < KV_TYPE_COUNT; type++) {
            struct outcome out = measure(names[i], type);

            assert_true(out.error <= MOE_FACTOR * own_error[type]);
            assert_true(out.positions_agree * 10 >= out.positions * 9);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dense_models_err_as_much_as_the_type_does),
        cmocka_unit_test(models_with_experts_err_as_much_where_routing_agrees),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
