#ifndef SHOAL_NET_POLLER_H
#define SHOAL_NET_POLLER_H

/* Sleeps until a socket, a descriptor or the time comes. The one place a network thread waits. */
#include <stdint.h>

struct poller;
struct poller *poller_create(void);
void poller_destroy(struct poller *poller);
/* Readable descriptors (wakers, signalfd). */
void poller_add_fd(struct poller *poller, int fd);
void poller_remove_fd(struct poller *poller, int fd);
/* ZeroMQ sockets; called by control.c and mesh.c only. */
void poller_add_socket(struct poller *poller, void *socket);
void poller_remove_socket(struct poller *poller, void *socket);
/* timeout_ns < 0: for ever. Precise below a millisecond too. Spurious returns are legal: callers
 * then try all their non-blocking calls. */
void poller_wait(struct poller *poller, int64_t timeout_ns);

#endif
