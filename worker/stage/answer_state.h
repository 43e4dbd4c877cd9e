#ifndef SHOAL_STAGE_ANSWER_STATE_H
#define SHOAL_STAGE_ANSWER_STATE_H

/* What the files of the answer share: answer.c (life cycle, room), answer_rows.c (hidden states and
 * routing), answer_samples.c (logits and samples), answer_logprobs.c. Private to them.
 */
#include "worker/stage/answer.h"
#include "worker/stage/logprobs.h"

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
    struct step_logprobs *logprobs; /* NULL: none; top_count is set */
    uint32_t *top_tokens;           /* [logprobs->top_count], as top_logprobs */
    float *top_logprobs;
};

/* --- answer_logprobs.c --- */

/* What is asked of the token after an entry's row: 0: nothing; 1 + n: its own and the n most
 * likely. A row that is sampled gives those of its sample, another prompt row those of the prompt's
 * next token, if the step knows it. */
uint32_t answer_logprobs_wanted(const struct step_entry *entry, uint32_t entry_row);
/* Gives the row a record of the result, with room for `wanted` - 1 likely tokens, if it is asked
 * for one. */
void answer_logprobs_take(const struct stage *stage, struct stage_job *job, struct answer_row *row);
/* Of a row that has a record; its sample, if it has one, is chosen. Any thread. */
void answer_logprobs_fill(const struct stage *stage, const struct step_entry *entry,
                          const struct answer_row *row, const float *logits);

#endif
