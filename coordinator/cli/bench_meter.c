/* bench_meter.c - one repetition: submits sequences, opens and closes the timed window, waits until
 * the cluster is quiet again.
 *
 * Sinks note what matters in the run's own fields and wake the main thread when a goal is reached;
 * it reads them only after the flag that says so. Steps' spans are kept until the end, since they
 * arrive after the window that they lie in.
 */
#include "coordinator/cli/bench_meter.h"

#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "common/base/ring.h"
#include "coordinator/cli/cli.h"

#include <poll.h>
#include <stdatomic.h>
#include <string.h>

#define QUIET_POLL_MS 2
/* While prompts of other sequences are computed, one that decodes already gets a token a step; a
 * step with prompt rows has at least so many of them. */
#define PROMPT_ROWS_MIN 64
#define SETTLE_ROUNDS   1

/* One sequence; the sink's context. The cluster's thread's while it is open. */
struct sequence {
    struct bench_meter *meter;
    seq_id id;
    uint32_t tokens;
};

struct bench_meter {
    struct waker waker;
    struct bench_test test; /* of the round under way */
    uint32_t sequence_count;
    struct sequence *sequences;
    uint64_t submitted; /* in all rounds */
    uint64_t runs;

    /* The cluster's thread's while sequences are open. */
    uint32_t started;       /* sequences with a token */
    uint64_t settle_tokens; /* still to come before the window opens */
    uint64_t tokens;        /* inside the window */
    uint64_t cached_tokens;
    struct bench_window window;
    uint32_t finished;
    bool failed;
    char problem[200];
    bool recording;
    struct cluster_step_span *spans;
    size_t span_count, span_capacity;

    atomic_bool reached; /* the window is closed, or all have finished */
    atomic_bool over;    /* all have finished */
};

struct bench_meter *bench_meter_create(struct error *err)
{
    struct bench_meter *meter = mem_new(struct bench_meter);

    if (!waker_open(&meter->waker)) {
        mem_free(meter);
        error_set_errno(err, "eventfd");
        return NULL;
    }
    return meter;
}

void bench_meter_destroy(struct bench_meter *meter)
{
    if (meter != NULL) {
        waker_close(&meter->waker);
        mem_free(meter->sequences);
        mem_free(meter->spans);
        mem_free(meter);
    }
}

/* --- on the cluster's thread --- */

void bench_meter_step(void *context, const struct cluster_step_span *span)
{
    struct bench_meter *meter = context;

    if (!meter->recording) {
        return;
    }
    if (meter->span_count == meter->span_capacity) {
        meter->span_capacity = meter->span_capacity == 0 ? 256 : 2 * meter->span_capacity;
        meter->spans = mem_resize(meter->spans, meter->span_capacity, sizeof(*meter->spans));
    }
    meter->spans[meter->span_count++] = *span;
}

static void reach(struct bench_meter *meter)
{
    atomic_store(&meter->reached, true);
    waker_wake(&meter->waker);
}

static void token_take(struct bench_meter *meter, struct sequence *sequence, int64_t now_ns)
{
    uint64_t wanted = (uint64_t)meter->test.token_count * meter->test.batch;

    meter->started += sequence->tokens == 0;
    sequence->tokens++;
    if (meter->started < meter->sequence_count || meter->window.end_ns != 0) {
        return;
    }
    if (meter->window.begin_ns != 0) {
        meter->tokens++;
    } else if (meter->settle_tokens > 0) {
        meter->settle_tokens--;
    } else {
        meter->window.begin_ns = now_ns;
    }
    if (meter->tokens == wanted) {
        meter->window.end_ns = now_ns;
        reach(meter);
    }
}

static void finish_take(struct bench_meter *meter, const struct sequence *sequence,
                        const struct cluster_event *event, int64_t now_ns)
{
    meter->finished++;
    meter->cached_tokens += event->cached_tokens;
    if (event->reason == FINISH_FAILED && !meter->failed) {
        meter->failed = true;
        (void)snprintf(meter->problem, sizeof(meter->problem), "%.190s", event->problem);
    }
    if (meter->test.kind == BENCH_GENERATE && meter->window.end_ns == 0 && !meter->failed) {
        meter->failed = true;
        (void)snprintf(meter->problem, sizeof(meter->problem),
                       "a sequence ended after %u tokens, before all %u had been timed",
                       sequence->tokens, meter->sequence_count);
    }
    if (meter->failed) {
        reach(meter);
    }
    if (meter->finished == meter->sequence_count) {
        if (meter->test.kind == BENCH_PROMPT) {
            meter->window.end_ns = now_ns;
        }
        atomic_store(&meter->over, true);
        reach(meter);
    }
}

static void sink(void *context, const struct cluster_event *event)
{
    struct sequence *sequence = context;
    struct bench_meter *meter = sequence->meter;

    if (event->kind == CLUSTER_TOKEN && meter->test.kind == BENCH_GENERATE) {
        token_take(meter, sequence, event->received_ns);
    } else if (event->kind == CLUSTER_FINISHED) {
        finish_take(meter, sequence, event, clock_monotonic_ns());
    }
}

/* --- on the main thread --- */

/* Tokens beyond the timed ones that an early sequence may decode while the others' prompts are
 * computed, and until the window opens. */
static uint64_t generate_slack(const struct bench_test *test)
{
    uint64_t prompt_rows = (uint64_t)(test->batch - 1) * (test->depth > 0 ? test->depth : 1);

    return (prompt_rows + PROMPT_ROWS_MIN - 1) / PROMPT_ROWS_MIN + test->batch +
           (SETTLE_ROUNDS + 2u);
}

uint32_t bench_meter_tokens_max(const struct bench_test *test)
{
    uint64_t tokens = (uint64_t)test->depth + test->token_count + 1;

    if (test->kind == BENCH_GENERATE) {
        tokens += generate_slack(test);
    }
    return tokens < UINT32_MAX / 2 ? (uint32_t)tokens : UINT32_MAX / 2;
}

static bool wait_for(struct bench_meter *meter, const atomic_bool *flag, struct error *err)
{
    struct pollfd fds[2] = {{.fd = meter->waker.fd, .events = POLLIN},
                            {.fd = cli_stop_fd(), .events = POLLIN}};

    while (!atomic_load(flag)) {
        if (*cli_stop_count() > 0) {
            return error_set(err, ERROR_PEER, "interrupted");
        }
        (void)poll(fds, 2, -1);
        waker_clear(&meter->waker);
    }
    return true;
}

/* Until nothing is in flight: a step of the cancelled sequences would slow the next repetition, and
 * its spans are needed. */
static bool wait_quiet(struct bench_meter *meter, struct cluster *cluster, struct error *err)
{
    for (;;) {
        struct cluster_status *status = cluster_status(cluster);
        const struct scheduler_stats *stats = &status->scheduler;
        bool ended = stats->finished + stats->cancelled + stats->failed >= meter->submitted;
        bool quiet = ended && stats->steps_in_flight == 0;
        struct pollfd fd = {.fd = cli_stop_fd(), .events = POLLIN};

        cluster_status_destroy(status);
        if (quiet) {
            return true;
        }
        if (*cli_stop_count() > 0) {
            return error_set(err, ERROR_PEER, "interrupted");
        }
        (void)poll(&fd, 1, QUIET_POLL_MS);
    }
}

/* What one round computes: prompts of `prompt_count` tokens, then up to tokens_max more. */
struct round {
    struct bench_test test;
    uint32_t prompt_count;
    uint32_t tokens_max;
    uint64_t seed;
};

static void round_reset(struct bench_meter *meter, const struct round *round)
{
    meter->test = round->test;
    meter->sequence_count = round->test.batch;
    mem_free(meter->sequences);
    meter->sequences = mem_new_array(struct sequence, round->test.batch);
    meter->started = 0;
    meter->settle_tokens = (uint64_t)SETTLE_ROUNDS * round->test.batch;
    meter->tokens = 0;
    meter->cached_tokens = 0;
    meter->window = (struct bench_window){0, 0};
    meter->finished = 0;
    meter->failed = false;
    meter->recording = true;
    meter->span_count = 0;
    atomic_store(&meter->reached, false);
    atomic_store(&meter->over, false);
}

static bool submit_one(struct bench_meter *meter, struct cluster *cluster, uint32_t vocab,
                       const struct round *round, uint32_t index, struct error *err)
{
    struct sequence *sequence = &meter->sequences[index];
    uint32_t *prompt = mem_new_array(uint32_t, round->prompt_count);
    struct cluster_request request = {.prompt = prompt,
                                      .prompt_count = round->prompt_count,
                                      .tokens_max = round->tokens_max,
                                      .ignore_eos = true,
                                      .sampling = {.temperature = 0, .top_p = 1},
                                      .sink = sink,
                                      .context = sequence};
    bool good;

    for (uint32_t i = 0; i < round->prompt_count; i++) {
        prompt[i] = (uint32_t)(hash_counter(round->seed, index, i, round->test.kind) % vocab);
    }
    sequence->meter = meter;
    good = cluster_submit(cluster, &request, &sequence->id, err);
    meter->submitted += good;
    mem_free(prompt);
    return good;
}

static bool submit_all(struct bench_meter *meter, struct cluster *cluster, uint32_t vocab,
                       const struct round *round, struct error *err)
{
    if (round->test.kind == BENCH_PROMPT) {
        meter->window.begin_ns = clock_monotonic_ns();
    }
    for (uint32_t i = 0; i < round->test.batch; i++) {
        if (!submit_one(meter, cluster, vocab, round, i, err)) {
            return false;
        }
    }
    return true;
}

/* After a failure the cluster is about to be stopped, which ends the sequences. */
static bool round_run(struct bench_meter *meter, struct cluster *cluster, uint32_t vocab,
                      const struct round *round, struct error *err)
{
    round_reset(meter, round);
    if (!submit_all(meter, cluster, vocab, round, err) || !wait_for(meter, &meter->reached, err)) {
        return false;
    }
    for (uint32_t i = 0; i < round->test.batch; i++) {
        cluster_cancel(cluster, meter->sequences[i].id);
    }
    if (!wait_for(meter, &meter->over, err) || !wait_quiet(meter, cluster, err)) {
        return false;
    }
    meter->recording = false;
    return !meter->failed || error_set(err, ERROR_PEER, "%s", meter->problem);
}

static double seconds(const struct bench_window *window)
{
    return (double)(window->end_ns - window->begin_ns) / (double)NS_PER_S;
}

static bool prompt_run(struct bench_meter *meter, struct cluster *cluster, uint32_t vocab,
                       const struct bench_test *test, double *rate, struct error *err)
{
    struct round fill = {*test, test->depth, 1, ++meter->runs};
    struct round whole = {*test, test->depth + test->token_count, 1, fill.seed};
    uint64_t tokens = (uint64_t)test->token_count * test->batch;
    int64_t fill_ns = 0;
    int64_t time_ns;

    if (test->depth > 0) {
        if (!round_run(meter, cluster, vocab, &fill, err)) {
            return false;
        }
        fill_ns = meter->window.end_ns - meter->window.begin_ns;
    }
    if (!round_run(meter, cluster, vocab, &whole, err)) {
        return false;
    }
    time_ns = meter->window.end_ns - meter->window.begin_ns;
    if (meter->cached_tokens > 0) {
        tokens += (uint64_t)test->depth * test->batch - meter->cached_tokens;
    } else {
        time_ns -= fill_ns;
    }
    if (time_ns <= 0) {
        return error_set(err, ERROR_LIMIT,
                         "%u tokens behind %u took no more time than the %u alone: use more (-p)",
                         test->token_count, test->depth, test->depth);
    }
    *rate = (double)tokens * (double)NS_PER_S / (double)time_ns;
    return true;
}

static bool generate_run(struct bench_meter *meter, struct cluster *cluster, uint32_t vocab,
                         const struct bench_test *test, double *rate, struct error *err)
{
    struct round round = {*test, test->depth > 0 ? test->depth : 1,
                          bench_meter_tokens_max(test) - test->depth, 0};

    if (!round_run(meter, cluster, vocab, &round, err)) {
        return false;
    }
    *rate = (double)meter->tokens / seconds(&meter->window);
    return true;
}

struct bench_machine *bench_meter_machines(struct cluster *cluster, uint32_t *count)
{
    struct cluster_status *status = cluster_status(cluster);
    struct bench_machine *machines = mem_new_array(struct bench_machine, status->worker_count);

    *count = 0;
    for (uint32_t i = 0; i < status->worker_count; i++) {
        const struct cluster_worker_status *worker = &status->workers[i];

        if (worker->stage < status->stage_count) {
            machines[(*count)++] =
                (struct bench_machine){worker->id, worker->stage, worker->limits};
        }
    }
    cluster_status_destroy(status);
    return machines;
}

static void busy_take(const struct bench_meter *meter, struct cluster *cluster,
                      struct bench_sample *out)
{
    struct cluster_status *status = cluster_status(cluster);
    uint32_t *members = mem_new_array(uint32_t, status->stage_count);
    struct bench_machine *machines;
    uint32_t machine_count;

    for (uint32_t i = 0; i < status->worker_count; i++) {
        if (status->workers[i].stage < status->stage_count) {
            members[status->workers[i].stage]++;
        }
    }
    bench_stage_busy(meter->spans, meter->span_count, &meter->window, members, status->stage_count,
                     out->stage_busy);
    out->rows_per_step = bench_rows_per_step(meter->spans, meter->span_count, &meter->window);
    machines = bench_meter_machines(cluster, &machine_count);
    out->shares = bench_limit_shares(meter->spans, meter->span_count, &meter->window, machines,
                                     machine_count, status->stage_count);
    mem_free(machines);
    mem_free(members);
    cluster_status_destroy(status);
}

bool bench_meter_run(struct bench_meter *meter, struct cluster *cluster, uint32_t vocab,
                     const struct bench_test *test, struct bench_sample *out, struct error *err)
{
    bool good = test->kind == BENCH_PROMPT
                    ? prompt_run(meter, cluster, vocab, test, &out->tokens_per_s, err)
                    : generate_run(meter, cluster, vocab, test, &out->tokens_per_s, err);

    if (good) {
        busy_take(meter, cluster, out);
    }
    return good;
}
