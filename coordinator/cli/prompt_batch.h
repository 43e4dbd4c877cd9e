#ifndef SHOAL_CLI_PROMPT_BATCH_H
#define SHOAL_CLI_PROMPT_BATCH_H

/* Many prompts through a cluster for what their positions yield (logits, hidden states, routing);
 * of answers at most one token, which is passed over. Several are under way at a time; the
 * callbacks come on the main thread, rows of one prompt in any order, prompts finishing in any
 * order.
 */
#include "common/base/error.h"
#include "coordinator/cluster/cluster.h"

#include <stddef.h>
#include <stdint.h>

struct prompt {
    uint32_t *tokens;
    uint32_t count;
    uint64_t line; /* in the file */
    int64_t id;    /* the object's "id", or its number from 0 */
};
struct prompt_list {
    struct prompt *prompts;
    size_t count;
};
/* JSONL {"tokens": […]}, an integer "id" is optional; ids of tokens are below `vocab`. Errors name
 * file and line. */
bool prompt_list_read(const char *path, uint32_t vocab, struct prompt_list *out,
                      struct error *err) MUST_CHECK;
void prompt_list_deinit(struct prompt_list *list);

struct prompt_batch {
    struct cluster *cluster;
    const char *path; /* for messages */
    const struct prompt_list *list;
    uint32_t wants; /* WANT_LOGITS | WANT_ROUTING | WANT_HIDDEN | WANT_DRAFT_LOGITS; the last one
                       generates a token, the best one, for the last row */
    void *context;
    /* Rows of prompt `index`; the event lives for the call. Positions lie inside the prompt. */
    bool (*rows)(void *context, size_t index, const struct cluster_event *event, struct error *err);
    /* All its rows have come. NULL: not wanted. */
    bool (*finished)(void *context, size_t index, struct error *err);
};
/* ERROR_PEER "interrupted" when a stop signal came. */
bool prompt_batch_run(const struct prompt_batch *batch, struct error *err) MUST_CHECK;

#endif
