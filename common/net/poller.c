/* poller.c - where a network thread sleeps.
 *
 * A ZeroMQ socket's descriptor is edge-triggered: it tells that the state may have changed, and
 * what it is says ZMQ_EVENTS, which also clears it. So all sockets are asked first; if none has
 * anything to read, sleeping on the descriptors loses nothing, since whatever happens from then on
 * makes one of them readable. ppoll knows nanoseconds; zmq_poll only milliseconds.
 */
#include "common/net/poller.h"

#include "common/base/clock.h"
#include "common/base/mem.h"

#include <poll.h>
#include <string.h>
#include <time.h>
#include <zmq.h>

struct poller {
    struct pollfd *fds; /* of sockets and descriptors alike */
    void **sockets;     /* beside fds; NULL: a plain descriptor */
    uint32_t count, capacity;
};

struct poller *poller_create(void)
{
    return mem_new(struct poller);
}

void poller_destroy(struct poller *poller)
{
    if (poller == NULL) {
        return;
    }
    mem_free(poller->fds);
    mem_free(poller->sockets);
    mem_free(poller);
}

static void entry_add(struct poller *poller, int fd, void *socket)
{
    if (poller->count == poller->capacity) {
        poller->capacity = poller->capacity == 0 ? 16 : poller->capacity * 2;
        poller->fds = mem_resize(poller->fds, poller->capacity, sizeof(*poller->fds));
        poller->sockets = mem_resize(poller->sockets, poller->capacity, sizeof(*poller->sockets));
    }
    poller->fds[poller->count] = (struct pollfd){.fd = fd, .events = POLLIN};
    poller->sockets[poller->count] = socket;
    poller->count++;
}

static void entry_remove(struct poller *poller, int fd, const void *socket)
{
    for (uint32_t i = 0; i < poller->count; i++) {
        if (poller->sockets[i] == socket && (socket != NULL || poller->fds[i].fd == fd)) {
            poller->count--;
            poller->fds[i] = poller->fds[poller->count];
            poller->sockets[i] = poller->sockets[poller->count];
            return;
        }
    }
}

void poller_add_fd(struct poller *poller, int fd)
{
    entry_add(poller, fd, NULL);
}

void poller_remove_fd(struct poller *poller, int fd)
{
    entry_remove(poller, fd, NULL);
}

void poller_add_socket(struct poller *poller, void *socket)
{
    int fd = -1;
    size_t bytes = sizeof(fd);

    ASSERT(socket != NULL && zmq_getsockopt(socket, ZMQ_FD, &fd, &bytes) == 0);
    entry_add(poller, fd, socket);
}

void poller_remove_socket(struct poller *poller, void *socket)
{
    ASSERT(socket != NULL);
    entry_remove(poller, -1, socket);
}

static int sockets_readable(struct poller *poller)
{
    int readable = 0;

    /* All are asked, also behind one that is ready: asking is what clears their descriptors. */
    for (uint32_t i = 0; i < poller->count; i++) {
        int events = 0;
        size_t bytes = sizeof(events);

        if (poller->sockets[i] != NULL &&
            (zmq_getsockopt(poller->sockets[i], ZMQ_EVENTS, &events, &bytes) != 0 ||
             (events & ZMQ_POLLIN) != 0)) {
            readable++;
        }
    }
    return readable;
}

void poller_wait(struct poller *poller, int64_t timeout_ns)
{
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / NS_PER_S),
                               .tv_nsec = (long)(timeout_ns % NS_PER_S)};

    if (sockets_readable(poller) > 0) {
        return;
    }
    (void)ppoll(poller->fds, poller->count, timeout_ns < 0 ? NULL : &timeout, NULL);
}
