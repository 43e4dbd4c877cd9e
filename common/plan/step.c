/* step.c - arithmetic on steps that both programs need.
 *
 * Rows of a step are counted in two ways: all of them (the scheduler's budget) and those of one
 * lane (what a member computes). Pure.
 */
#include "common/plan/step.h"

uint32_t step_row_count(const struct step *step)
{
    uint32_t rows = 0;

    for (uint32_t i = 0; i < step->entry_count; i++) {
        rows += step->entries[i].token_count;
    }
    return rows;
}

uint32_t step_lane_row_count(const struct step *step, uint32_t lane)
{
    uint32_t rows = 0;

    for (uint32_t i = 0; i < step->entry_count; i++) {
        if (step->entries[i].lane == lane) {
            rows += step->entries[i].token_count;
        }
    }
    return rows;
}
