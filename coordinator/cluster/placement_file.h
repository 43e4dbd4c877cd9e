#ifndef SHOAL_CLUSTER_PLACEMENT_FILE_H
#define SHOAL_CLUSTER_PLACEMENT_FILE_H

/* Placements as JSON files (--placement FILE), for people and for programs of their own.
 *
 *   {"version": 1,
 *    "layer_count": 4, "expert_count": 16, "dense_layer_count": 1,
 *    "stages": [{"layers": [0, 2], "workers": [0, 1]},     half-open ranges; worker numbers
 *               {"layers": [2, 4], "workers": [2, 3]}],
 *    "lane_count": 2,
 *    "lane_member": [[0, 1], [0, 1]],                      per stage: the member of each lane
 *    "experts": [[], [[0], [0], [0, 1], …], …],            per layer, per expert: owning members
 *    "draft_layer_count": 1,                               0 if it is left out, see below
 *    "kv_type": "f16", "kv_block_count": 512, "slot_count": 64,
 *    "context_tokens_max": 4096, "step_rows_max": 512, "steps_in_flight_max": 4}
 *
 * Workers are numbered 0, 1, … in the planner's order: local workers first, then remote ones as
 * they registered, MPI islands together. Dense layers own nothing: []. "experts" is left out when
 * expert_count is 0. With a draft layer, which the last stage holds beside its range, "experts" has
 * one more row for it, the last. Epoch and numerics are not in the file: the coordinator sets them.
 */
#include "common/base/arena.h"
#include "common/base/error.h"
#include "common/plan/placement.h"

#include <jansson.h>
#include <stddef.h>

/* Reads and checks all (placement_check included); in the arena. Errors name the path and field. */
struct placement *placement_file_read(const char *path, struct arena *arena,
                                      struct error *err) MUST_CHECK;
/* The same from text; `name` is for messages. */
struct placement *placement_file_parse(const char *text, size_t length, const char *name,
                                       struct arena *arena, struct error *err) MUST_CHECK;
bool placement_file_write(const char *path, const struct placement *placement,
                          struct error *err) MUST_CHECK;
/* What is written; the caller drops it with json_decref. */
json_t *placement_file_json(const struct placement *placement);

#endif
