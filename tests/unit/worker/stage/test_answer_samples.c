/* What the last stage answers about tokens, in whole clusters: drafts, chunks, layouts and tokens
 * that are computed again never show in samples and log-probabilities. */
#include "cluster_fixture.h"

#include "common/base/hash.h"
#include "worker/stage/logprobs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define GOLDEN     SHOAL_TEST_DATA "/deepseek_v3-bf16"
#define PROMPT     90 /* a whole block and a part */
#define ANSWER     24
#define TOKENS_MAX (PROMPT + ANSWER + 8)
#define BLOCKS     3
#define TOP        5

static struct catalog *catalog;
static uint32_t prompt[PROMPT];
static const struct token_bias biases[] = {{1, -100.0f}, {17, 0.75f}, {200, 1.5f}};

static int open_model(void **state)
{
    struct error err = {0};

    (void)state;
    catalog = catalog_open(GOLDEN "/model", &err);
    assert_non_null(catalog);
    for (uint32_t i = 0; i < PROMPT; i++) {
        prompt[i] = (uint32_t)(hash_counter(8, 1, 0, i) % 60); /* few tokens, so that they repeat */
    }
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    catalog_close(catalog);
    return 0;
}

/* --- one sequence in a cluster --- */

struct run {
    struct fixture *fixture;
    uint64_t step;
    uint32_t lane, slot;
    uint32_t blocks[BLOCKS];
    struct step_entry entry; /* of the last step */
};

static struct run run_begin(uint32_t stages, uint32_t members, uint32_t threads)
{
    struct fixture_layout layout = {.stage_count = stages,
                                    .group_size = members,
                                    .level = threads > 1 ? CPU_LEVEL_COUNT - 1 : CPU_REF,
                                    .thread_count = threads,
                                    .step_rows_max = 128,
                                    .steps_in_flight_max = 2,
                                    .kv_type = KV_F16};

    while (!cpu_level_available(layout.level)) {
        layout.level--;
    }
    return (struct run){.fixture = fixture_create(&layout, catalog),
                        .lane = members - 1,
                        .slot = 2,
                        .blocks = {9, 3, 30}};
}

static void run_end(struct run *run)
{
    fixture_destroy(run->fixture);
}

/* Rows [begin, begin + count) of tokens; the result is lent until the next step. */
static const struct step_result *run_rows(struct run *run, const uint32_t *tokens, uint32_t begin,
                                          uint32_t count, struct step_entry wanted)
{
    struct step step = {.epoch = 1, .number = ++run->step, .entry_count = 1};
    uint32_t workers = fixture_worker_count(run->fixture);

    run->entry = wanted;
    run->entry.lane = run->lane;
    run->entry.slot = run->slot;
    run->entry.position = begin;
    run->entry.tokens = tokens + begin;
    run->entry.token_count = count;
    run->entry.block_count = BLOCKS;
    run->entry.blocks = run->blocks;
    step.entries = &run->entry;
    fixture_run(run->fixture, &step, 1);
    for (uint32_t w = 0; w < workers; w++) {
        const struct step_result *result = &fixture_job(run->fixture, w, 0)->result;

        if (result->sample_count + result->logprobs_count + result->logits_count > 0) {
            return result;
        }
    }
    return &fixture_job(run->fixture, workers - 1, 0)->result;
}

static struct step_entry wanted_of(struct sampling_params params)
{
    return (struct step_entry){.wants = WANT_SAMPLE,
                               .next_token = STEP_TOKEN_NONE,
                               .generated_begin = PROMPT,
                               .sampling = params};
}

static const struct sampling_params all_params[] = {
    {.temperature = 0.0f, .repetition_penalty = 1.3f, .logprobs = 1 + TOP},
    {.temperature = 0.8f,
     .top_p = 0.9f,
     .seed = 5,
     .repetition_penalty = 1.1f,
     .presence_penalty = 0.4f,
     .frequency_penalty = 0.6f,
     .bias_count = 3,
     .biases = biases,
     .logprobs = 1 + TOP},
    {.temperature = 1.0f, .top_p = 1.0f, .seed = 6, .frequency_penalty = 2.0f, .logprobs = 1},
};

/* --- one token after the other --- */

/* Of one token; no padding, so that records compare as bytes. */
struct record {
    float logprob;
    uint32_t rank;
    uint32_t top_tokens[TOP];
    float top_logprobs[TOP];
};

struct answer {
    uint32_t tokens[TOKENS_MAX]; /* prompt first */
    struct record records[TOKENS_MAX];
};

static struct record record_of(const struct step_logprobs *logprobs)
{
    struct record record = {.logprob = logprobs->logprob, .rank = logprobs->rank};

    assert_true(logprobs->top_count <= TOP);
    for (uint32_t i = 0; i < logprobs->top_count; i++) {
        record.top_tokens[i] = logprobs->top_tokens[i];
        record.top_logprobs[i] = logprobs->top_logprobs[i];
    }
    return record;
}

static void assert_record(const struct step_logprobs *logprobs, const struct record *wanted)
{
    struct record record = record_of(logprobs);

    assert_memory_equal(&record, wanted, sizeof(record));
}

static void answer_one_by_one(struct answer *answer, const struct sampling_params *params)
{
    struct run run = run_begin(1, 1, 1);

    memset(answer, 0, sizeof(*answer));
    memcpy(answer->tokens, prompt, sizeof(prompt));
    for (uint32_t i = PROMPT; i < TOKENS_MAX; i++) {
        uint32_t begin = i == PROMPT ? 0 : i - 1;
        const struct step_result *result =
            run_rows(&run, answer->tokens, begin, i - begin, wanted_of(*params));

        assert_int_equal(result->sample_count, 1);
        assert_int_equal(result->logprobs_count, 1);
        assert_int_equal(result->samples[0].index, 0);
        assert_int_equal(result->logprobs[0].token, result->samples[0].token);
        assert_int_equal(result->logprobs[0].row, i - begin - 1);
        answer->tokens[i] = result->samples[0].token;
        answer->records[i] = record_of(&result->logprobs[0]);
    }
    run_end(&run);
}

/* --- drafts --- */

/* Samples and log-probabilities of the rows behind which all drafts are right are those that came
 * one by one; returns how many samples stand. */
static uint32_t check_drafts(const struct answer *answer, const struct step_result *result,
                             const struct step_entry *entry)
{
    uint32_t first = entry->token_count - 1 - entry->draft_count;
    uint32_t standing = 0;

    assert_int_equal(result->sample_count, entry->draft_count + 1);
    assert_int_equal(result->logprobs_count, entry->draft_count + 1);
    for (uint32_t i = 0; i <= entry->draft_count; i++) {
        uint32_t position = entry->position + first + i + 1;

        assert_int_equal(result->samples[i].index, i);
        assert_int_equal(result->logprobs[i].row, first + i);
        assert_int_equal(result->logprobs[i].token, result->samples[i].token);
        if (standing < i) {
            continue;
        }
        assert_int_equal(result->samples[i].token, answer->tokens[position]);
        assert_record(&result->logprobs[i], &answer->records[position]);
        if (i < entry->draft_count && entry->tokens[first + 1 + i] == result->samples[i].token) {
            standing++;
        }
    }
    return standing + 1;
}

/* Drafts of four tokens, of which `right` are; what did not stand is computed again, as the
 * coordinator would have it. */
static void answer_with_drafts(const struct answer *answer, const struct sampling_params *params,
                               uint32_t right)
{
    struct run run = run_begin(2, 2, 3);
    uint32_t known = PROMPT; /* tokens that stand */

    run_rows(&run, answer->tokens, 0, PROMPT - 1, (struct step_entry){.generated_begin = PROMPT});
    while (known < PROMPT + ANSWER) {
        uint32_t tokens[TOKENS_MAX];
        struct step_entry wanted = wanted_of(*params);
        const struct step_result *result;

        memcpy(tokens, answer->tokens, sizeof(tokens));
        for (uint32_t i = known + right; i < known + 4; i++) {
            tokens[i] = (tokens[i] + 1 + i % 5) % 60;
        }
        wanted.draft_count = 4;
        result = run_rows(&run, tokens, known - 1, 5, wanted);
        known += check_drafts(answer, result, &run.entry);
    }
    run_end(&run);
}

static void drafts_right_or_wrong_do_not_show(void **state)
{
    static struct answer answer;

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(all_params); i++) {
        answer_one_by_one(&answer, &all_params[i]);
        for (uint32_t right = 0; right <= 4; right += 2) {
            answer_with_drafts(&answer, &all_params[i], right);
        }
    }
}

/* --- tokens that are computed again, and shared blocks --- */

static void check_last(const struct answer *answer, const struct step_result *result)
{
    const uint32_t position = PROMPT + ANSWER;

    assert_int_equal(result->sample_count, 1);
    assert_int_equal(result->samples[0].token, answer->tokens[position]);
    assert_record(&result->logprobs[0], &answer->records[position]);
}

static void a_sequence_that_is_computed_again_goes_on_as_before(void **state)
{
    static struct answer answer;
    const struct step_entry nothing = {.generated_begin = PROMPT};
    const struct sampling_params *params = &all_params[1];
    struct run run = run_begin(1, 2, 2);

    (void)state;
    answer_one_by_one(&answer, params);
    run_rows(&run, answer.tokens, 0, 33, nothing);
    run_rows(&run, answer.tokens, 33, 70, nothing);
    check_last(&answer,
               run_rows(&run, answer.tokens, 103, PROMPT + ANSWER - 103, wanted_of(*params)));
    /* issued again, after a later step with other drafts */
    run_rows(&run, answer.tokens, PROMPT + ANSWER - 1, 6, nothing);
    check_last(&answer,
               run_rows(&run, answer.tokens, 103, PROMPT + ANSWER - 103, wanted_of(*params)));
    /* another slot whose first block is the first one's */
    run.slot = 5;
    run.blocks[1] = 40;
    run.blocks[2] = 41;
    check_last(&answer,
               run_rows(&run, answer.tokens, 64, PROMPT + ANSWER - 64, wanted_of(*params)));
    run_end(&run);
}

static void penalties_change_what_is_sampled(void **state)
{
    static struct answer with, without;
    struct sampling_params params = all_params[0];

    (void)state;
    answer_one_by_one(&with, &params);
    params.repetition_penalty = 0.0f;
    answer_one_by_one(&without, &params);
    assert_memory_not_equal(with.tokens, without.tokens, sizeof(with.tokens));
    /* the first answer's row is the same: log-probabilities are the model's own */
    assert_memory_equal(with.records[PROMPT].top_logprobs, without.records[PROMPT].top_logprobs,
                        sizeof(with.records[0].top_logprobs));
    for (uint32_t i = PROMPT; i < TOKENS_MAX; i++) {
        assert_int_equal(without.records[i].rank, 1);
        assert_true(without.records[i].logprob == without.records[i].top_logprobs[0]);
    }
}

/* --- the prompt's own --- */

static struct step_entry prompt_wanted(uint32_t next_token)
{
    return (struct step_entry){.next_token = next_token,
                               .generated_begin = PROMPT,
                               .sampling = {.prompt_logprobs = 1 + TOP}};
}

static void check_prompt_row(const struct answer *answer, const struct step_result *result,
                             uint32_t index, uint32_t begin)
{
    const struct step_logprobs *logprobs = &result->logprobs[index];
    uint32_t position = begin + logprobs->row + 1;

    assert_int_equal(logprobs->token, prompt[position]);
    assert_int_equal(logprobs->top_count, TOP);
    assert_record(logprobs, &answer->records[position]);
}

/* From the logits of the whole prompt. */
static void define_prompt(struct answer *answer)
{
    struct run run = run_begin(1, 1, 1);
    struct step_entry wanted = {.wants = WANT_LOGITS, .generated_begin = PROMPT};
    const struct step_result *result = run_rows(&run, prompt, 0, PROMPT, wanted);
    uint32_t vocab = catalog->arch.vocab;

    assert_int_equal(result->logprobs_count, 0);
    assert_int_equal(result->logits[0].row_count, PROMPT);
    for (uint32_t i = 1; i < PROMPT; i++) {
        struct logprobs_row row;

        logprobs_row_init(&row, kernels_for(CPU_REF, NUMERICS_EXACT),
                          result->logits[0].values + (size_t)(i - 1) * vocab, vocab);
        answer->records[i].logprob = logprobs_value(&row, prompt[i]);
        answer->records[i].rank = logprobs_rank(&row, prompt[i]);
        logprobs_top(&row, TOP, answer->records[i].top_tokens, answer->records[i].top_logprobs);
    }
    run_end(&run);
}

static void check_prompt_in_chunks(const struct answer *answer, struct run run, uint32_t chunk)
{
    uint32_t found = 0;

    for (uint32_t begin = 0; begin < PROMPT; begin += chunk) {
        uint32_t end = begin + chunk < PROMPT ? begin + chunk : PROMPT;
        struct step_entry wanted = prompt_wanted(end < PROMPT ? prompt[end] : STEP_TOKEN_NONE);
        const struct step_result *result = run_rows(&run, prompt, begin, end - begin, wanted);

        assert_int_equal(result->sample_count, 0);
        for (uint32_t i = 0; i < result->logprobs_count; i++) {
            assert_int_equal(result->logprobs[i].row, i);
            check_prompt_row(answer, result, i, begin);
        }
        found += result->logprobs_count;
    }
    assert_int_equal(found, PROMPT - 1); /* nothing follows the last row */
    run_end(&run);
}

static void prompt_logprobs_are_the_same_whole_and_in_chunks(void **state)
{
    static struct answer answer;

    (void)state;
    define_prompt(&answer);
    check_prompt_in_chunks(&answer, run_begin(1, 1, 1), PROMPT);
    check_prompt_in_chunks(&answer, run_begin(1, 1, 3), 65);
    check_prompt_in_chunks(&answer, run_begin(2, 2, 2), 7);
}

static void a_sampled_row_gives_the_samples_and_drafts_are_not_the_prompt(void **state)
{
    struct run run = run_begin(1, 1, 1);
    struct step_entry wanted = prompt_wanted(STEP_TOKEN_NONE);
    const struct step_result *result;

    (void)state;
    wanted.wants = WANT_SAMPLE;
    wanted.sampling.logprobs = 1;
    wanted.generated_begin = 10;
    result = run_rows(&run, prompt, 0, 10, wanted);
    assert_int_equal(result->logprobs_count, 10);
    assert_int_equal(result->logprobs[8].token, prompt[9]);
    assert_int_equal(result->logprobs[8].top_count, TOP);
    assert_int_equal(result->logprobs[9].token, result->samples[0].token);
    assert_int_equal(result->logprobs[9].top_count, 0);
    /* rows of the answer give none; a row before a draft knows no token */
    wanted.wants = 0;
    wanted.draft_count = 2;
    wanted.generated_begin = 8;
    assert_int_equal(run_rows(&run, prompt, 0, 10, wanted)->logprobs_count, 7);
    run_end(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drafts_right_or_wrong_do_not_show),
        cmocka_unit_test(a_sequence_that_is_computed_again_goes_on_as_before),
        cmocka_unit_test(penalties_change_what_is_sampled),
        cmocka_unit_test(prompt_logprobs_are_the_same_whole_and_in_chunks),
        cmocka_unit_test(a_sampled_row_gives_the_samples_and_drafts_are_not_the_prompt),
    };

    return cmocka_run_group_tests(tests, open_model, close_model);
}
