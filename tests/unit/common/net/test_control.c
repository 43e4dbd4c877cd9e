/* The control channel over loopback: with and without keys, and its ends. */
#include "common/net/control.h"

#include "common/base/clock.h"
#include "common/base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <zmq.h>

#define PATIENCE_NS (10 * NS_PER_S)

struct channel {
    struct poller *poller;
    struct arena arena;
    struct control_server *server;
    struct control_client *client;
};

static struct cluster_key key_make(void)
{
    struct cluster_key key = {.present = true};

    assert_int_equal(zmq_curve_keypair(key.public_text, key.secret_text), 0);
    return key;
}

static void channel_open(struct channel *channel, const struct cluster_key *server_key,
                         const struct cluster_key *client_key)
{
    struct error err;

    memset(channel, 0, sizeof(*channel));
    channel->poller = poller_create();
    arena_init(&channel->arena, 4096);
    channel->server = control_listen("tcp://127.0.0.1:0", server_key, channel->poller, &err);
    assert_non_null(channel->server);
    channel->client = control_connect(control_server_endpoint(channel->server), client_key,
                                      channel->poller, &err);
    assert_non_null(channel->client);
}

static void channel_close(struct channel *channel)
{
    control_client_destroy(channel->client);
    control_server_destroy(channel->server);
    arena_deinit(&channel->arena);
    poller_destroy(channel->poller);
}

static struct message heartbeat(int64_t sent_ns)
{
    return (struct message){.kind = MESSAGE_HEARTBEAT, .heartbeat = {.sent_ns = sent_ns}};
}

static enum control_result server_wait(struct channel *channel, struct control_peer *from,
                                       struct message *out, struct error *err)
{
    int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;
    enum control_result result = CONTROL_AGAIN;

    while (result == CONTROL_AGAIN) {
        assert_true(clock_monotonic_ns() < deadline_ns);
        result = control_server_receive(channel->server, &channel->arena, from, out, err);
        if (result == CONTROL_AGAIN) {
            poller_wait(channel->poller, 100 * NS_PER_MS);
        }
    }
    return result;
}

static enum control_result client_wait(struct channel *channel, struct message *out,
                                       struct error *err)
{
    int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;
    enum control_result result = CONTROL_AGAIN;

    while (result == CONTROL_AGAIN) {
        assert_true(clock_monotonic_ns() < deadline_ns);
        result = control_client_receive(channel->client, &channel->arena, out, err);
        if (result == CONTROL_AGAIN) {
            poller_wait(channel->poller, 100 * NS_PER_MS);
        }
    }
    return result;
}

static void messages_round_trip(struct channel *channel)
{
    struct message ping = heartbeat(7);
    struct message answer = heartbeat(8);
    struct message got;
    struct control_peer from;
    struct error err;

    assert_int_equal(control_client_send(channel->client, &ping, &err), CONTROL_DONE);
    assert_int_equal(server_wait(channel, &from, &got, &err), CONTROL_DONE);
    assert_int_equal(got.kind, MESSAGE_HEARTBEAT);
    assert_int_equal(got.heartbeat.sent_ns, 7);
    assert_int_equal(control_server_send(channel->server, from, &answer, &err), CONTROL_DONE);
    assert_int_equal(client_wait(channel, &got, &err), CONTROL_DONE);
    assert_int_equal(got.heartbeat.sent_ns, 8);
}

static void messages_pass_both_ways_without_a_key(void **state)
{
    const struct cluster_key none = {0};
    struct channel channel;

    (void)state;
    channel_open(&channel, &none, &none);
    messages_round_trip(&channel);
    channel_close(&channel);
}

static void messages_pass_both_ways_with_the_cluster_key(void **state)
{
    struct cluster_key key = key_make();
    struct channel channel;

    (void)state;
    channel_open(&channel, &key, &key);
    messages_round_trip(&channel);
    channel_close(&channel);
}

/* Nothing of the stranger arrives, while a member is served meanwhile. */
static void stranger_is_shut_out(const struct cluster_key *stranger_key)
{
    struct cluster_key key = key_make();
    struct channel channel;
    struct control_client *stranger;
    struct message ping = heartbeat(666);
    struct error err;

    channel_open(&channel, &key, &key);
    stranger = control_connect(control_server_endpoint(channel.server), stranger_key,
                               channel.poller, &err);
    assert_non_null(stranger);
    assert_int_equal(control_client_send(stranger, &ping, &err), CONTROL_DONE);
    for (int i = 0; i < 20; i++) {
        struct message got;

        messages_round_trip(&channel);
        assert_int_equal(control_client_receive(stranger, &channel.arena, &got, &err),
                         CONTROL_AGAIN);
        poller_wait(channel.poller, 20 * NS_PER_MS);
    }
    control_client_destroy(stranger);
    channel_close(&channel);
}

static void a_client_with_another_key_is_shut_out(void **state)
{
    struct cluster_key other = key_make();

    (void)state;
    stranger_is_shut_out(&other);
}

static void a_client_without_a_key_is_shut_out(void **state)
{
    const struct cluster_key none = {0};

    (void)state;
    stranger_is_shut_out(&none);
}

/* It knows the server's public key, so the handshake reaches ZAP, which refuses its own. */
static void a_client_that_only_knows_the_public_key_is_shut_out(void **state)
{
    struct cluster_key key = key_make();
    struct cluster_key own = key_make();
    struct channel channel;
    void *context = zmq_ctx_new();
    void *stranger = zmq_socket(context, ZMQ_DEALER);
    int linger = 0;
    struct message got;
    struct control_peer from;
    struct error err;

    (void)state;
    channel_open(&channel, &key, &key);
    assert_int_equal(zmq_setsockopt(stranger, ZMQ_LINGER, &linger, sizeof(linger)), 0);
    assert_int_equal(zmq_setsockopt(stranger, ZMQ_CURVE_SERVERKEY, key.public_text, 40), 0);
    assert_int_equal(zmq_setsockopt(stranger, ZMQ_CURVE_PUBLICKEY, own.public_text, 40), 0);
    assert_int_equal(zmq_setsockopt(stranger, ZMQ_CURVE_SECRETKEY, own.secret_text, 40), 0);
    assert_int_equal(zmq_connect(stranger, control_server_endpoint(channel.server)), 0);
    assert_int_equal(zmq_send(stranger, "x", 1, 0), 1);
    for (int i = 0; i < 20; i++) {
        poller_wait(channel.poller, 20 * NS_PER_MS);
        assert_int_equal(control_server_receive(channel.server, &channel.arena, &from, &got, &err),
                         CONTROL_AGAIN);
    }
    (void)zmq_close(stranger);
    (void)zmq_ctx_term(context);
    channel_close(&channel);
}

static void a_client_that_leaves_is_reported_after_its_last_message(void **state)
{
    const struct cluster_key none = {0};
    struct channel channel;
    struct message last = {.kind = MESSAGE_DRAIN};
    struct message got;
    struct control_peer from;
    struct control_peer lost = {0};
    struct error err;

    (void)state;
    channel_open(&channel, &none, &none);
    messages_round_trip(&channel);
    assert_int_equal(control_client_send(channel.client, &last, &err), CONTROL_DONE);
    control_client_destroy(channel.client);
    channel.client = NULL;
    assert_int_equal(server_wait(&channel, &from, &got, &err), CONTROL_DONE);
    assert_int_equal(got.kind, MESSAGE_DRAIN);
    assert_int_equal(server_wait(&channel, &lost, &got, &err), CONTROL_LOST);
    assert_int_equal(lost.connection, from.connection);
    assert_int_equal(control_server_send(channel.server, from, &last, &err), CONTROL_LOST);
    channel_close(&channel);
}

/* The child connects, says something and waits to be killed. */
static void child_run(const char *endpoint)
{
    const struct cluster_key none = {0};
    struct poller *poller = poller_create();
    struct error err;
    struct control_client *client = control_connect(endpoint, &none, poller, &err);
    struct message ping = heartbeat(1);

    if (client == NULL || control_client_send(client, &ping, &err) != CONTROL_DONE) {
        _exit(1);
    }
    for (;;) {
        poller_wait(poller, -1);
    }
}

static void a_killed_client_is_reported_within_a_second(void **state)
{
    const struct cluster_key none = {0};
    int pipe_fds[2];
    char endpoint[64] = {0};
    struct channel channel = {0};
    struct message got;
    struct control_peer from;
    struct control_peer lost;
    struct error err;
    int64_t killed_ns;
    pid_t child;

    (void)state;
    assert_int_equal(pipe(pipe_fds), 0);
    child = fork(); /* before this process has a context of ZeroMQ */
    if (child == 0) {
        (void)close(pipe_fds[1]);
        if (read(pipe_fds[0], endpoint, sizeof(endpoint) - 1) > 0) {
            child_run(endpoint);
        }
        _exit(1);
    }
    (void)close(pipe_fds[0]);
    channel.poller = poller_create();
    arena_init(&channel.arena, 4096);
    channel.server = control_listen("tcp://127.0.0.1:*", &none, channel.poller, &err);
    (void)snprintf(endpoint, sizeof(endpoint), "%s", control_server_endpoint(channel.server));
    assert_true(write(pipe_fds[1], endpoint, strlen(endpoint)) > 0);
    assert_int_equal(server_wait(&channel, &from, &got, &err), CONTROL_DONE);
    killed_ns = clock_monotonic_ns();
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(server_wait(&channel, &lost, &got, &err), CONTROL_LOST);
    assert_int_equal(lost.connection, from.connection);
    assert_true(clock_monotonic_ns() - killed_ns < NS_PER_S);
    assert_int_equal(waitpid(child, NULL, 0), child);
    (void)close(pipe_fds[1]);
    channel_close(&channel);
}

static void many_clients_are_told_apart_when_descriptors_are_used_again(void **state)
{
    const struct cluster_key none = {0};
    struct channel channel;

    (void)state;
    channel_open(&channel, &none, &none);
    for (int i = 0; i < 50; i++) {
        struct error err;
        struct message got;
        struct message ping = heartbeat(i);
        struct control_peer from;
        struct control_peer lost;
        struct control_client *client =
            control_connect(control_server_endpoint(channel.server), &none, channel.poller, &err);

        assert_non_null(client);
        assert_int_equal(control_client_send(client, &ping, &err), CONTROL_DONE);
        assert_int_equal(server_wait(&channel, &from, &got, &err), CONTROL_DONE);
        assert_int_equal(got.heartbeat.sent_ns, i);
        control_client_destroy(client);
        assert_int_equal(server_wait(&channel, &lost, &got, &err), CONTROL_LOST);
        assert_int_equal(lost.connection, from.connection);
    }
    messages_round_trip(&channel);
    channel_close(&channel);
}

static void a_server_that_leaves_is_reported_to_the_client(void **state)
{
    const struct cluster_key none = {0};
    struct channel channel;
    struct message got;
    struct error err;

    (void)state;
    channel_open(&channel, &none, &none);
    messages_round_trip(&channel);
    control_server_destroy(channel.server);
    channel.server = NULL;
    assert_int_equal(client_wait(&channel, &got, &err), CONTROL_LOST);
    assert_int_equal(client_wait(&channel, &got, &err), CONTROL_LOST);
    assert_non_null(strstr(err.message, "tcp://127.0.0.1:"));
    channel_close(&channel);
}

/* A client may be first: it connects when the server comes. */
static void a_client_waits_for_its_server(void **state)
{
    const struct cluster_key none = {0};
    struct channel channel;
    char endpoint[64];
    struct error err;

    (void)state;
    channel_open(&channel, &none, &none);
    (void)snprintf(endpoint, sizeof(endpoint), "%s", control_server_endpoint(channel.server));
    control_client_destroy(channel.client);
    control_server_destroy(channel.server);
    channel.client = control_connect(endpoint, &none, channel.poller, &err);
    for (int i = 0; i < 10; i++) {
        struct message got;

        poller_wait(channel.poller, 20 * NS_PER_MS);
        assert_int_equal(control_client_receive(channel.client, &channel.arena, &got, &err),
                         CONTROL_AGAIN);
    }
    channel.server = control_listen(endpoint, &none, channel.poller, &err);
    assert_non_null(channel.server);
    messages_round_trip(&channel);
    channel_close(&channel);
}

static void bytes_that_are_no_message_lose_the_connection(void **state)
{
    const struct cluster_key none = {0};
    struct channel channel;
    void *context = zmq_ctx_new();
    void *stranger = zmq_socket(context, ZMQ_DEALER);
    int linger = 0;
    struct message got;
    struct control_peer from;
    struct error err = {0};

    (void)state;
    channel_open(&channel, &none, &none);
    assert_int_equal(zmq_setsockopt(stranger, ZMQ_LINGER, &linger, sizeof(linger)), 0);
    assert_int_equal(zmq_connect(stranger, control_server_endpoint(channel.server)), 0);
    assert_int_equal(zmq_send(stranger, "\xff\xff\xff", 3, ZMQ_SNDMORE), 3);
    assert_int_equal(zmq_send(stranger, "more", 4, 0), 4);
    assert_int_equal(server_wait(&channel, &from, &got, &err), CONTROL_LOST);
    assert_int_equal(err.code, ERROR_INPUT);
    messages_round_trip(&channel); /* the others are served */
    (void)zmq_close(stranger);
    (void)zmq_ctx_term(context);
    channel_close(&channel);
}

static void rows_of_floats_travel_behind_a_step_result(void **state)
{
    const struct cluster_key none = {0};
    static float logits[3 * 1000];
    static float hidden[2 * 64];
    struct step_rows logit_rows = {.entry = 1, .row_count = 3, .columns = 1000, .values = logits};
    struct step_rows hidden_rows[] = {{.row_count = 2, .columns = 64, .values = hidden},
                                      {.row_count = 0, .columns = 64, .values = hidden}};
    struct step_rows draft_rows = {.row_count = 2, .columns = 500, .values = logits + 1000};
    struct message result = {.kind = MESSAGE_STEP_RESULT,
                             .result = {.step = 5,
                                        .logits_count = 1,
                                        .logits = &logit_rows,
                                        .hidden_count = 2,
                                        .hidden = hidden_rows,
                                        .draft_logits_count = 1,
                                        .draft_logits = &draft_rows}};
    struct channel channel;
    struct message got;
    struct control_peer from;
    struct error err;

    (void)state;
    for (size_t i = 0; i < 3000; i++) {
        logits[i] = (float)i;
        hidden[i % 128] = -(float)i;
    }
    channel_open(&channel, &none, &none);
    assert_int_equal(control_client_send(channel.client, &result, &err), CONTROL_DONE);
    assert_int_equal(server_wait(&channel, &from, &got, &err), CONTROL_DONE);
    assert_int_equal(got.result.logits_count, 1);
    assert_int_equal(got.result.hidden_count, 2);
    assert_memory_equal(got.result.logits[0].values, logits, sizeof(logits));
    assert_memory_equal(got.result.hidden[0].values, hidden, sizeof(hidden));
    assert_int_equal(got.result.draft_logits_count, 1);
    assert_memory_equal(got.result.draft_logits[0].values, logits + 1000, 1000 * sizeof(float));
    channel_close(&channel);
}

static void a_taken_port_is_named(void **state)
{
    const struct cluster_key none = {0};
    struct channel channel;
    struct error err;

    (void)state;
    channel_open(&channel, &none, &none);
    assert_null(
        control_listen(control_server_endpoint(channel.server), &none, channel.poller, &err));
    assert_int_equal(err.code, ERROR_SYSTEM);
    assert_non_null(strstr(err.message, control_server_endpoint(channel.server)));
    assert_non_null(strstr(err.message, "in use"));
    channel_close(&channel);
}

static void the_local_address_toward_loopback_is_loopback(void **state)
{
    char address[64];
    struct error err;

    (void)state;
    assert_true(control_local_address("tcp://127.0.0.1:5555", address, sizeof(address), &err));
    assert_string_equal(address, "127.0.0.1");
    assert_false(control_local_address("127.0.0.1:5555", address, sizeof(address), &err));
    assert_int_equal(err.code, ERROR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_client_is_reported_within_a_second),
        cmocka_unit_test(messages_pass_both_ways_without_a_key),
        cmocka_unit_test(messages_pass_both_ways_with_the_cluster_key),
        cmocka_unit_test(a_client_with_another_key_is_shut_out),
        cmocka_unit_test(a_client_without_a_key_is_shut_out),
        cmocka_unit_test(a_client_that_only_knows_the_public_key_is_shut_out),
        cmocka_unit_test(a_client_that_leaves_is_reported_after_its_last_message),
        cmocka_unit_test(many_clients_are_told_apart_when_descriptors_are_used_again),
        cmocka_unit_test(a_server_that_leaves_is_reported_to_the_client),
        cmocka_unit_test(a_client_waits_for_its_server),
        cmocka_unit_test(bytes_that_are_no_message_lose_the_connection),
        cmocka_unit_test(rows_of_floats_travel_behind_a_step_result),
        cmocka_unit_test(a_taken_port_is_named),
        cmocka_unit_test(the_local_address_toward_loopback_is_loopback),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
