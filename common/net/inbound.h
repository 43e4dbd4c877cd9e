#ifndef SHOAL_NET_INBOUND_H
#define SHOAL_NET_INBOUND_H

/* Frames that arrive: wrappers that are used again, each with a buffer that grows to what it had to
 * hold, or around a buffer of the transport that is given back on release. Taken by one thread,
 * released on any.
 */
#include "common/net/frame.h"

#include <stdalign.h>

struct inbound_pool;
struct inbound {
    struct frame frame; /* first */
    uint8_t *buffer;    /* aligned to 64 */
    size_t buffer_bytes;
    /* Gives back what `transport` holds; NULL: nothing. Any thread. */
    void (*give_back)(struct inbound *inbound);
    alignas(64) unsigned char transport[64];
};

struct inbound_pool *inbound_pool_create(void);
/* Frames still out keep it alive. NULL is legal. */
void inbound_pool_destroy(struct inbound_pool *pool);
/* One reference; frame->wire is a buffer of message_bytes (at least). NULL: ERROR_LIMIT. */
struct inbound *inbound_take(struct inbound_pool *pool, size_t message_bytes,
                             struct error *err) MUST_CHECK;
/* Frame and payload over `message` (its own buffer or the transport's), which was checked. */
void inbound_fill(struct inbound *inbound, uint8_t *message, const struct frame_header *header);

#endif
