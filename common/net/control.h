#ifndef SHOAL_NET_CONTROL_H
#define SHOAL_NET_CONTROL_H

/* The control channel: one ZeroMQ ROUTER at the coordinator, a DEALER at each worker; protobuf
 * messages; CURVE when a key is present. Never blocks. Owner: the thread that made it.
 */
#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/net/keys.h"
#include "common/net/message.h"
#include "common/net/poller.h"

enum control_result { CONTROL_DONE, CONTROL_AGAIN, CONTROL_LOST };

/* --- coordinator --- */
struct control_server;
struct control_peer {
    uint64_t connection; /* names a connected worker until it is gone */
};
/* endpoint tcp://host:port; port 0 or * takes a free one. ERROR_SYSTEM names the endpoint. */
struct control_server *control_listen(const char *endpoint, const struct cluster_key *key,
                                      struct poller *poller, struct error *err) MUST_CHECK;
void control_server_destroy(struct control_server *server);
const char *control_server_endpoint(const struct control_server *server); /* with the real port */
/* CONTROL_DONE: a message of `from`, its memory in the arena. A peer whose bytes can't be decoded
 * gets CONTROL_LOST with err (and is dropped); so does one whose connection broke: `from` says who.
 */
enum control_result control_server_receive(struct control_server *server, struct arena *arena,
                                           struct control_peer *from, struct message *out,
                                           struct error *err);
/* CONTROL_AGAIN: its queue is full; CONTROL_LOST: it is gone. */
enum control_result control_server_send(struct control_server *server, struct control_peer to,
                                        const struct message *message, struct error *err);
void control_server_drop(struct control_server *server, struct control_peer peer);

/* --- worker --- */
struct control_client;
/* Connects in the background, trying again until it succeeds. */
struct control_client *control_connect(const char *endpoint, const struct cluster_key *key,
                                       struct poller *poller, struct error *err) MUST_CHECK;
void control_client_destroy(struct control_client *client);
/* The connection stands, as of the last receive; before, what is sent waits. */
bool control_client_is_open(const struct control_client *client);
enum control_result control_client_receive(struct control_client *client, struct arena *arena,
                                           struct message *out, struct error *err);
enum control_result control_client_send(struct control_client *client,
                                        const struct message *message, struct error *err);
/* The local address that reaches the coordinator ("192.168.1.7"), for the data endpoint. */
bool control_local_address(const char *endpoint, char *out, size_t out_bytes,
                           struct error *err) MUST_CHECK;

/* The codec alone, for tests and the fuzzer: the protobuf part of a message. */
bool message_encode(const struct message *message, struct buffer *out);
bool message_decode(const uint8_t *bytes, size_t length, struct arena *arena, struct message *out,
                    struct error *err) MUST_CHECK;

#endif
