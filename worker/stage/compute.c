/* compute.c - the thread that computes, and its two doors.
 *
 *   communication thread  -- steps, received frames -->  compute thread
 *                         <-- finished steps, frames to send --
 *
 * Single-producer rings both ways, each wide enough for everything that can be under way, so a push
 * to the communication thread never fails. A bell (a counter that is also a futex) tells the
 * compute thread that a ring changed; the waker's descriptor tells the other side, which sleeps in
 * poll. Nothing is allocated here once the thread runs.
 */
#include "worker/stage/compute.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "worker/stage/inbox.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define FRAME_RING_ITEMS 1024
#define POOL_RETRY_NS    (100 * NS_PER_US)
#define WORK_ARENA_BYTES (64 << 10)

struct compute {
    struct exchange exchange; /* first */
    struct stage *stage;
    const struct traffic *traffic;
    struct waker *waker;
    uint32_t work_count;
    struct work *works;

    struct ring *steps;     /* → work */
    struct ring *frames;    /* → frame */
    struct ring *finished;  /* ← work */
    struct ring **outgoing; /* ← frame, [peer_count] */

    /* the communication thread's */
    uint32_t open_steps;
    pthread_t thread;
    bool is_started;

    /* the compute thread's */
    struct work *current;
    struct inbox *inbox;
    struct frame_pool *pools[FRAME_KIND_COUNT];
    struct error err;
    bool failed;

    /* both */
    atomic_uint bell;
    atomic_uint sleepers;
    atomic_bool waits_for_frame;
    atomic_bool other_dozes;  /* the communication thread, unless it is woken */
    _Atomic uint32_t attempt; /* steps and frames of earlier ones are void */
    atomic_bool stop;
    atomic_bool stopped;
    _Atomic int64_t busy_ns;
    _Atomic int64_t wait_ns;
    _Atomic uint64_t step_count;
    _Atomic uint64_t dropped_count;
};

/* --- the bell --- */

static void bell_ring(struct compute *compute)
{
    atomic_fetch_add(&compute->bell, 1);
    if (atomic_load(&compute->sleepers) > 0) {
        (void)syscall(SYS_futex, &compute->bell, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    }
}

/* Returns when the bell rang after it showed `seen`, or the time is over (< 0: never). */
static void bell_wait(struct compute *compute, unsigned seen, int64_t timeout_ns)
{
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / NS_PER_S),
                               .tv_nsec = (long)(timeout_ns % NS_PER_S)};

    atomic_fetch_add(&compute->sleepers, 1);
    if (atomic_load(&compute->bell) == seen) {
        (void)syscall(SYS_futex, &compute->bell, FUTEX_WAIT_PRIVATE, seen,
                      timeout_ns < 0 ? NULL : &timeout, NULL, 0);
    }
    atomic_fetch_sub(&compute->sleepers, 1);
}

/* --- the compute thread's exchange --- */

static bool exchange_is_abandoned(struct exchange *exchange)
{
    struct compute *compute = (struct compute *)exchange;

    return compute->failed || atomic_load(&compute->stop) ||
           (compute->current != NULL &&
            compute->current->job.step.attempt < atomic_load(&compute->attempt));
}

static void collect_frames(struct compute *compute)
{
    struct frame *frame;

    inbox_attempt(compute->inbox, atomic_load(&compute->attempt));
    while ((frame = ring_pop(compute->frames)) != NULL) {
        if (!inbox_put(compute->inbox, frame, &compute->err)) {
            compute->failed = true;
        }
    }
    atomic_store(&compute->dropped_count, inbox_dropped(compute->inbox));
}

/* Each side writes its own mark and then reads the other's, so one of them sees both. */
static void waiting_set(struct compute *compute, bool waits)
{
    atomic_store(&compute->waits_for_frame, waits);
    if (waits && atomic_exchange(&compute->other_dozes, false)) {
        waker_wake(compute->waker);
    }
}

static struct frame *exchange_wait(struct exchange *exchange, const struct frame_key *key)
{
    struct compute *compute = (struct compute *)exchange;
    int64_t begin_ns = 0;
    struct frame *frame;

    for (;;) {
        unsigned seen = atomic_load(&compute->bell);

        collect_frames(compute);
        frame = inbox_take(compute->inbox, key);
        if (frame != NULL || exchange_is_abandoned(exchange)) {
            break;
        }
        if (begin_ns == 0) {
            begin_ns = clock_monotonic_ns();
            waiting_set(compute, true);
        }
        bell_wait(compute, seen, -1);
    }
    if (begin_ns != 0) {
        waiting_set(compute, false);
        exchange->wait_ns += clock_monotonic_ns() - begin_ns;
    }
    return frame;
}

/* Frames come home without a bell, on a thread of the transport. */
static struct frame *exchange_take(struct exchange *exchange, enum frame_kind kind)
{
    struct compute *compute = (struct compute *)exchange;
    struct frame *frame = frame_pool_take(compute->pools[kind]);
    int64_t begin_ns;

    if (frame != NULL) {
        return frame;
    }
    begin_ns = clock_monotonic_ns();
    do {
        unsigned seen = atomic_load(&compute->bell);

        if (exchange_is_abandoned(exchange)) {
            return NULL;
        }
        bell_wait(compute, seen, POOL_RETRY_NS);
        collect_frames(compute);
        frame = frame_pool_take(compute->pools[kind]);
    } while (frame == NULL);
    exchange->wait_ns += clock_monotonic_ns() - begin_ns;
    return frame;
}

static void exchange_send(struct exchange *exchange, uint32_t worker, struct frame *frame)
{
    struct compute *compute = (struct compute *)exchange;
    uint32_t peer = 0;
    bool pushed;

    while (compute->traffic->peers[peer] != worker) {
        peer++;
        ASSERT(peer < compute->traffic->peer_count);
    }
    pushed = ring_push(compute->outgoing[peer], frame);
    ASSERT(pushed); /* the ring holds all frames of the pools */
    waker_wake(compute->waker);
}

static const struct exchange_ops exchange_ops = {
    .take = exchange_take,
    .send = exchange_send,
    .wait = exchange_wait,
    .is_abandoned = exchange_is_abandoned,
};

/* --- the compute thread --- */

static void run_work(struct compute *compute, struct work *work)
{
    struct step_result *result = &work->job.result;
    const struct step *step = &work->job.step;

    compute->current = work;
    compute->exchange.wait_ns = 0;
    work->outcome = STAGE_ABANDONED;
    if (!exchange_is_abandoned(&compute->exchange)) {
        work->outcome = stage_run(compute->stage, &compute->exchange, &work->job, &work->err);
    }
    if (compute->failed) {
        work->outcome = STAGE_FAILED;
        work->err = compute->err;
        compute->failed = false;
    }
    if (work->outcome == STAGE_DONE) {
        atomic_fetch_add(&compute->busy_ns, result->end_ns - result->begin_ns - result->wait_ns);
        atomic_fetch_add(&compute->wait_ns, result->wait_ns);
        atomic_fetch_add(&compute->step_count, 1);
    }
    inbox_step_over(compute->inbox, step->number, step->attempt);
    compute->current = NULL;
}

static void *compute_main(void *context)
{
    struct compute *compute = context;

    (void)pthread_setname_np(pthread_self(), "compute");
    stage_thread_begin(compute->stage);
    while (!atomic_load(&compute->stop)) {
        unsigned seen = atomic_load(&compute->bell);
        struct work *work = ring_pop(compute->steps);
        bool pushed;

        if (work == NULL) {
            collect_frames(compute);
            bell_wait(compute, seen, -1);
            continue;
        }
        run_work(compute, work);
        pushed = ring_push(compute->finished, work);
        ASSERT(pushed); /* the ring holds all slots */
        waker_wake(compute->waker);
    }
    atomic_store(&compute->stopped, true);
    waker_wake(compute->waker);
    return NULL;
}

/* --- life --- */

uint64_t compute_bytes(uint32_t work_count)
{
    return (uint64_t)work_count * (WORK_ARENA_BYTES + sizeof(struct work));
}

static bool make_pools(struct compute *compute, struct error *err)
{
    for (uint32_t kind = 0; kind < FRAME_KIND_COUNT; kind++) {
        const struct frame_need *need = &compute->traffic->sends[kind];

        if (need->count == 0) {
            continue;
        }
        compute->pools[kind] = frame_pool_create(need->count, need->payload_bytes, err);
        if (compute->pools[kind] == NULL) {
            return false;
        }
    }
    return true;
}

static void make_rings(struct compute *compute)
{
    const struct traffic *traffic = compute->traffic;

    compute->steps = ring_create(compute->work_count);
    compute->finished = ring_create(compute->work_count);
    compute->frames = ring_create(FRAME_RING_ITEMS);
    compute->outgoing = mem_new_array(struct ring *, traffic->peer_count);
    for (uint32_t i = 0; i < traffic->peer_count; i++) {
        compute->outgoing[i] = ring_create(traffic->frames_per_link_max + 1);
    }
    compute->inbox = inbox_create(traffic->frames_early_max + 1);
}

struct compute *compute_start(const struct compute_config *config, struct error *err)
{
    struct compute *compute = mem_new(struct compute);
    int problem;

    compute->exchange.ops = &exchange_ops;
    compute->stage = config->stage;
    compute->traffic = config->traffic;
    compute->waker = config->waker;
    compute->work_count = config->work_count;
    compute->works = mem_new_array(struct work, config->work_count);
    for (uint32_t i = 0; i < config->work_count; i++) {
        stage_job_init(&compute->works[i].job);
        compute->works[i].is_free = true;
    }
    make_rings(compute);
    if (!make_pools(compute, err)) {
        compute_destroy(compute);
        return NULL;
    }
    problem = pthread_create(&compute->thread, NULL, compute_main, compute);
    if (problem != 0) {
        errno = problem;
        error_set_errno(err, "compute thread");
        compute_destroy(compute);
        return NULL;
    }
    compute->is_started = true;
    return compute;
}

void compute_request_stop(struct compute *compute)
{
    atomic_store(&compute->stop, true);
    bell_ring(compute);
}

bool compute_has_stopped(const struct compute *compute)
{
    return atomic_load(&compute->stopped);
}

static void release_ring(struct ring *ring)
{
    struct frame *frame;

    while ((frame = ring_pop(ring)) != NULL) {
        frame_release(frame);
    }
    ring_destroy(ring);
}

void compute_destroy(struct compute *compute)
{
    if (compute == NULL) {
        return;
    }
    if (compute->is_started) {
        compute_request_stop(compute);
        (void)pthread_join(compute->thread, NULL);
    }
    for (uint32_t i = 0; i < compute->traffic->peer_count; i++) {
        release_ring(compute->outgoing[i]);
    }
    mem_free(compute->outgoing);
    release_ring(compute->frames);
    ring_destroy(compute->steps);
    ring_destroy(compute->finished);
    inbox_destroy(compute->inbox);
    for (uint32_t kind = 0; kind < FRAME_KIND_COUNT; kind++) {
        frame_pool_destroy(compute->pools[kind]);
    }
    for (uint32_t i = 0; i < compute->work_count; i++) {
        stage_job_deinit(&compute->works[i].job);
    }
    mem_free(compute->works);
    mem_free(compute);
}

/* --- the communication thread's side --- */

struct work *compute_free_work(struct compute *compute)
{
    for (uint32_t i = 0; i < compute->work_count; i++) {
        if (compute->works[i].is_free) {
            return &compute->works[i];
        }
    }
    return NULL;
}

void compute_attempt(struct compute *compute, uint32_t attempt)
{
    if (attempt > atomic_load(&compute->attempt)) {
        atomic_store(&compute->attempt, attempt);
        bell_ring(compute);
    }
}

uint32_t compute_void_steps(const struct compute *compute)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < compute->work_count; i++) {
        const struct work *work = &compute->works[i];

        count +=
            work->is_submitted && work->job.step.attempt < atomic_load(&compute->attempt) ? 1 : 0;
    }
    return count;
}

void compute_submit(struct compute *compute, struct work *work)
{
    bool pushed;

    ASSERT(work->is_free);
    compute_attempt(compute, work->job.step.attempt);
    work->is_free = false;
    work->is_submitted = true;
    pushed = ring_push(compute->steps, work);
    ASSERT(pushed); /* the ring holds all slots */
    compute->open_steps++;
    bell_ring(compute);
}

struct work *compute_finished(struct compute *compute)
{
    struct work *work = ring_pop(compute->finished);

    if (work != NULL) {
        work->is_submitted = false;
        compute->open_steps--;
    }
    return work;
}

void compute_release(struct work *work)
{
    ASSERT(!work->is_free && !work->is_submitted);
    stage_job_reset(&work->job);
    work->is_free = true;
}

uint32_t compute_open_steps(const struct compute *compute)
{
    return compute->open_steps;
}

bool compute_may_doze(struct compute *compute)
{
    atomic_store(&compute->other_dozes, true);
    if (atomic_load(&compute->waits_for_frame)) {
        atomic_store(&compute->other_dozes, false);
        return false;
    }
    return true;
}

bool compute_offer_frame(struct compute *compute, struct frame *frame)
{
    if (!ring_push(compute->frames, frame)) {
        return false;
    }
    bell_ring(compute);
    return true;
}

struct frame *compute_outgoing(struct compute *compute, uint32_t *peer)
{
    for (uint32_t i = 0; i < compute->traffic->peer_count; i++) {
        struct frame *frame = ring_pop(compute->outgoing[i]);

        if (frame != NULL) {
            *peer = compute->traffic->peers[i];
            return frame;
        }
    }
    return NULL;
}

struct compute_counters compute_counters(const struct compute *compute)
{
    return (struct compute_counters){
        .busy_ns = atomic_load(&compute->busy_ns),
        .wait_ns = atomic_load(&compute->wait_ns),
        .steps = atomic_load(&compute->step_count),
        .frames_dropped = atomic_load(&compute->dropped_count),
    };
}
