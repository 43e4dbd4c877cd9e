#ifndef SHOAL_STAGE_STEP_CHECK_H
#define SHOAL_STAGE_STEP_CHECK_H

/* A step that came over the wire, against the placement that it runs under. */
#include "common/base/error.h"
#include "common/plan/placement.h"
#include "common/plan/step.h"

#include <stdint.h>

/* ERROR_PEER names entry and figure: lanes, slots, tokens, positions, rows, blocks, sampling. */
bool step_check(const struct step *step, const struct placement *placement, uint32_t vocab,
                struct error *err) MUST_CHECK;

#endif
