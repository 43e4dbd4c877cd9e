#ifndef SHOAL_PLAN_PLAN_TIME_H
#define SHOAL_PLAN_PLAN_TIME_H

/* How fast a placement could be, at most. Pure.
 *
 * First form: a worker takes the bytes that a step makes it read over its read bandwidth, a message
 * takes latency and bytes over bandwidth. No arithmetic, no waiting for each other: true steps are
 * slower, at large batches much so, and the figures are bounds, good for comparing layouts.
 *
 * Read are, in each step, all common weights of a stage's layers (by each member that has rows),
 * the head on the last stage, the cache of each row's sequence, and of the routed experts those
 * that the rows visit: of E experts of which a row chooses k, each with probability 1 - (1 -
 * k/E)^rows. The draft layer is left out, and so is what its drafts save.
 */
#include "common/plan/machine.h"
#include "common/plan/planner.h"

/* Sequences are taken to be this long, or as long as the context. */
#define PLAN_SEQUENCE_TOKENS 4096

/* Between workers of one machine: ZeroMQ over loopback TCP, seen on small machines. */
#define PLAN_LOCAL_LATENCY_S   25e-6
#define PLAN_LOCAL_BYTES_PER_S 3e9

struct plan_facts {
    const struct planner_request *request;
    const struct plan_port *ports; /* [request->worker_count] */
    uint32_t hidden;
    uint32_t chosen_count; /* experts of a row */
    uint32_t parts_max;    /* sums that one row's experts come back as: chosen router groups, or
                              experts where there are no groups */
};

/* Seconds of a step, all stages together or one of them. */
struct plan_parts {
    double read_s;     /* weights and cache */
    double exchange_s; /* dispatch and combine in stage groups */
    double hop_s;      /* to the next stage, and the coordinator's turn */
};

struct plan_time {
    struct plan_parts alone; /* one sequence alone: a token's way through all stages */
    double token_s;          /* their sum */
    double alone_tokens_per_s;

    uint32_t sequences;     /* at full load: as many as have a slot and room in the cache */
    uint32_t step_rows;     /* of these in each step, one step for each stage under way */
    struct plan_parts full; /* of the stage that takes longest, in such a step */
    uint32_t slowest_stage;
    double full_tokens_per_s;
};

struct plan_time plan_time_of(const struct plan_facts *facts, const struct placement *placement);

enum plan_limit { PLAN_LIMIT_READ, PLAN_LIMIT_EXCHANGE, PLAN_LIMIT_HOPS };
enum plan_limit plan_limit_of(const struct plan_parts *parts); /* the largest part */
const char *plan_limit_name(enum plan_limit limit);            /* "reading memory" */

#endif
