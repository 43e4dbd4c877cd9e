#ifndef SHOAL_BASE_CLOCK_H
#define SHOAL_BASE_CLOCK_H

/* Time. Pure rooms get it as an argument instead. */
#include <stdint.h>

#define NS_PER_US INT64_C(1000)
#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S  INT64_C(1000000000)

int64_t clock_monotonic_ns(void); /* CLOCK_MONOTONIC: comparable within one machine */
int64_t clock_unix_s(void);

#endif
