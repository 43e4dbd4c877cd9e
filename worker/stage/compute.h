#ifndef SHOAL_STAGE_COMPUTE_H
#define SHOAL_STAGE_COMPUTE_H

/* The compute thread of an epoch, and the hand-over between it and the communication thread.
 *
 * All functions are the communication thread's; none blocks. Steps go in and come out in order;
 * frames of peers go in, frames for peers come out; `waker` is woken whenever something comes out.
 * The thread sleeps on a futex when it has nothing to do.
 */
#include "common/base/ring.h"
#include "worker/stage/stage.h"

/* A step under way. Slots are made once; the communication thread decodes into the arena of a free
 * one. */
struct work {
    struct stage_job job;
    enum stage_outcome outcome;
    struct error err; /* with STAGE_FAILED */
    bool is_free;     /* the communication thread's */
    bool is_submitted;
};

struct compute_config {
    struct stage *stage; /* borrowed until compute_destroy, as all below */
    const struct traffic *traffic;
    uint32_t work_count;
    struct waker *waker;
};
struct compute;

uint64_t compute_bytes(uint32_t work_count); /* arenas of the slots, for the ledger */
struct compute *compute_start(const struct compute_config *config, struct error *err) MUST_CHECK;
/* The step in progress ends at its next layer or wait; has_stopped tells when. */
void compute_request_stop(struct compute *compute);
bool compute_has_stopped(const struct compute *compute);
/* Waits for the thread unless it has stopped. NULL is legal. */
void compute_destroy(struct compute *compute);

struct work *compute_free_work(struct compute *compute); /* NULL: all are under way */
/* A further attempt of the epoch begins: submitted steps of earlier ones end, abandoned, at their
 * next layer or wait, and frames of earlier ones are dropped. */
void compute_attempt(struct compute *compute, uint32_t attempt);
/* Takes a free slot whose job.step is decoded and checked. Begins the step's attempt. */
void compute_submit(struct compute *compute, struct work *work);
/* The next finished step, or NULL; give it back with compute_release. */
struct work *compute_finished(struct compute *compute);
void compute_release(struct work *work);
uint32_t compute_open_steps(const struct compute *compute); /* submitted, not yet finished */
/* Of these, those of earlier attempts: their slots become free soon. */
uint32_t compute_void_steps(const struct compute *compute);

/* True: the thread waits for no frame, and wakes `waker` should it begin to; so the caller may look
 * for frames rarely until then. False: it waits now. */
bool compute_may_doze(struct compute *compute);
/* Takes a received frame; false: no room now, it stays the caller's. */
bool compute_offer_frame(struct compute *compute, struct frame *frame);
/* The next frame to be sent, with its receiver, or NULL. */
struct frame *compute_outgoing(struct compute *compute, uint32_t *peer);

struct compute_counters {
    int64_t busy_ns, wait_ns;
    uint64_t steps;
    uint64_t frames_dropped; /* of steps that are over, of earlier attempts */
};
struct compute_counters compute_counters(const struct compute *compute);

#endif
