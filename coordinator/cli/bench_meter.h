#ifndef SHOAL_CLI_BENCH_METER_H
#define SHOAL_CLI_BENCH_METER_H

/* Runs one repetition of a test on a serving cluster and times it.
 *
 * Prompts are random tokens, other ones for each sequence and each repetition, so that no prefix
 * cache answers for what is timed. Only the context of a generation is the same every time: filling
 * it is not timed.
 *
 *   prompt    the time from the first submission to the last sequence's first token, less the time
 *             of the depth alone, measured just before; where the depth came out of a prefix cache
 *             only what was computed counts. Without such a cache the busy shares are those of the
 *             whole prompt, depth included.
 *   generate  begins when every sequence has its first token and one more round has passed, ends
 *             after `token_count` tokens for each: sequences keep decoding beyond both ends, so the
 *             pipeline is neither filled nor drained inside.
 *
 * Owner: the main thread; the sinks run on the cluster's.
 */
#include "coordinator/cli/bench_figures.h"

struct bench_meter;
struct bench_meter *bench_meter_create(struct error *err) MUST_CHECK;
/* After the cluster has stopped. NULL is legal. */
void bench_meter_destroy(struct bench_meter *meter);

/* Goes into the cluster's configuration with the meter as context. */
void bench_meter_step(void *meter, const struct cluster_step_span *span);

/* Tokens that a sequence of the test takes at most: what the context must hold. */
uint32_t bench_meter_tokens_max(const struct bench_test *test);

/* The seated workers of a serving cluster; mem_free them. */
struct bench_machine *bench_meter_machines(struct cluster *cluster, uint32_t *count);

struct bench_sample {
    double tokens_per_s; /* of all sequences together */
    double rows_per_step;
    struct bench_shares shares;
    double *stage_busy; /* [stage_count], the caller's */
};
/* ERROR_PEER: the cluster failed, or "interrupted"; ERROR_LIMIT: too few tokens to be timed. */
bool bench_meter_run(struct bench_meter *meter, struct cluster *cluster, uint32_t vocab,
                     const struct bench_test *test, struct bench_sample *out,
                     struct error *err) MUST_CHECK;

#endif
