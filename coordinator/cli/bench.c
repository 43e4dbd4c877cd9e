/* bench.c - `shoal bench`: how fast a cluster made for it computes prompts and generates, and how
 * much of that time each stage was busy.
 *
 * One cluster serves all tests of a run. The first run of each test is not counted: memory is
 * touched and the scheduler learns the stages' pace in it.
 */
#include "common/base/log.h"
#include "common/base/mem.h"
#include "coordinator/cli/bench_meter.h"
#include "coordinator/cli/bench_report.h"
#include "coordinator/cli/cli.h"
#include "coordinator/cli/jsonl.h"
#include "coordinator/cli/local_cluster.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_MAX        16
#define REPETITIONS_MAX 1000
#define COUNT_MAX       (1u << 24)
#define BATCH_MAX       65536
#define WARM_TOKENS_MAX 128 /* of a prompt test's first run */

struct number_list {
    uint32_t count;
    uint32_t values[LIST_MAX];
};

struct bench_command {
    struct cluster_options cluster;
    struct number_list prompts, generated, depths, batches;
    uint32_t repetitions;
    bool json;

    struct bench_meter *meter;
};

enum { KEY_DEPTH = 0x2000, KEY_BATCH, KEY_JSON };

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "Tests; each of these may be a list, like 1,4,16:", 1},
    {"prompt-tokens", 'p', "N", 0, "Prompt tokens of each sequence (512); 0: no such test", 1},
    {"tokens", 'n', "N", 0, "Generated tokens of each sequence (64); 0: no such test", 1},
    {"depth", KEY_DEPTH, "D", 0, "Tokens in each sequence's context before these, not timed (0)",
     1},
    {"batch", KEY_BATCH, "B", 0, "Sequences at once (1)", 1},
    {NULL, 0, NULL, 0, "Measuring:", 2},
    {"repetitions", 'r', "R", 0, "Counted runs of each test, after one that is not (3)", 2},
    {"json", KEY_JSON, NULL, 0, "Print one JSON object a line for each test", 2},
    {0},
};

/* "1,4,16" */
static void list_parse(struct number_list *list, const char *text, const char *what,
                       uint32_t minimum, uint32_t maximum, struct argp_state *state)
{
    char *copy = mem_strdup(text);
    char *rest = copy;
    char *word;

    list->count = 0;
    while ((word = strsep(&rest, ",")) != NULL) {
        if (list->count == LIST_MAX) {
            argp_error(state, "%s: a list of at most %d numbers", what, LIST_MAX);
        }
        list->values[list->count++] = option_u32(word, what, minimum, maximum, state);
    }
    mem_free(copy);
}

static bool list_has_work(const struct number_list *list)
{
    for (uint32_t i = 0; i < list->count; i++) {
        if (list->values[i] > 0) {
            return true;
        }
    }
    return false;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct bench_command *own = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &own->cluster;
        options_from_environment(options, parse_option, state);
        return 0;
    case 'p':
        list_parse(&own->prompts, arg, "-p", 0, COUNT_MAX, state);
        return 0;
    case 'n':
        list_parse(&own->generated, arg, "-n", 0, COUNT_MAX, state);
        return 0;
    case KEY_DEPTH:
        list_parse(&own->depths, arg, "--depth", 0, COUNT_MAX, state);
        return 0;
    case KEY_BATCH:
        list_parse(&own->batches, arg, "--batch", 1, BATCH_MAX, state);
        return 0;
    case 'r':
        own->repetitions = option_u32(arg, "-r", 1, REPETITIONS_MAX, state);
        return 0;
    case KEY_JSON:
        own->json = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument \"%s\"", arg);
        return 0;
    case ARGP_KEY_END:
        if (!list_has_work(&own->prompts) && !list_has_work(&own->generated)) {
            argp_error(state, "-p 0 and -n 0 leave nothing to be measured");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* --- the tests --- */

typedef bool (*test_fn)(struct bench_command *own, const struct bench_test *test, void *context,
                        struct error *err);

static bool kind_each(struct bench_command *own, struct bench_test test, test_fn visit,
                      void *context, struct error *err)
{
    const struct number_list *counts = test.kind == BENCH_PROMPT ? &own->prompts : &own->generated;

    for (uint32_t i = 0; i < counts->count; i++) {
        test.token_count = counts->values[i];
        if (test.token_count > 0 && !visit(own, &test, context, err)) {
            return false;
        }
    }
    return true;
}

/* Every test of the lists, in the order in which they run. */
static bool tests_each(struct bench_command *own, test_fn visit, void *context, struct error *err)
{
    for (uint32_t d = 0; d < own->depths.count; d++) {
        for (uint32_t b = 0; b < own->batches.count; b++) {
            struct bench_test test = {.depth = own->depths.values[d],
                                      .batch = own->batches.values[b]};

            test.kind = BENCH_PROMPT;
            if (!kind_each(own, test, visit, context, err)) {
                return false;
            }
            test.kind = BENCH_GENERATE;
            if (!kind_each(own, test, visit, context, err)) {
                return false;
            }
        }
    }
    return true;
}

/* --- the cluster --- */

struct sizes {
    uint32_t context_tokens;
    uint64_t kv_tokens; /* per lane */
    uint32_t slots;     /* per lane */
};

static bool size_add_test(struct bench_command *own, const struct bench_test *test, void *context,
                          struct error *err)
{
    struct sizes *sizes = context;
    uint32_t tokens = bench_meter_tokens_max(test);
    uint32_t lanes = own->cluster.group_size > 0 ? own->cluster.group_size : 1;
    uint32_t per_lane = (test->batch + lanes - 1) / lanes;
    uint64_t kv_tokens = (uint64_t)per_lane * ((tokens + 63) / 64 * 64);

    (void)err;
    sizes->context_tokens = tokens > sizes->context_tokens ? tokens : sizes->context_tokens;
    sizes->kv_tokens = kv_tokens > sizes->kv_tokens ? kv_tokens : sizes->kv_tokens;
    sizes->slots = per_lane > sizes->slots ? per_lane : sizes->slots;
    return true;
}

/* What the tests need and no more, so that buffers and cache are those of a cluster of that size.
 * No drafts unless asked for: what random prompts lead to says nothing about how well they are
 * guessed.
 */
static bool cluster_size(struct bench_command *own, struct error *err)
{
    struct sizes sizes = {0};

    if (!tests_each(own, size_add_test, &sizes, err)) {
        return false;
    }
    if (own->cluster.context_tokens_max == 0) {
        own->cluster.context_tokens_max = sizes.context_tokens;
    }
    if (own->cluster.kv_tokens == 0) {
        own->cluster.kv_tokens = sizes.kv_tokens;
    }
    if (own->cluster.scheduling.slot_count == 0) {
        own->cluster.scheduling.slot_count = sizes.slots;
    }
    if (own->cluster.scheduling.draft == NULL) {
        own->cluster.scheduling.draft = "none";
    }
    return true;
}

/* --- running --- */

struct series {
    struct local_cluster *local;
    uint32_t stage_count;
    uint32_t machine_count;
    struct bench_machine *machines;
};

static bool warm_run(struct bench_command *own, const struct series *series,
                     const struct bench_test *test, struct error *err)
{
    struct bench_test warm = *test;
    struct bench_sample sample;
    bool good;

    if (warm.kind == BENCH_PROMPT && warm.token_count > WARM_TOKENS_MAX) {
        warm.token_count = WARM_TOKENS_MAX;
    }
    warm.depth = 0;
    sample.stage_busy = mem_new_array(double, series->stage_count);
    good = bench_meter_run(own->meter, series->local->cluster, series->local->catalog->arch.vocab,
                           &warm, &sample, err);
    mem_free(sample.stage_busy);
    return good;
}

static bool result_print(const struct bench_command *own, const struct bench_result *result,
                         struct error *err)
{
    struct buffer line;
    bool good;

    if (own->json) {
        return jsonl_write(stdout, bench_result_json(result), err);
    }
    buffer_init(&line);
    bench_table_line(result, &line);
    good = fputs(buffer_text(&line), stdout) >= 0 && fflush(stdout) == 0;
    buffer_deinit(&line);
    return good || error_set_errno(err, "standard output");
}

/* --- samples --- */

/* Of the counted runs of one test. */
struct samples {
    uint32_t count;
    uint32_t stage_count;
    double *tokens_per_s;        /* [count] */
    double *rows_per_step;       /* [count] */
    struct bench_shares *shares; /* [count] */
    double *stage_busy;          /* [count][stage_count] */
};

static void samples_init(struct samples *samples, uint32_t count, uint32_t stage_count)
{
    *samples = (struct samples){
        .count = count,
        .stage_count = stage_count,
        .tokens_per_s = mem_new_array(double, count),
        .rows_per_step = mem_new_array(double, count),
        .shares = mem_new_array(struct bench_shares, count),
        .stage_busy = mem_new_array(double, (size_t)count *stage_count),
    };
}

static void samples_deinit(struct samples *samples)
{
    mem_free(samples->tokens_per_s);
    mem_free(samples->rows_per_step);
    mem_free(samples->shares);
    mem_free(samples->stage_busy);
}

static bool samples_take(struct bench_command *own, const struct series *series,
                         const struct bench_test *test, struct samples *samples, struct error *err)
{
    for (uint32_t i = 0; i < samples->count; i++) {
        struct bench_sample sample = {.stage_busy =
                                          samples->stage_busy + (size_t)i * samples->stage_count};

        if (!bench_meter_run(own->meter, series->local->cluster, series->local->catalog->arch.vocab,
                             test, &sample, err)) {
            return false;
        }
        samples->tokens_per_s[i] = sample.tokens_per_s;
        samples->rows_per_step[i] = sample.rows_per_step;
        samples->shares[i] = sample.shares;
    }
    return true;
}

/* The median sample's, by its speed: shares that belong together. */
static struct bench_shares shares_median(const struct samples *samples)
{
    double wanted = bench_median(samples->tokens_per_s, samples->count);
    uint32_t best = 0;

    for (uint32_t i = 1; i < samples->count; i++) {
        if (fabs(samples->tokens_per_s[i] - wanted) < fabs(samples->tokens_per_s[best] - wanted)) {
            best = i;
        }
    }
    return samples->shares[best];
}

static double stage_median(const struct samples *samples, uint32_t stage)
{
    double *column = mem_new_array(double, samples->count);
    double median;

    for (uint32_t i = 0; i < samples->count; i++) {
        column[i] = samples->stage_busy[(size_t)i * samples->stage_count + stage];
    }
    median = bench_median(column, samples->count);
    mem_free(column);
    return median;
}

static bool samples_print(const struct bench_command *own, const struct series *series,
                          const struct bench_test *test, const struct samples *samples,
                          struct error *err)
{
    double *busy = mem_new_array(double, samples->stage_count);
    struct bench_result result = {
        .test = *test,
        .sample_count = samples->count,
        .tokens_per_s = samples->tokens_per_s,
        .rows_per_step = bench_median(samples->rows_per_step, samples->count),
        .shares = shares_median(samples),
        .machine_count = series->machine_count,
        .machines = series->machines,
        .stage_count = samples->stage_count,
        .stage_busy = busy,
    };
    bool good;

    for (uint32_t stage = 0; stage < samples->stage_count; stage++) {
        busy[stage] = stage_median(samples, stage);
    }
    good = result_print(own, &result, err);
    mem_free(busy);
    return good;
}

static bool test_run(struct bench_command *own, const struct bench_test *test, void *context,
                     struct error *err)
{
    const struct series *series = context;
    struct samples samples;
    struct bench_name name;
    bool good;

    samples_init(&samples, own->repetitions, series->stage_count);
    good = warm_run(own, series, test, err) && samples_take(own, series, test, &samples, err) &&
           samples_print(own, series, test, &samples, err);
    samples_deinit(&samples);
    return good || error_wrap(err, "%s at depth %u, batch %u", bench_test_name(test, &name),
                              test->depth, test->batch);
}

static void head_print(const struct series *series)
{
    struct buffer text;

    buffer_init(&text);
    bench_limits_lines(series->machines, series->machine_count, &text);
    (void)fputs(buffer_text(&text), stderr);
    buffer_clear(&text);
    bench_table_head(&text);
    (void)fputs(buffer_text(&text), stdout);
    buffer_deinit(&text);
}

static bool series_run(struct bench_command *own, struct local_cluster *local, struct error *err)
{
    struct cluster_status *status = cluster_status(local->cluster);
    struct series series = {.local = local, .stage_count = status->stage_count};
    bool good;

    cluster_status_destroy(status);
    series.machines = bench_meter_machines(local->cluster, &series.machine_count);
    if (!own->json) {
        head_print(&series);
    }
    good = tests_each(own, test_run, &series, err);
    mem_free(series.machines);
    return good;
}

/* --- the command --- */

static bool bench(struct bench_command *own, struct error *err)
{
    struct local_cluster local;
    bool good;

    own->meter = bench_meter_create(err);
    if (own->meter == NULL) {
        return false;
    }
    own->cluster.step_sink = bench_meter_step;
    own->cluster.step_context = own->meter;
    own->cluster.measure_limits = true;
    good = cluster_size(own, err) &&
           local_cluster_start(&local, &own->cluster, LOCAL_CLUSTER_NO_TOKENIZER, err);
    if (!good && err->code == ERROR_USAGE) {
        error_wrap(err, "sequences of up to %u tokens", own->cluster.context_tokens_max);
    }
    if (good) {
        good = local_cluster_wait(&local, err) && series_run(own, &local, err) &&
               local_cluster_profile(&local, err);
        local_cluster_stop(&local);
    }
    bench_meter_destroy(own->meter);
    return good;
}

int command_bench(int argc, char **argv)
{
    static const struct argp_child children[] = {{&cluster_options_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        options,
        parse_option,
        NULL,
        "Measures how fast a cluster made for it computes prompts and generates, how near that is "
        "to what its machines could do at most (reading weights and cache; arithmetic), and how "
        "much of the time each stage computed. Prompts are random tokens; there are no drafts "
        "unless "
        "--draft is given. Prints the median of the counted runs, in tokens per second of all "
        "sequences together.\v"
        "  shoal bench --model model.gguf\n"
        "  shoal bench --model DIR --layout 2x1 --threads 1 --batch 1,8,16 --max-batch 4\n"
        "  shoal bench --model config.json --weights dummy --depth 0,4096 --json",
        children,
        NULL,
        NULL};
    struct bench_command own = {.prompts = {1, {512}},
                                .generated = {1, {64}},
                                .depths = {1, {0}},
                                .batches = {1, {1}},
                                .repetitions = 3};
    struct error err = {0};

    cluster_options_init(&own.cluster, OPTIONS_PRIVATE);
    argp_parse(&argp, argc, argv, 0, NULL, &own);
    log_init("shoal", LOG_WARN);
    cli_signals_install();
    cli_limits_raise();
    return bench(&own, &err) ? CLI_OK : cli_fail(argv[0], &err);
}
