/* options.c - the options of model and cluster, and settings from the environment.
 *
 * One argp child parser, so that every command takes the same words. The environment is read first,
 * through the same code as the flags, which then overwrite it.
 */
#include "coordinator/cli/options.h"

#include "common/base/units.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define WORKERS_MAX 4096

enum option_key {
    KEY_MODEL = 0x1000,
    KEY_WEIGHTS,
    KEY_LOCAL,
    KEY_LAYOUT,
    KEY_WORKERS,
    KEY_LINK,
    KEY_THREADS,
    KEY_MEMORY,
    KEY_NUMERICS,
    KEY_KV_TYPE,
    KEY_CONTEXT,
    KEY_KV_TOKENS,
    KEY_PLACEMENT,
    KEY_PROMPT_SHARE,
    KEY_CONTROL,
    KEY_FETCH_PORT,
    KEY_KEY,
    KEY_INSECURE,
    KEY_STEP_LOG,
    KEY_PROFILE,
    KEY_WORKER_PROGRAM,
};

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "Model:", 10},
    {"model", KEY_MODEL, "PATH", 0,
     "Hugging Face model directory (config.json, safetensors, tokenizer.json), or a GGUF file: the "
     "first, if there are several",
     10},
    {"weights", KEY_WEIGHTS, "dummy[:SEED]", 0,
     "Plausible random weights in little memory; --model may then be a config.json alone", 10},
    {"numerics", KEY_NUMERICS, "exact|int8|fast", 0,
     "Activations that meet quantised weights: int8, or as exact floats. Both give the same bits "
     "everywhere (int8 for quantised models, exact for others). fast: other bits on other CPUs, "
     "and "
     "needs equal workers; float weights on AMX tiles (fast-amx) if the first worker has them, "
     "else "
     "int8. fast-blas: float weights with OpenBLAS",
     10},
    {"kv-type", KEY_KV_TYPE, "TYPE", 0, "Storage of the KV cache: f16, bf16, f32, q8 (f16)", 10},
    {"context", KEY_CONTEXT, "N", 0,
     "Longest sequence in tokens (the model's, cut to what memory holds)", 10},
    {"kv-tokens", KEY_KV_TOKENS, "N", 0, "KV cache of each lane in tokens (what memory holds)", 10},
    {NULL, 0, NULL, 0, "Cluster:", 11},
    {"local", KEY_LOCAL, "N", 0,
     "Start N workers on this machine, split as the planner sees fit "
     "(1)",
     11},
    {"layout", KEY_LAYOUT, "SxG", 0,
     "S pipeline stages of G workers each; G workers share their stage's experts", 11},
    {"workers", KEY_WORKERS, "N", 0, "Wait for N workers of other machines", 11},
    {"link", KEY_LINK, "zmq|mpi|mixed", 0,
     "How local workers exchange data: zmq, one MPI world, or two worlds joined by zmq (zmq)", 11},
    {"threads", KEY_THREADS, "T", 0,
     "Compute threads of each local worker (its share of the "
     "cores)",
     11},
    {"memory", KEY_MEMORY, "BYTES", 0,
     "Memory of each local worker, as 6G or 500M (its share of what is there)", 11},
    {"placement", KEY_PLACEMENT, "FILE", 0, "Use this placement instead of planning one", 11},
    {"prompt-share", KEY_PROMPT_SHARE, "P", 0,
     "What the planner evens stages out for: 0 generation, 1 prompts, or how much of the time "
     "prompts take (0). It matters for small models with a large vocabulary",
     11},
    {"control", KEY_CONTROL, "tcp://HOST:PORT", 0,
     "Where workers find the coordinator (a free port of 127.0.0.1)", 11},
    {"fetch-port", KEY_FETCH_PORT, "N", 0,
     "Port beside --control where workers without the model get its files (a free one)", 11},
    {"key", KEY_KEY, "FILE", 0, "Cluster key made by `shoal keygen'; needed off this machine", 11},
    {"insecure", KEY_INSECURE, NULL, 0,
     "Do without keys (--control) or authentication (--host) off this machine", 11},
    {"worker-program", KEY_WORKER_PROGRAM, "PATH", 0,
     "The worker (shoal-worker beside this "
     "program)",
     11},
    {"step-log", KEY_STEP_LOG, "FILE", 0, "Write when each worker computed each step, as CSV", 11},
    {"profile", KEY_PROFILE, "FILE", 0,
     "In the end, write where the workers' time went, by layer and operation (`shoal profile' "
     "shows "
     "it)",
     11},
    {0},
};

/* --- values --- */

uint64_t option_u64(const char *text, const char *what, struct argp_state *state)
{
    char *end;
    unsigned long long value;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end != '\0' || errno != 0) {
        argp_error(state, "%s must be a whole number from 0 to %llu, not \"%s\"", what,
                   (unsigned long long)UINT64_MAX, text);
    }
    return value;
}

uint32_t option_u32(const char *text, const char *what, uint32_t minimum, uint32_t maximum,
                    struct argp_state *state)
{
    char *end;
    unsigned long long value;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end != '\0' || errno != 0 || value < minimum ||
        value > maximum) {
        argp_error(state, "%s must be a whole number from %u to %u, not \"%s\"", what, minimum,
                   maximum, text);
    }
    return (uint32_t)value;
}

double option_number(const char *text, const char *what, double minimum, double maximum,
                     struct argp_state *state)
{
    char *end;
    double value = strtod(text, &end);

    if (text[0] == '\0' || *end != '\0' || !isfinite(value) || value < minimum || value > maximum) {
        argp_error(state, "%s must be a number from %g to %g, not \"%s\"", what, minimum, maximum,
                   text);
    }
    return value;
}

/* --- the environment --- */

/* "kv-type" → "SHOAL_KV_TYPE" */
static void variable_name(char *out, size_t bytes, const char *option)
{
    size_t length = (size_t)snprintf(out, bytes, "SHOAL_%s", option);

    for (size_t i = 6; i < length && i < bytes; i++) {
        out[i] = out[i] == '-' ? '_' : (char)toupper((unsigned char)out[i]);
    }
}

static bool is_yes(const char *value)
{
    return strcmp(value, "1") == 0 || strcasecmp(value, "true") == 0 ||
           strcasecmp(value, "yes") == 0;
}

void options_from_environment(const struct argp_option *table, argp_parser_t parse,
                              struct argp_state *state)
{
    if (state->name == NULL) {
        state->name = state->argv[0]; /* argp sets it after this, but errors print it */
    }
    for (const struct argp_option *option = table;
         option->name != NULL || option->key != 0 || option->doc != NULL; option++) {
        char variable[80];
        char *value;

        if (option->name == NULL) {
            continue;
        }
        variable_name(variable, sizeof(variable), option->name);
        value = getenv(variable);
        if (value == NULL || value[0] == '\0') {
            continue;
        }
        if (option->arg != NULL) {
            (void)parse(option->key, value, state);
        } else if (is_yes(value)) {
            (void)parse(option->key, NULL, state);
        }
    }
}

/* --- the parser --- */

void option_layout(const char *text, uint32_t *stage_count, uint32_t *group_size,
                   struct argp_state *state)
{
    unsigned stages, group;
    int length = 0;

    if (!isdigit((unsigned char)text[0]) ||
        sscanf(text, "%9ux%9u%n", &stages, &group, &length) != 2 || text[length] != '\0' ||
        stages < 1 || group < 1 || (uint64_t)stages * group > WORKERS_MAX) {
        argp_error(state, "--layout must be STAGESxGROUP, like 3x1 or 2x2, not \"%s\"", text);
        return;
    }
    *stage_count = stages;
    *group_size = group;
}

static void link_parse(struct cluster_options *own, const char *text, struct argp_state *state)
{
    static const char *const names[] = {
        [CLUSTER_LINK_ZMQ] = "zmq", [CLUSTER_LINK_MPI] = "mpi", [CLUSTER_LINK_MIXED] = "mixed"};

    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        if (strcmp(names[i], text) == 0) {
            own->link = (enum cluster_link)i;
            return;
        }
    }
    argp_error(state, "--link must be zmq, mpi or mixed, not \"%s\"", text);
}

static void kv_type_read(struct cluster_options *own, const char *text, struct argp_state *state)
{
    struct error err;

    if (!kv_type_parse(text, &own->kv_type, &err)) {
        argp_error(state, "--kv-type: %s", err.message);
    }
}

static void weights_parse(struct cluster_options *own, const char *text, struct argp_state *state)
{
    struct error err;

    if (!weights_choice_parse(text, &own->weights, &err)) {
        argp_error(state, "--weights: %s", err.message);
    }
}

static void memory_parse(struct cluster_options *own, const char *text, struct argp_state *state)
{
    struct error err;

    if (!units_parse_bytes(text, "--memory", &own->memory_bytes, &err)) {
        argp_error(state, "%s", err.message);
    } else if (own->memory_bytes == 0) {
        argp_error(state, "--memory 0 leaves a worker nothing");
    }
}

static void numerics_read(struct cluster_options *own, const char *text, struct argp_state *state)
{
    enum numerics numerics;

    if (!numerics_asked(text, &numerics)) {
        argp_error(state, "--numerics must be exact, int8, fast, fast-amx or fast-blas, not \"%s\"",
                   text);
    }
    own->numerics = text;
}

/* Who starts how many, where the flags left it open. */
static void counts_complete(struct cluster_options *own, struct argp_state *state)
{
    uint64_t wanted = (uint64_t)own->stage_count * own->group_size;

    if (own->model == NULL) {
        argp_error(state, "--model DIR is missing");
    }
    if (own->kind == OPTIONS_PRIVATE && own->remote_count > 0 && own->control_endpoint == NULL) {
        argp_error(state,
                   "--workers needs --control tcp://HOST:PORT, where they find this command");
    }
    if (own->control_endpoint == NULL) {
        own->control_endpoint = "tcp://127.0.0.1:0";
    }
    if (own->local_count > 0 || own->placement_path != NULL) {
        return;
    }
    if (wanted > own->remote_count) {
        own->local_count = (uint32_t)(wanted - own->remote_count);
    } else if (wanted == 0 && own->remote_count == 0) {
        own->local_count = 1;
    }
}

/* Flags that say how many, as numbers within bounds. */
static error_t parse_number(int key, const char *arg, struct argp_state *state)
{
    struct cluster_options *own = state->input;

    switch (key) {
    case KEY_LOCAL:
        own->local_count = option_u32(arg, "--local", 1, WORKERS_MAX, state);
        return 0;
    case KEY_WORKERS:
        own->remote_count = option_u32(arg, "--workers", 1, WORKERS_MAX, state);
        return 0;
    case KEY_THREADS:
        own->threads = option_u32(arg, "--threads", 1, 4096, state);
        return 0;
    case KEY_CONTEXT:
        own->context_tokens_max = option_u32(arg, "--context", 1, UINT32_MAX / 2, state);
        return 0;
    case KEY_PROMPT_SHARE:
        own->prompt_share = option_number(arg, "--prompt-share", 0, 1, state);
        return 0;
    case KEY_KV_TOKENS:
        own->kv_tokens = option_u64(arg, "--kv-tokens", state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse_word(int key, const char *arg, struct argp_state *state)
{
    struct cluster_options *own = state->input;

    switch (key) {
    case KEY_MODEL:
        own->model = arg;
        return 0;
    case KEY_WEIGHTS:
        weights_parse(own, arg, state);
        return 0;
    case KEY_LAYOUT:
        option_layout(arg, &own->stage_count, &own->group_size, state);
        return 0;
    case KEY_LINK:
        link_parse(own, arg, state);
        return 0;
    case KEY_MEMORY:
        memory_parse(own, arg, state);
        return 0;
    case KEY_NUMERICS:
        numerics_read(own, arg, state);
        return 0;
    case KEY_KV_TYPE:
        kv_type_read(own, arg, state);
        return 0;
    case KEY_PLACEMENT:
        own->placement_path = arg;
        return 0;
    case KEY_CONTROL:
        own->control_endpoint = arg;
        return 0;
    case KEY_FETCH_PORT:
        own->fetch_port = (uint16_t)option_u32(arg, "--fetch-port", 0, UINT16_MAX, state);
        return 0;
    case KEY_KEY:
        own->key_path = arg;
        return 0;
    case KEY_INSECURE:
        own->keys_policy = KEYS_INSECURE_ALLOWED;
        return 0;
    case KEY_STEP_LOG:
        own->step_log_path = arg;
        return 0;
    case KEY_PROFILE:
        own->profile_path = arg;
        return 0;
    case KEY_WORKER_PROGRAM:
        own->worker_program = arg;
        return 0;
    default:
        return parse_number(key, arg, state);
    }
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &((struct cluster_options *)state->input)->scheduling;
        options_from_environment(options, parse_option, state);
        return 0;
    case ARGP_KEY_END:
        counts_complete(state->input, state);
        return 0;
    default:
        return parse_word(key, arg, state);
    }
}

static const struct argp_child children[] = {{&scheduling_options_argp, 0, NULL, 0}, {0}};
const struct argp cluster_options_argp = {
    .options = options, .parser = parse_option, .children = children};

void cluster_options_init(struct cluster_options *own, enum cluster_options_kind kind)
{
    *own = (struct cluster_options){
        .kind = kind, .link = CLUSTER_LINK_ZMQ, .kv_type = KV_F16, .keys_policy = KEYS_REQUIRED};
}

bool cluster_options_apply(const struct cluster_options *own, struct cluster_config *config,
                           struct error *err)
{
    *config = (struct cluster_config){
        .control_endpoint = own->control_endpoint,
        .key_path = own->key_path,
        .keys_policy = own->keys_policy,
        .local_count = own->local_count,
        .local_link = own->link,
        .stage_count = own->stage_count,
        .group_size = own->group_size,
        .remote_count = own->remote_count,
        .worker_program = own->worker_program,
        .threads = own->threads,
        .worker_memory_bytes = own->memory_bytes,
        .fetch_port = own->fetch_port,
        .placement_path = own->placement_path,
        .prompt_share = own->prompt_share,
        .step_log_path = own->step_log_path,
        .step_sink = own->step_sink,
        .step_context = own->step_context,
        .measure_limits = own->measure_limits || own->profile_path != NULL,
        .kv_type = own->kv_type,
        .context_tokens_max = own->context_tokens_max,
        .kv_tokens = own->kv_tokens,
    };
    scheduling_options_apply(&own->scheduling, config);
    return own->key_path == NULL || keys_read(own->key_path, &config->key, err);
}
