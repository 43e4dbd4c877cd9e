#ifndef SHOAL_NET_SOCKET_H
#define SHOAL_NET_SOCKET_H

/* ZeroMQ sockets with the options that all of ours share, and what happens to their connections.
 *
 * One context per process, made for the first socket and ended with the last, which waits until
 * final messages have left or SOCKET_LINGER_MS have passed. Sockets never change threads.
 */
#include "common/net/keys.h"
#include "common/net/poller.h"

#include <stddef.h>
#include <stdint.h>
#include <zmq.h>

#define SOCKET_LINGER_MS 500

enum socket_side { SOCKET_BINDS, SOCKET_CONNECTS };
struct socket_options {
    int type; /* ZMQ_ROUTER or ZMQ_DEALER */
    enum socket_side side;
    const char *endpoint;          /* decides whether IPv6 is on */
    const struct cluster_key *key; /* borrowed */
    int queue_messages_max;        /* high-water mark of each peer, both ways */
    int64_t message_bytes_max;     /* of one part */
    int reconnect_ms;              /* -1: a connection is used once */
};

struct net_socket {
    void *zmq;     /* the socket */
    void *monitor; /* PAIR that tells what happens to its connections */
    struct poller *poller;
};
/* Makes the socket with its monitor, both in the poller (borrowed). ERROR_SYSTEM. */
bool net_socket_open(struct net_socket *socket, const struct socket_options *options,
                     struct poller *poller, struct error *err) MUST_CHECK;
void net_socket_close(struct net_socket *socket); /* zeroed or closed before: legal */

struct socket_event {
    int kind;  /* ZMQ_EVENT_… */
    int value; /* the descriptor of the connection, or a reason */
};
/* False: nothing happened. */
bool net_socket_event(struct net_socket *socket, struct socket_event *out);
/* Throws away the parts that follow the last one received. */
void net_socket_skip_parts(struct net_socket *socket);

/* A routing id that no other connection has had. */
#define ROUTING_ID_BYTES 16
void routing_id_random(uint8_t out[ROUTING_ID_BYTES]);

#endif
