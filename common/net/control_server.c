/* control_server.c - the coordinator's end of the control channel. */
#include "common/net/control.h"

#include "common/base/mem.h"
#include "common/net/control_wire.h"
#include "common/net/router.h"

#include <string.h>

#define QUEUE_MESSAGES_MAX 10000
#define PEERS_MAX          16384u

struct control_server {
    struct router *router;
    struct buffer packed; /* scratch, used again */
};

struct control_server *control_listen(const char *endpoint, const struct cluster_key *key,
                                      struct poller *poller, struct error *err)
{
    struct control_server *server = mem_new(struct control_server);
    struct router_options options = {.endpoint = endpoint,
                                     .key = key,
                                     .queue_messages_max = QUEUE_MESSAGES_MAX,
                                     .message_bytes_max = CONTROL_PART_BYTES_MAX,
                                     .peers_max = PEERS_MAX};

    server->router = router_create(&options, poller, err);
    if (server->router == NULL) {
        control_server_destroy(server);
        return NULL;
    }
    return server;
}

void control_server_destroy(struct control_server *server)
{
    if (server == NULL) {
        return;
    }
    router_destroy(server->router);
    buffer_deinit(&server->packed);
    mem_free(server);
}

const char *control_server_endpoint(const struct control_server *server)
{
    return router_endpoint(server->router);
}

static enum control_result message_take(struct control_server *server, zmq_msg_t *first,
                                        struct arena *arena, struct message *out, struct error *err)
{
    void *socket = router_socket(server->router);
    int more = 0;
    size_t more_bytes = sizeof(more);

    if (control_parts_receive(socket, first, arena, out, err)) {
        return CONTROL_DONE;
    }
    while (zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &more_bytes) == 0 && more != 0 &&
           zmq_recv(socket, NULL, 0, ZMQ_DONTWAIT) >= 0) {
    }
    return CONTROL_LOST;
}

enum control_result control_server_receive(struct control_server *server, struct arena *arena,
                                           struct control_peer *from, struct message *out,
                                           struct error *err)
{
    enum control_result result = CONTROL_AGAIN;
    zmq_msg_t first;

    (void)zmq_msg_init(&first);
    switch (router_receive(server->router, &from->connection, &first)) {
    case ROUTER_NOTHING:
        break;
    case ROUTER_LOST:
        error_set(err, ERROR_PEER, "the connection was closed");
        result = CONTROL_LOST;
        break;
    case ROUTER_MESSAGE:
        result = message_take(server, &first, arena, out, err);
        if (result == CONTROL_LOST) {
            router_drop(server->router, from->connection);
        }
        break;
    }
    (void)zmq_msg_close(&first);
    return result;
}

enum control_result control_server_send(struct control_server *server, struct control_peer to,
                                        const struct message *message, struct error *err)
{
    int failed;

    buffer_clear(&server->packed);
    if (!message_encode(message, &server->packed)) {
        error_set(err, ERROR_LIMIT, "a message of kind %d is too large to be sent",
                  (int)message->kind);
        return CONTROL_LOST;
    }
    switch (router_begin(server->router, to.connection)) {
    case ROUTER_FULL:
        return CONTROL_AGAIN;
    case ROUTER_GONE:
        error_set(err, ERROR_PEER, "the connection was closed");
        return CONTROL_LOST;
    case ROUTER_SENT:
        break;
    }
    failed = control_parts_send(router_socket(server->router), &server->packed, message);
    if (failed != 0) {
        error_set(err, ERROR_PEER, "cannot send: %s", zmq_strerror(failed));
        return CONTROL_LOST;
    }
    return CONTROL_DONE;
}

void control_server_drop(struct control_server *server, struct control_peer peer)
{
    router_drop(server->router, peer.connection);
}
