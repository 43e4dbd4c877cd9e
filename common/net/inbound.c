/* inbound.c - wrappers of arriving frames.
 *
 * Their number is bounded by the credit of the step protocol, not here; after the first steps all
 * are made and a step allocates nothing. Buffers keep the size they grew to, so wrappers of small
 * frames, which may be many, never serve a large one: only as many large buffers are made as large
 * frames are out at the same time.
 */
#include "common/net/inbound.h"

#include "common/base/mem.h"

#define LINE_BYTES      ((size_t)64)
#define SMALL_BYTES_MAX ((size_t)16 << 10)

enum size_class { SIZE_SMALL, SIZE_LARGE, SIZE_CLASS_COUNT };

struct inbound_pool {
    struct mpsc_node *free[SIZE_CLASS_COUNT]; /* the taking thread's, by what their buffers hold */
    struct mpsc_list returned;
    atomic_uint holders; /* frames that are out, and 1 for the owner */
};

static struct inbound *inbound_of(struct mpsc_node *node)
{
    struct frame *frame = (struct frame *)((char *)node - offsetof(struct frame, node));

    return (struct inbound *)frame;
}

static void chain_free(struct mpsc_node *node)
{
    while (node != NULL) {
        struct inbound *inbound = inbound_of(node);

        node = node->next;
        mem_free(inbound->buffer);
        mem_free(inbound);
    }
}

static void pool_unhold(struct inbound_pool *pool)
{
    if (atomic_fetch_sub_explicit(&pool->holders, 1, memory_order_acq_rel) == 1) {
        chain_free(pool->free[SIZE_SMALL]);
        chain_free(pool->free[SIZE_LARGE]);
        chain_free(mpsc_take_all(&pool->returned));
        mem_free(pool);
    }
}

static void inbound_release(struct frame *frame)
{
    struct inbound *inbound = (struct inbound *)frame;
    struct inbound_pool *pool = frame->owner;

    if (inbound->give_back != NULL) {
        inbound->give_back(inbound);
        inbound->give_back = NULL;
    }
    (void)mpsc_push(&pool->returned, &frame->node);
    pool_unhold(pool);
}

struct inbound_pool *inbound_pool_create(void)
{
    struct inbound_pool *pool = mem_new(struct inbound_pool);

    atomic_init(&pool->holders, 1);
    atomic_init(&pool->returned.head, NULL);
    return pool;
}

void inbound_pool_destroy(struct inbound_pool *pool)
{
    if (pool != NULL) {
        pool_unhold(pool);
    }
}

static bool buffer_fit(struct inbound *inbound, size_t message_bytes, struct error *err)
{
    uint8_t *buffer;

    if (inbound->buffer_bytes >= message_bytes) {
        return true;
    }
    buffer = mem_try_zeroed(1, (message_bytes + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES, err);
    if (buffer == NULL) {
        return false;
    }
    mem_free(inbound->buffer);
    inbound->buffer = buffer;
    inbound->buffer_bytes = (message_bytes + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
    return true;
}

static enum size_class class_of(size_t bytes)
{
    return bytes > SMALL_BYTES_MAX ? SIZE_LARGE : SIZE_SMALL;
}

static void keep_free(struct inbound_pool *pool, struct inbound *inbound)
{
    struct mpsc_node **list = &pool->free[class_of(inbound->buffer_bytes)];

    inbound->frame.node.next = *list;
    *list = &inbound->frame.node;
}

static struct inbound *wrapper_take(struct inbound_pool *pool, enum size_class class)
{
    struct mpsc_node *node = pool->free[class];
    struct inbound *inbound;

    if (node == NULL) {
        node = mpsc_take_all(&pool->returned);
        while (node != NULL) {
            struct mpsc_node *next = node->next;

            keep_free(pool, inbound_of(node));
            node = next;
        }
        node = pool->free[class];
    }
    if (node != NULL) {
        pool->free[class] = node->next;
        return inbound_of(node);
    }
    inbound = mem_new(struct inbound);
    inbound->frame.release = inbound_release;
    inbound->frame.owner = pool;
    return inbound;
}

struct inbound *inbound_take(struct inbound_pool *pool, size_t message_bytes, struct error *err)
{
    struct inbound *inbound = wrapper_take(pool, class_of(message_bytes));

    if (!buffer_fit(inbound, message_bytes, err)) {
        keep_free(pool, inbound);
        return NULL;
    }
    inbound->frame.wire = inbound->buffer;
    atomic_fetch_add_explicit(&pool->holders, 1, memory_order_relaxed);
    atomic_store_explicit(&inbound->frame.references, 1, memory_order_release);
    return inbound;
}

void inbound_fill(struct inbound *inbound, uint8_t *message, const struct frame_header *header)
{
    inbound->frame.header = *header;
    inbound->frame.wire = message;
    inbound->frame.payload = message + FRAME_HEADER_BYTES;
    inbound->frame.capacity = header->payload_bytes;
}
