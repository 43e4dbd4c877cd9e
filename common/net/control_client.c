/* control_client.c - a worker's end of the control channel.
 *
 * libzmq tries to connect until it succeeds; from then on the connection is used once: when it
 * breaks the socket is closed, so that nothing meant for the old connection reaches the coordinator
 * on a new one, where the worker would have to register again first.
 */
#include "common/net/control.h"

#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/net/control_wire.h"
#include "common/net/dealer.h"
#include "common/net/endpoint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define QUEUE_MESSAGES_MAX 10000
#define RECONNECT_MS       100

struct control_client {
    struct dealer dealer;
    char endpoint[300];
    bool refusal_logged;
    struct buffer packed; /* scratch, used again */
};

struct control_client *control_connect(const char *endpoint, const struct cluster_key *key,
                                       struct poller *poller, struct error *err)
{
    struct control_client *client = mem_new(struct control_client);
    struct dealer_options options = {.endpoint = endpoint,
                                     .key = key,
                                     .queue_messages_max = QUEUE_MESSAGES_MAX,
                                     .message_bytes_max = CONTROL_PART_BYTES_MAX,
                                     .reconnect_ms = RECONNECT_MS};

    (void)snprintf(client->endpoint, sizeof(client->endpoint), "%s", endpoint);
    if (!dealer_open(&client->dealer, &options, poller, err)) {
        control_client_destroy(client);
        return NULL;
    }
    return client;
}

void control_client_destroy(struct control_client *client)
{
    if (client == NULL) {
        return;
    }
    dealer_close(&client->dealer);
    buffer_deinit(&client->packed);
    mem_free(client);
}

bool control_client_is_open(const struct control_client *client)
{
    return client->dealer.state == DEALER_OPEN;
}

static enum control_result connection_lost(struct control_client *client, struct error *err)
{
    error_set(err, ERROR_PEER, "the connection to the coordinator at %s was closed",
              client->endpoint);
    return CONTROL_LOST;
}

static void refusal_log(struct control_client *client)
{
    if (client->dealer.refused && !client->refusal_logged) {
        client->refusal_logged = true;
        log_warn("no handshake with %s: has it the same cluster key? trying again",
                 client->endpoint);
    }
}

enum control_result control_client_receive(struct control_client *client, struct arena *arena,
                                           struct message *out, struct error *err)
{
    enum dealer_state state = dealer_update(&client->dealer);
    enum control_result result = CONTROL_DONE;
    zmq_msg_t first;

    refusal_log(client);
    if (client->dealer.socket.zmq == NULL) {
        return connection_lost(client, err);
    }
    (void)zmq_msg_init(&first);
    if (zmq_msg_recv(&first, client->dealer.socket.zmq, ZMQ_DONTWAIT) < 0) {
        result = CONTROL_AGAIN;
    } else if (!control_parts_receive(client->dealer.socket.zmq, &first, arena, out, err)) {
        result = CONTROL_LOST;
    }
    (void)zmq_msg_close(&first);
    if (result == CONTROL_AGAIN && state == DEALER_BROKEN) {
        result = connection_lost(client, err);
    }
    if (result == CONTROL_LOST) {
        dealer_close(&client->dealer);
    }
    return result;
}

enum control_result control_client_send(struct control_client *client,
                                        const struct message *message, struct error *err)
{
    int failed;

    if (client->dealer.socket.zmq == NULL || dealer_update(&client->dealer) == DEALER_BROKEN) {
        return connection_lost(client, err);
    }
    buffer_clear(&client->packed);
    if (!message_encode(message, &client->packed)) {
        error_set(err, ERROR_LIMIT, "a message of kind %d is too large to be sent",
                  (int)message->kind);
        return CONTROL_LOST;
    }
    failed = control_parts_send(client->dealer.socket.zmq, &client->packed, message);
    if (failed == EAGAIN) {
        return CONTROL_AGAIN;
    }
    return failed == 0 ? CONTROL_DONE : connection_lost(client, err);
}

/* Connects a datagram socket, which sends nothing but makes the kernel choose our address. */
static bool address_toward(const struct addrinfo *target, char *out, size_t out_bytes,
                           struct error *err)
{
    struct sockaddr_storage local;
    socklen_t local_bytes = sizeof(local);
    int fd = socket(target->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && connect(fd, target->ai_addr, target->ai_addrlen) == 0 &&
              getsockname(fd, (struct sockaddr *)&local, &local_bytes) == 0;

    if (!ok) {
        error_set_errno(err, "no route to the coordinator");
    } else if (getnameinfo((struct sockaddr *)&local, local_bytes, out, (socklen_t)out_bytes, NULL,
                           0, NI_NUMERICHOST) != 0) {
        ok = error_set(err, ERROR_SYSTEM, "the local address has no text form");
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return ok;
}

bool control_local_address(const char *endpoint, char *out, size_t out_bytes, struct error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM};
    struct addrinfo *targets = NULL;
    struct endpoint parsed;
    char port[8];
    int failed;
    bool ok;

    if (!endpoint_parse(endpoint, &parsed, err)) {
        return false;
    }
    (void)snprintf(port, sizeof(port), "%u", parsed.port != 0 ? parsed.port : 1u);
    failed = getaddrinfo(parsed.host, port, &hints, &targets);
    if (failed != 0) {
        return error_set(err, ERROR_SYSTEM, "%s: %s", parsed.host, gai_strerror(failed));
    }
    ok = address_toward(targets, out, out_bytes, err) || error_wrap(err, "%s", endpoint);
    freeaddrinfo(targets);
    return ok;
}
