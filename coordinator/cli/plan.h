#ifndef SHOAL_CLI_PLAN_H
#define SHOAL_CLI_PLAN_H

/* `shoal plan`: what its command finds, and the two ways to show it. */
#include "common/base/buffer.h"
#include "common/model/catalog.h"
#include "common/plan/plan_search.h"
#include "coordinator/cli/options.h"
#include "coordinator/cluster/cluster_file.h"

#include <jansson.h>

struct plan_command {
    const char *model, *cluster;
    enum plan_objective objective;
    enum kv_type kv_type;
    uint32_t context_tokens;          /* 0: the model's, or less */
    uint32_t stage_count, group_size; /* 0: to be chosen */
    double prompt_share;              /* planner_request's */
    struct scheduling_options drafts; /* only what it says of drafts */
    bool json;

    struct cluster_file *file;
    struct catalog *catalog;
    struct plan_outcome *outcome;
    bool draft_layer; /* has a place */
};

/* "8x1"; "5x3-4": five stages of three or four. */
const char *plan_layout_name(const struct plan_layout *layout, char *text, size_t text_bytes);
/* Why this layout, in one line. */
void plan_reason_write(const struct plan_command *command, struct buffer *out);
void plan_print(const struct plan_command *command);   /* to standard output */
json_t *plan_json(const struct plan_command *command); /* the caller drops it */

#endif
