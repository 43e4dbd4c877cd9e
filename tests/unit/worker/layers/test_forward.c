/* The forward pass: golden values, and the same bits however the work is cut. */
#include "common/base/mem.h"
#include "tests/unit/worker/layers/golden_case.h"
#include "tests/unit/worker/layers/model_fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define TOLERANCE 2e-3

static enum cpu_level best_level(void)
{
    enum cpu_level best = CPU_REF;

    for (enum cpu_level level = CPU_REF; level < CPU_LEVEL_COUNT; level++) {
        best = cpu_level_available(level) ? level : best;
    }
    return best;
}

static struct engine_options options_default(void)
{
    return (struct engine_options){
        .level = best_level(),
        .thread_count = 2,
        .kv_type = KV_F32,
        .rows_max = 256,
        .context_tokens_max = 256,
    };
}

/* How prompts are cut into steps. */
enum schedule {
    SCHEDULE_WHOLE,  /* one prompt, one step */
    SCHEDULE_TOKENS, /* one token a step */
    SCHEDULE_RAGGED, /* several prompts in a step, in random pieces, in random slots */
};

struct run_cursor {
    uint32_t done[GOLDEN_PROMPTS]; /* tokens of each prompt already in the cache */
    uint32_t slot_offset;
    uint32_t random;
    enum schedule schedule;
};

static uint32_t random_below(struct run_cursor *cursor, uint32_t bound)
{
    cursor->random = cursor->random * 1664525u + 1013904223u;
    return (cursor->random >> 8) % bound;
}

/* How many tokens of a prompt the step takes. */
static uint32_t piece_tokens(struct run_cursor *cursor, const struct golden_case *golden,
                             uint32_t prompt, uint32_t row_count)
{
    uint32_t left = golden->prompts[prompt].token_count - cursor->done[prompt];
    uint32_t take = left;

    if (cursor->schedule == SCHEDULE_RAGGED) {
        take = random_below(cursor, 2) == 0 ? random_below(cursor, 3) : random_below(cursor, 90);
    } else if (row_count > 0) {
        take = 0;
    } else if (cursor->schedule == SCHEDULE_TOKENS) {
        take = 1;
    }
    return take < left ? take : left;
}

struct step_rows_plan {
    struct forward_row rows[GOLDEN_PROMPTS * 170];
    uint32_t logits_rows[GOLDEN_PROMPTS * 170];
    uint32_t row_count;
};

static void step_plan(struct run_cursor *cursor, const struct golden_case *golden,
                      struct step_rows_plan *out)
{
    uint32_t first = cursor->schedule == SCHEDULE_RAGGED ? random_below(cursor, 4) : 0;

    out->row_count = 0;
    for (uint32_t i = 0; i < GOLDEN_PROMPTS; i++) {
        uint32_t id = (first + i) % GOLDEN_PROMPTS;
        const struct golden_prompt *prompt = &golden->prompts[id];
        uint32_t take = piece_tokens(cursor, golden, id, out->row_count);

        for (uint32_t t = 0; t < take; t++) {
            uint32_t position = cursor->done[id]++;

            out->rows[out->row_count] = (struct forward_row){
                .slot = (id + cursor->slot_offset) % ENGINE_SLOTS,
                .position = position,
                .token = prompt->tokens[position],
            };
            out->logits_rows[out->row_count++] = prompt->logits_row + position;
        }
    }
}

static bool run_is_done(const struct run_cursor *cursor, const struct golden_case *golden)
{
    for (uint32_t i = 0; i < GOLDEN_PROMPTS; i++) {
        if (cursor->done[i] < golden->prompts[i].token_count) {
            return false;
        }
    }
    return true;
}

/* Logits of every position of every prompt, in the golden order; mem_free them. */
static float *prompts_run(struct engine *engine, const struct golden_case *golden,
                          enum schedule schedule, uint32_t seed)
{
    uint32_t vocab = engine->model.weights->arch.vocab;
    float *logits = mem_new_array(float, (size_t)golden->position_count *vocab);
    float *step_logits = mem_new_array(float, (size_t)engine->options.rows_max *vocab);
    struct run_cursor cursor = {
        .slot_offset = seed % ENGINE_SLOTS, .random = seed, .schedule = schedule};
    struct step_rows_plan plan;

    while (!run_is_done(&cursor, golden)) {
        step_plan(&cursor, golden, &plan);
        if (plan.row_count == 0) {
            continue;
        }
        engine_step(engine, plan.rows, plan.row_count, NULL, step_logits);
        for (uint32_t r = 0; r < plan.row_count; r++) {
            memcpy(logits + (size_t)plan.logits_rows[r] * vocab, step_logits + (size_t)r * vocab,
                   vocab * sizeof(float));
        }
    }
    mem_free(step_logits);
    return logits;
}

static double largest_difference(const float *a, const float *b, size_t count)
{
    double largest = 0.0;

    for (size_t i = 0; i < count; i++) {
        double difference = fabs((double)a[i] - (double)b[i]);

        largest = difference > largest || isnan(difference) ? difference : largest;
    }
    return largest;
}

struct golden_check {
    const struct golden_case *golden;
    const struct arch *arch;
    uint32_t prompt;
    double hidden_error;
    double weight_error;
    uint32_t routes_seen;
};

static void hidden_check(void *context, uint32_t layer, const float *x, uint32_t row_count)
{
    struct golden_check *check = context;
    size_t count = (size_t)row_count * check->arch->hidden;
    double error;

    if (check->prompt != 2) {
        return;
    }
    error = largest_difference(x, check->golden->hidden + layer * count, count);
    check->hidden_error = fmax(error, check->hidden_error);
}

static void routing_check(void *context, uint32_t layer, const struct expert_choice *choices,
                          uint32_t row_count)
{
    struct golden_check *check = context;
    const struct golden_case *golden = check->golden;
    uint32_t chosen = check->arch->router.chosen_count;
    size_t begin =
        (size_t)layer * golden->position_count + golden->prompts[check->prompt].logits_row;

    for (uint32_t r = 0; r < row_count; r++) {
        const struct golden_route *route = &golden->routes[begin + r];

        for (uint32_t i = 0; i < chosen; i++) {
            const struct expert_choice *choice = &choices[(size_t)r * chosen + i];

            if (choice->expert != route->experts[i]) {
                assert_true(route->gap < 1e-5);
                break;
            }
            check->weight_error =
                fmax(check->weight_error,
                     fabs((double)choice->weight / (double)route->weights[i] - 1.0));
        }
        check->routes_seen++;
    }
}

static void golden_values_are_met(const char *name)
{
    struct engine_options options = options_default();
    struct engine *engine = engine_open(name, &options);
    const struct arch *arch = &engine->model.weights->arch;
    struct golden_case golden =
        golden_case_open(name, arch->layer_count, arch->router.chosen_count);
    struct golden_check check = {.golden = &golden, .arch = arch};
    struct engine_taps taps = {&check, hidden_check, routing_check};
    float *logits = mem_new_array(float, (size_t)golden.position_count * arch->vocab);
    double error;

    assert_int_equal(golden.logits_bytes, (size_t)golden.position_count * arch->vocab * 4);
    assert_int_equal(golden.hidden_bytes, (size_t)(arch->layer_count + 2) * 17 * arch->hidden * 4);
    for (uint32_t id = 0; id < GOLDEN_PROMPTS; id++) {
        const struct golden_prompt *prompt = &golden.prompts[id];
        struct forward_row rows[256];

        check.prompt = id;
        for (uint32_t i = 0; i < prompt->token_count; i++) {
            rows[i] = (struct forward_row){.slot = id, .position = i, .token = prompt->tokens[i]};
        }
        engine_step(engine, rows, prompt->token_count, &taps,
                    logits + (size_t)prompt->logits_row * arch->vocab);
    }
    error = largest_difference(logits, golden.logits, golden.logits_bytes / sizeof(float));
    print_message("%s: logits %.2e, hidden %.2e, routing weights %.2e\n", name, error,
                  check.hidden_error, check.weight_error);
    assert_true(error <= TOLERANCE);
    assert_true(check.hidden_error <= TOLERANCE);
    assert_true(check.weight_error <= 1e-4);
    assert_int_equal(check.routes_seen,
                     (arch->layer_count - arch->dense_layer_count) * golden.position_count);
    mem_free(logits);
    golden_case_close(&golden);
    engine_close(engine);
}

static void v3_meets_its_golden_values(void **state)
{
    (void)state;
    golden_values_are_met("deepseek_v3-bf16");
}

static void v3_in_f8_meets_its_golden_values(void **state)
{
    (void)state;
    golden_values_are_met("deepseek_v3-fp8");
}

static void v2_meets_its_golden_values(void **state)
{
    (void)state;
    golden_values_are_met("deepseek_v2-bf16");
}

static void v2_lite_meets_its_golden_values(void **state)
{
    (void)state;
    golden_values_are_met("deepseek_v2-lite-bf16");
}

static void grouped_models_meet_their_golden_values(void **state)
{
    (void)state;
    golden_values_are_met("llama-bf16");
    golden_values_are_met("llama-tied");
    golden_values_are_met("qwen2-bf16");
    golden_values_are_met("qwen2-untied");
    golden_values_are_met("qwen3_moe-bf16");
    golden_values_are_met("qwen3-random"); /* output biases, yarn; float64 oracle */
}

static uint32_t highest_logit(const float *logits, uint32_t vocab)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < vocab; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return best;
}

/* All prompts decode together, one row each. */
static void greedy_tokens_are_met(const char *name)
{
    struct engine_options options = options_default();
    struct engine *engine = engine_open(name, &options);
    const struct arch *arch = &engine->model.weights->arch;
    struct golden_case golden =
        golden_case_open(name, arch->layer_count, arch->router.chosen_count);
    float *logits = prompts_run(engine, &golden, SCHEDULE_WHOLE, 0);
    float *next = mem_new_array(float, (size_t)GOLDEN_PROMPTS * arch->vocab);

    for (uint32_t id = 0; id < GOLDEN_PROMPTS; id++) {
        uint32_t last = golden.prompts[id].logits_row + golden.prompts[id].token_count - 1;

        memcpy(next + (size_t)id * arch->vocab, logits + (size_t)last * arch->vocab,
               arch->vocab * sizeof(float));
    }
    for (uint32_t step = 0; step < 32; step++) {
        struct forward_row rows[GOLDEN_PROMPTS];

        for (uint32_t id = 0; id < GOLDEN_PROMPTS; id++) {
            uint32_t token = highest_logit(next + (size_t)id * arch->vocab, arch->vocab);

            assert_int_equal(token, golden.prompts[id].greedy[step]);
            rows[id] = (struct forward_row){.slot = id,
                                            .position = golden.prompts[id].token_count + step,
                                            .token = token,
                                            .token_class = TOKEN_GENERATED};
        }
        engine_step(engine, rows, GOLDEN_PROMPTS, NULL, next);
    }
    mem_free(next);
    mem_free(logits);
    golden_case_close(&golden);
    engine_close(engine);
}

static void greedy_tokens_are_the_golden_ones(void **state)
{
    static const char *const names[] = {"deepseek_v3-bf16", "llama-bf16",     "llama-tied",
                                        "qwen2-bf16",       "qwen2-untied",   "qwen3_moe-bf16",
                                        "qwen3-random",     "deepseek_v3-fp8"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        greedy_tokens_are_met(names[i]);
    }
}

/* Runs the prompts with `options` and compares with `expected`. */
static void same_bits_expected(const char *name, const struct engine_options *options,
                               enum schedule schedule, const float *expected)
{
    struct engine *engine = engine_open(name, options);
    const struct arch *arch = &engine->model.weights->arch;
    struct golden_case golden =
        golden_case_open(name, arch->layer_count, arch->router.chosen_count);
    float *logits = prompts_run(engine, &golden, schedule, 1 + schedule + options->thread_count);

    if (memcmp(logits, expected, golden.logits_bytes) != 0) {
        fail_msg("%s: other bits at level %s, %u threads, schedule %d, kv %s, %u owners", name,
                 cpu_level_name(options->level), options->thread_count, schedule,
                 kv_type_name(options->kv_type), options->owner_count);
    }
    mem_free(logits);
    golden_case_close(&golden);
    engine_close(engine);
}

/* One thread, whole prompts, plain C. */
static float *baseline(const char *name, enum kv_type kv_type)
{
    struct engine_options options = options_default();
    struct engine *engine;
    struct golden_case golden;
    float *logits;

    options.level = CPU_REF;
    options.thread_count = 1;
    options.kv_type = kv_type;
    engine = engine_open(name, &options);
    golden = golden_case_open(name, engine->model.weights->arch.layer_count,
                              engine->model.weights->arch.router.chosen_count);
    logits = prompts_run(engine, &golden, SCHEDULE_WHOLE, 0);
    golden_case_close(&golden);
    engine_close(engine);
    return logits;
}

/* Sanitized code takes a third of the runs: each level with each schedule, each of them with
 * another number of threads, which turns with the level; of plain C, much the slowest, one. */
static bool is_run(enum cpu_level level, uint32_t thread_count, enum schedule schedule)
{
    return SHOAL_SANITIZED == 0 ||
           (level == CPU_REF ? thread_count == 2 && schedule == SCHEDULE_RAGGED
                             : (level + thread_count + schedule) % 3 == 0);
}

static void level_never_shows(const char *name, enum cpu_level level, const float *expected)
{
    struct engine_options options = options_default();

    options.level = level;
    for (options.thread_count = 1; options.thread_count <= 3; options.thread_count++) {
        for (enum schedule s = SCHEDULE_WHOLE; s <= SCHEDULE_RAGGED; s++) {
            if (is_run(level, options.thread_count, s)) {
                same_bits_expected(name, &options, s, expected);
            }
        }
    }
}

static void only_the_model_shows(const char *name)
{
    float *expected = baseline(name, KV_F32);

    for (enum cpu_level level = CPU_REF; level < CPU_LEVEL_COUNT; level++) {
        if (cpu_level_available(level)) {
            level_never_shows(name, level, expected);
        } else {
            print_message("skipped: this machine has no %s\n", cpu_level_name(level));
        }
    }
    mem_free(expected);
}

static void cpus_and_owners_never_show_in_f8(void **state)
{
    float *expected = baseline("deepseek_v3-fp8", KV_F32);
    struct engine_options options = options_default();

    (void)state;
    for (enum cpu_level level = CPU_REF; level < CPU_LEVEL_COUNT; level++) {
        if (cpu_level_available(level)) {
            options.level = level;
            options.owner_count = 0;
            same_bits_expected("deepseek_v3-fp8", &options, SCHEDULE_TOKENS, expected);
            options.owner_count = 2;
            options.owner_run = 1;
            same_bits_expected("deepseek_v3-fp8", &options, SCHEDULE_RAGGED, expected);
        }
    }
    mem_free(expected);
}

static void chunks_threads_and_cpus_never_show(void **state)
{
    (void)state;
    only_the_model_shows("deepseek_v3-bf16");
    only_the_model_shows("llama-bf16");
    only_the_model_shows("qwen2-bf16");
    only_the_model_shows("qwen3_moe-bf16");
}

static void narrow_caches_are_read_as_they_store(void **state)
{
    static const char *const names[] = {"deepseek_v2-lite-bf16", "llama-tied"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        for (enum kv_type type = KV_F16; type < KV_TYPE_COUNT; type++) {
            float *expected = baseline(names[i], type);
            struct engine_options options = options_default();

            options.kv_type = type;
            same_bits_expected(names[i], &options, SCHEDULE_TOKENS, expected);
            same_bits_expected(names[i], &options, SCHEDULE_RAGGED, expected);
            mem_free(expected);
        }
    }
}

/* Expert runs of 1 split groups between owners, of 4 give each owner whole groups. */
static void owners_of_experts_never_show(void **state)
{
    static const char *const names[] = {"deepseek_v3-bf16", "deepseek_v2-lite-bf16",
                                        "qwen3_moe-bf16"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        float *expected = baseline(names[i], KV_F32);
        struct engine_options options = options_default();

        for (options.owner_count = 2; options.owner_count <= 4; options.owner_count += 2) {
            for (options.owner_run = 1; options.owner_run <= 4; options.owner_run++) {
                same_bits_expected(names[i], &options, SCHEDULE_RAGGED, expected);
            }
        }
        mem_free(expected);
    }
}

#define LONG_TOKENS 2100
#define LONG_PROMPT 2070 /* the rest is generated */

/* Tokens of the long sequence: high bits of a linear congruential generator. */
static void long_rows(struct forward_row *rows, uint32_t slot, uint32_t vocab)
{
    uint32_t state = 12345;

    for (uint32_t i = 0; i < LONG_TOKENS; i++) {
        state = state * 1664525u + 1013904223u;
        rows[i] =
            (struct forward_row){.slot = slot,
                                 .position = i,
                                 .token = (state >> 8) % vocab,
                                 .token_class = i < LONG_PROMPT ? TOKEN_PROMPT : TOKEN_GENERATED};
    }
}

/* All logits of the long sequence in steps of `step_rows`, the last tokens singly. */
static float *long_run(const char *name, uint32_t thread_count, uint32_t step_rows)
{
    struct engine_options options = options_default();
    struct engine *engine;
    float *logits;
    uint32_t vocab;
    struct forward_row *rows = mem_new_array(struct forward_row, LONG_TOKENS);

    options.thread_count = thread_count;
    options.rows_max = step_rows;
    options.context_tokens_max = LONG_TOKENS;
    engine = engine_open(name, &options);
    vocab = engine->model.weights->arch.vocab;
    logits = mem_new_array(float, (size_t)LONG_TOKENS *vocab);
    long_rows(rows, thread_count, vocab);
    for (uint32_t begin = 0; begin < LONG_TOKENS;) {
        uint32_t count = LONG_TOKENS - begin > step_rows ? step_rows : 1;

        engine_step(engine, rows + begin, count, NULL, logits + (size_t)begin * vocab);
        begin += count;
    }
    mem_free(rows);
    engine_close(engine);
    return logits;
}

/* long_logits.f32: the float64 pass of an independent implementation, at positions around the
 * borders of key blocks and context splits. */
static void long_context_is_met(const char *name)
{
    static const uint32_t positions[] = {0,    63,   64,   1022, 1023, 1024, 1025,
                                         1500, 2046, 2047, 2048, 2049, 2099};
    size_t bytes, vocab;
    float *expected = golden_read_floats(name, "long_logits.f32", &bytes);
    float *logits = long_run(name, 1, 700);
    float *again = long_run(name, 3, 111);

    vocab = bytes / sizeof(float) / ARRAY_LENGTH(positions);
    for (size_t i = 0; i < ARRAY_LENGTH(positions); i++) {
        double error =
            largest_difference(logits + positions[i] * vocab, expected + i * vocab, vocab);

        print_message("%s, position %u: logits %.2e\n", name, positions[i], error);
        assert_true(error <= TOLERANCE);
    }
    assert_memory_equal(logits, again, LONG_TOKENS * vocab * sizeof(float));
    mem_free(again);
    mem_free(logits);
    mem_free(expected);
}

static void context_splits_change_nothing(void **state)
{
    (void)state;
    long_context_is_met("deepseek_v3-bf16");
    long_context_is_met("llama-bf16");
}

static void buffers_take_what_the_ledger_says(void **state)
{
    struct test_model model = test_model_open("deepseek_v3-bf16", NULL);
    const struct arch *arch = &model.weights->arch;
    uint64_t small = forward_bytes(arch, 16, 64, 2560, 2);
    uint64_t large = forward_bytes(arch, 512, 2048, 2560, 2);

    (void)state;
    assert_true(small < large);
    assert_true(large < (uint64_t)32 << 20);
    assert_true(forward_bytes(arch, 16, 64, UINT32_MAX, 2) < small); /* no rope table */
    test_model_close(&model);
}

static void a_failed_allocation_is_reported(void **state)
{
    struct engine_options options = options_default();
    struct engine *engine = engine_open("deepseek_v2-lite-bf16", &options);
    const struct forward_config config = {
        .arch = &engine->model.weights->arch,
        .weights = engine->model.weights,
        .cache = engine->cache,
        .kernels = kernels_for(CPU_REF, NUMERICS_EXACT),
        .team = engine->team,
        .rows_max = 4,
        .expert_rows_max = 16,
    };
    struct error err;

    (void)state;
    mem_fail_after(1);
    assert_null(forward_create(&config, &err));
    mem_fail_after(0);
    assert_int_equal(err.code, ERROR_LIMIT);
    engine_close(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(v3_meets_its_golden_values),
        cmocka_unit_test(v3_in_f8_meets_its_golden_values),
        cmocka_unit_test(v2_meets_its_golden_values),
        cmocka_unit_test(v2_lite_meets_its_golden_values),
        cmocka_unit_test(grouped_models_meet_their_golden_values),
        cmocka_unit_test(greedy_tokens_are_the_golden_ones),
        cmocka_unit_test(chunks_threads_and_cpus_never_show),
        cmocka_unit_test(cpus_and_owners_never_show_in_f8),
        cmocka_unit_test(narrow_caches_are_read_as_they_store),
        cmocka_unit_test(owners_of_experts_never_show),
        cmocka_unit_test(context_splits_change_nothing),
        cmocka_unit_test(buffers_take_what_the_ledger_says),
        cmocka_unit_test(a_failed_allocation_is_reported),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
