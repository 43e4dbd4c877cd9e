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

/* --- shares of the machines' limits --- */

static double part_inside(const struct cluster_step_span *span, const struct bench_window *window)
{
    int64_t begin_ns = span->begin_ns > window->begin_ns ? span->begin_ns : window->begin_ns;
    int64_t end_ns = span->end_ns < window->end_ns ? span->end_ns : window->end_ns;
    int64_t whole_ns = span->end_ns - span->begin_ns;

    return end_ns > begin_ns ? (double)(end_ns - begin_ns) / (double)whole_ns : 0;
}

/* What one machine needed at least. */
struct least {
    double memory_s, arithmetic_s;
};

static struct least machine_least(const struct cluster_step_span *spans, size_t span_count,
                                  const struct bench_window *window,
                                  const struct bench_machine *machine)
{
    struct least least = {0, 0};

    for (size_t i = 0; i < span_count; i++) {
        const struct cluster_step_span *span = &spans[i];
        double part = span->worker == machine->worker ? part_inside(span, window) : 0;

        if (part > 0) {
            least.memory_s += part * profile_memory_seconds(&machine->limits, span->read_bytes);
            least.arithmetic_s +=
                part * profile_arithmetic_seconds(&machine->limits, span->int8_operations,
                                                  span->f32_operations);
        }
    }
    return least;
}

static double greater(double a, double b)
{
    return a > b ? a : b;
}

/* Steps are numbered without gaps. */
static double steps_in_flight(const struct cluster_step_span *spans, size_t span_count,
                              const struct bench_window *window)
{
    uint64_t first = UINT64_MAX, last = 0;
    struct bench_window *steps;
    double sum = 0;

    for (size_t i = 0; i < span_count; i++) {
        first = spans[i].step < first ? spans[i].step : first;
        last = spans[i].step > last ? spans[i].step : last;
    }
    if (span_count == 0 || last - first >= span_count) {
        return 0;
    }
    steps = mem_new_array(struct bench_window, last - first + 1);
    for (size_t i = 0; i < span_count; i++) {
        struct bench_window *step = &steps[spans[i].step - first];

        if (step->end_ns == 0 || spans[i].begin_ns < step->begin_ns) {
            step->begin_ns = spans[i].begin_ns;
        }
        step->end_ns = spans[i].end_ns > step->end_ns ? spans[i].end_ns : step->end_ns;
    }
    for (uint64_t i = 0; i <= last - first; i++) {
        struct cluster_step_span whole = {.begin_ns = steps[i].begin_ns, .end_ns = steps[i].end_ns};

        sum += part_inside(&whole, window) * (double)(whole.end_ns - whole.begin_ns);
    }
    mem_free(steps);
    return sum / (double)(window->end_ns - window->begin_ns);
}

struct bench_shares bench_limit_shares(const struct cluster_step_span *spans, size_t span_count,
                                       const struct bench_window *window,
                                       const struct bench_machine *machines, uint32_t machine_count,
                                       uint32_t stage_count)
{
    double window_s = (double)(window->end_ns - window->begin_ns) * 1e-9;
    struct least sum = {0, 0}, most = {0, 0};
    struct bench_shares shares = {0};
    double overlap;

    if (window_s <= 0) {
        return shares;
    }
    for (uint32_t stage = 0; stage < stage_count; stage++) {
        struct least slowest = {0, 0};

        for (uint32_t i = 0; i < machine_count; i++) {
            if (machines[i].stage == stage) {
                struct least own = machine_least(spans, span_count, window, &machines[i]);

                slowest.memory_s = greater(slowest.memory_s, own.memory_s);
                slowest.arithmetic_s = greater(slowest.arithmetic_s, own.arithmetic_s);
            }
        }
        sum.memory_s += slowest.memory_s;
        sum.arithmetic_s += slowest.arithmetic_s;
        most.memory_s = greater(most.memory_s, slowest.memory_s);
        most.arithmetic_s = greater(most.arithmetic_s, slowest.arithmetic_s);
    }
    shares.steps_in_flight = steps_in_flight(spans, span_count, window);
    overlap = greater(1, (double)(uint64_t)(shares.steps_in_flight + 0.5));
    overlap = overlap < stage_count ? overlap : stage_count;
    shares.memory = greater(most.memory_s, sum.memory_s / overlap) / window_s;
    shares.arithmetic = greater(most.arithmetic_s, sum.arithmetic_s / overlap) / window_s;
    return shares;
}
