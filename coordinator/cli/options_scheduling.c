/* options_scheduling.c - options about steps, slots and the queue.
 *
 * None of them changes an answer: what a sequence computes does not depend on what runs beside it.
 */
#include "coordinator/cli/options_scheduling.h"

#include "common/base/clock.h"
#include "coordinator/cli/options.h"

#include <string.h>

enum {
    KEY_MAX_BATCH = 0x1800,
    KEY_SLOTS,
    KEY_STEP_ROWS,
    KEY_QUEUE,
    KEY_PREFIX_CACHE,
    KEY_MAX_STEP_MS,
};

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "Scheduling (none of these changes an answer):", 12},
    {"max-batch", KEY_MAX_BATCH, "K", 0, "At most K decoding sequences in one step", 12},
    {"slots", KEY_SLOTS, "N", 0, "Sequences that run at a time on each lane; others wait (64)", 12},
    {"step-rows", KEY_STEP_ROWS, "N", 0, "Rows (tokens) of one step, at most", 12},
    {"queue", KEY_QUEUE, "N", 0,
     "Waiting sequences of each class, at most; further ones are refused with 429 (4096)", 12},
    {"prefix-cache", KEY_PREFIX_CACHE, "on|off", 0,
     "Compute equal beginnings of prompts once, as long as memory holds them (on)", 12},
    {"max-step-ms", KEY_MAX_STEP_MS, "MS", 0,
     "Cut prompts into pieces so small that running answers wait no longer for their next token "
     "(no bound)",
     12},
    {0},
};

static void switch_parse(const char *text, const char *what, bool *off, struct argp_state *state)
{
    if (strcmp(text, "on") != 0 && strcmp(text, "off") != 0) {
        argp_error(state, "%s must be on or off, not \"%s\"", what, text);
    }
    *off = strcmp(text, "off") == 0;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct scheduling_options *own = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        options_from_environment(options, parse_option, state);
        return 0;
    case KEY_MAX_BATCH:
        own->batch_max = option_u32(arg, "--max-batch", 1, 1u << 20, state);
        return 0;
    case KEY_SLOTS:
        own->slot_count = option_u32(arg, "--slots", 1, 65536, state);
        return 0;
    case KEY_STEP_ROWS:
        own->step_rows_max = option_u32(arg, "--step-rows", 1, 65536, state);
        return 0;
    case KEY_QUEUE:
        own->queue_max = option_u32(arg, "--queue", 1, 1u << 20, state);
        return 0;
    case KEY_PREFIX_CACHE:
        switch_parse(arg, "--prefix-cache", &own->prefix_cache_off, state);
        return 0;
    case KEY_MAX_STEP_MS:
        own->max_step_ms = option_u32(arg, "--max-step-ms", 0, 1u << 20, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp scheduling_options_argp = {.options = options, .parser = parse_option};

void scheduling_options_apply(const struct scheduling_options *own, struct cluster_config *config)
{
    config->batch_max = own->batch_max;
    config->slot_count = own->slot_count;
    config->step_rows_max = own->step_rows_max;
    config->queue_max = own->queue_max;
    config->max_step_ns = own->max_step_ms * NS_PER_MS;
    config->prefix_cache_off = own->prefix_cache_off;
}
