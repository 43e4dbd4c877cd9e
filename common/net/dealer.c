/* dealer.c - one connection from its beginning to its end, as the monitor tells it. */
#include "common/net/dealer.h"

#include <string.h>

bool dealer_open(struct dealer *dealer, const struct dealer_options *options, struct poller *poller,
                 struct error *err)
{
    struct socket_options socket_options = {.type = ZMQ_DEALER,
                                            .side = SOCKET_CONNECTS,
                                            .endpoint = options->endpoint,
                                            .key = options->key,
                                            .queue_messages_max = options->queue_messages_max,
                                            .message_bytes_max = options->message_bytes_max,
                                            .reconnect_ms = options->reconnect_ms};

    memset(dealer, 0, sizeof(*dealer));
    dealer->tries_again = options->reconnect_ms >= 0;
    if (!net_socket_open(&dealer->socket, &socket_options, poller, err)) {
        return false;
    }
    if (zmq_connect(dealer->socket.zmq, options->endpoint) != 0) {
        error_set(err, ERROR_SYSTEM, "cannot connect to %s: %s", options->endpoint,
                  zmq_strerror(zmq_errno()));
        dealer_close(dealer);
        return false;
    }
    return true;
}

void dealer_close(struct dealer *dealer)
{
    net_socket_close(&dealer->socket);
}

static void event_apply(struct dealer *dealer, const struct socket_event *event)
{
    switch (event->kind) {
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        dealer->state = DEALER_OPEN;
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        dealer->refused = true;
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        if (dealer->state == DEALER_OPEN) { /* what came can't be decrypted; nothing more comes */
            dealer->state = DEALER_BROKEN;
        } else {
            dealer->refused = true;
        }
        break;
    case ZMQ_EVENT_DISCONNECTED:
    case ZMQ_EVENT_CLOSED:
        if (dealer->state == DEALER_OPEN) {
            dealer->state = DEALER_BROKEN;
        } else if (dealer->state == DEALER_CONNECTING && !dealer->tries_again) {
            dealer->state = DEALER_FAILED;
        }
        break;
    default:
        break;
    }
}

enum dealer_state dealer_update(struct dealer *dealer)
{
    struct socket_event event;

    if (dealer->socket.zmq == NULL) {
        return dealer->state;
    }
    while (dealer->state != DEALER_BROKEN && net_socket_event(&dealer->socket, &event)) {
        event_apply(dealer, &event);
    }
    return dealer->state;
}
