/* socket.c - the process's ZeroMQ context, and sockets made in it.
 *
 * The context is counted: the first socket makes it, the last one ends it, so that a program that
 * closed its sockets has no thread of libzmq left and final messages are out. The monitor of a
 * socket lives and dies with it.
 */
#include "common/net/socket.h"

#include "common/base/mem.h"
#include "common/net/endpoint.h"
#include "common/net/zap.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define HEARTBEAT_MS         1000
#define HEARTBEAT_TIMEOUT_MS 10000
#define HANDSHAKE_MS         10000
#define RECONNECT_MS_MAX     2000
#define MONITOR_EVENTS                                                                             \
    (ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_CONNECTED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CLOSED |        \
     ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |                        \
     ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)

/* context_mutex guards the three. */
static pthread_mutex_t context_mutex = PTHREAD_MUTEX_INITIALIZER;
static void *context;
static struct zap *context_zap;
static uint32_t context_users;

/* libzmq's threads are made with the first socket; they block all signals. */
static void *context_create(void)
{
    void *created = zmq_ctx_new();

    if (created != NULL) {
        (void)zmq_ctx_set(created, ZMQ_MAX_SOCKETS, 65000);
    }
    return created;
}

/* With the mutex held. */
static void context_end(void)
{
    (void)zmq_ctx_shutdown(context); /* the handler's receive returns */
    zap_join(context_zap);
    while (zmq_ctx_term(context) != 0 && zmq_errno() == EINTR) {
    }
    context = NULL;
    context_zap = NULL;
}

static void *context_acquire(const struct cluster_key *key, struct error *err)
{
    void *acquired = NULL;

    (void)pthread_mutex_lock(&context_mutex);
    if (context == NULL) {
        context = context_create();
    }
    if (context == NULL) {
        error_set(err, ERROR_SYSTEM, "ZeroMQ: %s", zmq_strerror(zmq_errno()));
    } else if (key->present && context_zap == NULL &&
               (context_zap = zap_start(context, err)) == NULL) {
        if (context_users == 0) {
            context_end();
        }
    } else {
        acquired = context;
        context_users++;
    }
    (void)pthread_mutex_unlock(&context_mutex);
    return acquired;
}

static void context_release(void)
{
    (void)pthread_mutex_lock(&context_mutex);
    ASSERT(context_users > 0);
    context_users--;
    if (context_users == 0) {
        context_end();
    }
    (void)pthread_mutex_unlock(&context_mutex);
}

static bool option_set(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof(value)) == 0;
}

static bool text_set(void *socket, int option, const char *text)
{
    return zmq_setsockopt(socket, option, text, strlen(text)) == 0;
}

static bool key_set(void *socket, const struct socket_options *options)
{
    const struct cluster_key *key = options->key;

    if (!key->present) {
        return true;
    }
    if (options->side == SOCKET_BINDS) {
        return text_set(socket, ZMQ_ZAP_DOMAIN, key->public_text) &&
               option_set(socket, ZMQ_CURVE_SERVER, 1) &&
               text_set(socket, ZMQ_CURVE_SECRETKEY, key->secret_text);
    }
    return text_set(socket, ZMQ_CURVE_SERVERKEY, key->public_text) &&
           text_set(socket, ZMQ_CURVE_PUBLICKEY, key->public_text) &&
           text_set(socket, ZMQ_CURVE_SECRETKEY, key->secret_text);
}

static bool side_set(void *socket, const struct socket_options *options)
{
    uint8_t id[ROUTING_ID_BYTES];

    if (options->side == SOCKET_BINDS) {
        return option_set(socket, ZMQ_ROUTER_HANDOVER, 0) &&
               option_set(socket, ZMQ_ROUTER_MANDATORY, 1) && option_set(socket, ZMQ_BACKLOG, 512);
    }
    routing_id_random(id);
    return option_set(socket, ZMQ_RECONNECT_IVL, options->reconnect_ms) &&
           option_set(socket, ZMQ_RECONNECT_IVL_MAX,
                      options->reconnect_ms > 0 ? RECONNECT_MS_MAX : 0) &&
           zmq_setsockopt(socket, ZMQ_ROUTING_ID, id, sizeof(id)) == 0;
}

static bool options_set(void *socket, const struct socket_options *options)
{
    struct endpoint endpoint;
    struct error ignored;
    bool ipv4 =
        endpoint_parse(options->endpoint, &endpoint, &ignored) && endpoint_is_ipv4(&endpoint);

    return option_set(socket, ZMQ_LINGER, SOCKET_LINGER_MS) &&
           option_set(socket, ZMQ_IPV6, ipv4 ? 0 : 1) &&
           option_set(socket, ZMQ_SNDHWM, options->queue_messages_max) &&
           option_set(socket, ZMQ_RCVHWM, options->queue_messages_max) &&
           option_set(socket, ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS) &&
           option_set(socket, ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS) &&
           option_set(socket, ZMQ_HEARTBEAT_TTL, HEARTBEAT_TIMEOUT_MS) &&
           option_set(socket, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS) &&
           zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &options->message_bytes_max,
                          sizeof(options->message_bytes_max)) == 0 &&
           side_set(socket, options) && key_set(socket, options);
}

/* A PAIR socket at the other end of the monitor.
 *
 * libzmq 4.3.4 reports a message that can't be decrypted before it looks at errno, which the report
 * changes: the connection is not closed, it stands still, and the process ends by an assertion when
 * the peer closes it. So nothing is reported to whoever binds. Whoever connects needs the report of
 * a failed handshake, and closes the connection when it comes later.
 */
static void *monitor_open(void *zmq_context, void *socket, enum socket_side side)
{
    static atomic_uint_fast64_t number;
    char name[64];
    int events = MONITOR_EVENTS;
    void *monitor;

    (void)snprintf(name, sizeof(name), "inproc://shoal-monitor-%" PRIuFAST64,
                   atomic_fetch_add(&number, 1));
    if (side == SOCKET_CONNECTS) {
        events |= ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL;
    }
    if (zmq_socket_monitor(socket, name, events) != 0) {
        return NULL;
    }
    monitor = zmq_socket(zmq_context, ZMQ_PAIR);
    if (monitor != NULL && (!option_set(monitor, ZMQ_LINGER, 0) ||
                            !option_set(monitor, ZMQ_RCVHWM, 0) || zmq_connect(monitor, name))) {
        (void)zmq_close(monitor);
        monitor = NULL;
    }
    return monitor;
}

bool net_socket_open(struct net_socket *socket, const struct socket_options *options,
                     struct poller *poller, struct error *err)
{
    void *zmq_context;

    memset(socket, 0, sizeof(*socket));
    zmq_context = context_acquire(options->key, err);
    if (zmq_context == NULL) {
        return false;
    }
    socket->zmq = zmq_socket(zmq_context, options->type);
    if (socket->zmq == NULL || !options_set(socket->zmq, options) ||
        (socket->monitor = monitor_open(zmq_context, socket->zmq, options->side)) == NULL) {
        error_set(err, ERROR_SYSTEM, "ZeroMQ socket for %s: %s", options->endpoint,
                  zmq_strerror(zmq_errno()));
        if (socket->zmq != NULL) {
            (void)zmq_close(socket->zmq);
        }
        memset(socket, 0, sizeof(*socket));
        context_release();
        return false;
    }
    socket->poller = poller;
    poller_add_socket(poller, socket->zmq);
    poller_add_socket(poller, socket->monitor);
    return true;
}

void net_socket_close(struct net_socket *socket)
{
    if (socket->zmq == NULL) {
        return;
    }
    poller_remove_socket(socket->poller, socket->zmq);
    poller_remove_socket(socket->poller, socket->monitor);
    (void)zmq_socket_monitor(socket->zmq, NULL, 0);
    (void)zmq_close(socket->monitor);
    (void)zmq_close(socket->zmq);
    memset(socket, 0, sizeof(*socket));
    context_release();
}

/* An event is two parts: 16 bits of kind with 32 of value, and the address. */
bool net_socket_event(struct net_socket *socket, struct socket_event *out)
{
    uint8_t parts[6];
    uint16_t kind;
    int32_t value;
    char address[300];

    if (zmq_recv(socket->monitor, parts, sizeof(parts), ZMQ_DONTWAIT) != (int)sizeof(parts)) {
        return false;
    }
    (void)zmq_recv(socket->monitor, address, sizeof(address), ZMQ_DONTWAIT);
    memcpy(&kind, parts, sizeof(kind));
    memcpy(&value, parts + sizeof(kind), sizeof(value));
    *out = (struct socket_event){.kind = kind, .value = value};
    return true;
}

void net_socket_skip_parts(struct net_socket *socket)
{
    int more = 0;
    size_t more_bytes = sizeof(more);

    while (zmq_getsockopt(socket->zmq, ZMQ_RCVMORE, &more, &more_bytes) == 0 && more != 0) {
        if (zmq_recv(socket->zmq, NULL, 0, ZMQ_DONTWAIT) < 0) {
            return;
        }
    }
}

void routing_id_random(uint8_t out[ROUTING_ID_BYTES])
{
    ASSERT(getrandom(out, ROUTING_ID_BYTES, 0) == ROUTING_ID_BYTES);
    out[0] = 'S'; /* ids that begin with zero belong to libzmq */
}
