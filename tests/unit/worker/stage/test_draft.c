/* The draft layer on the last stage, against the golden model: its logits, its routing and what it
 * proposes, in every layout; and that drafts which do not stand leave nothing behind. */
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
#define STEPS_MAX   64
#define CHAIN       4

struct prompt {
    uint32_t count;
    uint32_t tokens[TOKENS_MAX]; /* then the greedy ones */
    uint32_t logits_row;
    uint32_t drafts[TOKENS_MAX]; /* the golden layer's best token of each row */
};

/* What tests/data's check_golden.py computes in float64 when the layer goes on from its own normed
 * output; the smallest difference to the second best is 0.04. */
static const uint32_t golden_chains[PROMPTS_MAX][CHAIN] = {
    {282, 208, 26, 343}, {226, 242, 357, 344}, {151, 328, 298, 22}, {290, 60, 22, 332}};

static struct catalog *catalog;
static struct prompt prompts[PROMPTS_MAX];
static uint32_t row_total;
static float *golden_logits;
static float *reference; /* logits of the first layout that ran */

/* --- golden files --- */

static struct prompt *prompt_of(const json_t *line)
{
    return &prompts[json_integer_value(json_object_get(line, "id"))];
}

static void read_prompt(const json_t *line)
{
    struct prompt *prompt = prompt_of(line);

    prompt->count = golden_ids(json_object_get(line, "tokens"), prompt->tokens, TOKENS_MAX);
    prompt->logits_row = (uint32_t)json_integer_value(json_object_get(line, "logits_row"));
    row_total += prompt->count;
}

static void read_greedy(const json_t *line)
{
    struct prompt *prompt = prompt_of(line);

    assert_int_equal(
        golden_ids(json_object_get(line, "tokens"), prompt->tokens + prompt->count, GREEDY),
        GREEDY);
}

static void read_draft(const json_t *line)
{
    struct prompt *prompt = prompt_of(line);

    assert_int_equal(golden_ids(json_object_get(line, "draft"), prompt->drafts, TOKENS_MAX),
                     prompt->count);
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
    golden_lines_read(GOLDEN "/mtp.jsonl", read_draft);
    assert_true(
        file_read(GOLDEN "/mtp_logits.f32", 1 << 24, (char **)&golden_logits, &length, &err));
    assert_int_equal(length, row_total * catalog->arch.vocab * sizeof(float));
    return 0;
}

static int close_golden(void **state)
{
    (void)state;
    catalog_close(catalog);
    mem_free(golden_logits);
    mem_free(reference);
    return 0;
}

/* --- steps --- */

static struct fixture *open_layout(const struct fixture_layout *layout, uint32_t rows_max)
{
    struct fixture_layout full = *layout;

    while (full.level + 1 < CPU_LEVEL_COUNT && cpu_level_available(full.level + 1)) {
        full.level++; /* all give the same bits, test_stage has shown it */
    }
    full.step_rows_max = rows_max;
    full.steps_in_flight_max = 3;
    full.kv_type = KV_F32;
    full.draft_layer_count = 1;
    return fixture_create(&full, catalog);
}

struct script {
    struct fixture *fixture;
    uint32_t step_count;
    uint64_t step_next; /* number */
    struct step steps[STEPS_MAX];
    struct step_entry entries[STEPS_MAX][PROMPTS_MAX];
    uint32_t prompt_of[STEPS_MAX][PROMPTS_MAX];
    uint32_t blocks[PROMPTS_MAX][TOKENS_MAX / BLOCK + 1];
    uint32_t blocks_set[PROMPTS_MAX];
    uint32_t done[PROMPTS_MAX];
    uint32_t lane_count;
};

static void script_begin(struct script *script, struct fixture *fixture)
{
    memset(script, 0, sizeof(*script));
    script->fixture = fixture;
    script->lane_count = fixture_placement(fixture)->lane_count;
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
    *step = (struct step){
        .epoch = 1, .number = ++script->step_next, .entries = script->entries[script->step_count]};
    script->step_count++;
    return step;
}

/* Rows of a prompt and of what greedily follows, with room in the cache for `room` tokens more. */
static struct step_entry *script_add(struct script *script, struct step *step, uint32_t p,
                                     uint32_t count, uint32_t room)
{
    struct step_entry *entry = &step->entries[step->entry_count];
    uint32_t begin = script->done[p];
    uint32_t block_end = (begin + count + room + BLOCK - 1) / BLOCK;

    block_end = block_end > script->blocks_set[p] ? block_end : script->blocks_set[p];
    script->prompt_of[step - script->steps][step->entry_count++] = p;
    *entry = (struct step_entry){
        .sequence = p,
        .lane = p % script->lane_count,
        .slot = p / script->lane_count + 1,
        .position = begin,
        .token_count = count,
        .tokens = prompts[p].tokens + begin,
        .next_token = prompts[p].tokens[begin + count],
        .generated_begin = prompts[p].count,
        .block_begin = script->blocks_set[p],
        .block_count = block_end - script->blocks_set[p],
        .blocks = script->blocks[p] + script->blocks_set[p],
    };
    script->blocks_set[p] = block_end;
    script->done[p] += count;
    return entry;
}

/* The prompts in chunks, packed into steps; the last chunk's next token is sampled. */
static void script_prompts(struct script *script, uint32_t rows_max, uint32_t wants,
                           uint32_t propose_max)
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
                struct step_entry *entry = script_add(script, step, p, count, propose_max);

                entry->wants = wants;
                room -= count;
                if (count == rest) {
                    entry->wants |= WANT_SAMPLE;
                    entry->propose_max = propose_max;
                    entry->next_token = STEP_TOKEN_NONE;
                }
            }
            left = left || script->done[p] < prompts[p].count;
        }
    }
}

/* --- its logits --- */

static void keep_rows(const struct script *script, uint32_t step, const struct step_rows *rows,
                      float *out)
{
    uint32_t vocab = catalog->arch.vocab;
    uint32_t p = script->prompt_of[step][rows->entry];
    uint32_t row = prompts[p].logits_row + script->entries[step][rows->entry].position;

    assert_int_equal(rows->columns, vocab);
    assert_int_equal(rows->row_begin, 0);
    assert_int_equal(rows->row_count, script->entries[step][rows->entry].token_count);
    memcpy(out + (size_t)row * vocab, rows->values,
           (size_t)rows->row_count * vocab * sizeof(float));
}

static void collect_logits(const struct script *script, float *out)
{
    uint32_t rows = 0;

    for (uint32_t w = 0; w < fixture_worker_count(script->fixture); w++) {
        for (uint32_t i = 0; i < script->step_count; i++) {
            const struct step_result *result = &fixture_job(script->fixture, w, i)->result;

            for (uint32_t j = 0; j < result->draft_logits_count; j++) {
                keep_rows(script, i, &result->draft_logits[j], out);
                rows += result->draft_logits[j].row_count;
            }
        }
    }
    assert_int_equal(rows, row_total);
}

static uint32_t best_of(const float *logits)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < catalog->arch.vocab; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return best;
}

static void check_golden(const float *logits)
{
    size_t vocab = catalog->arch.vocab;
    double most = 0.0;

    for (size_t i = 0; i < row_total * vocab; i++) {
        double difference = fabs((double)logits[i] - (double)golden_logits[i]);

        most = difference > most || isnan(difference) ? difference : most;
    }
    print_message("largest difference %g\n", most);
    assert_true(most <= 2e-3);
    for (uint32_t p = 0; p < PROMPTS_MAX; p++) {
        for (uint32_t i = 0; i < prompts[p].count; i++) {
            assert_int_equal(best_of(logits + (prompts[p].logits_row + i) * vocab),
                             prompts[p].drafts[i]);
        }
    }
}

static void check_layout(const struct fixture_layout *layout, uint32_t rows_max)
{
    static struct script script;
    size_t values = (size_t)row_total * catalog->arch.vocab;
    float *logits = mem_new_array(float, values);
    struct fixture *fixture = open_layout(layout, rows_max);

    script_begin(&script, fixture);
    script_prompts(&script, rows_max, WANT_DRAFT_LOGITS, 0);
    fixture_run(fixture, script.steps, script.step_count);
    collect_logits(&script, logits);
    fixture_destroy(fixture);
    if (reference == NULL) {
        check_golden(logits);
        reference = logits;
        return;
    }
    assert_memory_equal(logits, reference, values * sizeof(float));
    mem_free(logits);
}

#define LAYOUT(stages, members)                                                                    \
    (&(struct fixture_layout){.stage_count = (stages), .group_size = (members), .thread_count = 1})

static void draft_logits_are_the_golden_ones(void **state)
{
    (void)state;
    check_layout(LAYOUT(1, 1), 256);
}

static void chunks_and_threads_do_not_show(void **state)
{
    struct fixture_layout layout = *LAYOUT(1, 1);

    (void)state;
    layout.thread_count = 3;
    check_layout(&layout, 37);
    check_layout(&layout, 20);
}

static void stages_and_groups_give_the_same_bytes(void **state)
{
    struct fixture_layout layout = *LAYOUT(2, 2);

    (void)state;
    check_layout(LAYOUT(2, 1), 64);
    check_layout(LAYOUT(4, 1), 256); /* the draft layer beside a single other one */
    check_layout(LAYOUT(1, 4), 40);  /* in the last steps most members have no rows */
    check_layout(LAYOUT(2, 2), 64);
    layout.lane_count = 1; /* one member of each stage has no sequences, only experts */
    check_layout(&layout, 64);
    layout.lane_count = 4;
    layout.expert_stride = 1;
    layout.replicas = 2;
    check_layout(&layout, 64);
}

/* --- its routing --- */

static const struct script *routed;
static uint32_t routes_found;

static void check_routing_line(const json_t *line)
{
    if (json_integer_value(json_object_get(line, "layer")) == catalog->arch.layer_count &&
        golden_route_is_clear(line)) {
        golden_route_check(routed->fixture, routed->prompt_of[0], line);
        routes_found++;
    }
}

static void routing_of_the_draft_layer_is_the_golden_one(void **state)
{
    static struct script script;
    struct fixture *fixture = open_layout(LAYOUT(2, 2), 256);

    (void)state;
    script_begin(&script, fixture);
    script_prompts(&script, 256, WANT_DRAFT_LOGITS | WANT_ROUTING, 0);
    fixture_run(fixture, script.steps, script.step_count);
    routed = &script;
    golden_lines_read(GOLDEN "/routing.jsonl", check_routing_line);
    assert_true(routes_found > 150);
    fixture_destroy(fixture);
}

static void routing_without_draft_logits_leaves_the_draft_layer_out(void **state)
{
    static struct script script;
    struct fixture *fixture = open_layout(LAYOUT(1, 1), 256);
    const struct step_result *result;

    (void)state;
    script_begin(&script, fixture);
    script_prompts(&script, 256, WANT_ROUTING, 1);
    fixture_run(fixture, script.steps, 1);
    result = &fixture_job(fixture, 0, 0)->result;
    assert_int_equal(result->draft_logits_count, 0);
    assert_int_equal(result->routing_count,
                     row_total * (catalog->arch.layer_count - catalog->arch.dense_layer_count));
    fixture_destroy(fixture);
}

/* --- what it proposes --- */

/* Each proposal of all workers and steps, by prompt; returns how many there are. */
static uint32_t collect_proposals(const struct script *script, uint32_t step,
                                  struct step_proposal out[PROMPTS_MAX])
{
    uint32_t count = 0;

    for (uint32_t w = 0; w < fixture_worker_count(script->fixture); w++) {
        const struct step_result *result = &fixture_job(script->fixture, w, step)->result;

        for (uint32_t i = 0; i < result->proposal_count; i++) {
            out[script->prompt_of[step][result->proposals[i].entry]] = result->proposals[i];
            count++;
        }
    }
    return count;
}

static void check_chains(const struct fixture_layout *layout, uint32_t rows_max)
{
    static struct script script;
    struct fixture *fixture = open_layout(layout, rows_max);
    struct step_proposal proposals[PROMPTS_MAX] = {{0}};
    uint32_t count = 0;

    script_begin(&script, fixture);
    script_prompts(&script, rows_max, 0, CHAIN);
    fixture_run(fixture, script.steps, script.step_count);
    for (uint32_t i = 0; i < script.step_count; i++) {
        count += collect_proposals(&script, i, proposals);
    }
    assert_int_equal(count, PROMPTS_MAX);
    for (uint32_t p = 0; p < PROMPTS_MAX; p++) {
        assert_int_equal(proposals[p].count, CHAIN);
        assert_memory_equal(proposals[p].tokens, golden_chains[p], sizeof(golden_chains[p]));
    }
    fixture_destroy(fixture);
}

static void proposals_follow_each_other_as_the_oracle_says(void **state)
{
    struct fixture_layout layout = *LAYOUT(2, 2);

    (void)state;
    check_chains(LAYOUT(1, 1), 256);
    check_chains(LAYOUT(2, 1), 31);
    check_chains(LAYOUT(1, 4), 40);
    check_chains(&layout, 100);
    layout.lane_count = 1;
    check_chains(&layout, 64);
}

static void proposals_end_where_the_block_table_does(void **state)
{
    static struct script script;
    struct fixture *fixture = open_layout(LAYOUT(1, 1), 256);
    struct step_proposal proposals[PROMPTS_MAX] = {{0}};
    struct step_entry *entry;

    (void)state;
    script_begin(&script, fixture);
    entry = script_add(&script, script_step(&script), 3, 61, 0);
    entry->wants = WANT_SAMPLE;
    entry->propose_max = 8;
    entry = script_add(&script, script_step(&script), 3, 3, 0);
    entry->wants = WANT_SAMPLE;
    entry->propose_max = 8;
    fixture_run(fixture, script.steps, script.step_count);
    assert_int_equal(collect_proposals(&script, 0, proposals), 1);
    assert_int_equal(proposals[3].count, 4); /* from positions 60 to 63 */
    assert_int_equal(collect_proposals(&script, 1, proposals), 1);
    assert_int_equal(proposals[3].count, 1);
    fixture_destroy(fixture);
}

/* The layer's best token after each position of a prompt and its greedy answer. */
static void teacher_forced(uint32_t p, uint32_t rows, uint32_t *out)
{
    static struct script script;
    struct fixture *fixture = open_layout(LAYOUT(1, 1), 256);
    const struct step_rows *logits;

    script_begin(&script, fixture);
    script_add(&script, script_step(&script), p, rows, 0)->wants = WANT_DRAFT_LOGITS;
    fixture_run(fixture, script.steps, 1);
    logits = &fixture_job(fixture, 0, 0)->result.draft_logits[0];
    assert_int_equal(logits->row_count, rows);
    for (uint32_t i = 0; i < rows; i++) {
        out[i] = best_of(logits->values + (size_t)i * logits->columns);
    }
    fixture_destroy(fixture);
}

/* One step of a decoding sequence: its last token and three drafts of which `right` are right.
 * Returns the first proposal; the sequence is as many tokens longer as samples stand. */
static uint32_t decode_turn(struct script *script, uint32_t p, uint32_t right)
{
    static uint32_t tokens[4];
    uint32_t begin = script->done[p];
    struct step *step = script_step(script);
    struct step_entry *entry = script_add(script, step, p, 4, 3);
    struct step_proposal proposals[PROMPTS_MAX] = {{0}};

    memcpy(tokens, prompts[p].tokens + begin, sizeof(tokens));
    for (uint32_t i = right + 1; i < 4; i++) {
        tokens[i] = (tokens[i] + 1) % catalog->arch.vocab;
    }
    entry->tokens = tokens;
    entry->draft_count = 3;
    entry->next_token = STEP_TOKEN_NONE;
    entry->wants = WANT_SAMPLE;
    entry->propose_max = 3;
    script->step_count = 1; /* the next one takes its place */
    fixture_run(script->fixture, step, 1);
    memcpy(script->prompt_of[0], script->prompt_of[step - script->steps],
           sizeof(script->prompt_of[0]));
    assert_int_equal(collect_proposals(script, 0, proposals), 1);
    assert_int_equal(proposals[p].count, 3);
    script->done[p] = begin + right + 1;
    return proposals[p].tokens[0];
}

static void rejected_drafts_and_old_proposals_leave_nothing_behind(void **state)
{
    static struct script script;
    uint32_t p = 2, prompt_count = prompts[2].count, turn = 0;
    uint32_t expected[TOKENS_MAX];
    struct fixture *fixture = open_layout(LAYOUT(2, 2), 64);
    struct step_entry *entry;

    (void)state;
    teacher_forced(p, prompt_count + 24, expected);
    script_begin(&script, fixture);
    entry = script_add(&script, script_step(&script), p, prompt_count, 3);
    entry->wants = WANT_SAMPLE;
    entry->propose_max = 3;
    fixture_run(fixture, script.steps, 1);
    while (script.done[p] + 4 <= prompt_count + 24) {
        uint32_t proposal = decode_turn(&script, p, turn++ * 7 % 4);

        assert_int_equal(proposal, expected[script.done[p] - 1]);
    }
    assert_true(turn > 6);
    fixture_destroy(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draft_logits_are_the_golden_ones),
        cmocka_unit_test(chunks_and_threads_do_not_show),
        cmocka_unit_test(stages_and_groups_give_the_same_bytes),
        cmocka_unit_test(routing_of_the_draft_layer_is_the_golden_one),
        cmocka_unit_test(routing_without_draft_logits_leaves_the_draft_layer_out),
        cmocka_unit_test(proposals_follow_each_other_as_the_oracle_says),
        cmocka_unit_test(proposals_end_where_the_block_table_does),
        cmocka_unit_test(rejected_drafts_and_old_proposals_leave_nothing_behind),
    };

    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
