/* clock.c - the two clocks: one for durations, one for dates. */
#include "common/base/clock.h"

#include "common/base/check.h"

#include <time.h>

static struct timespec clock_now(clockid_t id)
{
    struct timespec now;
    int failed = clock_gettime(id, &now);

    ASSERT(!failed);
    return now;
}

int64_t clock_monotonic_ns(void)
{
    struct timespec now = clock_now(CLOCK_MONOTONIC);

    return (int64_t)now.tv_sec * NS_PER_S + (int64_t)now.tv_nsec;
}

int64_t clock_unix_s(void)
{
    return (int64_t)clock_now(CLOCK_REALTIME).tv_sec;
}
