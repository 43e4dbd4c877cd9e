#ifndef SHOAL_NET_DEALER_H
#define SHOAL_NET_DEALER_H

/* A DEALER socket that holds one connection, used once: when it breaks, it is closed for good.
 * Owner: the thread that made it.
 */
#include "common/net/socket.h"

enum dealer_state {
    DEALER_CONNECTING, /* what is sent now waits until it is connected */
    DEALER_OPEN,
    DEALER_FAILED, /* never was connected and does not try again: refused, or no answer */
    DEALER_BROKEN, /* was connected */
};
struct dealer {
    struct net_socket socket;
    enum dealer_state state;
    bool tries_again;
    bool refused; /* a handshake failed: another key, or no peer of ours */
};
struct dealer_options {
    const char *endpoint;
    const struct cluster_key *key;
    int queue_messages_max;
    int64_t message_bytes_max;
    int reconnect_ms; /* while connecting; -1: one try */
};
bool dealer_open(struct dealer *dealer, const struct dealer_options *options, struct poller *poller,
                 struct error *err) MUST_CHECK;
void dealer_close(struct dealer *dealer); /* zeroed or closed before: legal */
/* Reads what happened to the connection. */
enum dealer_state dealer_update(struct dealer *dealer);

#endif
