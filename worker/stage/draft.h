#ifndef SHOAL_STAGE_DRAFT_H
#define SHOAL_STAGE_DRAFT_H

/* The draft layer's part of a step, on the last stage, once the step's samples are there.
 *
 * Every row whose next token is known gets its cache entry in the layer, so that the layer is
 * always as far as the main ones. The whole layer runs only for what the step asks for: the row of
 * the last sample that stands where tokens are to be proposed, all rows where their logits are
 * wanted. Proposals change the speed of a sequence and never its tokens. Private to this room.
 */
#include "worker/stage/stage_state.h"

struct draft;

uint64_t draft_bytes(const struct seat *seat); /* 0 without the draft layer */
/* In the arena. */
struct draft *draft_create(const struct seat *seat, struct arena *arena);
/* Adds proposals, draft logits and routing to the result; overwrites stage->x. All members of the
 * stage call it for every step, with rows of their own or without. */
enum stage_outcome draft_run(struct stage *stage, struct exchange *frames, struct stage_job *job,
                             struct error *err);

#endif
