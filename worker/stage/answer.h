#ifndef SHOAL_STAGE_ANSWER_H
#define SHOAL_STAGE_ANSWER_H

/* What a step yields beside cache entries: samples, and the logits, hidden states and routing that
 * were asked for. Private to this room; called by stage.c in this order: begin, hidden (first
 * stage: the embeddings), routing of each MoE layer, hidden (the output), logits; what the draft
 * layer yields is added by draft.c.
 */
#include "worker/stage/stage_state.h"

uint64_t answer_bytes(const struct seat *seat, const struct arch *arch, uint32_t thread_count);
bool answer_create(struct stage *stage, struct error *err) MUST_CHECK;
void answer_destroy(struct stage *stage);

/* Fills the result's head and makes room for everything that the step wants of this worker. */
bool answer_begin(struct stage *stage, struct stage_job *job, struct error *err) MUST_CHECK;
/* Copies stage->x of the entries that want it. */
void answer_hidden(struct stage *stage, struct stage_job *job);
void answer_routing(struct stage *stage, struct stage_job *job, uint32_t layer);
/* Logits of the rows that need them, and the samples. */
bool answer_logits(struct stage *stage, struct stage_job *job, struct error *err) MUST_CHECK;
bool answer_is_finite(const float *values, uint64_t count);
/* One row's routed experts, for which answer_begin made room. */
void answer_record(struct stage_job *job, const struct expert_choice *choices, uint32_t chosen,
                   struct step_routing where);

#endif
