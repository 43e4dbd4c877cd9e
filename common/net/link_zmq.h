#ifndef SHOAL_NET_LINK_ZMQ_H
#define SHOAL_NET_LINK_ZMQ_H

/* Links over ZeroMQ: the data port that a worker listens on, and the two ends of a connection.
 *
 * The worker that dials sends a HELLO frame first; the port holds connections by their HELLO until
 * link_zmq_accept makes a link of one. Everything on the thread that made the port.
 */
#include "common/net/inbound.h"
#include "common/net/keys.h"
#include "common/net/link.h"
#include "common/net/poller.h"

struct data_port;
/* endpoint tcp://host:port; ERROR_SYSTEM when it is taken. */
struct data_port *data_port_open(const char *endpoint, const struct cluster_key *key,
                                 struct poller *poller, struct error *err) MUST_CHECK;
void data_port_close(struct data_port *port); /* after its links were destroyed; NULL is legal */
const char *data_port_endpoint(const struct data_port *port); /* with the real port */
/* Reads what arrived and hands it to the connections. */
void data_port_poll(struct data_port *port);
/* Forgets connections without a link that greeted for an earlier epoch. */
void data_port_forget(struct data_port *port, uint64_t epoch);

/* Who opens a link, to whom: what a HELLO frame says. */
struct link_greeting {
    uint64_t epoch;
    uint32_t attempt;        /* of the epoch's, in which the link is opened */
    uint32_t source, target; /* worker ids */
};
void link_greeting_write(const struct link_greeting *greeting, struct frame *frame);
bool link_greeting_matches(const struct link_greeting *greeting, const struct frame *frame);

/* A link over the newest connection that greeted so, whose first frame is that HELLO; NULL: none
 * has come yet. */
struct link *link_zmq_accept(struct data_port *port, const struct link_greeting *greeting);
/* A link over a new connection; what is sent waits until it stands. `peer` is a worker id. */
struct link *link_zmq_dial(const char *endpoint, uint32_t peer, const struct cluster_key *key,
                           struct poller *poller, struct error *err) MUST_CHECK;

#endif
