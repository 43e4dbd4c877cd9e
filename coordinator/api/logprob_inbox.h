#ifndef SHOAL_API_LOGPROB_INBOX_H
#define SHOAL_API_LOGPROB_INBOX_H

/* Log-probabilities of one sequence on their way from the cluster to whoever writes them out.
 *
 * Workers answer them by position, those of drafts that are then rejected too. Here the last word
 * about each position waits until the token of that position is delivered; those of the prompt are
 * kept until the end. The cluster's thread, but for logprob_inbox_prompt.
 */
#include "coordinator/cluster/cluster.h"

#include <stdbool.h>
#include <stdint.h>

/* What the model thought of one token. One block: mem_free it. */
struct token_logprobs {
    uint32_t token;
    float logprob;
    uint32_t rank; /* 1: the most likely */
    uint32_t top_count;
    const uint32_t *top_tokens; /* [top_count], most likely first */
    const float *top_logprobs;
};

enum logprob_prompt { LOGPROB_PROMPT_DROP, LOGPROB_PROMPT_KEEP };

struct logprob_inbox;
struct logprob_inbox *logprob_inbox_create(uint32_t prompt_count, enum logprob_prompt prompt);
void logprob_inbox_destroy(struct logprob_inbox *inbox); /* NULL is legal */

/* Of the token at this absolute position; copied. Positions that are delivered, or far beyond what
 * may be drafted, are ignored. */
void logprob_inbox_put(struct logprob_inbox *inbox, uint32_t position,
                       const struct step_logprobs *logprobs);
/* The next token of the sequence is this one: what is known about it, the caller's from here on;
 * NULL if nothing came, or of another token. */
struct token_logprobs *logprob_inbox_take(struct logprob_inbox *inbox, uint32_t token);
/* Every token of the prompt but the first has its log-probabilities. */
bool logprob_inbox_prompt_complete(const struct logprob_inbox *inbox);
/* [prompt_count], lent; the first is NULL, others too until their rows have come. NULL: dropped.
 * Any thread that knows (by an acquire) that the first token or the end has been published. */
const struct token_logprobs *const *logprob_inbox_prompt(const struct logprob_inbox *inbox);

#endif
