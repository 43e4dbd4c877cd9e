/* router.c - connections by name.
 *
 * A peer begins with its first message and ends with the disconnect of the descriptor that carried
 * it. Descriptors are used again by the kernel, so events and messages must be seen in an order
 * that never blames a new connection for the end of an old one: all events are drained before a new
 * peer is tied to its descriptor; an ACCEPTED or a new peer on a descriptor ends whoever had it
 * before. The loss of a peer is held back until no message is left to read. Ids of peers that are
 * gone are remembered for a while: what libzmq still delivers of them must not make them peers
 * again.
 */
#include "common/net/router.h"

#include "common/base/hash.h"
#include "common/base/mem.h"

#include <errno.h>
#include <string.h>

#define ROUTING_BYTES_MAX 255
#define GONE_COUNT        64

enum peer_state {
    PEER_OPEN,
    PEER_BROKEN,  /* disconnected; to be told */
    PEER_DROPPED, /* by us; waits for its disconnect */
};
struct peer {
    uint64_t number;
    uint64_t hash; /* of the id, to find it fast */
    uint8_t id[ROUTING_BYTES_MAX];
    uint8_t id_bytes;
    int fd;
    enum peer_state state;
};

struct router {
    struct net_socket socket;
    char endpoint[300];
    uint32_t peers_max;
    uint64_t next_number;
    struct peer *peers; /* the live ones, in no order */
    uint32_t peer_count, peer_capacity, broken_count;
    bool *fd_is_open; /* by descriptor: accepted and not disconnected */
    int fd_capacity;
    uint64_t gone[GONE_COUNT]; /* hashes of ids, a ring */
    uint32_t gone_next;
};

struct router *router_create(const struct router_options *options, struct poller *poller,
                             struct error *err)
{
    struct router *router = mem_new(struct router);
    struct socket_options socket_options = {.type = ZMQ_ROUTER,
                                            .side = SOCKET_BINDS,
                                            .endpoint = options->endpoint,
                                            .key = options->key,
                                            .queue_messages_max = options->queue_messages_max,
                                            .message_bytes_max = options->message_bytes_max};
    size_t bytes = sizeof(router->endpoint);

    router->peers_max = options->peers_max;
    router->next_number = 1;
    if (!net_socket_open(&router->socket, &socket_options, poller, err)) {
        router_destroy(router);
        return NULL;
    }
    if (zmq_bind(router->socket.zmq, options->endpoint) != 0) {
        error_set(err, ERROR_SYSTEM, "cannot listen on %s: %s", options->endpoint,
                  zmq_strerror(zmq_errno()));
        router_destroy(router);
        return NULL;
    }
    ASSERT(zmq_getsockopt(router->socket.zmq, ZMQ_LAST_ENDPOINT, router->endpoint, &bytes) == 0);
    return router;
}

void router_destroy(struct router *router)
{
    if (router == NULL) {
        return;
    }
    net_socket_close(&router->socket);
    mem_free(router->peers);
    mem_free(router->fd_is_open);
    mem_free(router);
}

const char *router_endpoint(const struct router *router)
{
    return router->endpoint;
}

void *router_socket(struct router *router)
{
    return router->socket.zmq;
}

/* --- peers --- */

static struct peer *peer_by_id(struct router *router, const uint8_t *id, size_t id_bytes)
{
    uint64_t hash = hash_bytes(id, id_bytes);

    for (uint32_t i = 0; i < router->peer_count; i++) {
        struct peer *peer = &router->peers[i];

        if (peer->hash == hash && peer->id_bytes == id_bytes &&
            memcmp(peer->id, id, id_bytes) == 0) {
            return peer;
        }
    }
    return NULL;
}

static struct peer *peer_by_number(struct router *router, uint64_t number)
{
    for (uint32_t i = 0; i < router->peer_count; i++) {
        if (router->peers[i].number == number) {
            return &router->peers[i];
        }
    }
    return NULL;
}

static bool id_is_gone(const struct router *router, uint64_t hash)
{
    for (size_t i = 0; i < GONE_COUNT; i++) {
        if (router->gone[i] == hash) {
            return true;
        }
    }
    return false;
}

static void peer_remove(struct router *router, struct peer *peer)
{
    router->gone[router->gone_next++ % GONE_COUNT] = peer->hash;
    if (peer->state == PEER_BROKEN) {
        router->broken_count--;
    }
    router->peer_count--;
    *peer = router->peers[router->peer_count];
}

/* Whoever had this descriptor has lost it. */
static void peers_break_on(struct router *router, int fd)
{
    for (uint32_t i = router->peer_count; i-- > 0;) {
        struct peer *peer = &router->peers[i];

        if (peer->fd != fd) {
            continue;
        }
        peer->fd = -1;
        if (peer->state == PEER_DROPPED) {
            peer_remove(router, peer);
        } else if (peer->state == PEER_OPEN) {
            peer->state = PEER_BROKEN;
            router->broken_count++;
        }
    }
}

/* --- descriptors --- */

static void fd_mark(struct router *router, int fd, bool open)
{
    if (fd < 0) {
        return;
    }
    if (fd >= router->fd_capacity) {
        int capacity = fd + 256;

        router->fd_is_open = mem_resize(router->fd_is_open, (size_t)capacity, sizeof(bool));
        memset(router->fd_is_open + router->fd_capacity, 0,
               (size_t)(capacity - router->fd_capacity));
        router->fd_capacity = capacity;
    }
    router->fd_is_open[fd] = open;
}

static void events_drain(struct router *router)
{
    struct socket_event event;

    while (net_socket_event(&router->socket, &event)) {
        if (event.kind == ZMQ_EVENT_ACCEPTED || event.kind == ZMQ_EVENT_DISCONNECTED) {
            peers_break_on(router, event.value);
            fd_mark(router, event.value, event.kind == ZMQ_EVENT_ACCEPTED);
        }
    }
}

/* NULL: not to be heard. */
static struct peer *peer_add(struct router *router, const uint8_t *id, size_t id_bytes, int fd)
{
    uint64_t hash = hash_bytes(id, id_bytes);
    struct peer *peer;

    events_drain(router);
    if (router->peer_count == router->peers_max || id_is_gone(router, hash)) {
        return NULL;
    }
    peers_break_on(router, fd);
    if (router->peer_count == router->peer_capacity) {
        router->peer_capacity = router->peer_capacity == 0 ? 16 : router->peer_capacity * 2;
        router->peers = mem_resize(router->peers, router->peer_capacity, sizeof(*router->peers));
    }
    peer = &router->peers[router->peer_count++];
    *peer = (struct peer){.number = router->next_number++,
                          .hash = hash,
                          .id_bytes = (uint8_t)id_bytes,
                          .fd = fd,
                          .state = PEER_OPEN};
    memcpy(peer->id, id, id_bytes);
    if (fd < 0 || fd >= router->fd_capacity || !router->fd_is_open[fd]) {
        peer->state = PEER_BROKEN; /* it spoke and left */
        router->broken_count++;
    }
    return peer;
}

/* --- messages --- */

/* The first part of the message that begins with this routing id; false: nobody we listen to. */
static bool message_accept(struct router *router, const uint8_t *id, size_t id_bytes,
                           zmq_msg_t *message, uint64_t *number)
{
    struct peer *peer;

    if (zmq_msg_recv(message, router->socket.zmq, ZMQ_DONTWAIT) < 0) {
        return false;
    }
    peer = peer_by_id(router, id, id_bytes);
    if (peer == NULL) {
        peer = peer_add(router, id, id_bytes, zmq_msg_get(message, ZMQ_SRCFD));
    }
    if (peer == NULL || peer->state == PEER_DROPPED) {
        net_socket_skip_parts(&router->socket);
        return false;
    }
    *number = peer->number;
    return true;
}

static bool loss_next(struct router *router, uint64_t *number)
{
    for (uint32_t i = 0; i < router->peer_count; i++) {
        if (router->peers[i].state == PEER_BROKEN) {
            *number = router->peers[i].number;
            peer_remove(router, &router->peers[i]);
            return true;
        }
    }
    return false;
}

enum router_event router_receive(struct router *router, uint64_t *peer, zmq_msg_t *message)
{
    uint8_t id[ROUTING_BYTES_MAX];
    int id_bytes;

    events_drain(router);
    for (;;) {
        id_bytes = zmq_recv(router->socket.zmq, id, sizeof(id), ZMQ_DONTWAIT);
        if (id_bytes < 0) {
            break;
        }
        if (id_bytes <= (int)sizeof(id) &&
            message_accept(router, id, (size_t)id_bytes, message, peer)) {
            return ROUTER_MESSAGE;
        }
    }
    return router->broken_count > 0 && loss_next(router, peer) ? ROUTER_LOST : ROUTER_NOTHING;
}

enum router_sent router_begin(struct router *router, uint64_t number)
{
    struct peer *peer = peer_by_number(router, number);

    if (peer == NULL || peer->state != PEER_OPEN) {
        return ROUTER_GONE;
    }
    if (zmq_send(router->socket.zmq, peer->id, peer->id_bytes, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0) {
        return ROUTER_SENT;
    }
    return zmq_errno() == EAGAIN ? ROUTER_FULL : ROUTER_GONE;
}

void router_drop(struct router *router, uint64_t number)
{
    struct peer *peer = peer_by_number(router, number);

    if (peer == NULL) {
        return;
    }
    if (peer->state == PEER_BROKEN) {
        peer_remove(router, peer);
    } else {
        peer->state = PEER_DROPPED;
    }
}
