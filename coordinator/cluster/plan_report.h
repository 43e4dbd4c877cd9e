#ifndef SHOAL_CLUSTER_PLAN_REPORT_H
#define SHOAL_CLUSTER_PLAN_REPORT_H

/* Plans as text, for `shoal plan` and for a cluster whose model does not fit: which layers and
 * experts go where, and every worker's ledger. */
#include "common/base/buffer.h"
#include "common/plan/planner.h"

/* A table with a line for each worker that has a seat and one for the sum. The last column is what
 * a worker has left, or, with a minus, lacks. */
void plan_report_ledgers(const struct planner_request *request, const struct placement *placement,
                         struct buffer *out);
/* Why it does not fit: the table of what comes closest, then the figures of its worst worker, what
 * is missing in all, and each thing that would do. */
void plan_report_refusal(const struct planner_refusal *refusal, struct buffer *out);

/* "0-127", "0-31 64-95", "-": the experts of a member, in its first layer that has some. */
const char *plan_report_experts(const struct placement *placement, struct placement_seat seat,
                                char *text, size_t text_bytes);
/* The experts from `from` on that a member owns in a layer: first and end; false: no more. */
bool plan_report_range(const struct placement *placement, uint32_t layer, uint32_t member,
                       uint32_t from, uint32_t *begin, uint32_t *end);
/* The first layer of a stage that has routed experts; its end: there is none. */
uint32_t plan_report_moe_layer(const struct placement *placement, uint32_t stage);

#endif
