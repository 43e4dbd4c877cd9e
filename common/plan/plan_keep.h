#ifndef SHOAL_PLAN_PLAN_KEEP_H
#define SHOAL_PLAN_PLAN_KEEP_H

/* Who takes which seat of a new placement, so that as much as possible of what workers hold of the
 * model already is of use there. Pure.
 *
 * The planner seats workers in order; only that order is changed here, and what it makes of it is
 * its own affair: workers are unlike, so the borders may move with them.
 */
#include "common/plan/planner.h"

/* Parts of the model, held by a worker or wanted by a seat. */
struct plan_holding {
    uint32_t layer_begin, layer_end; /* the draft layer included */
    bool has_embedding, has_head;
    uint32_t expert_count;
    uint64_t *experts; /* a bit for each expert, rows of whole words [layers][words] */
};
/* The caller owns it. */
struct plan_holding *plan_holding_create(const struct placement *placement,
                                         struct placement_seat seat);
void plan_holding_destroy(struct plan_holding *holding); /* NULL is legal */
/* In kernel layout, of what both have. */
uint64_t plan_holding_common_bytes(const struct planner_request *request,
                                   const struct plan_holding *a, const struct plan_holding *b);

/* Of all workers, what each keeps in its seat of the placement.
 *   held  [request->worker_count], in the order of request->workers; NULL: nothing */
uint64_t plan_kept_bytes(const struct planner_request *request, const struct placement *placement,
                         const struct plan_holding *const *held);
/* The seats of the placement given to those who hold most of what belongs there, the best match
 * first; workers of islands keep theirs, since ranks stay in order, and who holds nothing takes
 * what is left, in the placement's order. False when everybody stays where the placement has them.
 *   keys  out: [request->worker_count], for planner_worker.held_seat */
bool plan_keep_seats(const struct planner_request *request, const struct placement *placement,
                     const struct plan_holding *const *held, uint64_t *keys);

#endif
