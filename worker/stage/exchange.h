#ifndef SHOAL_STAGE_EXCHANGE_H
#define SHOAL_STAGE_EXCHANGE_H

/* How a running step reaches its peers: takes an empty frame, sends it, waits for one. In the
 * program the communication thread is behind it (compute.c), in tests a mailbox in memory.
 *
 * Called by the compute thread. Sending never waits; the next step begins while frames travel.
 */
#include "common/net/frame.h"

struct frame_key {
    uint64_t step;
    uint32_t attempt;
    uint32_t layer;
    uint32_t source; /* worker id */
    enum frame_kind kind;
};

struct exchange;
struct exchange_ops {
    /* A frame large enough for its kind, header zeroed; waits while all are out. NULL: the step is
     * abandoned (another attempt of it was issued, or the epoch ends). */
    struct frame *(*take)(struct exchange *exchange, enum frame_kind kind);
    /* Takes the frame, whose header is complete. What goes wrong shows as an abandoned step. */
    void (*send)(struct exchange *exchange, uint32_t worker, struct frame *frame);
    /* The frame of that key; waits for it. NULL: abandoned. The caller releases it. */
    struct frame *(*wait)(struct exchange *exchange, const struct frame_key *key);
    bool (*is_abandoned)(struct exchange *exchange);
};
struct exchange {
    const struct exchange_ops *ops;
    int64_t wait_ns; /* spent in take and wait; the implementation adds */
};

#endif
