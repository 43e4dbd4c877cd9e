/* logprob_inbox.c - the last word about each position, until its token comes.
 *
 * What is ahead of the sequence's end lies in a ring, indexed by position: as long as the drafts of
 * a step may be, so that a newer answer for a position replaces the older one.
 */
#include "coordinator/api/logprob_inbox.h"

#include "common/base/mem.h"

#include <string.h>

#define AHEAD_MAX 64u /* positions beyond the last delivered token */

struct logprob_inbox {
    uint32_t prompt_count;
    struct token_logprobs **prompt; /* [prompt_count]; NULL: dropped */
    uint32_t prompt_known;
    uint32_t next; /* position of the next token */
    struct token_logprobs *ahead[AHEAD_MAX];
};

struct logprob_inbox *logprob_inbox_create(uint32_t prompt_count, enum logprob_prompt prompt)
{
    struct logprob_inbox *inbox = mem_new(struct logprob_inbox);

    inbox->prompt_count = prompt_count;
    inbox->next = prompt_count;
    if (prompt == LOGPROB_PROMPT_KEEP) {
        inbox->prompt = mem_new_array(struct token_logprobs *, prompt_count);
    }
    return inbox;
}

void logprob_inbox_destroy(struct logprob_inbox *inbox)
{
    if (!inbox) {
        return;
    }
    for (uint32_t i = 0; inbox->prompt && i < inbox->prompt_count; i++) {
        mem_free(inbox->prompt[i]);
    }
    for (uint32_t i = 0; i < AHEAD_MAX; i++) {
        mem_free(inbox->ahead[i]);
    }
    mem_free(inbox->prompt);
    mem_free(inbox);
}

static struct token_logprobs *copy(const struct step_logprobs *from)
{
    size_t tokens_bytes = from->top_count * sizeof(*from->top_tokens);
    size_t values_bytes = from->top_count * sizeof(*from->top_logprobs);
    struct token_logprobs *to = mem_alloc_zeroed(1, sizeof(*to) + tokens_bytes + values_bytes);
    uint32_t *tokens = (uint32_t *)(to + 1);
    float *values = (float *)(tokens + from->top_count);

    *to = (struct token_logprobs){.token = from->token,
                                  .logprob = from->logprob,
                                  .rank = from->rank,
                                  .top_count = from->top_count,
                                  .top_tokens = tokens,
                                  .top_logprobs = values};
    if (from->top_count > 0) {
        memcpy(tokens, from->top_tokens, tokens_bytes);
        memcpy(values, from->top_logprobs, values_bytes);
    }
    return to;
}

void logprob_inbox_put(struct logprob_inbox *inbox, uint32_t position,
                       const struct step_logprobs *logprobs)
{
    struct token_logprobs **place;

    if (position < inbox->prompt_count) {
        /* Rows may be computed again, and say the same; after the first token another thread reads
         * them. */
        if (inbox->prompt && position > 0 && !inbox->prompt[position] &&
            inbox->next == inbox->prompt_count) {
            inbox->prompt[position] = copy(logprobs);
            inbox->prompt_known++;
        }
        return;
    }
    if (position < inbox->next || position - inbox->next >= AHEAD_MAX) {
        return;
    }
    place = &inbox->ahead[position % AHEAD_MAX];
    mem_free(*place);
    *place = copy(logprobs);
}

struct token_logprobs *logprob_inbox_take(struct logprob_inbox *inbox, uint32_t token)
{
    struct token_logprobs **place = &inbox->ahead[inbox->next % AHEAD_MAX];
    struct token_logprobs *logprobs = *place;

    *place = NULL;
    inbox->next++;
    if (logprobs && logprobs->token != token) {
        mem_free(logprobs);
        return NULL;
    }
    return logprobs;
}

bool logprob_inbox_prompt_complete(const struct logprob_inbox *inbox)
{
    return !inbox->prompt || inbox->prompt_known + 1 == inbox->prompt_count;
}

const struct token_logprobs *const *logprob_inbox_prompt(const struct logprob_inbox *inbox)
{
    return (const struct token_logprobs *const *)inbox->prompt;
}
