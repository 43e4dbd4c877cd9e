#ifndef SHOAL_CLI_OPTIONS_H
#define SHOAL_CLI_OPTIONS_H

/* The options that describe model and cluster, the same in every command that needs one; and
 * settings from the environment: every long option --some-flag is also SHOAL_SOME_FLAG, the flag
 * wins.
 *
 * A command lists `cluster_options_argp` as argp child and, in its own ARGP_KEY_INIT, sets
 * state->child_inputs[i] to its struct cluster_options, which it initialised with
 * cluster_options_init before argp_parse. Values are checked while they are parsed: a wrong one
 * prints what would be right and exits with 2. `--model` missing is such an error too.
 */
#include "common/base/error.h"
#include "common/model/kv_type.h"
#include "coordinator/cli/options_scheduling.h"
#include "coordinator/cluster/cluster.h"

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>

enum cluster_options_kind {
    OPTIONS_PRIVATE, /* run, logits, …: a cluster of local workers for this command, default 1x1 */
    OPTIONS_SERVE,   /* serve: local workers or remote ones */
};

struct cluster_options {
    enum cluster_options_kind kind;
    const char *model;
    struct weights_choice weights;
    uint32_t
        local_count; /* workers to start here: --local N, or S*G of --layout without --workers */
    uint32_t stage_count, group_size; /* --layout; 0: the planner decides */
    uint32_t remote_count;            /* --workers */
    enum cluster_link link;
    uint32_t threads;
    uint64_t memory_bytes;
    const char *numerics; /* NULL: as the model's types ask for */
    enum kv_type kv_type;
    uint32_t context_tokens_max;
    uint64_t kv_tokens;
    struct scheduling_options scheduling;
    const char *control_endpoint; /* never NULL: tcp://127.0.0.1:0 unless given */
    uint16_t fetch_port;          /* 0: a free one */
    const char *key_path;
    enum keys_policy keys_policy;
    const char *placement_path;
    double prompt_share;
    const char *step_log_path;
    const char *worker_program;

    /* No flags: for commands that need them. */
    cluster_step_fn step_sink; /* NULL: none */
    void *step_context;
};

extern const struct argp cluster_options_argp;

void cluster_options_init(struct cluster_options *options, enum cluster_options_kind kind);
/* Fills a cluster_config (reads the key file); model and catalog are the caller's to add. Strings
 * are borrowed from the options. */
bool cluster_options_apply(const struct cluster_options *options, struct cluster_config *config,
                           struct error *err) MUST_CHECK;

/* For ARGP_KEY_INIT of any parser: calls parse(key, value, state) for each long option of the table
 * whose SHOAL_ variable is set and not empty. Options without argument are taken if the value is 1,
 * true or yes. */
void options_from_environment(const struct argp_option *options, argp_parser_t parse,
                              struct argp_state *state);

/* Checked values; argp_error (exit 2) names the option and what would be right. */
uint32_t option_u32(const char *text, const char *what, uint32_t minimum, uint32_t maximum,
                    struct argp_state *state);
double option_number(const char *text, const char *what, double minimum, double maximum,
                     struct argp_state *state);
void option_layout(const char *text, uint32_t *stage_count, uint32_t *group_size,
                   struct argp_state *state); /* "8x2" */
uint64_t option_u64(const char *text, const char *what, struct argp_state *state);

#endif
