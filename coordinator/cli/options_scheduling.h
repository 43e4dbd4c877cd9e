#ifndef SHOAL_CLI_OPTIONS_SCHEDULING_H
#define SHOAL_CLI_OPTIONS_SCHEDULING_H

/* The options that say how sequences share the cluster; an argp child of cluster_options_argp,
 * whose input is a struct scheduling_options. Zeroed, everything is left to the defaults.
 */
#include "coordinator/cluster/cluster.h"

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>

struct scheduling_options {
    uint32_t batch_max;     /* decoding sequences of a step */
    uint32_t slot_count;    /* sequences at a time, per lane */
    uint32_t step_rows_max; /* rows of a step */
    uint32_t queue_max;     /* waiting sequences */
    uint32_t max_step_ms;   /* 0: no bound */
    bool prefix_cache_off;
    uint32_t preempt_tokens; /* for tests; 0: off */
    const char *draft;       /* "mtp", "lookup", "none"; NULL: mtp if the model has the layer */
    uint32_t draft_max;      /* 0: the default */
};

extern const struct argp scheduling_options_argp;

void scheduling_options_apply(const struct scheduling_options *options,
                              struct cluster_config *config);
/* The value of --draft. */
void scheduling_option_draft_parse(struct scheduling_options *options, const char *text,
                                   struct argp_state *state);
/* The drafts' part, once the model is known; `model` is for messages. ERROR_USAGE if it lacks the
 * layer that is asked for. */
bool scheduling_options_draft(const struct scheduling_options *options, const struct arch *arch,
                              const char *model, struct cluster_config *config,
                              struct error *err) MUST_CHECK;

#endif
