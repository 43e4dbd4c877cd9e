#ifndef SHOAL_PLAN_PLAN_SEARCH_H
#define SHOAL_PLAN_PLAN_SEARCH_H

/* Which layout: pipelines of single workers, or fewer stages of groups. Pure.
 *
 * Tried are all layouts that use every worker: S stages of G for each S * G that is their number,
 * and, where they are more than layers or cannot be divided so, as many stages as can be with
 * groups that differ by one. A request that names its layout is tried with that alone. Every layout
 * is planned by planner_try; of those that fit the one with the best modelled time is chosen, on
 * equal times the one with smaller groups.
 */
#include "common/plan/plan_time.h"

enum plan_objective {
    PLAN_THROUGHPUT, /* most tokens a second at full load */
    PLAN_LATENCY,    /* least time of a token of one sequence alone */
};
enum plan_context {
    PLAN_CONTEXT_FIXED,   /* as the request says */
    PLAN_CONTEXT_SHRINKS, /* halved until a layout fits, not below PLAN_CONTEXT_MIN */
};
#define PLAN_CONTEXT_MIN 1024
/* Where no layout fits even so, steps are halved, not below this, and the context starts anew. */
#define PLAN_STEP_ROWS_MIN 64

struct plan_search {
    struct plan_facts facts;
    /* Bytes beside weights and KV are asked for each layout: fills the request's fixed_bytes,
     * buffer_bytes and frame_bytes from its layout, context and steps. */
    void (*size)(void *context, struct planner_request *request);
    void *size_context;
    enum plan_objective objective;
    enum plan_context context;
};

struct plan_layout {
    uint32_t stage_count;
    uint32_t group_size; /* of the largest stage */
    bool even;           /* all stages are of this size */
    struct planner_request request;
    struct placement *placement; /* NULL: does not fit */
    struct plan_time time;       /* if it fits */
};

struct plan_outcome {
    uint32_t layout_count;
    struct plan_layout *layouts; /* smaller groups first */
    uint32_t fitting_count;
    uint32_t chosen; /* of the layouts; if none fits, that which comes closest */
    /* At which they were tried; if none fits, what was wanted. */
    uint32_t context_tokens, step_rows_max;
    uint32_t step_rows_wanted;
    struct planner_refusal *refusal; /* of the chosen one; NULL: it fits */
};

/* In the arena. NULL only for requests that make no sense. */
struct plan_outcome *plan_search_run(const struct plan_search *search, struct arena *arena,
                                     struct error *err) MUST_CHECK;

#endif
