#ifndef SHOAL_STAGE_ROW_MAP_H
#define SHOAL_STAGE_ROW_MAP_H

/* Which rows of a step are this worker's, and with whom it shares them.
 *
 * A worker's rows are those of its lanes, in the order of the step's entries. The rows that travel
 * from a worker to one of the next stage are those of the lanes that they share, in the same
 * order. All workers see the whole step, so everyone knows who sends how many rows to whom: where
 * there are none, nothing is sent and nobody waits.
 */
#include "common/plan/step.h"
#include "worker/layers/forward.h"
#include "worker/stage/seat.h"

struct row_map {
    uint32_t count;           /* own rows */
    struct forward_row *rows; /* [rows_max] */
    uint32_t *entries;        /* [rows_max] index into the step's entries */
    uint32_t *sources;        /* [rows_max] member of the previous stage; unused in the first */
    uint32_t *targets;        /* [rows_max] member of the next stage; unused in the last */
    uint32_t *source_rows;    /* [members of the previous stage] */
    uint32_t *target_rows;    /* [members of the next stage] */
    uint32_t *member_rows;    /* [members of this stage] */
};

uint64_t row_map_bytes(const struct seat *seat);
void row_map_init(struct row_map *map, const struct seat *seat, struct arena *arena);
/* The step is checked (step_check). */
void row_map_fill(struct row_map *map, const struct seat *seat, const struct step *step);

#endif
