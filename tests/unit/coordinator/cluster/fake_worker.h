#ifndef SHOAL_TESTS_FAKE_WORKER_H
#define SHOAL_TESTS_FAKE_WORKER_H

/* A worker without a model: speaks the real control channel from a thread of its own, loads
 * nothing, and samples tokens that are a function of their position alone. */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct fake_options {
    const char *endpoint;
    const char *host;
    uint32_t protocol_major, protocol_minor; /* 0, 0: ours */
    const char *build;                       /* NULL: ours */
    uint32_t kernels_version;                /* 0: 1 */
    const char *fast_numerics;               /* NULL: "fast-blas" */
    const char *load_refusal; /* answers the assignment with this error; NULL: loads */
    bool without_logprobs;    /* leaves them out */
};

struct fake_worker;
struct fake_worker *fake_worker_start(const struct fake_options *options);
/* Ends it as a crash does: the connection breaks. */
void fake_worker_kill(struct fake_worker *worker);
/* While held, it keeps silent about steps (not about heartbeats). */
void fake_worker_hold(struct fake_worker *worker);
void fake_worker_release(struct fake_worker *worker);
/* Asks the coordinator to let it go. */
void fake_worker_ask_to_leave(struct fake_worker *worker);

/* Says that its link to this worker, opened in this attempt, is lost. */
void fake_worker_lose_link(struct fake_worker *worker, uint32_t peer, uint32_t attempt);
/* The last attempt that it was told of; 0: none. Steps of earlier ones are not answered any more.
 */
uint32_t fake_worker_attempt(struct fake_worker *worker);
uint32_t fake_worker_links_anew(struct fake_worker *worker); /* in it; UINT32_MAX: all */

bool fake_worker_was_dismissed(struct fake_worker *worker); /* DRAIN came */
/* The coordinator's last error, copied; false: none yet. */
bool fake_worker_error(struct fake_worker *worker, char *text, uint32_t bytes);
uint32_t fake_worker_held_steps(struct fake_worker *worker);

/* The token that the scripted model puts at a position. */
uint32_t fake_token(uint32_t position);
/* What it thinks of the token at a position; at every third one another token is likelier. Before
 * each answer about a sample comes one about another token, as of a draft that is then rejected. */
float fake_logprob(uint32_t position);
uint32_t fake_rank(uint32_t position);
/* The i-th likely token that is not the one at the position itself. */
uint32_t fake_other(uint32_t token, uint32_t i);

#endif
