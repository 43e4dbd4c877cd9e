#ifndef SHOAL_PLAN_PARTITION_H
#define SHOAL_PLAN_PARTITION_H

/* Where the layer borders go: the planner's optimisation, without the placement around it.
 *
 * Workers stand in a fixed order and stages take them from the front: stage s has base_size or
 * base_size + 1 members, extra_count stages the larger number. Exact dynamic programming over layer
 * borders and the stages that are larger. Pure. Memory: (stages + 1) * (layers + 1) * (extras + 1)
 * states for the time of the call.
 */
#include "common/plan/planner.h"

struct partition_stage {
    uint32_t layer_begin, layer_end;
    uint32_t worker_begin, worker_end; /* positions in the order */
};

/* What decides between partitions. */
enum partition_goal {
    PARTITION_TIME,   /* least time of the slowest stage, then the most even; all must fit */
    PARTITION_MEMORY, /* least need / memory of the worst worker, whether it fits or not */
};

struct partition {
    const struct planner_request *request;
    const struct planner_worker **workers; /* [worker_count] in order */
    uint32_t stage_count;
    uint32_t base_size;
    uint32_t extra_count;
    uint32_t lane_count;
    uint64_t kv_tokens; /* per lane, that every stage must hold */
    /* [layer_count + 1]: bytes of common tensors, and of one expert's, of the layers before. The
     * draft layer counts with the last one, whose stage holds it. */
    uint64_t *common_sums;
    uint64_t *expert_sums;
    double prompt_weight; /* what a byte that a prompt's row meets counts beside one that is read */
};

/* What one member of a stage holds. */
struct partition_need {
    uint64_t weight_bytes;
    uint64_t kv_bytes;
    uint64_t total_bytes; /* with the fixed ones */
};

/* Borrows request and workers; arrays come from the arena. The request's counts are filled in. */
void partition_init(struct partition *partition, const struct planner_request *request,
                    const struct planner_worker **workers, struct arena *arena);
/* out[stage_count]; false if no partition fits (PARTITION_TIME only). */
bool partition_solve(const struct partition *partition, enum partition_goal goal,
                     struct partition_stage *out) MUST_CHECK;
/* Experts of each member, expert_counts[members], contiguous in member order: whole router groups
 * if they fit, else single experts; false if neither fits. */
bool partition_experts(const struct partition *partition, const struct partition_stage *stage,
                       uint32_t *expert_counts) MUST_CHECK;
/* The same without regard to memory limits: in proportion to memory, whole groups where there are
 * enough. */
void partition_experts_spread(const struct partition *partition,
                              const struct partition_stage *stage, uint32_t *expert_counts);
/* What every member needs more where these counts divide router groups; 0 where groups are whole.
 */
uint64_t partition_divided_bytes(const struct partition *partition,
                                 const struct partition_stage *stage,
                                 const uint32_t *expert_counts);
/* Lanes that member `member` of `member_count` serves. */
uint32_t partition_lanes(const struct partition *partition, uint32_t member, uint32_t member_count);
struct partition_need partition_need(const struct partition *partition,
                                     const struct partition_stage *stage, uint32_t member,
                                     uint32_t expert_count);
/* What one token of a lane takes in the cache of the lane's member of the stage. */
uint64_t partition_token_bytes(const struct partition *partition,
                               const struct partition_stage *stage);
/* Seconds: bytes that a step reads over the members' read rates; so far as prompts count, the
 * stage's share of a prompt's work takes the place of its share of the bytes. */
double partition_time(const struct partition *partition, const struct partition_stage *stage);

#endif
