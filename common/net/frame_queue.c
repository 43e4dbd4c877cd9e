/* frame_queue.c - frames waiting in line. */
#include "common/net/frame_queue.h"

static struct frame *frame_of(struct mpsc_node *node)
{
    return node == NULL ? NULL : (struct frame *)((char *)node - offsetof(struct frame, node));
}

void frame_queue_push(struct frame_queue *queue, struct frame *frame)
{
    frame->node.next = NULL;
    if (queue->last == NULL) {
        queue->first = frame;
    } else {
        queue->last->node.next = &frame->node;
    }
    queue->last = frame;
    queue->count++;
}

void frame_queue_push_front(struct frame_queue *queue, struct frame *frame)
{
    frame->node.next = queue->first == NULL ? NULL : &queue->first->node;
    queue->first = frame;
    if (queue->last == NULL) {
        queue->last = frame;
    }
    queue->count++;
}

struct frame *frame_queue_pop(struct frame_queue *queue)
{
    struct frame *frame = queue->first;

    if (frame == NULL) {
        return NULL;
    }
    queue->first = frame_of(frame->node.next);
    if (queue->first == NULL) {
        queue->last = NULL;
    }
    queue->count--;
    return frame;
}

uint32_t frame_queue_clear(struct frame_queue *queue)
{
    uint32_t count = queue->count;
    struct frame *frame;

    while ((frame = frame_queue_pop(queue)) != NULL) {
        frame_release(frame);
    }
    return count;
}
