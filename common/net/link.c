/* link.c - what is the same for every transport: sequence numbers, checks and counters.
 *
 * A frame is stamped and its header encoded each time it is offered, because the sequence number
 * belongs to the link and is only used up when the transport takes the frame.
 */
#include "common/net/link.h"

#include <inttypes.h>

void link_counters_add(struct link_counters *sum, const struct link_counters *more)
{
    sum->frames_sent += more->frames_sent;
    sum->frames_received += more->frames_received;
    sum->bytes_sent += more->bytes_sent;
    sum->bytes_received += more->bytes_received;
    sum->crc_errors += more->crc_errors;
    sum->frames_dropped += more->frames_dropped;
}

enum link_result link_send(struct link *link, struct frame *frame, struct error *err)
{
    uint64_t bytes = FRAME_HEADER_BYTES + (uint64_t)frame->header.payload_bytes;
    enum link_result result;

    ASSERT(frame->wire != NULL && frame->header.payload_bytes <= frame->capacity);
    frame->header.link_sequence = link->send_sequence;
    frame_encode_header(frame, frame->wire);
    result = link->ops->send(link, frame, err);
    if (result == LINK_DONE) {
        link->send_sequence++;
        link->counters.frames_sent++;
        link->counters.bytes_sent += bytes;
    }
    return result;
}

enum link_result link_receive(struct link *link, struct frame **frame, struct error *err)
{
    struct frame *received = NULL;
    enum link_result result = link->ops->receive(link, &received, err);

    if (result != LINK_DONE) {
        return result;
    }
    ASSERT(received != NULL);
    if (received->header.link_sequence != link->receive_sequence) {
        error_set(
            err, ERROR_PEER, "%s link to worker %u: frame %" PRIu64 " came instead of %" PRIu64,
            link->ops->kind, link->peer, received->header.link_sequence, link->receive_sequence);
        frame_release(received);
        link->ops->close(link);
        return LINK_LOST;
    }
    link->receive_sequence++;
    link->counters.frames_received++;
    link->counters.bytes_received += FRAME_HEADER_BYTES + (uint64_t)received->header.payload_bytes;
    *frame = received;
    return LINK_DONE;
}

void link_close(struct link *link)
{
    link->ops->close(link);
}

void link_destroy(struct link *link)
{
    if (link != NULL) {
        link->ops->destroy(link);
    }
}
