#ifndef SHOAL_CLUSTER_PLAN_REQUEST_H
#define SHOAL_CLUSTER_PLAN_REQUEST_H

/* What the planner is asked, as far as the model decides it: the same for a cluster that is there
 * and for one that is only described.
 */
#include "common/model/catalog.h"
#include "common/plan/planner.h"

/* What the weights of a catalog count as. */
enum plan_weights {
    PLAN_AS_HELD,      /* dummy weights as the little that they take */
    PLAN_AS_PUBLISHED, /* as much as the model that they stand for */
};

/* Everything that the catalog says, and defaults for slots and rows of a step; the context is the
 * model's, numerics, workers and layout are the caller's to add, and draft_layer_count if the draft
 * layer shall have a place. `layers` lies in the arena. */
void plan_request_model(const struct catalog *catalog, enum plan_weights weights,
                        enum kv_type kv_type, struct arena *arena, struct planner_request *out);

/* Fills the bytes that a worker needs beside weights and KV blocks; they follow from the request's
 * layout and context. The signature is struct plan_search's. */
struct plan_sizer {
    const struct catalog *catalog;
    enum plan_weights weights;
    uint32_t thread_count; /* of the worker that has most */
};
void plan_request_size(void *plan_sizer, struct planner_request *request);

#endif
