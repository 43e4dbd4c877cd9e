/* Whole clusters of stages in one process, against the golden model: every layout gives the
 * expected logits, and all give the same bytes. */
#include "golden_lines.h"

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define GOLDEN      SHOAL_TEST_DATA "/deepseek_v3-bf16"
#define PROMPTS_MAX 4
#define TOKENS_MAX  256
#define GREEDY      32
#define BLOCK       64

struct prompt {
    uint32_t count;
    uint32_t tokens[TOKENS_MAX];
    uint32_t logits_row;
    uint32_t greedy[GREEDY];
};

static struct catalog *catalog;
static struct prompt prompts[PROMPTS_MAX];
static uint32_t row_total;
static float *golden_logits;
static float *reference;     /* logits of the first layout that ran */
static float *hidden_states; /* golden: [layers + 2][17][hidden] of prompt 2 */

/* --- golden files --- */

static void read_prompt(const json_t *line)
{
    struct prompt *prompt = &prompts[json_integer_value(json_object_get(line, "id"))];

    prompt->count = golden_ids(json_object_get(line, "tokens"), prompt->tokens, TOKENS_MAX);
    prompt->logits_row = (uint32_t)json_integer_value(json_object_get(line, "logits_row"));
    row_total += prompt->count;
}

static void read_greedy(const json_t *line)
{
    struct prompt *prompt = &prompts[json_integer_value(json_object_get(line, "id"))];

    assert_int_equal(golden_ids(json_object_get(line, "tokens"), prompt->greedy, GREEDY), GREEDY);
}

static int open_golden(void **state)
{
    struct error err = {0};
    size_t length;

    (void)state;
    catalog = catalog_open(GOLDEN "/model", &err);
    if (catalog == NULL) {
        fail_msg("%s", err.message);
    }
    golden_lines_read(GOLDEN "/prompts.jsonl", read_prompt);
    golden_lines_read(GOLDEN "/greedy.jsonl", read_greedy);
    assert_true(file_read(GOLDEN "/logits.f32", 1 << 24, (char **)&golden_logits, &length, &err));
    assert_int_equal(length, row_total * catalog->arch.vocab * sizeof(float));
    assert_true(file_read(GOLDEN "/hidden.f32", 1 << 24, (char **)&hidden_states, &length, &err));
    return 0;
}

static int close_golden(void **state)
{
    (void)state;
    catalog_close(catalog);
    mem_free(golden_logits);
    mem_free(hidden_states);
    mem_free(reference);
    return 0;
}

/* --- steps --- */

#define STEPS_MAX 64

/* Chunks of prompts, packed into steps of at most rows_max rows. */
struct script {
    uint32_t step_count;
    struct step steps[STEPS_MAX];
    struct step_entry entries[STEPS_MAX][PROMPTS_MAX];
    uint32_t prompt_of[STEPS_MAX][PROMPTS_MAX];
    uint32_t blocks[PROMPTS_MAX][TOKENS_MAX / BLOCK + 1];
    uint32_t done[PROMPTS_MAX];
    uint32_t lane_count;
};

static void script_begin(struct script *script, uint32_t lane_count)
{
    memset(script, 0, sizeof(*script));
    script->lane_count = lane_count;
    for (uint32_t p = 0; p < PROMPTS_MAX; p++) {
        for (uint32_t i = 0; i < TOKENS_MAX / BLOCK + 1; i++) {
            script->blocks[p][i] = 40 - (i * PROMPTS_MAX + p) * 2; /* falling, with gaps */
        }
    }
}

static struct step *script_step(struct script *script)
{
    struct step *step = &script->steps[script->step_count];

    assert_true(script->step_count < STEPS_MAX);
    step->epoch = 1;
    step->number = script->step_count + 1;
    step->entries = script->entries[script->step_count++];
    return step;
}

static struct step_entry *script_add(struct script *script, struct step *step, uint32_t p,
                                     uint32_t count)
{
    struct step_entry *entry = &step->entries[step->entry_count];
    uint32_t begin = script->done[p];
    uint32_t block_begin = (begin + BLOCK - 1) / BLOCK;
    uint32_t block_end = (begin + count + BLOCK - 1) / BLOCK;

    script->prompt_of[step - script->steps][step->entry_count++] = p;
    *entry = (struct step_entry){
        .sequence = p,
        .lane = p % script->lane_count,
        .slot = p / script->lane_count + 1,
        .position = begin,
        .token_count = count,
        .tokens = prompts[p].tokens + begin,
        .generated_begin = prompts[p].count,
        .block_begin = block_begin,
        .block_count = block_end - block_begin,
        .blocks = script->blocks[p] + block_begin,
        .wants = WANT_LOGITS | WANT_ROUTING | WANT_HIDDEN,
    };
    script->done[p] += count;
    return entry;
}

static void script_prompts(struct script *script, uint32_t rows_max)
{
    bool left = true;

    while (left) {
        struct step *step = script_step(script);
        uint32_t room = rows_max;

        left = false;
        for (uint32_t i = 0; i < PROMPTS_MAX; i++) {
            uint32_t p = (i + script->step_count) % PROMPTS_MAX;
            uint32_t rest = prompts[p].count - script->done[p];
            uint32_t count = rest < room ? rest : room;

            if (count > 0) {
                script_add(script, step, p, count);
                room -= count;
            }
            left = left || script->done[p] < prompts[p].count;
        }
        for (uint32_t p = 0; p < PROMPTS_MAX; p++) {
            left = left || script->done[p] < prompts[p].count;
        }
    }
}

/* --- results --- */

static void collect_logits(const struct fixture *fixture, const struct script *script, float *out)
{
    uint32_t vocab = catalog->arch.vocab;
    uint32_t rows = 0;

    for (uint32_t w = 0; w < fixture_worker_count(fixture); w++) {
        for (uint32_t i = 0; i < script->step_count; i++) {
            const struct step_result *result = &fixture_job(fixture, w, i)->result;

            for (uint32_t j = 0; j < result->logits_count; j++) {
                const struct step_rows *values = &result->logits[j];
                uint32_t p = script->prompt_of[i][values->entry];
                uint32_t row = prompts[p].logits_row + script->entries[i][values->entry].position +
                               values->row_begin;

                assert_int_equal(values->columns, vocab);
                memcpy(out + (size_t)row * vocab, values->values,
                       (size_t)values->row_count * vocab * sizeof(float));
                rows += values->row_count;
            }
        }
    }
    assert_int_equal(rows, row_total);
}

static double largest_difference(const float *a, const float *b, size_t count)
{
    double most = 0.0;

    for (size_t i = 0; i < count; i++) {
        double difference = fabs((double)a[i] - (double)b[i]);

        most = difference > most || isnan(difference) ? difference : most;
    }
    return most;
}

static void check_layout(const struct fixture_layout *layout, uint32_t rows_max)
{
    static struct script script;
    size_t values = (size_t)row_total * catalog->arch.vocab;
    float *logits = mem_new_array(float, values);
    struct fixture_layout full = *layout;
    struct fixture *fixture;
    double difference;

    full.step_rows_max = rows_max;
    full.steps_in_flight_max = full.steps_in_flight_max > 0 ? full.steps_in_flight_max : 3;
    full.kv_type = KV_F32;
    fixture = fixture_create(&full, catalog);
    script_begin(&script, fixture_placement(fixture)->lane_count);
    script_prompts(&script, rows_max);
    fixture_run(fixture, script.steps, script.step_count);
    collect_logits(fixture, &script, logits);
    fixture_destroy(fixture);
    difference = largest_difference(logits, golden_logits, values);
    print_message("%ux%u rows %u: largest difference %g\n", full.stage_count, full.group_size,
                  rows_max, difference);
    assert_true(difference <= 2e-3);
    if (reference == NULL) {
        reference = logits;
        return;
    }
    assert_memory_equal(logits, reference, values * sizeof(float));
    mem_free(logits);
}

static enum cpu_level best_level(void)
{
    enum cpu_level best = CPU_REF;

    for (enum cpu_level level = CPU_REF; level < CPU_LEVEL_COUNT; level++) {
        best = cpu_level_available(level) ? level : best;
    }
    return best;
}

#define LAYOUT(stages, members)                                                                    \
    (&(struct fixture_layout){.stage_count = (stages),                                             \
                              .group_size = (members),                                             \
                              .level = best_level(),                                               \
                              .thread_count = 1})

/* The reference of all others: plain C. */
static void one_worker_gives_the_golden_logits(void **state)
{
    struct fixture_layout layout = *LAYOUT(1, 1);

    (void)state;
    layout.level = CPU_REF;
    check_layout(&layout, 256);
}

static void chunks_and_threads_do_not_show(void **state)
{
    struct fixture_layout layout = *LAYOUT(1, 1);

    (void)state;
    layout.thread_count = 3;
    check_layout(&layout, 37);
    check_layout(&layout, 5);
}

static void every_cpu_level_gives_the_same_bytes(void **state)
{
    (void)state;
    for (uint32_t level = 0; level < CPU_LEVEL_COUNT; level++) {
        struct fixture_layout layout = *LAYOUT(2, 2);

        if (!cpu_level_available((enum cpu_level)level)) {
            print_message("this machine lacks %s\n", cpu_level_name((enum cpu_level)level));
            continue;
        }
        layout.level = (enum cpu_level)level;
        check_layout(&layout, 64);
    }
}

static void stages_give_the_same_bytes(void **state)
{
    (void)state;
    check_layout(LAYOUT(2, 1), 64);
    check_layout(LAYOUT(3, 1), 48);
    check_layout(LAYOUT(4, 1), 256);
}

static void groups_give_the_same_bytes(void **state)
{
    (void)state;
    check_layout(LAYOUT(1, 2), 64);
    check_layout(LAYOUT(1, 4), 64);
    check_layout(LAYOUT(1, 4), 3); /* steps in which most members have no rows */
    check_layout(LAYOUT(2, 2), 64);
    check_layout(LAYOUT(2, 3), 100);
}

static void scattered_experts_give_the_same_bytes(void **state)
{
    struct fixture_layout layout = *LAYOUT(1, 4);

    (void)state;
    layout.expert_stride = 1;
    check_layout(&layout, 64);
    layout.replicas = 2;
    check_layout(&layout, 64);
    layout.replicas = 4;
    check_layout(&layout, 64);
}

static void more_or_fewer_lanes_than_members_give_the_same_bytes(void **state)
{
    struct fixture_layout layout = *LAYOUT(2, 2);

    (void)state;
    layout.lane_count = 4;
    check_layout(&layout, 64);
    layout.lane_count = 1; /* one member of each stage has no sequences, only experts */
    check_layout(&layout, 64);
}

/* --- other answers --- */

static void check_hidden(const struct fixture *fixture, const struct script *script)
{
    uint32_t hidden = catalog->arch.hidden;
    uint32_t boundaries = 0;

    for (uint32_t w = 0; w < fixture_worker_count(fixture); w++) {
        const struct step_result *result = &fixture_job(fixture, w, 0)->result;
        const struct placement_stage *stage = &fixture_placement(fixture)->stages[w];

        for (uint32_t i = 0; i < result->hidden_count; i++) {
            const struct step_rows *rows = &result->hidden[i];
            uint32_t boundary = w == 0 && i < result->hidden_count / 2 ? 0 : stage->layer_end;

            if (script->prompt_of[0][rows->entry] != 2) {
                continue;
            }
            assert_int_equal(rows->row_count, 17);
            assert_true(largest_difference(rows->values,
                                           hidden_states + (size_t)boundary * 17 * hidden,
                                           (size_t)17 * hidden) <= 2e-3);
            boundaries++;
        }
    }
    assert_int_equal(boundaries, 4);
}

static void hand_overs_are_the_golden_hidden_states(void **state)
{
    static struct script script;
    struct fixture_layout layout = *LAYOUT(3, 1);
    struct fixture *fixture;

    (void)state;
    layout.step_rows_max = 256;
    layout.steps_in_flight_max = 3;
    layout.kv_type = KV_F32;
    fixture = fixture_create(&layout, catalog);
    script_begin(&script, 1);
    script_prompts(&script, 256);
    fixture_run(fixture, script.steps, script.step_count);
    check_hidden(fixture, &script);
    fixture_destroy(fixture);
}

struct routing_check {
    const struct fixture *fixture;
    const struct script *script;
    uint32_t found;
};
static struct routing_check routing;

static void check_routing_line(const json_t *line)
{
    if (json_integer_value(json_object_get(line, "layer")) < catalog->arch.layer_count &&
        golden_route_is_clear(line)) {
        golden_route_check(routing.fixture, routing.script->prompt_of[0], line);
        routing.found++;
    }
}

static void routing_is_the_golden_routing(void **state)
{
    static struct script script;
    struct fixture_layout layout = *LAYOUT(2, 2);
    struct fixture *fixture;

    (void)state;
    layout.step_rows_max = 256;
    layout.steps_in_flight_max = 3;
    layout.kv_type = KV_F32;
    fixture = fixture_create(&layout, catalog);
    script_begin(&script, 2);
    script_prompts(&script, 256);
    fixture_run(fixture, script.steps, script.step_count);
    routing = (struct routing_check){.fixture = fixture, .script = &script};
    golden_lines_read(GOLDEN "/routing.jsonl", check_routing_line);
    assert_true(routing.found > 500);
    fixture_destroy(fixture);
}

/* All prompts decode together, one token each step. */
static void decode_step(struct fixture *fixture, struct script *script, struct prompt *growing,
                        uint32_t turn)
{
    struct step *step = script_step(script);
    uint32_t sampled = 0;

    step->entry_count = 0;
    for (uint32_t p = 0; p < PROMPTS_MAX; p++) {
        uint32_t count = turn == 0 ? prompts[p].count : 1;
        struct step_entry *entry = script_add(script, step, p, count);

        entry->tokens = growing[p].tokens + entry->position;
        entry->wants = WANT_SAMPLE;
    }
    fixture_run(fixture, step, 1);
    for (uint32_t w = 0; w < fixture_worker_count(fixture); w++) {
        const struct step_result *result = &fixture_job(fixture, w, 0)->result;

        for (uint32_t i = 0; i < result->sample_count; i++) {
            struct prompt *prompt = &growing[script->prompt_of[turn][result->samples[i].entry]];

            prompt->tokens[prompt->count++] = result->samples[i].token;
            sampled++;
        }
        assert_null(fixture_job(fixture, w, 0)->floats);
    }
    assert_int_equal(sampled, PROMPTS_MAX);
}

static void greedy_decoding_gives_the_golden_tokens(void **state)
{
    static struct script script;
    static struct prompt growing[PROMPTS_MAX];
    struct fixture_layout layout = *LAYOUT(2, 2);
    struct fixture *fixture;

    (void)state;
    memcpy(growing, prompts, sizeof(growing));
    layout.step_rows_max = 256;
    layout.steps_in_flight_max = 2;
    layout.kv_type = KV_F32;
    fixture = fixture_create(&layout, catalog);
    script_begin(&script, 2);
    for (uint32_t turn = 0; turn < GREEDY; turn++) {
        decode_step(fixture, &script, growing, turn);
    }
    for (uint32_t p = 0; p < PROMPTS_MAX; p++) {
        assert_memory_equal(growing[p].tokens + prompts[p].count, prompts[p].greedy,
                            sizeof(prompts[p].greedy));
    }
    fixture_destroy(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_worker_gives_the_golden_logits),
        cmocka_unit_test(chunks_and_threads_do_not_show),
        cmocka_unit_test(every_cpu_level_gives_the_same_bytes),
        cmocka_unit_test(stages_give_the_same_bytes),
        cmocka_unit_test(groups_give_the_same_bytes),
        cmocka_unit_test(scattered_experts_give_the_same_bytes),
        cmocka_unit_test(more_or_fewer_lanes_than_members_give_the_same_bytes),
        cmocka_unit_test(hand_overs_are_the_golden_hidden_states),
        cmocka_unit_test(routing_is_the_golden_routing),
        cmocka_unit_test(greedy_decoding_gives_the_golden_tokens),
    };

    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
