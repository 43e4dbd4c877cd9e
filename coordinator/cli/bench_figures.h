#ifndef SHOAL_CLI_BENCH_FIGURES_H
#define SHOAL_CLI_BENCH_FIGURES_H

/* What `shoal bench` measures and the arithmetic on it. Pure. */
#include "coordinator/cluster/cluster.h"

#include <stddef.h>

enum bench_kind {
    BENCH_PROMPT,   /* "pp512": from the first submission to the last first token */
    BENCH_GENERATE, /* "tg64": while every sequence decodes */
};
struct bench_test {
    enum bench_kind kind;
    uint32_t token_count; /* of each sequence, timed */
    uint32_t depth;       /* tokens of each sequence before these, not timed */
    uint32_t batch;       /* sequences at once */
};
struct bench_name {
    char text[16];
};
const char *bench_test_name(const struct bench_test *test, struct bench_name *out);

/* Of the unsorted values; 0 for none. */
double bench_median(const double *values, size_t count);
struct bench_range {
    double min, max;
};
struct bench_range bench_range(const double *values, size_t count);

struct bench_window {
    int64_t begin_ns, end_ns;
};
/* Shares of the window in which each stage computed, mean of its members: spans count with the part
 * that lies inside, less their waiting in proportion.
 *   member_counts  [stage_count], at least 1 each
 *   out            [stage_count] 0 … 1 */
void bench_stage_busy(const struct cluster_step_span *spans, size_t span_count,
                      const struct bench_window *window, const uint32_t *member_counts,
                      uint32_t stage_count, double *out);
/* Rows of a step on stage 0, all members together, mean over the steps that ended in the window; 0
 * for none. */
double bench_rows_per_step(const struct cluster_step_span *spans, size_t span_count,
                           const struct bench_window *window);

/* How near to what its machines could do at most a cluster was. */
struct bench_machine {
    uint32_t worker, stage;
    struct machine_limits limits;
};
struct bench_shares {
    double steps_in_flight; /* mean, from the first stage's begin to the last one's end */
    double memory;          /* the least time for reading weights and cache, over the window */
    double arithmetic;      /* the least time for the products, over the window */
};
/* A worker's least time is what its spans inside the window read (or compute) over its measured
 * limit; a stage's is that of its slowest member. Stages work one after another for a single step,
 * so their times add up; k steps in flight divide the sum by at most k, and by no more than leaves
 * the slowest stage its time. 0 where limits were not measured. */
struct bench_shares bench_limit_shares(const struct cluster_step_span *spans, size_t span_count,
                                       const struct bench_window *window,
                                       const struct bench_machine *machines, uint32_t machine_count,
                                       uint32_t stage_count);

#endif
