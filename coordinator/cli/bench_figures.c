/* bench_figures.c - from spans and samples to figures. */
#include "coordinator/cli/bench_figures.h"

#include "common/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *bench_test_name(const struct bench_test *test, struct bench_name *out)
{
    (void)snprintf(out->text, sizeof(out->text), "%s%u", test->kind == BENCH_PROMPT ? "pp" : "tg",
                   test->token_count);
    return out->text;
}

static int compare_numbers(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;

    return (left > right) - (left < right);
}

double bench_median(const double *values, size_t count)
{
    double *sorted;
    double median;

    if (count == 0) {
        return 0;
    }
    sorted = mem_new_array(double, count);
    memcpy(sorted, values, count * sizeof(*sorted));
    qsort(sorted, count, sizeof(*sorted), compare_numbers);
    median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
    mem_free(sorted);
    return median;
}

struct bench_range bench_range(const double *values, size_t count)
{
    struct bench_range range = {0, 0};

    for (size_t i = 0; i < count; i++) {
        range.min = i == 0 || values[i] < range.min ? values[i] : range.min;
        range.max = i == 0 || values[i] > range.max ? values[i] : range.max;
    }
    return range;
}

static double busy_ns(const struct cluster_step_span *span, const struct bench_window *window)
{
    int64_t begin_ns = span->begin_ns > window->begin_ns ? span->begin_ns : window->begin_ns;
    int64_t end_ns = span->end_ns < window->end_ns ? span->end_ns : window->end_ns;
    double whole = (double)(span->end_ns - span->begin_ns);

    if (end_ns <= begin_ns) {
        return 0;
    }
    return (double)(end_ns - begin_ns) * (whole - (double)span->wait_ns) / whole;
}

void bench_stage_busy(const struct cluster_step_span *spans, size_t span_count,
                      const struct bench_window *window, const uint32_t *member_counts,
                      uint32_t stage_count, double *out)
{
    double length = (double)(window->end_ns - window->begin_ns);

    memset(out, 0, stage_count * sizeof(*out));
    for (size_t i = 0; i < span_count; i++) {
        if (spans[i].stage < stage_count) {
            out[spans[i].stage] += busy_ns(&spans[i], window);
        }
    }
    for (uint32_t stage = 0; stage < stage_count; stage++) {
        out[stage] = length > 0 ? out[stage] / (length * member_counts[stage]) : 0;
    }
}

double bench_rows_per_step(const struct cluster_step_span *spans, size_t span_count,
                           const struct bench_window *window)
{
    uint64_t rows = 0;
    uint64_t steps = 0;

    for (size_t i = 0; i < span_count; i++) {
        const struct cluster_step_span *span = &spans[i];

        if (span->stage == 0 && span->end_ns > window->begin_ns && span->end_ns <= window->end_ns) {
            rows += span->rows;
            steps += span->member == 0; /* every member answers every step */
        }
    }
    return steps > 0 ? (double)rows / (double)steps : 0;
}
