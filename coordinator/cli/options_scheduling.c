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
    KEY_DRAFT,
    KEY_DRAFT_MAX,
    KEY_PREEMPT_EVERY,
};

#define DRAFT_MAX_LAYER  1
#define DRAFT_MAX_LOOKUP 4

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "Scheduling (none of these changes an answer):", 12},
    {"max-batch", KEY_MAX_BATCH, "K", 0, "At most K decoding sequences in one step", 12},
    {"slots", KEY_SLOTS, "N", 0, "Sequences that run at a time on each lane; others wait (64)", 12},
    {"step-rows", KEY_STEP_ROWS, "N", 0, "Rows (tokens) of one step, at most", 12},
    {"queue", KEY_QUEUE, "N", 0,
     "Waiting sequences, at most; further ones are refused with HTTP 429 (4096)", 12},
    {"prefix-cache", KEY_PREFIX_CACHE, "on|off", 0,
     "Compute equal beginnings of prompts once, as long as memory holds them (on)", 12},
    {"max-step-ms", KEY_MAX_STEP_MS, "MS", 0,
     "Cut prompts into pieces so small that running answers wait no longer for their next token "
     "(no bound)",
     12},
    {"draft", KEY_DRAFT, "mtp|lookup|none", 0,
     "Who guesses next tokens, which the model then verifies: its multi-token-prediction layer, or "
     "a look at what followed the same words earlier (mtp if the model has the layer, else none)",
     12},
    {"draft-max", KEY_DRAFT_MAX, "N", 0,
     "Guess at most N tokens ahead, where that pays (mtp: 1, lookup: 4)", 12},
    {"preempt-every", KEY_PREEMPT_EVERY, "N", 0,
     "For tests: interrupt each sequence after every N tokens and compute it again, as if memory "
     "had "
     "run out",
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

static const char *const draft_names[] = {
    [DRAFT_NONE] = "none", [DRAFT_LAYER] = "mtp", [DRAFT_LOOKUP] = "lookup"};

static bool draft_find(const char *text, enum draft_mode *out)
{
    for (size_t i = 0; i < ARRAY_LENGTH(draft_names); i++) {
        if (strcmp(draft_names[i], text) == 0) {
            *out = (enum draft_mode)i;
            return true;
        }
    }
    return false;
}

void scheduling_option_draft_parse(struct scheduling_options *own, const char *text,
                                   struct argp_state *state)
{
    enum draft_mode mode;

    if (!draft_find(text, &mode)) {
        argp_error(state, "--draft must be mtp, lookup or none, not \"%s\"", text);
    }
    own->draft = text;
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
    case KEY_DRAFT:
        scheduling_option_draft_parse(own, arg, state);
        return 0;
    case KEY_PREEMPT_EVERY:
        own->preempt_tokens = option_u32(arg, "--preempt-every", 1, UINT32_MAX, state);
        return 0;
    case KEY_DRAFT_MAX:
        own->draft_max = option_u32(arg, "--draft-max", 1, STEP_PROPOSE_MAX, state);
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
    config->preempt_tokens = own->preempt_tokens;
}

bool scheduling_options_draft(const struct scheduling_options *own, const struct arch *arch,
                              const char *model, struct cluster_config *config, struct error *err)
{
    config->draft_mode = arch->draft_layer_count > 0 ? DRAFT_LAYER : DRAFT_NONE;
    config->draft_layer_optional = own->draft == NULL;
    if (own->draft != NULL) {
        (void)draft_find(own->draft, &config->draft_mode); /* checked by the parser */
    }
    config->draft_max = own->draft_max;
    if (config->draft_max == 0) {
        config->draft_max = config->draft_mode == DRAFT_LOOKUP ? DRAFT_MAX_LOOKUP : DRAFT_MAX_LAYER;
    }
    return config->draft_mode != DRAFT_LAYER || arch->draft_layer_count > 0 ||
           error_set(err, ERROR_USAGE,
                     "--draft mtp: %s has no multi-token-prediction layer; --draft lookup works "
                     "with every model",
                     model);
}
