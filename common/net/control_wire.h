#ifndef SHOAL_NET_CONTROL_WIRE_H
#define SHOAL_NET_CONTROL_WIRE_H

/* A control message as parts of a ZeroMQ message: the protobuf part, then rows of floats. */
#include "common/base/buffer.h"
#include "common/net/message.h"

#include <zmq.h>

#define CONTROL_PART_BYTES_MAX ((int64_t)1 << 30)

/* Sends the parts; the first send may fail with EAGAIN, later ones do not. `packed` is what
 * message_encode made of the message. 0, or the errno of ZeroMQ. */
int control_parts_send(void *socket, const struct buffer *packed, const struct message *message);
/* Takes the parts behind `first` from the socket and decodes all. False: err, and the rest of the
 * message is thrown away. */
bool control_parts_receive(void *socket, zmq_msg_t *first, struct arena *arena, struct message *out,
                           struct error *err) MUST_CHECK;

#endif
