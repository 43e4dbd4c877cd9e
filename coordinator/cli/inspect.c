/* inspect.c - `shoal inspect`: what a model is and weighs, from its headers alone. */
#include "coordinator/cli/inspect.h"

#include "coordinator/cli/cli.h"
#include "coordinator/cli/jsonl.h"
#include "coordinator/cli/model_headers.h"
#include "coordinator/cli/options.h"

#include <stdio.h>

struct inspect_command {
    const char *model;
    bool json;
};

enum { KEY_MODEL = 0x2000, KEY_JSON };

static const struct argp_option options[] = {
    {"model", KEY_MODEL, "DIR", 0,
     "Hugging Face model directory, (first) GGUF file, or the config.json of a model that is not "
     "downloaded yet",
     0},
    {"json", KEY_JSON, NULL, 0, "Print one JSON object", 0},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct inspect_command *own = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        options_from_environment(options, parse_option, state);
        return 0;
    case KEY_MODEL:
        own->model = arg;
        return 0;
    case KEY_JSON:
        own->json = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument \"%s\"", arg);
        return 0;
    case ARGP_KEY_END:
        if (own->model == NULL) {
            argp_error(state, "--model DIR is missing");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void draft_layers_look(struct inspection *inspection)
{
    const struct catalog *catalog = inspection->catalog;
    struct arch announced;
    struct error err;

    if (catalog->weights.source == WEIGHTS_PUBLISHED && catalog->format == MODEL_SAFETENSORS &&
        arch_read(inspection->model, &announced, &err)) {
        inspection->missing_draft_layers =
            announced.draft_layer_count - catalog->arch.draft_layer_count;
    }
}

/* A model that cannot be opened is a finding too, if it is known which files it lacks. */
static bool inspect(struct inspection *inspection, struct arena *arena, struct error *err)
{
    inspection->catalog = model_headers_open(inspection->model, &inspection->problem);
    if (inspection->catalog == NULL) {
        if (!missing_files_find(inspection->model, arena, &inspection->files, err)) {
            return false;
        }
        *err = inspection->problem;
        return inspection->files.missing_count > 0;
    }
    inspection->summary = summary_create(inspection->catalog);
    draft_layers_look(inspection);
    return true;
}

int command_inspect(int argc, char **argv)
{
    static const struct argp argp = {options,
                                     parse_option,
                                     NULL,
                                     "Describes a model from its headers: architecture, "
                                     "parameters, bytes by part, type, layer and "
                                     "expert, and what is missing or unused.\v"
                                     "  shoal inspect --model DIR",
                                     NULL,
                                     NULL,
                                     NULL};
    struct inspect_command own = {0};
    struct inspection inspection = {.catalog = NULL};
    struct arena arena;
    struct error err = {0};
    bool fine;

    argp_parse(&argp, argc, argv, 0, NULL, &own);
    inspection.model = own.model;
    arena_init(&arena, 4096);
    fine = inspect(&inspection, &arena, &err);
    if (fine && own.json) {
        fine = jsonl_write(stdout, inspect_json(&inspection), &err);
    } else if (fine) {
        inspect_print(&inspection);
    }
    if (fine && inspection.catalog == NULL) {
        err = inspection.problem;
        fine = false;
    }
    summary_destroy(inspection.summary);
    catalog_close(inspection.catalog);
    arena_deinit(&arena);
    return fine ? CLI_OK : cli_fail(argv[0], &err);
}
