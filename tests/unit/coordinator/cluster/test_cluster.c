/* The cluster from registration to its end, with workers whose model is a hash. */
#include "coordinator/cluster/cluster.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/net/message.h"
#include "fake_worker.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define MODEL       SHOAL_TEST_DATA "/deepseek_v3-bf16/model"
#define PATIENCE_NS (20 * NS_PER_S)
#define WORKERS     2
#define TOKENS_MAX  4096

/* A sequence as its client sees it. */
struct client {
    pthread_mutex_t mutex; /* guards all below */
    pthread_cond_t changed;
    uint32_t tokens[TOKENS_MAX];
    uint32_t token_count;
    uint32_t finished_count;
    enum finish_reason reason;
    char problem[480];
    seq_id sequence;
};

struct fixture {
    struct catalog *catalog;
    struct cluster *cluster;
    struct fake_worker *workers[WORKERS];
    /* The cluster's thread's until a status shows that all has ended. */
    uint32_t span_counts[WORKERS];
    bool spans_wrong;
};

/* The fake workers compute from 1000 to 2000 on their clock; ours shows now. */
static void step_sink(void *context, const struct cluster_step_span *span)
{
    struct fixture *fixture = context;
    int64_t now_ns = clock_monotonic_ns();

    fixture->spans_wrong |= span->worker >= WORKERS || span->stage != span->worker ||
                            span->member != 0 || span->end_ns - span->begin_ns != 1000 ||
                            span->end_ns > now_ns;
    fixture->span_counts[span->worker % WORKERS]++;
}

static void client_sink(void *context, const struct cluster_event *event)
{
    struct client *client = context;

    pthread_mutex_lock(&client->mutex);
    if (event->kind == CLUSTER_TOKEN) {
        client->tokens[client->token_count++] = event->token;
    } else if (event->kind == CLUSTER_FINISHED) {
        client->finished_count++;
        client->reason = event->reason;
        (void)snprintf(client->problem, sizeof(client->problem), "%s",
                       event->problem != NULL ? event->problem : "");
    }
    pthread_cond_broadcast(&client->changed);
    pthread_mutex_unlock(&client->mutex);
}

static bool client_submit(struct fixture *fixture, struct client *client, uint32_t tokens_max,
                          struct error *err)
{
    static const uint32_t prompt[] = {5, 6, 7};
    struct cluster_request request = {.prompt = prompt,
                                      .prompt_count = 3,
                                      .tokens_max = tokens_max,
                                      .sampling = {.top_p = 1},
                                      .sink = client_sink,
                                      .context = client};

    memset(client, 0, sizeof(*client));
    pthread_mutex_init(&client->mutex, NULL);
    pthread_cond_init(&client->changed, NULL);
    return cluster_submit(fixture->cluster, &request, &client->sequence, err);
}

static void client_wait_finished(struct client *client)
{
    pthread_mutex_lock(&client->mutex);
    while (client->finished_count == 0) {
        pthread_cond_wait(&client->changed, &client->mutex);
    }
    pthread_mutex_unlock(&client->mutex);
}

/* Looks again until the condition holds; fails the test when patience ends. */
#define WAIT_FOR(condition)                                                                        \
    do {                                                                                           \
        int64_t wait_end_ns = clock_monotonic_ns() + PATIENCE_NS;                                  \
        while (!(condition)) {                                                                     \
            struct timespec pause = {.tv_nsec = 1000000};                                          \
            assert_true(clock_monotonic_ns() < wait_end_ns);                                       \
            nanosleep(&pause, NULL);                                                               \
        }                                                                                          \
    } while (0)

static bool state_is(struct fixture *fixture, enum cluster_state state)
{
    struct cluster_status *status = cluster_status(fixture->cluster);
    bool is = status->state == state;

    cluster_status_destroy(status);
    return is;
}

static void problem_of(struct fixture *fixture, char *text, size_t bytes)
{
    struct cluster_status *status = cluster_status(fixture->cluster);

    (void)snprintf(text, bytes, "%s", status->problem);
    cluster_status_destroy(status);
}

/* So many sequences have ended, and nothing of them is left. */
static bool all_ended(struct fixture *fixture, uint64_t count)
{
    struct cluster_status *status = cluster_status(fixture->cluster);
    struct scheduler_stats stats = status->scheduler;

    cluster_status_destroy(status);
    return stats.finished + stats.cancelled + stats.failed == count &&
           stats.running + stats.waiting + stats.steps_in_flight + stats.kv_blocks_used == 0;
}

static int setup_with(void **state, enum numerics numerics)
{
    struct fixture *fixture = mem_new(struct fixture);
    struct cluster_config config = {.model = MODEL,
                                    .control_endpoint = "tcp://127.0.0.1:0",
                                    .stage_count = WORKERS,
                                    .group_size = 1,
                                    .remote_count = WORKERS,
                                    .numerics = numerics,
                                    .kv_type = KV_F32,
                                    .step_sink = step_sink,
                                    .step_context = fixture};
    struct error err;

    log_init("test", LOG_ERROR);
    fixture->catalog = catalog_open(MODEL, &err);
    assert_non_null(fixture->catalog);
    config.catalog = fixture->catalog;
    fixture->cluster = cluster_start(&config, &err);
    assert_non_null(fixture->cluster);
    *state = fixture;
    return 0;
}

static int cluster_setup(void **state)
{
    return setup_with(state, NUMERICS_EXACT);
}

static int cluster_setup_fast(void **state)
{
    return setup_with(state, NUMERICS_FAST);
}

static int cluster_teardown(void **state)
{
    struct fixture *fixture = *state;

    cluster_stop(fixture->cluster);
    for (int i = 0; i < WORKERS; i++) {
        fake_worker_kill(fixture->workers[i]);
    }
    catalog_close(fixture->catalog);
    mem_free(fixture);
    return 0;
}

static struct fake_options plain_worker(const struct fixture *fixture)
{
    return (struct fake_options){.endpoint = cluster_control_endpoint(fixture->cluster),
                                 .host = "fakehost",
                                 .protocol_minor = PROTOCOL_MINOR};
}

static bool worker_count_is(struct fixture *fixture, uint32_t count)
{
    struct cluster_status *status = cluster_status(fixture->cluster);
    bool is = status->worker_count == count;

    cluster_status_destroy(status);
    return is;
}

/* One after the other, so that worker numbers are known. */
static void serve(struct fixture *fixture)
{
    struct fake_options options = plain_worker(fixture);
    struct error err;

    for (uint32_t i = 0; i < WORKERS; i++) {
        fixture->workers[i] = fake_worker_start(&options);
        WAIT_FOR(worker_count_is(fixture, i + 1));
    }
    if (!cluster_wait(fixture->cluster, NULL, NULL, NULL, &err)) {
        fail_msg("%s", err.message);
    }
}

static void hold_all(struct fixture *fixture)
{
    for (int i = 0; i < WORKERS; i++) {
        fake_worker_hold(fixture->workers[i]);
    }
}

static void release_all(struct fixture *fixture)
{
    for (int i = 0; i < WORKERS; i++) {
        fake_worker_release(fixture->workers[i]);
    }
}

static void refusal_expect(struct fixture *fixture, const struct fake_options *options,
                           const char *first, const char *second)
{
    struct fake_worker *worker = fake_worker_start(options);
    char text[512];

    WAIT_FOR(fake_worker_error(worker, text, sizeof(text)));
    assert_non_null(strstr(text, first));
    assert_non_null(strstr(text, second));
    fake_worker_kill(worker);
    assert_true(state_is(fixture, CLUSTER_GATHERING));
}

/* --- cases --- */

static void a_worker_of_another_protocol_is_refused_with_both_versions(void **state)
{
    struct fixture *fixture = *state;
    struct fake_options options = plain_worker(fixture);

    options.protocol_major = 2;
    options.protocol_minor = 7;
    refusal_expect(fixture, &options, "2.7", "1.4");
}

static void a_worker_of_another_build_is_refused_with_both_builds(void **state)
{
    struct fixture *fixture = *state;
    struct fake_options options = plain_worker(fixture);

    options.build = "9.9.9";
    refusal_expect(fixture, &options, "9.9.9", SHOAL_VERSION);
}

static void a_worker_with_other_kernels_is_refused_with_both_versions(void **state)
{
    struct fixture *fixture = *state;
    struct fake_options options = plain_worker(fixture);

    fixture->workers[0] = fake_worker_start(&options);
    WAIT_FOR(worker_count_is(fixture, 1));
    options.kernels_version = 77;
    refusal_expect(fixture, &options, "77", "kernels version");
}

static void a_worker_whose_fast_numerics_are_unknown_is_refused_with_them(void **state)
{
    struct fixture *fixture = *state;
    struct fake_options options = plain_worker(fixture);

    options.fast_numerics = "fast-abacus";
    refusal_expect(fixture, &options, "fast-abacus", "unknown");
}

static void fast_is_what_the_first_worker_calls_so(void **state)
{
    struct fixture *fixture = *state;
    struct cluster_status *status;

    serve(fixture);
    status = cluster_status(fixture->cluster);
    assert_string_equal(status->numerics_id, "fast-blas/f32/k1");
    cluster_status_destroy(status);
}

static void gathering_says_how_many_are_there(void **state)
{
    struct fixture *fixture = *state;
    struct fake_options options = plain_worker(fixture);
    struct error err;
    struct client client;
    char problem[480];

    fixture->workers[0] = fake_worker_start(&options);
    WAIT_FOR(worker_count_is(fixture, 1));
    problem_of(fixture, problem, sizeof(problem));
    assert_string_equal(problem, "waiting for workers: 1 of 2");
    assert_false(client_submit(fixture, &client, 1, &err));
    assert_int_equal(err.code, ERROR_PEER);
}

static void tokens_come_in_order_then_one_finish(void **state)
{
    struct fixture *fixture = *state;
    struct client clients[5];
    struct error err;

    serve(fixture);
    for (size_t i = 0; i < ARRAY_LENGTH(clients); i++) {
        assert_true(client_submit(fixture, &clients[i], 20, &err));
    }
    for (size_t i = 0; i < ARRAY_LENGTH(clients); i++) {
        client_wait_finished(&clients[i]);
        assert_int_equal(clients[i].reason, FINISH_LENGTH);
        assert_int_equal(clients[i].token_count, 20);
        for (uint32_t t = 0; t < 20; t++) {
            assert_int_equal(clients[i].tokens[t], fake_token(3 + t));
        }
    }
    WAIT_FOR(all_ended(fixture, ARRAY_LENGTH(clients)));
    assert_int_equal(clients[0].finished_count, 1);
}

static void status_tells_what_runs_where(void **state)
{
    struct fixture *fixture = *state;
    struct cluster_status *status;
    struct client client;
    struct error err;

    serve(fixture);
    assert_true(client_submit(fixture, &client, 4, &err));
    client_wait_finished(&client);
    WAIT_FOR(all_ended(fixture, 1));
    status = cluster_status(fixture->cluster);
    assert_string_equal(status->numerics_id, "exact/f32/k1");
    assert_int_equal(status->epoch, 1);
    assert_int_equal(status->scheduler.generated_tokens, 4);
    for (uint32_t i = 0; i < WORKERS; i++) {
        assert_int_equal(status->workers[i].id, i);
        assert_int_equal(status->workers[i].stage, i);
        assert_int_equal(status->workers[i].load_done_bytes, 1000);
        assert_int_equal(status->workers[i].ledger_bytes, 1000);
        assert_true(status->workers[i].steps >= 4);
        assert_int_equal(status->workers[i].busy_ns, 1000 * status->workers[i].steps);
        assert_int_equal(fixture->span_counts[i], status->workers[i].steps);
    }
    assert_false(fixture->spans_wrong);
    assert_int_equal(status->workers[1].layer_end, 4);
    cluster_status_destroy(status);
}

static void a_prompt_that_does_not_fit_is_refused_at_once(void **state)
{
    struct fixture *fixture = *state;
    uint32_t *prompt = mem_new_array(uint32_t, 5000);
    struct cluster_request request = {
        .prompt = prompt, .prompt_count = 5000, .tokens_max = 1, .sink = client_sink};
    struct error err;
    seq_id sequence;

    serve(fixture);
    assert_false(cluster_submit(fixture->cluster, &request, &sequence, &err));
    assert_int_equal(err.code, ERROR_USAGE);
    assert_non_null(strstr(err.message, "5000"));
    request.prompt_count = 1;
    prompt[0] = 384;
    assert_false(cluster_submit(fixture->cluster, &request, &sequence, &err));
    assert_int_equal(err.code, ERROR_USAGE);
    mem_free(prompt);
}

static void a_lost_worker_fails_its_sequences_by_name_and_a_new_one_heals(void **state)
{
    struct fixture *fixture = *state;
    struct fake_options options = plain_worker(fixture);
    struct client client;
    struct error err;

    serve(fixture);
    hold_all(fixture);
    assert_true(client_submit(fixture, &client, 50, &err));
    WAIT_FOR(fake_worker_held_steps(fixture->workers[1]) > 0);
    fake_worker_kill(fixture->workers[1]);
    fixture->workers[1] = NULL;
    client_wait_finished(&client);
    assert_int_equal(client.reason, FINISH_FAILED);
    assert_string_equal(client.problem, "worker 1 (fakehost, stage 1) was lost: connection closed");
    WAIT_FOR(state_is(fixture, CLUSTER_GATHERING));
    fake_worker_release(fixture->workers[0]);
    fixture->workers[1] = fake_worker_start(&options);
    WAIT_FOR(state_is(fixture, CLUSTER_SERVING));
    assert_true(client_submit(fixture, &client, 5, &err));
    client_wait_finished(&client);
    assert_int_equal(client.token_count, 5);
}

static struct scheduler_stats stats_of(struct fixture *fixture)
{
    struct cluster_status *status = cluster_status(fixture->cluster);
    struct scheduler_stats stats = status->scheduler;

    cluster_status_destroy(status);
    return stats;
}

/* Both workers have the sequence's step, and keep silent. */
static void begin_and_hold(struct fixture *fixture, struct client *client, uint32_t tokens_max)
{
    struct error err;

    hold_all(fixture);
    if (!client_submit(fixture, client, tokens_max, &err)) {
        fail_msg("%s", err.message);
    }
    WAIT_FOR(fake_worker_held_steps(fixture->workers[0]) > 0 &&
             fake_worker_held_steps(fixture->workers[1]) > 0);
}

/* Worker 0 has answered, worker 1 lost the link: both compute the step again. */
static void a_lost_link_is_opened_anew_and_the_steps_follow_again(void **state)
{
    struct fixture *fixture = *state;
    struct client client;

    serve(fixture);
    begin_and_hold(fixture, &client, 4);
    fake_worker_release(fixture->workers[0]);
    WAIT_FOR(fake_worker_held_steps(fixture->workers[0]) == 0);
    fake_worker_hold(fixture->workers[0]);
    fake_worker_lose_link(fixture->workers[1], 0, 0);
    for (int i = 0; i < WORKERS; i++) {
        WAIT_FOR(fake_worker_attempt(fixture->workers[i]) == 1);
        WAIT_FOR(fake_worker_held_steps(fixture->workers[i]) == 1);
        assert_int_equal(fake_worker_links_anew(fixture->workers[i]), 1);
    }
    fake_worker_lose_link(fixture->workers[0], 1, 0); /* the same one, from the other end */
    release_all(fixture);
    client_wait_finished(&client);
    assert_int_equal(client.reason, FINISH_LENGTH);
    assert_int_equal(client.token_count, 4);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(client.tokens[i], fake_token(3 + i));
    }
    WAIT_FOR(all_ended(fixture, 1));
    assert_int_equal(stats_of(fixture).retries, 1);
    assert_int_equal(stats_of(fixture).steps_reissued, 1);
    assert_int_equal(stats_of(fixture).ignored_reports, 1); /* worker 0 answered twice */
    assert_false(fixture->spans_wrong);
    assert_true(state_is(fixture, CLUSTER_SERVING));
}

static void a_link_that_is_lost_again_and_again_ends_the_epoch(void **state)
{
    struct fixture *fixture = *state;
    struct client client;

    serve(fixture);
    begin_and_hold(fixture, &client, 4);
    for (uint32_t attempt = 0; attempt < RETRIES_MAX; attempt++) {
        fake_worker_lose_link(fixture->workers[1], 0, attempt);
        WAIT_FOR(fake_worker_attempt(fixture->workers[1]) == attempt + 1);
    }
    fake_worker_lose_link(fixture->workers[1], 0, RETRIES_MAX);
    client_wait_finished(&client);
    assert_int_equal(client.reason, FINISH_FAILED);
    assert_non_null(strstr(client.problem, "a spade cut the cable: 9 attempts"));
    assert_non_null(strstr(client.problem, "worker 1"));
}

static void workers_of_an_older_minor_have_one_attempt(void **state)
{
    struct fixture *fixture = *state;
    struct fake_options options = plain_worker(fixture);
    struct client client;

    options.protocol_minor = PROTOCOL_MINOR_ATTEMPTS - 1;
    fixture->workers[0] = fake_worker_start(&options);
    WAIT_FOR(worker_count_is(fixture, 1));
    options.protocol_minor = PROTOCOL_MINOR;
    fixture->workers[1] = fake_worker_start(&options);
    WAIT_FOR(state_is(fixture, CLUSTER_SERVING));
    begin_and_hold(fixture, &client, 4);
    fake_worker_lose_link(fixture->workers[1], 0, 0);
    client_wait_finished(&client);
    assert_int_equal(client.reason, FINISH_FAILED);
    assert_non_null(strstr(client.problem, "worker 0 speaks protocol 1.3"));
}

static void a_cancelled_sequence_finishes_and_leaves_nothing(void **state)
{
    struct fixture *fixture = *state;
    struct client client;
    struct error err;

    serve(fixture);
    hold_all(fixture);
    assert_true(client_submit(fixture, &client, 50, &err));
    WAIT_FOR(fake_worker_held_steps(fixture->workers[0]) > 0);
    cluster_cancel(fixture->cluster, client.sequence);
    cluster_cancel(fixture->cluster, client.sequence + 99);
    client_wait_finished(&client);
    assert_int_equal(client.reason, FINISH_CANCELLED);
    release_all(fixture);
    WAIT_FOR(all_ended(fixture, 1));
    assert_int_equal(client.finished_count, 1);
}

static void draining_finishes_what_runs_and_takes_nothing_new(void **state)
{
    struct fixture *fixture = *state;
    struct client running, late;
    struct error err;

    serve(fixture);
    hold_all(fixture);
    assert_true(client_submit(fixture, &running, 5, &err));
    cluster_drain(fixture->cluster);
    WAIT_FOR(state_is(fixture, CLUSTER_DRAINING));
    assert_false(client_submit(fixture, &late, 5, &err));
    assert_int_equal(err.code, ERROR_PEER);
    release_all(fixture);
    client_wait_finished(&running);
    assert_int_equal(running.reason, FINISH_LENGTH);
    assert_int_equal(running.token_count, 5);
}

static void a_leaving_worker_is_let_go_after_its_sequences(void **state)
{
    struct fixture *fixture = *state;
    struct client client;
    struct error err;

    serve(fixture);
    hold_all(fixture);
    assert_true(client_submit(fixture, &client, 5, &err));
    WAIT_FOR(fake_worker_held_steps(fixture->workers[0]) > 0);
    fake_worker_ask_to_leave(fixture->workers[0]);
    release_all(fixture);
    client_wait_finished(&client);
    assert_int_equal(client.reason, FINISH_LENGTH);
    WAIT_FOR(fake_worker_was_dismissed(fixture->workers[0]));
    WAIT_FOR(state_is(fixture, CLUSTER_GATHERING));
}

static void a_worker_that_refuses_its_assignment_fails_the_cluster_with_its_words(void **state)
{
    struct fixture *fixture = *state;
    struct fake_options options = plain_worker(fixture);
    struct error err;

    fixture->workers[0] = fake_worker_start(&options);
    WAIT_FOR(worker_count_is(fixture, 1));
    options.load_refusal = "needs 9 GB, has 2 GB";
    fixture->workers[1] = fake_worker_start(&options);
    assert_false(cluster_wait(fixture->cluster, NULL, NULL, NULL, &err));
    assert_non_null(strstr(err.message, "worker 1 (fakehost, stage 1)"));
    assert_non_null(strstr(err.message, "needs 9 GB, has 2 GB"));
}

static void stopping_fails_what_runs_and_dismisses_workers(void **state)
{
    struct fixture *fixture = *state;
    struct client client;
    struct error err;

    serve(fixture);
    hold_all(fixture);
    assert_true(client_submit(fixture, &client, 50, &err));
    cluster_stop(fixture->cluster);
    fixture->cluster = NULL;
    assert_int_equal(client.finished_count, 1);
    assert_int_equal(client.reason, FINISH_FAILED);
    WAIT_FOR(fake_worker_was_dismissed(fixture->workers[0]));
    WAIT_FOR(fake_worker_was_dismissed(fixture->workers[1]));
}

static void a_layout_without_enough_workers_is_refused_with_figures(void **state)
{
    struct fixture *fixture = *state;
    struct cluster_config config = {.model = MODEL,
                                    .catalog = fixture->catalog,
                                    .control_endpoint = "tcp://127.0.0.1:0",
                                    .stage_count = 3,
                                    .group_size = 2,
                                    .remote_count = 2};
    struct error err;

    assert_null(cluster_start(&config, &err));
    assert_int_equal(err.code, ERROR_USAGE);
    assert_non_null(strstr(err.message, "needs 6 workers"));
}

static void a_context_beyond_the_models_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct cluster_config config = {.model = MODEL,
                                    .catalog = fixture->catalog,
                                    .control_endpoint = "tcp://127.0.0.1:0",
                                    .remote_count = 1,
                                    .context_tokens_max = 2561};
    struct error err;

    assert_null(cluster_start(&config, &err));
    assert_int_equal(err.code, ERROR_USAGE);
    assert_non_null(strstr(err.message, "2560"));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, cluster_setup, cluster_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_worker_of_another_protocol_is_refused_with_both_versions),
        CASE(a_worker_of_another_build_is_refused_with_both_builds),
        CASE(a_worker_with_other_kernels_is_refused_with_both_versions),
        CASE(a_worker_whose_fast_numerics_are_unknown_is_refused_with_them),
        cmocka_unit_test_setup_teardown(fast_is_what_the_first_worker_calls_so, cluster_setup_fast,
                                        cluster_teardown),
        CASE(gathering_says_how_many_are_there),
        CASE(tokens_come_in_order_then_one_finish),
        CASE(status_tells_what_runs_where),
        CASE(a_prompt_that_does_not_fit_is_refused_at_once),
        CASE(a_lost_worker_fails_its_sequences_by_name_and_a_new_one_heals),
        CASE(a_lost_link_is_opened_anew_and_the_steps_follow_again),
        CASE(a_link_that_is_lost_again_and_again_ends_the_epoch),
        CASE(workers_of_an_older_minor_have_one_attempt),
        CASE(a_cancelled_sequence_finishes_and_leaves_nothing),
        CASE(draining_finishes_what_runs_and_takes_nothing_new),
        CASE(a_leaving_worker_is_let_go_after_its_sequences),
        CASE(a_worker_that_refuses_its_assignment_fails_the_cluster_with_its_words),
        CASE(stopping_fails_what_runs_and_dismisses_workers),
        CASE(a_layout_without_enough_workers_is_refused_with_figures),
        CASE(a_context_beyond_the_models_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
