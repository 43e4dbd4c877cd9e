/* frame_pool.c - the frames of an epoch, made once.
 *
 *   pages: | pad, header 0 | payload 0 | header 1 | payload 1 | …
 *
 * Each header stands right in front of its payload, so that a transport sends both in one piece.
 * Free frames wait in two places: a stack of the taking thread, and the list through which other
 * threads (libzmq's) give them back. The pool lives until it was destroyed and every frame is home;
 * whoever comes last frees it.
 */
#include "common/net/frame.h"

#include "common/base/mem.h"

#define LINE_BYTES     ((size_t)64)
#define POOL_BYTES_MAX ((size_t)1 << 40) /* beyond it the request is a mistake */

struct frame_pool {
    struct frame *frames; /* [count] */
    uint8_t *pages;
    uint64_t page_bytes;
    struct mpsc_node *free; /* the taking thread's */
    struct mpsc_list returned;
    atomic_uint holders; /* frames that are out, and 1 for the owner */
};

static size_t slot_bytes(size_t payload_bytes)
{
    return FRAME_HEADER_BYTES + (payload_bytes + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
}

uint64_t frame_pool_bytes(uint32_t count, size_t payload_bytes)
{
    return (uint64_t)count * (slot_bytes(payload_bytes) + sizeof(struct frame));
}

static void pool_unhold(struct frame_pool *pool)
{
    if (atomic_fetch_sub_explicit(&pool->holders, 1, memory_order_acq_rel) == 1) {
        mem_unmap_pages(pool->pages, pool->page_bytes);
        mem_free(pool->frames);
        mem_free(pool);
    }
}

static void pool_take_back(struct frame *frame)
{
    struct frame_pool *pool = frame->owner;

    (void)mpsc_push(&pool->returned, &frame->node);
    pool_unhold(pool);
}

static struct frame *frame_of(struct mpsc_node *node)
{
    return (struct frame *)((char *)node - offsetof(struct frame, node));
}

struct frame_pool *frame_pool_create(uint32_t count, size_t payload_bytes, struct error *err)
{
    struct frame_pool *pool = mem_new(struct frame_pool);
    size_t slot = slot_bytes(payload_bytes);
    size_t bytes;

    atomic_init(&pool->holders, 1);
    atomic_init(&pool->returned.head, NULL);
    if (payload_bytes > UINT32_MAX - 2 * LINE_BYTES || !size_mul(count, slot, &bytes) ||
        bytes > POOL_BYTES_MAX) {
        error_set(err, ERROR_LIMIT, "frame pool: %u frames of %zu bytes", count, payload_bytes);
        pool_unhold(pool);
        return NULL;
    }
    pool->frames = mem_try_array(struct frame, count, err);
    pool->page_bytes = bytes > 0 ? bytes : LINE_BYTES;
    if (pool->frames == NULL || !(pool->pages = mem_map_pages(pool->page_bytes, err))) {
        error_wrap(err, "frame pool: %u frames of %zu bytes", count, payload_bytes);
        pool_unhold(pool);
        return NULL;
    }
    for (uint32_t i = count; i-- > 0;) {
        struct frame *frame = &pool->frames[i];

        frame->wire = pool->pages + (size_t)i * slot;
        frame->payload = frame->wire + FRAME_HEADER_BYTES;
        frame->capacity = slot - FRAME_HEADER_BYTES;
        frame->release = pool_take_back;
        frame->owner = pool;
        frame->node.next = pool->free;
        pool->free = &frame->node;
    }
    return pool;
}

void frame_pool_destroy(struct frame_pool *pool)
{
    if (pool != NULL) {
        pool_unhold(pool);
    }
}

struct frame *frame_pool_take(struct frame_pool *pool)
{
    struct frame *frame;

    if (pool->free == NULL) {
        pool->free = mpsc_take_all(&pool->returned);
    }
    if (pool->free == NULL) {
        return NULL;
    }
    frame = frame_of(pool->free);
    pool->free = frame->node.next;
    atomic_fetch_add_explicit(&pool->holders, 1, memory_order_relaxed);
    frame->header = (struct frame_header){0};
    atomic_store_explicit(&frame->references, 1, memory_order_release);
    return frame;
}
