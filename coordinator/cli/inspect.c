/* inspect.c - `shoal inspect`: what a model is and weighs, from its headers alone. */
#include "common/base/json.h"
#include "common/base/units.h"
#include "common/model/catalog.h"
#include "common/model/summary.h"
#include "coordinator/cli/cli.h"
#include "coordinator/cli/jsonl.h"
#include "coordinator/cli/options.h"

#include <stdio.h>

struct inspect_command {
    const char *model;
    bool json;
};

enum { KEY_MODEL = 0x2000, KEY_JSON };

static const struct argp_option options[] = {
    {"model", KEY_MODEL, "DIR", 0, "Hugging Face model directory or (first) GGUF file", 0},
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

static const char *layer_kind(const struct arch *arch, uint32_t layer)
{
    if (layer >= arch->layer_count) {
        return "draft";
    }
    return arch_layer_is_moe(arch, layer) ? "experts" : "dense";
}

/* --- JSON --- */

static json_t *arch_json(const struct arch *arch)
{
    json_t *object = json_pack(
        "{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "name", arch->name, "layers",
        (json_int_t)arch->layer_count, "dense_layers", (json_int_t)arch->dense_layer_count,
        "draft_layers", (json_int_t)arch->draft_layer_count, "hidden", (json_int_t)arch->hidden,
        "heads", (json_int_t)arch->head_count, "vocab", (json_int_t)arch->vocab, "context",
        (json_int_t)arch->context_tokens_max, "kv_lora_rank", (json_int_t)arch->kv_lora_rank,
        "q_lora_rank", (json_int_t)arch->q_lora_rank, "dense_width", (json_int_t)arch->dense_width,
        "expert_width", (json_int_t)arch->expert_width);

    if (arch->attention == ATTENTION_GQA) {
        json_object_set_new(object, "kv_heads", json_integer(arch->kv_head_count));
        json_object_set_new(object, "head_dim", json_integer(arch->qk_rope_dim));
    }
    json_object_set_new(object, "experts", json_integer(arch->router.expert_count));
    json_object_set_new(object, "experts_per_token", json_integer(arch->router.chosen_count));
    json_object_set_new(object, "expert_groups", json_integer(arch->router.group_count));
    json_object_set_new(object, "groups_per_token", json_integer(arch->router.group_chosen_count));
    return object;
}

static json_t *types_json(const struct summary *summary)
{
    json_t *types = json_object();

    for (int i = 0; i < WEIGHT_TYPE_COUNT; i++) {
        if (summary->tensors_of_type[i] > 0) {
            json_object_set_new(types, weight_type_name((enum weight_type)i),
                                json_pack("{s:I,s:I}", "tensors",
                                          (json_int_t)summary->tensors_of_type[i], "bytes",
                                          (json_int_t)summary->bytes_of_type[i]));
        }
    }
    return types;
}

static json_t *parts_json(const uint64_t bytes[PART_COUNT])
{
    json_t *parts = json_object();

    for (int i = 0; i < PART_COUNT; i++) {
        if (bytes[i] > 0) {
            json_object_set_new(parts, summary_part_name((enum summary_part)i),
                                json_integer((json_int_t)bytes[i]));
        }
    }
    return parts;
}

static json_t *layers_json(const struct arch *arch, const struct summary *summary)
{
    json_t *layers = json_array();

    for (uint32_t i = 0; i < summary->layer_count; i++) {
        json_array_append_new(layers, json_pack("{s:I,s:s,s:I,s:o}", "layer", (json_int_t)i, "kind",
                                                layer_kind(arch, i), "bytes",
                                                (json_int_t)summary->layers[i].total_bytes, "parts",
                                                parts_json(summary->layers[i].bytes)));
    }
    return layers;
}

static json_t *summary_json(const struct catalog *catalog, const struct summary *summary)
{
    const struct parameter_counts *parameters = &summary->parameters;

    return json_pack(
        "{s:o,s:s,s:{s:I,s:I,s:I,s:I},s:I,s:I,s:{s:I,s:I},s:I,s:I,s:I,s:o,s:o,s:o}", "architecture",
        arch_json(&catalog->arch), "format", model_format_name(catalog->format), "parameters",
        "total", (json_int_t)parameters->total, "active", (json_int_t)parameters->active, "expert",
        (json_int_t)parameters->expert, "draft", (json_int_t)parameters->draft, "bytes",
        (json_int_t)summary->total_bytes, "active_bytes", (json_int_t)summary->active_bytes,
        "expert_bytes", "min", (json_int_t)summary->expert_bytes_min, "max",
        (json_int_t)summary->expert_bytes_max, "kv_values_per_token",
        (json_int_t)summary->kv_values_token, "files", (json_int_t)catalog->file_count,
        "unused_tensors", (json_int_t)summary->unused_count, "types", types_json(summary), "parts",
        parts_json(summary->bytes_of_part), "layers", layers_json(&catalog->arch, summary));
}

/* --- for people --- */

/* "671 B", "36.6 B", "1.23 M" */
static const char *count_text(char *text, size_t bytes, uint64_t count)
{
    static const char *const units[] = {"", " k", " M", " B", " T"};
    double value = (double)count;
    size_t unit = 0;

    while (value >= 999.5 && unit + 1 < ARRAY_LENGTH(units)) {
        value /= 1000;
        unit++;
    }
    (void)snprintf(text, bytes, "%.*f%s",
                   unit == 0 || value >= 99.95 ? 0
                   : value >= 9.995            ? 1
                                               : 2,
                   value, units[unit]);
    return text;
}

static void arch_print(const struct arch *arch)
{
    (void)printf("architecture   %s\n", arch->name);
    (void)printf("layers         %u (%u dense, %u with experts, %u draft)\n", arch->layer_count,
                 arch->dense_layer_count, arch->layer_count - arch->dense_layer_count,
                 arch->draft_layer_count);
    if (arch->attention == ATTENTION_MLA) {
        (void)printf("width          %u, %u heads, latent %u + %u\n", arch->hidden,
                     arch->head_count, arch->kv_lora_rank, arch->qk_rope_dim);
    } else {
        (void)printf("width          %u, %u heads of %u, %u of keys and values\n", arch->hidden,
                     arch->head_count, arch->qk_rope_dim, arch->kv_head_count);
    }
    if (arch->router.expert_count > 0) {
        (void)printf("experts        %u a layer, %u for each token (%u of %u groups), width %u%s\n",
                     arch->router.expert_count, arch->router.chosen_count,
                     arch->router.group_chosen_count, arch->router.group_count, arch->expert_width,
                     arch->shared_width > 0 ? ", and a shared one" : "");
    }
    (void)printf("vocabulary     %u\n", arch->vocab);
    (void)printf("context        %u tokens\n", arch->context_tokens_max);
}

/* Layers of a GGUF file may differ in their types. */
static void expert_print(const struct summary *summary)
{
    struct units_text least, most;

    if (summary->expert_bytes_max == 0) {
        return;
    }
    (void)printf("one expert     %s", units_bytes(&least, summary->expert_bytes_min));
    if (summary->expert_bytes_min < summary->expert_bytes_max) {
        (void)printf(" to %s", units_bytes(&most, summary->expert_bytes_max));
    }
    (void)printf("\n");
}

static void totals_print(const struct catalog *catalog, const struct summary *summary)
{
    char total[32], active[32];
    struct units_text bytes, active_bytes, kv_token;

    (void)printf("parameters     %s, %s active for a token\n",
                 count_text(total, sizeof(total), summary->parameters.total),
                 count_text(active, sizeof(active), summary->parameters.active));
    (void)printf("weights        %s in %u %s files, %s read for a token\n",
                 units_bytes(&bytes, summary->total_bytes), catalog->file_count,
                 model_format_name(catalog->format),
                 units_bytes(&active_bytes, summary->active_bytes));
    expert_print(summary);
    (void)printf("KV cache       %s a token (f16)\n",
                 units_bytes(&kv_token, summary_kv_bytes_token(summary, KV_F16)));
    if (summary->unused_count > 0) {
        (void)printf("unused         %u tensors of unknown names, for example %s\n",
                     summary->unused_count, catalog->unused[0]);
    }
}

static void shares_print(const struct summary *summary)
{
    struct units_text text;

    (void)printf("\n%-14s %12s %7s\n", "part", "bytes", "share");
    for (int i = 0; i < PART_COUNT; i++) {
        if (summary->bytes_of_part[i] > 0) {
            (void)printf("%-14s %12s %6.1f%%\n", summary_part_name((enum summary_part)i),
                         units_bytes(&text, summary->bytes_of_part[i]),
                         100.0 * (double)summary->bytes_of_part[i] / (double)summary->total_bytes);
        }
    }
    (void)printf("\n%-14s %12s %8s\n", "type", "bytes", "tensors");
    for (int i = 0; i < WEIGHT_TYPE_COUNT; i++) {
        if (summary->tensors_of_type[i] > 0) {
            (void)printf("%-14s %12s %8u\n", weight_type_name((enum weight_type)i),
                         units_bytes(&text, summary->bytes_of_type[i]),
                         summary->tensors_of_type[i]);
        }
    }
}

/* Equal neighbours share a line. */
static void layers_print(const struct arch *arch, const struct summary *summary)
{
    struct units_text text;
    uint32_t end;

    (void)printf("\n%-14s %12s  %s\n", "layers", "bytes each", "kind");
    for (uint32_t begin = 0; begin < summary->layer_count; begin = end) {
        char range[32];

        end = begin + 1;
        while (end < summary->layer_count &&
               summary->layers[end].total_bytes == summary->layers[begin].total_bytes &&
               (end < arch->layer_count) == (begin < arch->layer_count)) {
            end++;
        }
        (void)snprintf(range, sizeof(range), end - begin > 1 ? "%u-%u" : "%u", begin, end - 1);
        (void)printf("%-14s %12s  %s\n", range,
                     units_bytes(&text, summary->layers[begin].total_bytes),
                     layer_kind(arch, begin));
    }
}

int command_inspect(int argc, char **argv)
{
    static const struct argp argp = {
        options,
        parse_option,
        NULL,
        "Describes a model from its headers: architecture, parameters, "
        "bytes by part, type and layer.\v"
        "  shoal inspect --model DIR",
        NULL,
        NULL,
        NULL};
    struct inspect_command own = {0};
    struct catalog *catalog;
    struct summary *summary;
    struct error err = {0};
    bool fine = true;

    argp_parse(&argp, argc, argv, 0, NULL, &own);
    catalog = catalog_open(own.model, &err);
    if (catalog == NULL) {
        return cli_fail(argv[0], &err);
    }
    summary = summary_create(catalog);
    if (own.json) {
        fine = jsonl_write(stdout, summary_json(catalog, summary), &err);
    } else {
        arch_print(&catalog->arch);
        totals_print(catalog, summary);
        shares_print(summary);
        layers_print(&catalog->arch, summary);
    }
    summary_destroy(summary);
    catalog_close(catalog);
    return fine ? CLI_OK : cli_fail(argv[0], &err);
}
