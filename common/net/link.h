#ifndef SHOAL_NET_LINK_H
#define SHOAL_NET_LINK_H

/* A message channel between two workers, whatever carries it.
 *
 * Three implementations: mpi (inside an island), zmq (between islands), sim (tests: loses, delays,
 * corrupts, breaks on demand). A pair of workers uses one of them; nothing above net/ knows which.
 * Frames of one direction arrive in order, each once, or the link is lost. All calls from the
 * communication thread.
 */
#include "common/net/frame.h"

enum link_result {
    LINK_DONE,  /* the frame changed hands */
    LINK_AGAIN, /* nothing happened; ask again after the next poll */
    LINK_LOST,  /* the peer is gone for good; err says how we know */
};

struct link;
struct link_ops {
    const char *kind; /* "mpi", "zmq", "sim": shown in logs and metrics */
    /* Takes the frame on LINK_DONE; otherwise it stays the caller's. Never blocks. */
    enum link_result (*send)(struct link *link, struct frame *frame, struct error *err);
    /* Hands over one whole, checked frame on LINK_DONE. Never blocks. */
    enum link_result (*receive)(struct link *link, struct frame **frame, struct error *err);
    /* close: both answer LINK_LOST from here on; may be called twice; never blocks.
     * destroy: waits for what the transport still holds (bounded), then frees; only after close. */
    void (*close)(struct link *link);
    void (*destroy)(struct link *link);
};

struct link_counters {
    uint64_t frames_sent, frames_received;
    uint64_t bytes_sent, bytes_received; /* header and payload */
    uint64_t crc_errors;
    uint64_t frames_dropped; /* older epoch, step or attempt */
};

void link_counters_add(struct link_counters *sum, const struct link_counters *more);

struct link {
    const struct link_ops *ops;
    uint32_t peer;             /* worker id */
    uint64_t send_sequence;    /* next to be sent */
    uint64_t receive_sequence; /* next expected */
    struct link_counters counters;
};

/* Callers use these: they assert, stamp and check the link sequence, and count. */
enum link_result link_send(struct link *link, struct frame *frame, struct error *err);
enum link_result link_receive(struct link *link, struct frame **frame, struct error *err);
void link_close(struct link *link);
void link_destroy(struct link *link); /* NULL is legal */

#endif
