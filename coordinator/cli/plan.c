/* plan.c - `shoal plan`: what would go where on machines that need not be there.
 *
 * The planner, the byte figures and the refusal are those of a cluster that runs; only the workers
 * come from a file instead of registering.
 */
#include "coordinator/cli/plan.h"

#include "coordinator/cli/cli.h"
#include "coordinator/cli/jsonl.h"
#include "coordinator/cli/model_headers.h"
#include "coordinator/cluster/plan_request.h"

#include <stdio.h>
#include <string.h>

enum {
    KEY_MODEL = 0x2000,
    KEY_CLUSTER,
    KEY_OBJECTIVE,
    KEY_CONTEXT,
    KEY_LAYOUT,
    KEY_PROMPT_SHARE,
    KEY_KV_TYPE,
    KEY_DRAFT,
    KEY_JSON,
};

static const struct argp_option options[] = {
    {"model", KEY_MODEL, "M", 0,
     "Hugging Face model directory, GGUF file, or the config.json of a model that is not "
     "downloaded yet",
     0},
    {"cluster", KEY_CLUSTER, "FILE", 0, "The machines, as YAML (deploy/docs/cluster-file.md)", 0},
    {"objective", KEY_OBJECTIVE, "throughput|latency", 0,
     "Choose the layout for most tokens a second in all (the default), or for the least time of a "
     "token of one sequence alone",
     0},
    {"context", KEY_CONTEXT, "TOKENS", 0,
     "Tokens that every sequence may have (the model's, halved until it fits)", 0},
    {"layout", KEY_LAYOUT, "SxG", 0, "Plan S stages of G workers instead of choosing", 0},
    {"prompt-share", KEY_PROMPT_SHARE, "P", 0,
     "Even stages out for generation (0, the default), for prompts (1), or for a mixture of which "
     "prompts take this share of the time",
     0},
    {"kv-type", KEY_KV_TYPE, "TYPE", 0, "Storage of the KV cache: f16, bf16, f32, q8 (f16)", 0},
    {"draft", KEY_DRAFT, "mtp|lookup|none", 0,
     "mtp: with a place for the multi-token-prediction layer (mtp if the model has it and it fits, "
     "else none)",
     0},
    {"json", KEY_JSON, NULL, 0, "Print one JSON object, with the placement for --placement", 0},
    {0},
};

static void objective_parse(struct plan_command *own, const char *text, struct argp_state *state)
{
    if (strcmp(text, "throughput") == 0) {
        own->objective = PLAN_THROUGHPUT;
    } else if (strcmp(text, "latency") == 0) {
        own->objective = PLAN_LATENCY;
    } else {
        argp_error(state, "--objective must be throughput or latency, not \"%s\"", text);
    }
}

static void kv_type_read(struct plan_command *own, const char *text, struct argp_state *state)
{
    struct error err;

    if (!kv_type_parse(text, &own->kv_type, &err)) {
        argp_error(state, "--kv-type: %s", err.message);
    }
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct plan_command *own = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        options_from_environment(options, parse_option, state);
        return 0;
    case KEY_MODEL:
        own->model = arg;
        return 0;
    case KEY_CLUSTER:
        own->cluster = arg;
        return 0;
    case KEY_OBJECTIVE:
        objective_parse(own, arg, state);
        return 0;
    case KEY_CONTEXT:
        own->context_tokens = option_u32(arg, "--context", 1, UINT32_MAX / 2, state);
        return 0;
    case KEY_LAYOUT:
        option_layout(arg, &own->stage_count, &own->group_size, state);
        return 0;
    case KEY_PROMPT_SHARE:
        own->prompt_share = option_number(arg, "--prompt-share", 0, 1, state);
        return 0;
    case KEY_KV_TYPE:
        kv_type_read(own, arg, state);
        return 0;
    case KEY_DRAFT:
        scheduling_option_draft_parse(&own->drafts, arg, state);
        return 0;
    case KEY_JSON:
        own->json = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument \"%s\"", arg);
        return 0;
    case ARGP_KEY_END:
        if (own->model == NULL || own->cluster == NULL) {
            argp_error(state, "--model M and --cluster FILE are needed");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* --- the plan --- */

static bool model_open(struct plan_command *own, struct error *err)
{
    own->catalog = model_headers_open(own->model, err);
    if (own->catalog != NULL && own->context_tokens > own->catalog->arch.context_tokens_max) {
        return error_set(err, ERROR_USAGE, "--context %u: the model's context has %u tokens",
                         own->context_tokens, own->catalog->arch.context_tokens_max);
    }
    return own->catalog != NULL;
}

/* Sums that one row's experts come back as where owners hold whole router groups. */
static uint32_t parts_max(const struct arch *arch)
{
    bool limited =
        arch->router.group_count > 1 && arch->router.group_chosen_count < arch->router.chosen_count;

    return limited ? arch->router.group_chosen_count : arch->router.chosen_count;
}

/* One search, with a place for the draft layer or without. */
static bool plan_search(struct plan_command *own, uint32_t draft_layer_count,
                        enum plan_context context, struct arena *arena, struct error *err)
{
    const struct arch *arch = &own->catalog->arch;
    struct planner_request request;
    struct plan_sizer sizer = {.catalog = own->catalog,
                               .weights = PLAN_AS_PUBLISHED,
                               .thread_count = own->file->thread_count_max};
    struct plan_search search = {
        .facts = {.request = &request,
                  .ports = own->file->ports,
                  .hidden = arch->hidden,
                  .chosen_count = arch->router.chosen_count,
                  .parts_max = parts_max(arch)},
        .size = plan_request_size,
        .size_context = &sizer,
        .objective = own->objective,
        .context = context,
    };

    plan_request_model(own->catalog, PLAN_AS_PUBLISHED, own->kv_type, arena, &request);
    request.draft_layer_count = draft_layer_count;
    request.prompt_share = own->prompt_share;
    request.epoch = 1;
    request.numerics_id = "plan";
    request.worker_count = own->file->worker_count;
    request.workers = own->file->workers;
    request.stage_count = own->stage_count;
    request.group_size = own->group_size;
    if (own->context_tokens > 0) {
        request.context_tokens_max = own->context_tokens;
    }
    own->outcome = plan_search_run(&search, arena, err);
    return own->outcome != NULL;
}

/* As a cluster does (coordinator/cluster/epoch_plan.c): a draft layer that nobody asked for gives
 * way before the context or the steps do. */
static bool plan_make(struct plan_command *own, struct arena *arena, struct error *err)
{
    enum plan_context context = own->context_tokens > 0 ? PLAN_CONTEXT_FIXED : PLAN_CONTEXT_SHRINKS;
    struct cluster_config config = {0};

    if (!scheduling_options_draft(&own->drafts, &own->catalog->arch, own->model, &config, err)) {
        return false;
    }
    own->draft_layer = config.draft_mode == DRAFT_LAYER;
    if (own->draft_layer && config.draft_layer_optional) {
        if (!plan_search(own, 1, PLAN_CONTEXT_FIXED, arena, err)) {
            return false;
        }
        if (own->outcome->refusal == NULL &&
            own->outcome->step_rows_max == own->outcome->step_rows_wanted) {
            return true;
        }
        own->draft_layer = false;
    }
    return plan_search(own, own->draft_layer ? 1 : 0, context, arena, err);
}

int command_plan(int argc, char **argv)
{
    static const struct argp argp = {
        options,
        parse_option,
        NULL,
        "Plans a model for a described cluster: which layers and experts go where, what every "
        "worker needs, whether it fits, and how fast it could be at most.\v"
        "Exits with 0 if it fits, with 1 if not.\n\n"
        "  shoal plan --model DIR --cluster deploy/clusters/eight-desktops.yaml\n"
        "  shoal plan --model config.json --cluster rack.yaml --objective latency --context 32768",
        NULL,
        NULL,
        NULL};
    struct plan_command own = {.objective = PLAN_THROUGHPUT, .kv_type = KV_F16};
    struct arena arena;
    struct error err = {0};
    bool fine;
    bool fits = false;

    argp_parse(&argp, argc, argv, 0, NULL, &own);
    arena_init(&arena, 1 << 16);
    own.file = cluster_file_read(own.cluster, &arena, &err);
    fine = own.file != NULL && model_open(&own, &err) && plan_make(&own, &arena, &err);
    if (fine) {
        fits = own.outcome->refusal == NULL;
        if (own.json) {
            fine = jsonl_write(stdout, plan_json(&own), &err);
        } else {
            plan_print(&own);
        }
    }
    catalog_close(own.catalog);
    arena_deinit(&arena);
    if (!fine) {
        return cli_fail(argv[0], &err);
    }
    return fits ? CLI_OK : CLI_FAILED;
}
