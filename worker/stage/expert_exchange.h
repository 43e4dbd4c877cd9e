#ifndef SHOAL_STAGE_EXPERT_EXCHANGE_H
#define SHOAL_STAGE_EXPERT_EXCHANGE_H

/* One MoE layer of a stage group: route, dispatch to the owners, compute own experts and the shared
 * expert meanwhile, serve the other members, combine. A group of one member is the case without
 * peers: the same code, the same order of additions, the same bits.
 *
 * Owner: the compute thread. Buffers are made once for the epoch.
 */
#include "common/plan/step.h"
#include "worker/layers/forward.h"
#include "worker/stage/exchange.h"
#include "worker/stage/seat.h"

struct expert_exchange;

uint64_t expert_exchange_bytes(const struct seat *seat, const struct arch *arch);
struct expert_exchange *expert_exchange_create(const struct seat *seat, const struct arch *arch,
                                               struct error *err) MUST_CHECK;
void expert_exchange_destroy(struct expert_exchange *exchange); /* NULL is legal */

enum stage_outcome {
    STAGE_DONE,
    STAGE_ABANDONED, /* frames will never come: another attempt was issued, or the epoch ends */
    STAGE_FAILED,    /* err says why */
};

struct expert_layer {
    struct forward *forward;
    struct team *team;
    struct meter *meter;
    struct exchange *frames;
    const struct step *step;
    uint32_t row_count;          /* own rows */
    const uint32_t *member_rows; /* [members]: the most rows that each may have; 0: it sends nothing
                                    and is not awaited. Every member must give the same */
    uint32_t layer;
    uint32_t frame_layer; /* the layer of the frames' headers, as everywhere but in the draft layer,
                             which a step may run several times */
    float *x;             /* [own rows][hidden]: in and out */
};
/* x += the layer's experts. Also called on members without rows of their own, which serve the
 * others. The router's choices of own rows are lent by expert_exchange_choices until the next
 * layer: [row][chosen_count]. */
enum stage_outcome expert_exchange_run(struct expert_exchange *exchange,
                                       const struct expert_layer *layer, struct error *err);
const struct expert_choice *expert_exchange_choices(const struct expert_exchange *exchange);

#endif
