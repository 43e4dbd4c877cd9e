/* logits.c - `shoal logits`: the logits of every position of every prompt, as a raw file.
 *
 * Each row has its place in the file from the start, so rows are written as they come; so are the
 * hidden states that the stages hand over, if they are asked for.
 */
#include "common/base/log.h"
#include "common/base/mem.h"
#include "coordinator/cli/cli.h"
#include "coordinator/cli/local_cluster.h"
#include "coordinator/cli/output_file.h"
#include "coordinator/cli/prompt_batch.h"

#include <string.h>

#define BOUNDARIES_MAX 4097

struct logits_command {
    struct cluster_options cluster;
    const char *prompts_path, *out_path, *hidden_path, *draft_path;

    struct prompt_list list;
    uint64_t *first_row; /* [list.count]: rows of all prompts before it */
    uint32_t vocab, hidden;
    struct output_file out, hidden_out, draft_out;
    uint32_t boundary_count;
    uint32_t boundaries[BOUNDARIES_MAX]; /* 0 and the end of each stage, rising */
};

enum { KEY_PROMPTS = 0x2000, KEY_OUT, KEY_HIDDEN, KEY_DRAFT_LAYER };

static const struct argp_option options[] = {
    {"prompts", KEY_PROMPTS, "FILE", 0, "Prompts, one {\"tokens\": [...]} a line", 1},
    {"out", KEY_OUT, "FILE", 0,
     "Logits: little-endian f32, one row of the vocabulary for each position, in order", 1},
    {"hidden", KEY_HIDDEN, "FILE", 0,
     "Also the hidden states that stages hand over, for tests and research: little-endian f32, for "
     "each prompt [boundaries][positions][hidden]; boundaries are the embeddings, then the output "
     "of each stage's last layer",
     1},
    {"draft-layer", KEY_DRAFT_LAYER, "FILE", 0,
     "Also the logits of the multi-token-prediction layer, as --out: each row is for the token "
     "after the next one; a prompt's last row takes the token of its highest logit as the next",
     1},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct logits_command *own = state->input;

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
    case KEY_HIDDEN:
        own->hidden_path = arg;
        return 0;
    case KEY_DRAFT_LAYER:
        own->draft_path = arg;
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

static void first_rows_count(struct logits_command *own)
{
    uint64_t rows = 0;

    own->first_row = mem_new_array(uint64_t, own->list.count);
    for (size_t i = 0; i < own->list.count; i++) {
        own->first_row[i] = rows;
        rows += own->list.prompts[i].count;
    }
}

/* The places between stages, from what runs where. */
static void boundaries_find(struct logits_command *own, struct cluster *cluster)
{
    struct cluster_status *status = cluster_status(cluster);

    own->boundary_count = 1; /* the embeddings, before layer 0 */
    for (uint32_t stage = 0; stage < status->stage_count && stage + 1 < BOUNDARIES_MAX; stage++) {
        for (uint32_t i = 0; i < status->worker_count; i++) {
            if (status->workers[i].stage == stage) {
                own->boundaries[own->boundary_count++] = status->workers[i].layer_end;
                break;
            }
        }
    }
    cluster_status_destroy(status);
}

static bool hidden_write(struct logits_command *own, size_t index,
                         const struct cluster_event *event, struct error *err)
{
    uint32_t boundary = 0;
    uint64_t row;

    while (boundary < own->boundary_count && own->boundaries[boundary] != event->boundary) {
        boundary++;
    }
    if (boundary == own->boundary_count || event->columns != own->hidden) {
        return error_set(err, ERROR_PEER, "hidden states before layer %u, where no stage ends",
                         event->boundary);
    }
    row = own->first_row[index] * own->boundary_count +
          (uint64_t)boundary * own->list.prompts[index].count + event->position;
    return output_file_write_at(&own->hidden_out, event->values,
                                sizeof(float) * event->row_count * event->columns,
                                sizeof(float) * row * own->hidden, err);
}

static bool rows_write(void *context, size_t index, const struct cluster_event *event,
                       struct error *err)
{
    struct logits_command *own = context;
    uint64_t row = own->first_row[index] + event->position;

    if (event->kind == CLUSTER_HIDDEN) {
        return hidden_write(own, index, event, err);
    }
    if (event->kind != CLUSTER_LOGITS && event->kind != CLUSTER_DRAFT_LOGITS) {
        return true;
    }
    return output_file_write_at(event->kind == CLUSTER_LOGITS ? &own->out : &own->draft_out,
                                event->values, sizeof(float) * event->row_count * event->columns,
                                sizeof(float) * row * own->vocab, err);
}

static bool files_create(struct logits_command *own, struct error *err)
{
    return output_file_create(&own->out, own->out_path, err) &&
           (own->hidden_path == NULL ||
            output_file_create(&own->hidden_out, own->hidden_path, err)) &&
           (own->draft_path == NULL || output_file_create(&own->draft_out, own->draft_path, err));
}

static bool files_commit(struct logits_command *own, struct error *err)
{
    return output_file_commit(&own->out, err) &&
           (own->hidden_path == NULL || output_file_commit(&own->hidden_out, err)) &&
           (own->draft_path == NULL || output_file_commit(&own->draft_out, err));
}

static bool logits_run(struct logits_command *own, struct local_cluster *local, struct error *err)
{
    struct prompt_batch batch = {.cluster = local->cluster,
                                 .path = own->prompts_path,
                                 .list = &own->list,
                                 .wants = WANT_LOGITS,
                                 .context = own,
                                 .rows = rows_write};

    batch.wants |= own->hidden_path != NULL ? WANT_HIDDEN : 0u;
    batch.wants |= own->draft_path != NULL ? WANT_DRAFT_LOGITS : 0u;
    own->vocab = local->catalog->arch.vocab;
    own->hidden = local->catalog->arch.hidden;
    if (!prompt_list_read(own->prompts_path, own->vocab, &own->list, err) ||
        !files_create(own, err) || !local_cluster_wait(local, err)) {
        return false;
    }
    first_rows_count(own);
    boundaries_find(own, local->cluster);
    return prompt_batch_run(&batch, err) && files_commit(own, err) &&
           local_cluster_profile(local, err);
}

int command_logits(int argc, char **argv)
{
    static const struct argp_child children[] = {{&cluster_options_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        options,
        parse_option,
        NULL,
        "Writes the logits after every position of every prompt.\v"
        "  shoal logits --model DIR --prompts prompts.jsonl --out logits.f32",
        children,
        NULL,
        NULL};
    struct logits_command *own = mem_new(struct logits_command);
    struct local_cluster local;
    struct error err = {0};
    bool fine;

    cluster_options_init(&own->cluster, OPTIONS_PRIVATE);
    argp_parse(&argp, argc, argv, 0, NULL, own);
    own->cluster.scheduling.draft = own->draft_path != NULL ? "mtp" : "none"; /* else unused */
    log_init("shoal", LOG_WARN);
    cli_signals_install();
    cli_limits_raise();
    fine = local_cluster_start(&local, &own->cluster, LOCAL_CLUSTER_NO_TOKENIZER, &err);
    if (fine) {
        fine = logits_run(own, &local, &err);
        local_cluster_stop(&local);
    }
    output_file_discard(&own->out);
    output_file_discard(&own->hidden_out);
    output_file_discard(&own->draft_out);
    prompt_list_deinit(&own->list);
    mem_free(own->first_row);
    mem_free(own);
    return fine ? CLI_OK : cli_fail(argv[0], &err);
}
