/* team.c - fork-join over tiles with one 64-bit ticket.
 *
 * The ticket holds the job's number (high half) and how many of its tiles nobody has claimed yet
 * (low half). Claiming is a compare-and-swap that takes one off; it succeeds only while that very
 * job has tiles left, so a thread that wakes late can never touch a finished job, and no job waits
 * for a thread that did not wake: on a busy machine the caller simply does more tiles itself. The
 * job's fields are written before the ticket is published and not again before all its tiles are
 * done, which is what makes reading them before the claim safe.
 *
 * Sleeping: workers on the futex word `published` (bumped after the ticket), the caller on
 * `done_count`. Each side writes its word, then reads the other's "asleep" mark, and the sleeper
 * does it the other way round; sequential consistency keeps the wake-up from being lost. Atomics
 * only, no fences, so that the thread sanitizer sees every edge.
 */
#include "worker/team/team.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "worker/team/cores.h"
#include "worker/team/pinning.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SPIN_NS_DEFAULT  (20 * NS_PER_US)
#define SPIN_CLOCK_TURNS 32 /* pauses between two looks at the clock */
#define THREADS_MAX      4096
#define CACHE_LINE       64

#define TICKET_JOB(ticket)  ((ticket) >> 32)
#define TICKET_LEFT(ticket) ((uint32_t)(ticket))

struct member {
    struct team *team;
    uint32_t thread;
    pthread_t handle;
};

struct team {
    uint32_t thread_count;
    int64_t spin_ns;
    uint64_t job;            /* the owner's: number of the last job */
    struct pinning *pinning; /* NULL: the threads move about */
    struct member *members;
    uint32_t started_count; /* members with a running thread: 1 … started_count */

    _Alignas(CACHE_LINE) atomic_uint_fast64_t ticket;
    _Alignas(CACHE_LINE) _Atomic(team_fn) fn;
    _Atomic(void *) context;
    atomic_uint tile_count;
    atomic_bool stop;
    _Alignas(CACHE_LINE)
        atomic_uint published; /* futex word: goes up with each job, and at the end */
    atomic_uint sleeper_count; /* workers on `published` */
    _Alignas(CACHE_LINE) atomic_uint done_count; /* futex word: tiles finished */
    atomic_bool caller_sleeps;
};

/* Returns at once unless *word still has `value`; may return early. */
static void futex_wait(atomic_uint *word, unsigned value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(atomic_uint *word, int count)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

static void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Claims tiles of the job in `ticket` until none is left; returns how many it ran. */
static uint32_t run_tiles(struct team *team, uint64_t ticket, uint32_t thread)
{
    team_fn fn = atomic_load_explicit(&team->fn, memory_order_relaxed);
    void *context = atomic_load_explicit(&team->context, memory_order_relaxed);
    uint32_t tile_count = atomic_load_explicit(&team->tile_count, memory_order_relaxed);
    uint64_t job = TICKET_JOB(ticket);
    uint32_t ran = 0;

    while (TICKET_JOB(ticket) == job && TICKET_LEFT(ticket) > 0) {
        uint_fast64_t seen = ticket;

        if (atomic_compare_exchange_weak(&team->ticket, &seen, ticket - 1)) {
            fn(context, tile_count - TICKET_LEFT(ticket), thread);
            ran++;
            seen = atomic_load(&team->ticket);
        }
        ticket = seen;
    }
    return ran;
}

/* A worker's share of a job, and the word to the caller when it finished the last tile. */
static void work(struct team *team, uint64_t ticket, uint32_t thread)
{
    uint32_t tile_count = atomic_load_explicit(&team->tile_count, memory_order_relaxed);
    uint32_t ran = run_tiles(team, ticket, thread);

    if (ran > 0 && atomic_fetch_add(&team->done_count, ran) + ran == tile_count &&
        atomic_load(&team->caller_sleeps)) {
        futex_wake(&team->done_count, 1);
    }
}

static bool has_work(struct team *team, uint64_t *ticket)
{
    *ticket = atomic_load(&team->ticket);
    return TICKET_LEFT(*ticket) > 0;
}

static bool spin_for_work(struct team *team, uint64_t *ticket)
{
    int64_t end_ns;

    if (team->spin_ns <= 0) {
        return false;
    }
    end_ns = clock_monotonic_ns() + team->spin_ns;
    do {
        for (int turn = 0; turn < SPIN_CLOCK_TURNS; turn++) {
            if (has_work(team, ticket) || atomic_load(&team->stop)) {
                return true;
            }
            pause_briefly();
        }
    } while (clock_monotonic_ns() < end_ns);
    return false;
}

static void sleep_for_work(struct team *team)
{
    unsigned published = atomic_load(&team->published);
    uint64_t ticket;

    if (has_work(team, &ticket) || atomic_load(&team->stop)) {
        return;
    }
    atomic_fetch_add(&team->sleeper_count, 1);
    futex_wait(&team->published, published);
    atomic_fetch_sub(&team->sleeper_count, 1);
}

static void *member_main(void *argument)
{
    struct member *member = argument;
    struct team *team = member->team;
    uint64_t ticket;

    pinning_apply(team->pinning, member->thread);
    while (!atomic_load(&team->stop)) {
        if (has_work(team, &ticket)) {
            work(team, ticket, member->thread);
        } else if (!spin_for_work(team, &ticket)) {
            sleep_for_work(team);
        }
    }
    return NULL;
}

/* Signals belong to the thread that owns the process's loop, never to the team. */
static bool start_member(struct member *member, struct error *err)
{
    sigset_t all, before;
    char name[16];
    int failed;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(&member->handle, NULL, member_main, member);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed != 0) {
        errno = failed;
        return error_set_errno(err, "starting compute thread %u", member->thread);
    }
    snprintf(name, sizeof(name), "team %u", member->thread);
    pthread_setname_np(member->handle, name);
    return true;
}

struct team *team_create(const struct team_config *config, struct error *err)
{
    uint32_t cores = cores_available();
    uint32_t thread_count = config->thread_count > 0 ? config->thread_count : cores;
    struct team *team;

    if (thread_count > THREADS_MAX) {
        error_set(err, ERROR_LIMIT, "%u compute threads asked for, at most %u", thread_count,
                  THREADS_MAX);
        return NULL;
    }
    team = mem_new(struct team);
    team->thread_count = thread_count;
    team->spin_ns = config->spin_ns < 0 ? SPIN_NS_DEFAULT : config->spin_ns;
    if (thread_count > cores) {
        team->spin_ns = 0; /* spinning would take the core from the thread that has work */
    }
    team->pinning = pinning_create(thread_count);
    team->members = mem_new_array(struct member, thread_count);
    for (uint32_t thread = 1; thread < thread_count; thread++) {
        team->members[thread].team = team;
        team->members[thread].thread = thread;
        if (!start_member(&team->members[thread], err)) {
            team_destroy(team);
            return NULL;
        }
        team->started_count = thread;
    }
    return team;
}

void team_destroy(struct team *team)
{
    if (team == NULL) {
        return;
    }
    atomic_store(&team->stop, true);
    atomic_fetch_add(&team->published, 1);
    futex_wake(&team->published, INT_MAX);
    for (uint32_t thread = 1; thread <= team->started_count; thread++) {
        pthread_join(team->members[thread].handle, NULL);
    }
    pinning_destroy(team->pinning);
    mem_free(team->members);
    mem_free(team);
}

void team_join(const struct team *team)
{
    pinning_apply(team->pinning, 0);
}

void team_spread(const struct team *team, const void *memory, uint64_t bytes)
{
    pinning_spread(team->pinning, memory, bytes);
}

uint32_t team_thread_count(const struct team *team)
{
    return team->thread_count;
}

static void publish(struct team *team, team_fn fn, void *context, uint32_t tile_count)
{
    uint32_t helpers =
        tile_count - 1 < team->thread_count - 1 ? tile_count - 1 : team->thread_count - 1;

    atomic_store_explicit(&team->fn, fn, memory_order_relaxed);
    atomic_store_explicit(&team->context, context, memory_order_relaxed);
    atomic_store_explicit(&team->tile_count, tile_count, memory_order_relaxed);
    atomic_store_explicit(&team->done_count, 0, memory_order_relaxed);
    team->job++;
    atomic_store(&team->ticket, team->job << 32 | tile_count);
    atomic_fetch_add(&team->published, 1);
    if (atomic_load(&team->sleeper_count) > 0) {
        futex_wake(&team->published, (int)helpers);
    }
}

static bool spin_for_done(struct team *team, uint32_t tile_count)
{
    int64_t end_ns = clock_monotonic_ns() + team->spin_ns;

    do {
        for (int turn = 0; turn < SPIN_CLOCK_TURNS; turn++) {
            if (atomic_load(&team->done_count) == tile_count) {
                return true;
            }
            pause_briefly();
        }
    } while (clock_monotonic_ns() < end_ns);
    return false;
}

static void wait_for_done(struct team *team, uint32_t tile_count)
{
    unsigned done;

    if (team->spin_ns > 0 && spin_for_done(team, tile_count)) {
        return;
    }
    atomic_store(&team->caller_sleeps, true);
    while ((done = atomic_load(&team->done_count)) != tile_count) {
        futex_wait(&team->done_count, done);
    }
    atomic_store(&team->caller_sleeps, false);
}

void team_run(struct team *team, team_fn fn, void *context, size_t tile_count)
{
    uint32_t ran;

    ASSERT(tile_count <= UINT32_MAX);
    if (team->thread_count == 1 || tile_count <= 1) {
        for (size_t tile = 0; tile < tile_count; tile++) {
            fn(context, tile, 0);
        }
        return;
    }
    publish(team, fn, context, (uint32_t)tile_count);
    ran = run_tiles(team, atomic_load(&team->ticket), 0);
    if (atomic_fetch_add(&team->done_count, ran) + ran != tile_count) {
        wait_for_done(team, (uint32_t)tile_count);
    }
}
