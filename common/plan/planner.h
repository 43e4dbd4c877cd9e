#ifndef SHOAL_PLAN_PLANNER_H
#define SHOAL_PLAN_PLANNER_H

/* Makes a placement from facts about model and workers. Pure: same facts, same placement.
 *
 * First form: contiguous layers over the stages, so that the slowest stage's time is least, where a
 * stage's time is its work / the sum of its members' measured read bandwidth and no member's
 * memory is exceeded (dynamic programming over layer borders); whole router groups of experts over
 * the members of a stage; one lane for each member number.
 *
 * Generation and prompts are different work. A generating step reads all weights of a stage and the
 * head, whatever its rows; a prompt's row takes arithmetic with the weights that it meets, chosen
 * experts only, and no head. No borders suit both where the head is large, or some layers have no
 * experts; prompt_share says which counts how much.
 */
#include "common/plan/placement.h"

struct planner_worker {
    uint32_t id;
    uint64_t memory_bytes;   /* limit of the ledger */
    double read_bytes_per_s; /* measured */
    uint64_t island;         /* MPI world id; 0: none. Islands are kept together */
    uint32_t rank;           /* in the island */
    /* One more than the seat whose weights it holds, as a number that sorts like seats; 0: none. */
    uint64_t held_seat;
    char host[64];
};

/* Bytes by layer, from the catalog and the kernel layout. */
struct planner_layer {
    uint64_t common_bytes; /* on every member: attention, norms, router, shared or dense MLP */
    uint64_t expert_bytes; /* of one routed expert; 0 in dense layers */
};

struct planner_request {
    uint64_t epoch;
    const char *numerics_id;
    uint32_t layer_count;
    const struct planner_layer *layers; /* [layer_count] */
    uint64_t embedding_bytes;           /* first stage; with a draft layer the last one too */
    uint64_t head_bytes;                /* last stage */
    uint32_t dense_layer_count;
    uint32_t draft_layer_count; /* 0 or 1: the last stage holds the draft layer too; */
    struct planner_layer draft; /* its bytes, the joint projection and its norms included */
    uint32_t expert_count;
    uint32_t chosen_count; /* experts of a row */
    double prompt_share;   /* of the time that prompts take on the whole, 0 … 1 */
    uint32_t
        expert_group_count;  /* arch_combine_group_count: groups are kept whole where possible */
    uint64_t kv_entry_bytes; /* of one token in one layer, */
    uint64_t kv_token_bytes; /* and in the last stage beside its layers: the token itself */
    uint64_t fixed_bytes;    /* per worker, beside weights and KV; */
    uint64_t buffer_bytes;   /* of these: a step's activations, block tables, */
    uint64_t frame_bytes;    /* and messages to and from other workers */
    uint64_t divided_bytes;  /* more messages where a stage divides router groups */
    enum kv_type kv_type;
    uint32_t context_tokens_max;
    uint64_t kv_tokens;           /* wanted per lane; 0: what fits, at most slot_count * context */
    uint32_t slot_count;          /* 0: a default of 64 */
    uint32_t step_rows_max;       /* 0: a default of 512 */
    uint32_t steps_in_flight_max; /* 0: stages + 2 */
    uint32_t worker_count;
    const struct planner_worker *workers;
    uint32_t stage_count; /* 0: the planner decides (first form: every worker a stage) */
    uint32_t group_size;  /* members of each stage; 0 with stage_count 0 */
};

/* In the arena. ERROR_LIMIT with the figures when it does not fit: what each worker would need,
 * what it has, and the nearest thing that would fit. */
struct placement *planner_make(const struct planner_request *request, struct arena *arena,
                               struct error *err) MUST_CHECK;

/* The same without looking for what would fit, which takes much longer than to see that it does
 * not: ERROR_LIMIT says no more than that. */
struct placement *planner_try(const struct planner_request *request, struct arena *arena,
                              struct error *err) MUST_CHECK;

/* Why planner_make answered ERROR_LIMIT, and what would do. */
struct planner_refusal {
    struct placement *nearest; /* asks least of its worst worker, with the KV that was wanted */
    struct planner_request request; /* complete, for the ledgers of `nearest` */
    uint32_t tightest;              /* id of that worker */
    double overload;                /* what it needs / what it has */
    uint64_t missing_bytes;         /* over all workers that lack any */
    /* Each alone would do; 0: it does not help. */
    uint64_t kv_tokens;    /* no more than so many per lane */
    uint32_t workers_more; /* so many more like worker workers_like */
    uint32_t workers_like;
    uint64_t memory_bytes; /* so much for each of the workers that are there */
};
/* For a request that was refused so. In the arena. */
struct planner_refusal *planner_refusal_of(const struct planner_request *request,
                                           struct arena *arena);
/* One line for an error or a person; returns `text`. */
const char *planner_refusal_write(const struct planner_refusal *refusal, char *text,
                                  size_t text_bytes);
/* Its last part: "a context of 4096 tokens, or 3 more workers like worker 0 would fit". */
const char *planner_remedy_write(const struct planner_refusal *refusal, char *text,
                                 size_t text_bytes);

/* What a worker holds under a placement; the coordinator's table and the tests use it. */
struct planner_share {
    uint64_t weight_bytes;
    uint64_t kv_bytes;
    uint32_t expert_slots; /* experts of all its layers */
    uint32_t lane_count;
};
struct planner_share planner_share_of(const struct planner_request *request,
                                      const struct placement *placement, uint32_t worker);

/* All that a worker needs, and what it has. */
struct planner_ledger {
    uint64_t weight_bytes, kv_bytes, buffer_bytes, frame_bytes;
    uint64_t fixed_bytes; /* the rest: program, staging */
    uint64_t total_bytes, limit_bytes;
};
struct planner_ledger planner_ledger_of(const struct planner_request *request,
                                        const struct placement *placement, uint32_t worker);

#endif
