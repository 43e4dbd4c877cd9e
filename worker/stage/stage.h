#ifndef SHOAL_STAGE_STAGE_H
#define SHOAL_STAGE_STAGE_H

/* One worker's part of a step, from frame to frame: embed or receive, the layers, then hand over or
 * sample. Holds the epoch's KV cache and buffers; weights, team and kernels are lent.
 *
 * Owner: the compute thread. Steps run in the order in which they are given. After stage_create a
 * step allocates nothing, except for one that wants logits, hidden states or routing (tests,
 * research), for which they are mapped, or many log-probabilities, which lie in its arena.
 */
#include "common/base/arena.h"
#include "common/plan/step.h"
#include "worker/layers/forward.h"
#include "worker/stage/exchange.h"
#include "worker/stage/expert_exchange.h"
#include "worker/stage/seat.h"

struct stage_config {
    const struct seat *seat;       /* borrowed for the stage's life, as all below */
    const struct weights *weights; /* bound and filled */
    const struct kernels *kernels;
    struct team *team;
};
struct stage;

struct stage_bytes {
    uint64_t cache;
    uint64_t buffers;
};
struct stage_bytes stage_bytes(const struct seat *seat, const struct arch *arch,
                               uint32_t thread_count); /* for the ledger */
struct stage *stage_create(const struct stage_config *config, struct error *err) MUST_CHECK;
void stage_destroy(struct stage *stage); /* NULL is legal */
/* The calling thread is the one that will run the steps: thread 0 of the team. */
void stage_thread_begin(const struct stage *stage);

/* A step with room for its answer. The step (checked, in the arena) is the caller's; stage_run adds
 * the result's arrays to the arena. */
struct stage_job {
    struct arena arena;
    struct step step;
    struct step_result result;
    float *floats; /* logits and hidden rows that were asked for */
    uint64_t floats_bytes;
    uint64_t floats_used; /* floats taken so far */
};
void stage_job_init(struct stage_job *job);
void stage_job_deinit(struct stage_job *job);
void stage_job_reset(struct stage_job *job); /* arena and floats are free again */

/* STAGE_DONE: job->result is complete. */
enum stage_outcome stage_run(struct stage *stage, struct exchange *frames, struct stage_job *job,
                             struct error *err);

#endif
