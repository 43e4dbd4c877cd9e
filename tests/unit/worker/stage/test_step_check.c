/* Steps that must not reach the compute thread. */
#include "worker/stage/step_check.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define VOCAB 100

static struct placement placement = {
    .lane_count = 2,
    .slot_count = 4,
    .kv_block_count = 8,
    .context_tokens_max = 200, /* 4 blocks */
    .step_rows_max = 10,
};

static uint32_t tokens[16];
static uint32_t blocks[8];
static struct step_entry entries[2];
static struct step step;

static void fill_good(void)
{
    memset(tokens, 0, sizeof(tokens));
    memset(blocks, 0, sizeof(blocks));
    memset(entries, 0, sizeof(entries));
    entries[0] = (struct step_entry){
        .lane = 1,
        .slot = 3,
        .position = 190,
        .token_count = 10,
        .tokens = tokens,
        .block_begin = 2,
        .block_count = 2,
        .blocks = blocks,
        .wants = WANT_SAMPLE,
        .sampling = {.temperature = 0.5f, .top_p = 0.9f, .min_p = 0.1f},
    };
    step = (struct step){.number = 4, .entry_count = 1, .entries = entries};
}

static bool passes(void)
{
    struct error err = {0};
    bool ok = step_check(&step, &placement, VOCAB, &err);

    assert_true(ok || (err.code == ERROR_PEER && strstr(err.message, "step 4") != NULL));
    return ok;
}

static void a_good_step_passes(void **state)
{
    (void)state;
    fill_good();
    assert_true(passes());
    entries[0].draft_count = 9;
    assert_true(passes());
}

#define REFUSES(change)                                                                            \
    do {                                                                                           \
        fill_good();                                                                               \
        change;                                                                                    \
        assert_false(passes());                                                                    \
    } while (0)

static void every_index_beyond_its_array_is_refused(void **state)
{
    (void)state;
    REFUSES(entries[0].lane = 2);
    REFUSES(entries[0].slot = 4);
    REFUSES(tokens[9] = VOCAB);
    REFUSES(blocks[1] = 8);
    REFUSES(entries[0].position = 191);
    REFUSES(entries[0].position = UINT32_MAX);
    REFUSES(entries[0].block_begin = 3);
    REFUSES(entries[0].block_begin = UINT32_MAX);
}

static void proposals_need_the_draft_layer(void **state)
{
    (void)state;
    REFUSES(entries[0].propose_max = 1);
    REFUSES(entries[0].wants |= WANT_DRAFT_LOGITS);
    placement.draft_layer_count = 1;
    fill_good();
    entries[0].wants |= WANT_DRAFT_LOGITS;
    entries[0].propose_max = STEP_PROPOSE_MAX;
    assert_true(passes());
    REFUSES(entries[0].propose_max = STEP_PROPOSE_MAX + 1);
    placement.draft_layer_count = 0;
}

static void a_next_token_beyond_the_vocabulary_is_refused(void **state)
{
    (void)state;
    fill_good();
    entries[0].next_token = VOCAB - 1;
    assert_true(passes());
    entries[0].next_token = STEP_TOKEN_NONE;
    assert_true(passes());
    REFUSES(entries[0].next_token = VOCAB);
}

static void wrong_row_counts_are_refused(void **state)
{
    (void)state;
    REFUSES(step.entry_count = 0);
    REFUSES(entries[0].token_count = 0);
    REFUSES((entries[0].token_count = 11, entries[0].position = 0));
    REFUSES((entries[1] = entries[0], step.entry_count = 2));
    REFUSES(entries[0].draft_count = 10);
    REFUSES(entries[0].draft_count = UINT32_MAX);
}

static void sampling_that_makes_no_sense_is_refused(void **state)
{
    (void)state;
    REFUSES(entries[0].sampling.temperature = NAN);
    REFUSES(entries[0].sampling.temperature = -1.0f);
    REFUSES(entries[0].sampling.temperature = INFINITY);
    REFUSES(entries[0].sampling.top_p = NAN);
    REFUSES(entries[0].sampling.min_p = 1.5f);
    REFUSES(entries[0].sampling.repetition_penalty = -0.5f);
    REFUSES(entries[0].sampling.repetition_penalty = INFINITY);
    REFUSES(entries[0].sampling.presence_penalty = NAN);
    REFUSES(entries[0].sampling.frequency_penalty = -INFINITY);
    fill_good();
    entries[0].wants = 0; /* nobody looks at it */
    entries[0].sampling.temperature = NAN;
    assert_true(passes());
}

static void biases_beyond_the_vocabulary_are_refused(void **state)
{
    struct token_bias biases[] = {{0, -100.0f}, {VOCAB - 1, 3.5f}};

#define WITH_BIASES (entries[0].sampling.bias_count = 2, entries[0].sampling.biases = biases)
    (void)state;
    fill_good();
    WITH_BIASES;
    assert_true(passes());
    REFUSES((WITH_BIASES, biases[1].token = VOCAB));
    REFUSES((WITH_BIASES, biases[1].token = 0));
    biases[1].token = 1;
    REFUSES((WITH_BIASES, biases[0].bias = NAN));
    REFUSES((WITH_BIASES, biases[0].bias = -INFINITY));
#undef WITH_BIASES
}

static void too_many_logprobs_are_refused(void **state)
{
    (void)state;
    fill_good();
    entries[0].sampling.logprobs = STEP_LOGPROBS_MAX;
    entries[0].sampling.prompt_logprobs = STEP_LOGPROBS_MAX;
    assert_true(passes());
    REFUSES(entries[0].sampling.logprobs = STEP_LOGPROBS_MAX + 1);
    REFUSES(entries[0].sampling.prompt_logprobs = UINT32_MAX);
    REFUSES((entries[0].wants = 0, entries[0].sampling.prompt_logprobs = UINT32_MAX));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(biases_beyond_the_vocabulary_are_refused),
        cmocka_unit_test(too_many_logprobs_are_refused),
        cmocka_unit_test(a_good_step_passes),
        cmocka_unit_test(every_index_beyond_its_array_is_refused),
        cmocka_unit_test(wrong_row_counts_are_refused),
        cmocka_unit_test(proposals_need_the_draft_layer),
        cmocka_unit_test(a_next_token_beyond_the_vocabulary_is_refused),
        cmocka_unit_test(sampling_that_makes_no_sense_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
