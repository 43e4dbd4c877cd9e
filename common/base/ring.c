/* ring.c - hand-over between threads.
 *
 * In the ring, head and tail count pushes and pops without wrapping; each is written by one side,
 * on a cache line of its own beside that side's last view of the other, so that the sides touch
 * each other's line only when the ring looks full or empty. The list is a stack that is taken as a
 * whole and turned round: with no single-node pop there is no ABA problem.
 */
#include "common/base/ring.h"

#include "common/base/mem.h"

#include <errno.h>
#include <stdalign.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define LINE_BYTES 64

struct ring {
    alignas(LINE_BYTES) atomic_size_t head; /* pushes; the producer writes */
    size_t tail_seen;                       /* the producer's last view of tail */
    alignas(LINE_BYTES) atomic_size_t tail; /* pops; the consumer writes */
    size_t head_seen;                       /* the consumer's last view of head */
    alignas(LINE_BYTES) size_t mask;        /* capacity - 1 */
    void **items;
};

struct ring *ring_create(size_t capacity)
{
    struct ring *ring = mem_new(struct ring);
    size_t rounded = 1;

    ASSERT(capacity > 0 && capacity <= SIZE_MAX / 2 / sizeof(void *));
    while (rounded < capacity) {
        rounded *= 2;
    }
    atomic_init(&ring->head, 0);
    atomic_init(&ring->tail, 0);
    ring->mask = rounded - 1;
    ring->items = mem_new_array(void *, rounded);
    return ring;
}

void ring_destroy(struct ring *ring)
{
    if (ring == NULL) {
        return;
    }
    mem_free(ring->items);
    mem_free(ring);
}

bool ring_push(struct ring *ring, void *item)
{
    size_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

    DEBUG_ASSERT(item != NULL);
    if (head - ring->tail_seen > ring->mask) {
        ring->tail_seen = atomic_load_explicit(&ring->tail, memory_order_acquire);
        if (head - ring->tail_seen > ring->mask) {
            return false;
        }
    }
    ring->items[head & ring->mask] = item;
    atomic_store_explicit(&ring->head, head + 1, memory_order_release);
    return true;
}

void *ring_pop(struct ring *ring)
{
    size_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    void *item;

    if (tail == ring->head_seen) {
        ring->head_seen = atomic_load_explicit(&ring->head, memory_order_acquire);
        if (tail == ring->head_seen) {
            return NULL;
        }
    }
    item = ring->items[tail & ring->mask];
    atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
    return item;
}

size_t ring_length(const struct ring *ring)
{
    /* tail first: head is never behind a tail that was read before it. */
    size_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    size_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
    size_t length = head - tail;

    return length <= ring->mask ? length : ring->mask + 1;
}

bool mpsc_push(struct mpsc_list *list, struct mpsc_node *node)
{
    struct mpsc_node *head = atomic_load_explicit(&list->head, memory_order_relaxed);

    do {
        node->next = head;
    } while (!atomic_compare_exchange_weak_explicit(&list->head, &head, node, memory_order_acq_rel,
                                                    memory_order_relaxed));
    return head == NULL;
}

struct mpsc_node *mpsc_take_all(struct mpsc_list *list)
{
    struct mpsc_node *newest = atomic_exchange_explicit(&list->head, NULL, memory_order_acq_rel);
    struct mpsc_node *oldest = NULL;

    while (newest != NULL) {
        struct mpsc_node *node = newest;

        newest = node->next;
        node->next = oldest;
        oldest = node;
    }
    return oldest;
}

bool waker_open(struct waker *waker)
{
    waker->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return waker->fd >= 0;
}

void waker_close(struct waker *waker)
{
    if (waker->fd >= 0) {
        (void)close(waker->fd);
        waker->fd = -1;
    }
}

void waker_wake(struct waker *waker)
{
    int saved = errno;
    uint64_t one = 1;
    ssize_t written;

    do {
        written = write(waker->fd, &one, sizeof(one));
    } while (written < 0 && errno == EINTR);
    /* EAGAIN: the counter is full, so the waker is awake already. */
    errno = saved;
}

void waker_clear(struct waker *waker)
{
    int saved = errno;
    uint64_t count;
    ssize_t got;

    do {
        got = read(waker->fd, &count, sizeof(count));
    } while (got < 0 && errno == EINTR);
    errno = saved; /* EAGAIN: nobody woke us */
}
