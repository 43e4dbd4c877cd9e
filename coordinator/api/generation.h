#ifndef SHOAL_API_GENERATION_H
#define SHOAL_API_GENERATION_H

/* One request from text to text: the prompt's tokens go to the cluster, tokens come back, text
 * comes out as thinking and answer, cut at stop strings. Used by the HTTP endpoints and by
 * `shoal run`.
 *
 * Threads: the cluster's thread pushes tokens in (bounded ring) and calls `wake`; the owner, on its
 * own thread, calls generation_poll when woken.
 */
#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/text/tokenizer.h"
#include "coordinator/api/logprob_inbox.h"
#include "coordinator/cluster/cluster.h"

#include <stdbool.h>
#include <stdint.h>

enum reasoning_mode {
    REASONING_SPLIT,      /* chat: thinking and answer apart */
    REASONING_SPLIT_OPEN, /* the prompt already opened the thinking */
    REASONING_WHOLE,      /* completions: all text is answer */
};

#define GENERATION_TOKENS_ALL UINT32_MAX

struct generation_config {
    struct cluster *cluster; /* borrowed, as all below */
    const struct tokenizer *tokenizer;
    const uint32_t *prompt; /* copied */
    uint32_t prompt_count;
    uint32_t tokens_max; /* GENERATION_TOKENS_ALL: as many as the context holds; 0: none, for the
                            prompt's log-probabilities */
    bool ignore_eos;
    struct sampling_params sampling; /* its biases are copied */
    enum request_class request_class;
    const char *const *stop; /* copied */
    size_t stop_count;
    enum reasoning_mode reasoning;
    enum special_output special; /* whether special tokens are shown in the text */
    /* Called on the cluster's thread when there is something to poll; must not block. */
    void (*wake)(void *context);
    void *wake_context;
};

struct generation;
/* Submits. Errors as cluster_submit's. */
struct generation *generation_start(const struct generation_config *config,
                                    struct error *err) MUST_CHECK;
/* Cancels what still runs; frees when the cluster has let go. NULL is legal. */
void generation_destroy(struct generation *generation);

enum generation_state { GENERATION_RUNNING, GENERATION_DONE };
/* Appends new text to the two buffers (thinking may be the same as answer for REASONING_WHOLE).
 * After DONE nothing follows; it comes when the cluster has let go, after a stop string too. */
enum generation_state generation_poll(struct generation *generation, struct buffer *thinking,
                                      struct buffer *answer);

/* After DONE. */
struct generation_summary {
    enum finish_reason reason; /* a stop string counts as FINISH_STOP */
    const char *problem;       /* with FINISH_FAILED */
    uint32_t prompt_tokens;
    uint32_t cached_tokens;     /* of these, not computed for this request */
    uint32_t completion_tokens; /* up to and with the token that completed a stop string; end tokens
                                   are not counted */
    uint32_t reasoning_tokens;  /* of these, up to and with the end of thinking */
    uint64_t seed;
    int64_t first_token_ns; /* since start */
    int64_t total_ns;
};
void generation_summary(const struct generation *generation, struct generation_summary *out);
/* When the oldest token came (monotonic) whose text has been polled since the last call, 0 if none
 * was: how long it was under way is known once it is written. */
int64_t generation_polled_since(struct generation *generation);
/* All generated ids so far, without end token; lent until the next poll. */
const uint32_t *generation_tokens(const struct generation *generation, size_t *count);
/* Of the generated token `index`; lent for the generation's life. NULL: not asked for, or none came
 * (then the summary says FINISH_FAILED in the end). */
const struct token_logprobs *generation_logprobs(const struct generation *generation, size_t index);
/* Of the prompt's tokens, logprob_inbox_prompt; all are there once a poll has brought the first
 * token or DONE. */
const struct token_logprobs *const *generation_prompt_logprobs(const struct generation *generation);

/* A seed for a request that brought none. */
uint64_t generation_random_seed(void);

#endif
