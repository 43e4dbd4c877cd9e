#ifndef SHOAL_CLI_BENCH_REPORT_H
#define SHOAL_CLI_BENCH_REPORT_H

/* What `shoal bench` prints: a table for people, or one JSON object a line for each test. */
#include "common/base/buffer.h"
#include "coordinator/cli/bench_figures.h"

#include <jansson.h>

struct bench_result {
    struct bench_test test;
    uint32_t sample_count;
    double *tokens_per_s; /* [sample_count] in order */
    double rows_per_step; /* medians over the samples */
    struct bench_shares shares;
    uint32_t machine_count;
    const struct bench_machine *machines;
    uint32_t stage_count;
    double *stage_busy; /* [stage_count] */
};

/* {"test":"tg64","depth":0,"batch":1,"tokens_per_s":median,"samples":[…],"stage_busy":[…],
 * "rows_per_step":…,"steps_in_flight":…,"memory_share":…,"arithmetic_share":…,
 * "limits":[{"worker":0,"read_bytes_per_s":…,…}]}; the caller's. */
json_t *bench_result_json(const struct bench_result *result);
/* "test  depth  batch  …": the head line, and a line for each result. */
void bench_table_head(struct buffer *out);
void bench_table_line(const struct bench_result *result, struct buffer *out);
/* "worker 0: reads 26.3 GB/s, …": a line for each machine. */
void bench_limits_lines(const struct bench_machine *machines, uint32_t machine_count,
                        struct buffer *out);

#endif
