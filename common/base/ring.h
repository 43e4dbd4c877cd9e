#ifndef SHOAL_BASE_RING_H
#define SHOAL_BASE_RING_H

/* Hand-over of pointers between threads without locks.
 *
 *   ring       one producer, one consumer, bounded, first in first out
 *   mpsc_list  many producers, one consumer, unbounded, intrusive; the consumer takes all at once
 *   waker      an eventfd: a thread that sleeps in poll() is woken by another
 *
 * A message that passes through carries ownership.
 */
#include "common/base/check.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ring; /* opaque: head and tail on lines of their own */

struct ring *ring_create(size_t capacity); /* rounded up to a power of two */
void ring_destroy(struct ring *ring);      /* NULL is legal; items left inside are not freed */
bool ring_push(struct ring *ring, void *item) MUST_CHECK; /* false: full; item is never NULL */
void *ring_pop(struct ring *ring);                        /* NULL: empty */
size_t ring_length(const struct ring *ring);              /* a snapshot */

struct mpsc_node {
    struct mpsc_node *next;
};
struct mpsc_list {
    _Atomic(struct mpsc_node *) head; /* newest first */
};
/* Returns true if the list was empty before: the producer then wakes the consumer. */
bool mpsc_push(struct mpsc_list *list, struct mpsc_node *node);
/* Takes everything, oldest first, linked by next; NULL when empty. */
struct mpsc_node *mpsc_take_all(struct mpsc_list *list);

struct waker {
    int fd; /* readable while woken: put it into poll() */
};
bool waker_open(struct waker *waker);
void waker_close(struct waker *waker);
void waker_wake(struct waker *waker);  /* any thread, signal-safe */
void waker_clear(struct waker *waker); /* the sleeping thread, before it looks at its queues */

#endif
