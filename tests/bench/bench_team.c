/* bench_team.c - what a round of the team costs: its wake-up and its barrier, with nothing to do.
 *
 * Usage: bench.team [THREADS]. Rounds of one tile for each thread, which ends when all threads have
 * begun theirs: back to back, as the operations of a step follow each other (everyone still spins),
 * and after a pause in which the threads have gone to sleep. Another line gives every thread work
 * for some microseconds after such a pause, and says how many of the tiles the woken threads took.
 */
#include "common/base/clock.h"
#include "worker/team/team.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ROUNDS       20000
#define ROUNDS_SLEPT 200
#define SLEEP_NS     (2 * NS_PER_MS)
#define WORK_TILES   64
#define WORK_TILE_NS (20 * NS_PER_US)

struct meeting {
    uint32_t thread_count;
    atomic_uint arrived;
};

static void meet(void *context, size_t tile, uint32_t thread)
{
    struct meeting *meeting = context;

    (void)tile;
    (void)thread;
    atomic_fetch_add(&meeting->arrived, 1);
    while (atomic_load(&meeting->arrived) < meeting->thread_count) {
    }
}

static void busy(void *context, size_t tile, uint32_t thread)
{
    const int64_t end_ns = clock_monotonic_ns() + WORK_TILE_NS;
    atomic_uint *others = context;

    (void)tile;
    while (clock_monotonic_ns() < end_ns) {
    }
    if (thread > 0) {
        atomic_fetch_add(others, 1);
    }
}

static int by_value(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

static void line_print(const char *what, int64_t *ns, size_t count)
{
    qsort(ns, count, sizeof(*ns), by_value);
    printf("%-28s median %7.2f us, 99 %% %8.2f us\n", what, (double)ns[count / 2] * 1e-3,
           (double)ns[count * 99 / 100] * 1e-3);
}

static void rounds_run(struct team *team, const char *what, size_t count, bool slept)
{
    static int64_t ns[ROUNDS];

    for (size_t i = 0; i < count; i++) {
        struct meeting meeting = {.thread_count = team_thread_count(team)};
        int64_t began;

        if (slept) {
            nanosleep(&(struct timespec){.tv_nsec = SLEEP_NS}, NULL);
        }
        began = clock_monotonic_ns();
        team_run(team, meet, &meeting, meeting.thread_count);
        ns[i] = clock_monotonic_ns() - began;
    }
    line_print(what, ns, count);
}

static void work_run(struct team *team)
{
    static int64_t ns[ROUNDS_SLEPT];
    atomic_uint others = 0;

    for (size_t i = 0; i < ROUNDS_SLEPT; i++) {
        int64_t began;

        nanosleep(&(struct timespec){.tv_nsec = SLEEP_NS}, NULL);
        began = clock_monotonic_ns();
        team_run(team, busy, &others, WORK_TILES);
        ns[i] = clock_monotonic_ns() - began;
    }
    line_print("64 tiles of 20 us, asleep", ns, ROUNDS_SLEPT);
    printf("%-28s %.1f %% of these tiles\n", "woken threads took",
           100.0 * others / (ROUNDS_SLEPT * WORK_TILES));
}

int main(int argc, char **argv)
{
    const struct team_config config = {argc > 1 ? (uint32_t)atoi(argv[1]) : 0, -1};
    struct error err;
    struct team *team = team_create(&config, &err);

    if (team == NULL) {
        fprintf(stderr, "bench.team: %s\n", err.message);
        return 1;
    }
    team_join(team);
    printf("%u threads\n", team_thread_count(team));
    rounds_run(team, "empty round, spinning", ROUNDS, false);
    rounds_run(team, "empty round, asleep", ROUNDS_SLEPT, true);
    work_run(team);
    team_destroy(team);
    return 0;
}
