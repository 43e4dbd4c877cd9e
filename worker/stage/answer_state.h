#ifndef SHOAL_STAGE_ANSWER_STATE_H
#define SHOAL_STAGE_ANSWER_STATE_H

/* What the files of the answer share: answer.c (life cycle, room), answer_rows.c (hidden states and
 * routing), answer_samples.c (logits and samples). Private to them.
 */
#include "worker/stage/answer.h"

bool answer_is_own(const struct stage *stage, const struct step_entry *entry);
/* The next `count` floats of job->floats; answer_begin made room for all that the step wants. */
float *answer_floats_take(struct stage_job *job, uint64_t count);

/* A row whose logits are needed, and what for. */
struct answer_row {
    uint32_t row;   /* own row: in stage->x and the row map */
    uint32_t entry; /* index into the step's entries */
    uint32_t entry_row;
    struct step_sample *sample; /* NULL: not sampled */
    float *logits;              /* where they are answered; NULL: they aren't */
    bool is_finite;
};

#endif
