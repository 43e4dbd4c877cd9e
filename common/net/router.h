#ifndef SHOAL_NET_ROUTER_H
#define SHOAL_NET_ROUTER_H

/* A bound ROUTER socket whose peers have names that are never used again.
 *
 * libzmq tells of a broken connection by its descriptor, and of a message by its routing id; the
 * descriptor that each message carries (ZMQ_SRCFD) ties the two together, so that the loss of a
 * peer is known as soon as the kernel knows. Clients pick a random routing id for each connection.
 * Owner: the thread that made it.
 */
#include "common/net/socket.h"

struct router;
struct router_options {
    const char *endpoint; /* port 0 or *: a free one */
    const struct cluster_key *key;
    int queue_messages_max;
    int64_t message_bytes_max;
    uint32_t peers_max; /* connections beyond it are not heard */
};
struct router *router_create(const struct router_options *options, struct poller *poller,
                             struct error *err) MUST_CHECK;
void router_destroy(struct router *router);               /* NULL is legal */
const char *router_endpoint(const struct router *router); /* with the real port */
void *router_socket(struct router *router);               /* to receive the parts that follow */

enum router_event { ROUTER_NOTHING, ROUTER_MESSAGE, ROUTER_LOST };
/* ROUTER_MESSAGE: the first part behind the routing id is in `message` (initialised by the caller);
 * the caller reads or skips the others before the next call. ROUTER_LOST comes once for each peer
 * that had sent something, after its last message. */
enum router_event router_receive(struct router *router, uint64_t *peer, zmq_msg_t *message);

enum router_sent { ROUTER_SENT, ROUTER_FULL, ROUTER_GONE };
/* Begins a message; on ROUTER_SENT its parts follow by zmq_msg_send on the socket. */
enum router_sent router_begin(struct router *router, uint64_t peer);
/* Its messages are thrown away from here on, and its loss is not told. */
void router_drop(struct router *router, uint64_t peer);

#endif
