/* routing.c - `shoal routing`: which experts every position of every prompt visits.
 *
 * One JSON line for each prompt, MoE layer and position, in this order. A prompt's rows come from
 * several stages in any order, so they are kept until the prompt and all before it are complete.
 */
#include "common/base/log.h"
#include "common/base/mem.h"
#include "coordinator/cli/cli.h"
#include "coordinator/cli/local_cluster.h"
#include "coordinator/cli/output_file.h"
#include "coordinator/cli/prompt_batch.h"

#include <inttypes.h>
#include <string.h>

/* Of one prompt: [MoE layers][positions][chosen]. */
struct routed {
    uint32_t *experts;
    float *weights;
    bool complete;
};

struct routing_command {
    struct cluster_options cluster;
    const char *prompts_path, *out_path;
    bool draft_layer;

    struct prompt_list list;
    const struct arch *arch;
    uint32_t moe_layer_count, chosen_count; /* the draft layer included, if it is wanted */
    struct routed *routed;                  /* [list.count] */
    size_t next;                            /* prompt to be written */
    struct output_file out;
    uint64_t out_bytes;
};

enum { KEY_PROMPTS = 0x2000, KEY_OUT, KEY_DRAFT_LAYER };

static const struct argp_option options[] = {
    {"prompts", KEY_PROMPTS, "FILE", 0, "Prompts, one {\"tokens\": [...]} a line", 1},
    {"out", KEY_OUT, "FILE", 0,
     "JSON lines {\"id\", \"layer\", \"pos\", \"experts\", \"weights\"}, experts by descending "
     "weight",
     1},
    {"draft-layer", KEY_DRAFT_LAYER, NULL, 0,
     "Also the multi-token-prediction layer, numbered behind the others", 1},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct routing_command *own = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &own->cluster;
        options_from_environment(options, parse_option, state);
        return 0;
    case KEY_PROMPTS:
        own->prompts_path = arg;
        return 0;
    case KEY_OUT:
        own->out_path = arg;
        return 0;
    case KEY_DRAFT_LAYER:
        own->draft_layer = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument \"%s\"", arg);
        return 0;
    case ARGP_KEY_END:
        if (own->prompts_path == NULL || own->out_path == NULL) {
            argp_error(state, "--prompts FILE and --out FILE are needed");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static bool rows_keep(void *context, size_t index, const struct cluster_event *event,
                      struct error *err)
{
    struct routing_command *own = context;
    const struct prompt *prompt = &own->list.prompts[index];
    struct routed *routed = &own->routed[index];
    size_t values = (size_t)own->moe_layer_count * prompt->count * own->chosen_count;
    size_t at;

    if (event->kind != CLUSTER_ROUTING) {
        return true;
    }
    if (event->layer < own->arch->dense_layer_count ||
        event->layer - own->arch->dense_layer_count >= own->moe_layer_count ||
        event->chosen_count != own->chosen_count) {
        return error_set(err, ERROR_PEER, "routing of layer %u with %u experts", event->layer,
                         event->chosen_count);
    }
    if (routed->experts == NULL) {
        routed->experts = mem_try_array(uint32_t, values, err);
        routed->weights = routed->experts == NULL ? NULL : mem_try_array(float, values, err);
        if (routed->weights == NULL) {
            return false;
        }
    }
    at = ((size_t)(event->layer - own->arch->dense_layer_count) * prompt->count + event->position) *
         own->chosen_count;
    memcpy(routed->experts + at, event->experts,
           sizeof(uint32_t) * event->row_count * own->chosen_count);
    memcpy(routed->weights + at, event->expert_weights,
           sizeof(float) * event->row_count * own->chosen_count);
    return true;
}

/* Largest weight first; equal ones by rising expert, as they came. */
static void order_by_weight(const float *weights, uint32_t count, uint32_t *order)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = i;

        while (at > 0 && weights[order[at - 1]] < weights[i]) {
            order[at] = order[at - 1];
            at--;
        }
        order[at] = i;
    }
}

static void line_format(struct buffer *line, const struct routing_command *own,
                        const uint32_t *experts, const float *weights, uint32_t *order)
{
    order_by_weight(weights, own->chosen_count, order);
    buffer_append_text(line, "\"experts\": [");
    for (uint32_t i = 0; i < own->chosen_count; i++) {
        buffer_printf(line, "%s%u", i > 0 ? ", " : "", experts[order[i]]);
    }
    buffer_append_text(line, "], \"weights\": [");
    for (uint32_t i = 0; i < own->chosen_count; i++) {
        buffer_printf(line, "%s%.9g", i > 0 ? ", " : "", (double)weights[order[i]]);
    }
    buffer_append_text(line, "]}\n");
}

static bool prompt_write(struct routing_command *own, size_t index, struct error *err)
{
    const struct prompt *prompt = &own->list.prompts[index];
    struct routed *routed = &own->routed[index];
    uint32_t *order = mem_new_array(uint32_t, own->chosen_count);
    struct buffer lines;
    bool written;

    buffer_init(&lines);
    for (uint32_t layer = 0; layer < own->moe_layer_count && routed->experts != NULL; layer++) {
        for (uint32_t position = 0; position < prompt->count; position++) {
            size_t at = ((size_t)layer * prompt->count + position) * own->chosen_count;

            buffer_printf(&lines, "{\"id\": %" PRId64 ", \"layer\": %u, \"pos\": %u, ", prompt->id,
                          layer + own->arch->dense_layer_count, position);
            line_format(&lines, own, routed->experts + at, routed->weights + at, order);
        }
    }
    written =
        output_file_write_at(&own->out, buffer_text(&lines), lines.length, own->out_bytes, err);
    own->out_bytes += lines.length;
    buffer_deinit(&lines);
    mem_free(order);
    mem_free(routed->experts);
    mem_free(routed->weights);
    routed->experts = NULL;
    routed->weights = NULL;
    return written;
}

static bool prompt_finished(void *context, size_t index, struct error *err)
{
    struct routing_command *own = context;

    own->routed[index].complete = true;
    while (own->next < own->list.count && own->routed[own->next].complete) {
        if (!prompt_write(own, own->next, err)) {
            return false;
        }
        own->next++;
    }
    return true;
}

static bool routing_run(struct routing_command *own, struct local_cluster *local, struct error *err)
{
    struct prompt_batch batch = {.cluster = local->cluster,
                                 .path = own->prompts_path,
                                 .list = &own->list,
                                 .wants = WANT_ROUTING |
                                          (own->draft_layer ? (uint32_t)WANT_DRAFT_LOGITS : 0u),
                                 .context = own,
                                 .rows = rows_keep,
                                 .finished = prompt_finished};

    own->arch = &local->catalog->arch;
    if (own->arch->router.expert_count == 0) {
        return error_set(err, ERROR_USAGE, "%s has no routed experts", own->cluster.model);
    }
    own->moe_layer_count =
        own->arch->layer_count - own->arch->dense_layer_count + (own->draft_layer ? 1 : 0);
    own->chosen_count = own->arch->router.chosen_count;
    if (!prompt_list_read(own->prompts_path, own->arch->vocab, &own->list, err) ||
        !output_file_create(&own->out, own->out_path, err) || !local_cluster_wait(local, err)) {
        return false;
    }
    own->routed = mem_new_array(struct routed, own->list.count);
    return prompt_batch_run(&batch, err) && output_file_commit(&own->out, err) &&
           local_cluster_profile(local, err);
}

static void routing_deinit(struct routing_command *own)
{
    output_file_discard(&own->out);
    for (size_t i = 0; own->routed != NULL && i < own->list.count; i++) {
        mem_free(own->routed[i].experts);
        mem_free(own->routed[i].weights);
    }
    mem_free(own->routed);
    prompt_list_deinit(&own->list);
}

int command_routing(int argc, char **argv)
{
    static const struct argp_child children[] = {{&cluster_options_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        options,
        parse_option,
        NULL,
        "Writes the routed experts, with their weights, of every position of every prompt.\v"
        "  shoal routing --model DIR --prompts prompts.jsonl --out routing.jsonl",
        children,
        NULL,
        NULL};
    struct routing_command own = {0};
    struct local_cluster local;
    struct error err = {0};
    bool fine;

    cluster_options_init(&own.cluster, OPTIONS_PRIVATE);
    argp_parse(&argp, argc, argv, 0, NULL, &own);
    own.cluster.scheduling.draft = own.draft_layer ? "mtp" : "none"; /* else unused */
    log_init("shoal", LOG_WARN);
    cli_signals_install();
    cli_limits_raise();
    fine = local_cluster_start(&local, &own.cluster, LOCAL_CLUSTER_NO_TOKENIZER, &err);
    if (fine) {
        fine = routing_run(&own, &local, &err);
        routing_deinit(&own);
        local_cluster_stop(&local);
    }
    return fine ? CLI_OK : cli_fail(argv[0], &err);
}
