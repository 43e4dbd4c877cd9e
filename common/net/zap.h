#ifndef SHOAL_NET_ZAP_H
#define SHOAL_NET_ZAP_H

/* Who may join: the ZAP handler of the process (RFC 27 of ZeroMQ), a thread that owns one REP
 * socket at inproc://zeromq.zap.01. A client is let in iff its CURVE key is the ZAP domain of the
 * socket that it came to; sockets set the cluster's public key as their domain. It ends when its
 * context ends; zap_join waits for that.
 */
#include "common/base/error.h"

struct zap;
struct zap *zap_start(void *zmq_context, struct error *err) MUST_CHECK;
void zap_join(struct zap *zap); /* after the context was shut down; NULL is legal */

#endif
