#ifndef SHOAL_NET_FRAME_QUEUE_H
#define SHOAL_NET_FRAME_QUEUE_H

/* Frames in order, linked through their own node; one thread; zeroed is empty. It owns a reference
 * of each frame inside. Bounds are the user's.
 */
#include "common/net/frame.h"

struct frame_queue {
    struct frame *first, *last;
    uint32_t count;
};
void frame_queue_push(struct frame_queue *queue, struct frame *frame); /* takes */
void frame_queue_push_front(struct frame_queue *queue, struct frame *frame);
struct frame *frame_queue_pop(struct frame_queue *queue); /* NULL: empty */
uint32_t frame_queue_clear(struct frame_queue *queue);    /* releases; how many */

#endif
