/* histogram.c - durations by size: one relaxed addition each. */
#include "coordinator/api/histogram.h"

#include "common/base/clock.h"

#include <inttypes.h>

static const int64_t bounds_us[HISTOGRAM_BOUNDS] = {
    20,   50,    100,   150,   200,    300,    500,    1000,    2000,
    5000, 10000, 20000, 50000, 100000, 200000, 500000, 1000000, 10000000,
};

void histogram_observe(struct histogram *histogram, int64_t duration_ns)
{
    size_t i = 0;

    duration_ns = duration_ns > 0 ? duration_ns : 0;
    while (i < HISTOGRAM_BOUNDS && duration_ns > bounds_us[i] * NS_PER_US) {
        i++;
    }
    atomic_fetch_add_explicit(&histogram->counts[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->sum_ns, (uint64_t)duration_ns, memory_order_relaxed);
}

void histogram_write(const struct histogram *histogram, const char *name, const char *help,
                     struct buffer *out)
{
    uint64_t count = 0;

    buffer_printf(out, "# HELP %s %s\n# TYPE %s histogram\n", name, help, name);
    for (size_t i = 0; i <= HISTOGRAM_BOUNDS; i++) {
        count += atomic_load_explicit(&histogram->counts[i], memory_order_relaxed);
        if (i < HISTOGRAM_BOUNDS) {
            buffer_printf(out, "%s_bucket{le=\"%g\"} %" PRIu64 "\n", name,
                          (double)bounds_us[i] / 1e6, count);
        }
    }
    buffer_printf(out, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n%s_sum %.9g\n%s_count %" PRIu64 "\n",
                  name, count, name,
                  (double)atomic_load_explicit(&histogram->sum_ns, memory_order_relaxed) / 1e9,
                  name, count);
}
