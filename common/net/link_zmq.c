/* link_zmq.c - frames over ZeroMQ.
 *
 * A frame is one message part. Outgoing frames are not copied: libzmq borrows the frame's wire
 * bytes and releases the frame from its own thread. Incoming ones are wrapped where libzmq put
 * them, unless that is at an odd address: small messages share the buffer they were read into, and
 * floats want to be aligned. A frame that can't be decoded loses the link, since the sequence would
 * have a gap.
 */
#include "common/net/link_zmq.h"

#include "common/base/mem.h"
#include "common/net/dealer.h"
#include "common/net/frame_queue.h"
#include "common/net/router.h"

#include <errno.h>
#include <string.h>

#define QUEUE_MESSAGES_MAX   65536
#define CONNECTIONS_MAX      4096u
#define GREETING_BYTES       16
#define PAYLOAD_ALIGNMENT    8u
#define UNGREETED_FRAMES_MAX 1u /* before the answer to its HELLO a dialer sends nothing */

/* --- frames and messages --- */

static void message_free(void *data, void *frame)
{
    (void)data;
    frame_release(frame);
}

/* 0 and the frame belongs to libzmq, or errno and it stays the caller's. */
static int frame_send(void *socket, struct frame *frame)
{
    size_t bytes = FRAME_HEADER_BYTES + (size_t)frame->header.payload_bytes;
    zmq_msg_t message;
    int failed;

    if (zmq_msg_init_data(&message, frame->wire, bytes, message_free, frame) != 0) {
        return zmq_errno();
    }
    /* Pairs with frame_release on libzmq's thread: what we wrote to the frame is seen there. */
    (void)atomic_fetch_add_explicit(&frame->references, 0, memory_order_release);
    if (zmq_msg_send(&message, socket, ZMQ_DONTWAIT) >= 0) {
        return 0;
    }
    failed = zmq_errno();
    (void)frame_acquire(frame); /* for message_free */
    (void)zmq_msg_close(&message);
    return failed;
}

_Static_assert(sizeof(zmq_msg_t) <= sizeof(((struct inbound *)NULL)->transport),
               "an inbound frame has room for the message around it");

static void inbound_give_back(struct inbound *inbound)
{
    (void)zmq_msg_close((zmq_msg_t *)(void *)inbound->transport);
}

/* A checked frame around the message, which is empty afterwards. NULL: malformed, or no memory. */
static struct frame *frame_wrap(struct inbound_pool *pool, zmq_msg_t *message, struct error *err)
{
    size_t bytes = zmq_msg_size(message);
    uint8_t *data = zmq_msg_data(message);
    bool aligned = (uintptr_t)data % PAYLOAD_ALIGNMENT == 0;
    struct frame_header header;
    struct inbound *inbound;

    if (!frame_decode(data, bytes, &header, err)) {
        return NULL;
    }
    inbound = inbound_take(pool, aligned ? 0 : bytes, err);
    if (inbound == NULL) {
        return NULL;
    }
    if (aligned) {
        zmq_msg_t *kept = (zmq_msg_t *)(void *)inbound->transport;

        (void)zmq_msg_init(kept);
        (void)zmq_msg_move(kept, message);
        inbound->give_back = inbound_give_back;
        inbound_fill(inbound, zmq_msg_data(kept), &header);
    } else {
        memcpy(inbound->buffer, data, bytes);
        inbound_fill(inbound, inbound->buffer, &header);
    }
    return &inbound->frame;
}

void link_greeting_write(const struct link_greeting *greeting, struct frame *frame)
{
    ASSERT(frame->capacity >= GREETING_BYTES);
    frame->header = (struct frame_header){.kind = FRAME_HELLO,
                                          .epoch = greeting->epoch,
                                          .attempt = greeting->attempt,
                                          .source = greeting->source,
                                          .rows = greeting->target,
                                          .dtype = FRAME_RAW};
}

bool link_greeting_matches(const struct link_greeting *greeting, const struct frame *frame)
{
    return frame->header.kind == FRAME_HELLO && frame->header.epoch == greeting->epoch &&
           frame->header.attempt == greeting->attempt && frame->header.source == greeting->source &&
           frame->header.rows == greeting->target;
}

/* --- the data port --- */

struct connection {
    uint64_t number;           /* of the router's peer */
    struct frame_queue frames; /* arrived, checked */
    bool has_link;
    bool is_lost;
    struct error lost; /* why */
    uint64_t crc_errors;
};

struct data_port {
    struct router *router;
    struct inbound_pool *inbound;
    struct connection **connections;
    uint32_t connection_count, connection_capacity;
};

struct data_port *data_port_open(const char *endpoint, const struct cluster_key *key,
                                 struct poller *poller, struct error *err)
{
    struct data_port *port = mem_new(struct data_port);
    struct router_options options = {.endpoint = endpoint,
                                     .key = key,
                                     .queue_messages_max = QUEUE_MESSAGES_MAX,
                                     .message_bytes_max = FRAME_BYTES_MAX,
                                     .peers_max = CONNECTIONS_MAX};

    port->inbound = inbound_pool_create();
    port->router = router_create(&options, poller, err);
    if (port->router == NULL) {
        data_port_close(port);
        return NULL;
    }
    return port;
}

static void connection_remove(struct data_port *port, struct connection *connection)
{
    for (uint32_t i = 0; i < port->connection_count; i++) {
        if (port->connections[i] == connection) {
            port->connections[i] = port->connections[--port->connection_count];
            break;
        }
    }
    frame_queue_clear(&connection->frames);
    mem_free(connection);
}

void data_port_close(struct data_port *port)
{
    if (port == NULL) {
        return;
    }
    while (port->connection_count > 0) {
        ASSERT(!port->connections[0]->has_link);
        connection_remove(port, port->connections[0]);
    }
    router_destroy(port->router);
    inbound_pool_destroy(port->inbound);
    mem_free(port->connections);
    mem_free(port);
}

const char *data_port_endpoint(const struct data_port *port)
{
    return router_endpoint(port->router);
}

static struct connection *connection_find(struct data_port *port, uint64_t number)
{
    for (uint32_t i = 0; i < port->connection_count; i++) {
        if (port->connections[i]->number == number) {
            return port->connections[i];
        }
    }
    return NULL;
}

static struct connection *connection_add(struct data_port *port, uint64_t number)
{
    struct connection *connection = mem_new(struct connection);

    if (port->connection_count == port->connection_capacity) {
        port->connection_capacity =
            port->connection_capacity == 0 ? 8 : port->connection_capacity * 2;
        port->connections =
            mem_resize(port->connections, port->connection_capacity, sizeof(struct connection *));
    }
    port->connections[port->connection_count++] = connection;
    connection->number = number;
    return connection;
}

/* The peer is not heard any more; a link over it learns why. */
static void connection_fail(struct data_port *port, struct connection *connection)
{
    router_drop(port->router, connection->number);
    connection->is_lost = true;
    if (!connection->has_link) {
        connection_remove(port, connection);
    }
}

static void message_deliver(struct data_port *port, uint64_t number, zmq_msg_t *message)
{
    struct connection *connection = connection_find(port, number);
    struct error err;
    struct frame *frame;

    if (connection == NULL) {
        connection = connection_add(port, number);
    }
    frame = frame_wrap(port->inbound, message, &err);
    if (frame == NULL) {
        connection->crc_errors++;
        connection->lost = err;
        connection_fail(port, connection);
        return;
    }
    frame_queue_push(&connection->frames, frame);
    if (!connection->has_link && (connection->frames.first->header.kind != FRAME_HELLO ||
                                  connection->frames.count > UNGREETED_FRAMES_MAX)) {
        error_set(&connection->lost, ERROR_PEER, "a connection began without a greeting");
        connection_fail(port, connection);
    }
}

static void loss_deliver(struct data_port *port, uint64_t number)
{
    struct connection *connection = connection_find(port, number);

    if (connection == NULL) {
        return;
    }
    error_set(&connection->lost, ERROR_PEER, "the connection was closed");
    connection->is_lost = true;
    if (!connection->has_link) {
        connection_remove(port, connection);
    }
}

void data_port_poll(struct data_port *port)
{
    enum router_event event = ROUTER_MESSAGE;

    while (event != ROUTER_NOTHING) {
        uint64_t number;
        zmq_msg_t message;

        (void)zmq_msg_init(&message);
        event = router_receive(port->router, &number, &message);
        if (event == ROUTER_MESSAGE && zmq_msg_more(&message)) {
            while (zmq_msg_more(&message) &&
                   zmq_msg_recv(&message, router_socket(port->router), ZMQ_DONTWAIT) >= 0) {
            }
            router_drop(port->router, number);
            loss_deliver(port, number);
        } else if (event == ROUTER_MESSAGE) {
            message_deliver(port, number, &message);
        } else if (event == ROUTER_LOST) {
            loss_deliver(port, number);
        }
        (void)zmq_msg_close(&message);
    }
}

void data_port_forget(struct data_port *port, uint64_t epoch)
{
    for (uint32_t i = port->connection_count; i-- > 0;) {
        struct connection *connection = port->connections[i];

        if (!connection->has_link && connection->frames.first->header.epoch < epoch) {
            connection_fail(port, connection);
        }
    }
}

/* --- the accepting end --- */

struct link_accepted {
    struct link link;
    struct data_port *port;
    struct connection *connection;
    bool closed;
};

static enum link_result lost(const struct link *link, struct error *err, const char *why)
{
    error_set(err, ERROR_PEER, "zmq link to worker %u: %s", link->peer, why);
    return LINK_LOST;
}

static enum link_result accepted_send(struct link *link, struct frame *frame, struct error *err)
{
    struct link_accepted *accepted = (struct link_accepted *)link;
    int failed;

    if (accepted->closed || accepted->connection->is_lost) {
        return lost(link, err, accepted->closed ? "closed" : accepted->connection->lost.message);
    }
    switch (router_begin(accepted->port->router, accepted->connection->number)) {
    case ROUTER_FULL:
        return LINK_AGAIN;
    case ROUTER_GONE:
        return lost(link, err, "the connection was closed");
    case ROUTER_SENT:
        break;
    }
    failed = frame_send(router_socket(accepted->port->router), frame);
    return failed == 0 ? LINK_DONE : lost(link, err, zmq_strerror(failed));
}

static enum link_result accepted_receive(struct link *link, struct frame **frame, struct error *err)
{
    struct link_accepted *accepted = (struct link_accepted *)link;
    struct connection *connection = accepted->connection;

    if (accepted->closed) {
        return lost(link, err, "closed");
    }
    *frame = frame_queue_pop(&connection->frames);
    if (*frame != NULL) {
        return LINK_DONE;
    }
    link->counters.crc_errors = connection->crc_errors;
    return connection->is_lost ? lost(link, err, connection->lost.message) : LINK_AGAIN;
}

static void accepted_close(struct link *link)
{
    struct link_accepted *accepted = (struct link_accepted *)link;

    if (!accepted->closed) {
        accepted->closed = true;
        router_drop(accepted->port->router, accepted->connection->number);
    }
}

static void accepted_destroy(struct link *link)
{
    struct link_accepted *accepted = (struct link_accepted *)link;

    accepted_close(link);
    connection_remove(accepted->port, accepted->connection);
    mem_free(accepted);
}

static const struct link_ops accepted_ops = {"zmq", accepted_send, accepted_receive, accepted_close,
                                             accepted_destroy};

struct link *link_zmq_accept(struct data_port *port, const struct link_greeting *greeting)
{
    struct connection *newest = NULL;
    struct link_accepted *accepted;

    for (uint32_t i = 0; i < port->connection_count; i++) {
        struct connection *connection = port->connections[i];

        if (!connection->has_link && !connection->is_lost &&
            link_greeting_matches(greeting, connection->frames.first) &&
            (newest == NULL || connection->number > newest->number)) {
            newest = connection;
        }
    }
    if (newest == NULL) {
        return NULL;
    }
    newest->has_link = true;
    accepted = mem_new(struct link_accepted);
    accepted->link.ops = &accepted_ops;
    accepted->link.peer = greeting->source;
    accepted->port = port;
    accepted->connection = newest;
    return &accepted->link;
}

/* --- the dialing end --- */

struct link_dialed {
    struct link link;
    struct dealer dealer;
    struct inbound_pool *inbound;
    bool closed;
};

static enum link_result dialed_lost(const struct link_dialed *dialed, struct error *err)
{
    if (dialed->closed) {
        return lost(&dialed->link, err, "closed");
    }
    if (dialed->dealer.refused) {
        return lost(&dialed->link, err, "no handshake: has it the same cluster key?");
    }
    return lost(&dialed->link, err,
                dialed->dealer.state == DEALER_FAILED ? "nobody answers there"
                                                      : "the connection was closed");
}

static enum link_result dialed_send(struct link *link, struct frame *frame, struct error *err)
{
    struct link_dialed *dialed = (struct link_dialed *)link;
    int failed;

    if (dialed->closed || dealer_update(&dialed->dealer) >= DEALER_FAILED) {
        return dialed_lost(dialed, err);
    }
    failed = frame_send(dialed->dealer.socket.zmq, frame);
    if (failed == EAGAIN) {
        return LINK_AGAIN;
    }
    return failed == 0 ? LINK_DONE : lost(link, err, zmq_strerror(failed));
}

static enum link_result dialed_receive(struct link *link, struct frame **frame, struct error *err)
{
    struct link_dialed *dialed = (struct link_dialed *)link;
    enum dealer_state state = dealer_update(&dialed->dealer);
    zmq_msg_t message;

    if (dialed->closed) {
        return dialed_lost(dialed, err);
    }
    (void)zmq_msg_init(&message);
    if (zmq_msg_recv(&message, dialed->dealer.socket.zmq, ZMQ_DONTWAIT) < 0) {
        return state >= DEALER_FAILED ? dialed_lost(dialed, err) : LINK_AGAIN;
    }
    *frame = frame_wrap(dialed->inbound, &message, err);
    (void)zmq_msg_close(&message);
    if (*frame == NULL) {
        link->counters.crc_errors++;
        dialed->closed = true;
        error_wrap(err, "zmq link to worker %u", link->peer);
        return LINK_LOST;
    }
    return LINK_DONE;
}

static void dialed_close(struct link *link)
{
    ((struct link_dialed *)link)->closed = true;
}

static void dialed_destroy(struct link *link)
{
    struct link_dialed *dialed = (struct link_dialed *)link;

    dealer_close(&dialed->dealer);
    inbound_pool_destroy(dialed->inbound);
    mem_free(dialed);
}

static const struct link_ops dialed_ops = {"zmq", dialed_send, dialed_receive, dialed_close,
                                           dialed_destroy};

struct link *link_zmq_dial(const char *endpoint, uint32_t peer, const struct cluster_key *key,
                           struct poller *poller, struct error *err)
{
    struct link_dialed *dialed = mem_new(struct link_dialed);
    struct dealer_options options = {.endpoint = endpoint,
                                     .key = key,
                                     .queue_messages_max = QUEUE_MESSAGES_MAX,
                                     .message_bytes_max = FRAME_BYTES_MAX,
                                     .reconnect_ms = -1};

    dialed->link.ops = &dialed_ops;
    dialed->link.peer = peer;
    dialed->inbound = inbound_pool_create();
    if (!dealer_open(&dialed->dealer, &options, poller, err)) {
        dialed_destroy(&dialed->link);
        return NULL;
    }
    return &dialed->link;
}
