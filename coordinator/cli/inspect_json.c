/* inspect_json.c - `shoal inspect --json`. */
#include "coordinator/cli/inspect.h"

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

static json_t *types_json(const uint64_t bytes[WEIGHT_TYPE_COUNT],
                          const uint32_t tensors[WEIGHT_TYPE_COUNT])
{
    json_t *types = json_object();

    for (int i = 0; i < WEIGHT_TYPE_COUNT; i++) {
        if (tensors[i] > 0) {
            json_object_set_new(types, weight_type_name((enum weight_type)i),
                                json_pack("{s:I,s:I}", "tensors", (json_int_t)tensors[i], "bytes",
                                          (json_int_t)bytes[i]));
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

/* Of the tensors of one layer, scales as F32. */
static json_t *layer_types_json(const struct catalog *catalog, uint32_t layer)
{
    uint64_t bytes[WEIGHT_TYPE_COUNT] = {0};
    uint32_t tensors[WEIGHT_TYPE_COUNT] = {0};

    for (uint32_t i = 0; i < catalog->tensor_count; i++) {
        const struct tensor *tensor = &catalog->tensors[i];

        if (tensor->layer == layer) {
            bytes[tensor->type] += tensor->bytes;
            tensors[tensor->type]++;
            bytes[WEIGHT_F32] += tensor->scales.bytes;
            tensors[WEIGHT_F32] += tensor->scales.bytes > 0;
        }
    }
    return types_json(bytes, tensors);
}

static json_t *layers_json(const struct catalog *catalog, const struct summary *summary)
{
    const struct arch *arch = &catalog->arch;
    json_t *layers = json_array();

    for (uint32_t i = 0; i < summary->layer_count; i++) {
        json_t *layer = json_pack(
            "{s:I,s:s,s:I,s:o,s:o}", "layer", (json_int_t)i, "kind", inspect_layer_kind(arch, i),
            "bytes", (json_int_t)summary->layers[i].total_bytes, "parts",
            parts_json(summary->layers[i].bytes), "types", layer_types_json(catalog, i));

        if (arch_layer_is_moe(arch, i)) {
            json_object_set_new(
                layer, "expert_bytes",
                json_integer((json_int_t)summary_expert_bytes(catalog, summary, i)));
        }
        json_array_append_new(layers, layer);
    }
    return layers;
}

static json_t *names_json(const char **names, uint32_t count)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < count; i++) {
        json_array_append_new(list, json_string(names[i]));
    }
    return list;
}

static json_t *missing_json(const struct inspection *inspection)
{
    return json_pack("{s:o,s:I}", "files",
                     names_json(inspection->files.names, inspection->files.missing_count),
                     "draft_layers", (json_int_t)inspection->missing_draft_layers);
}

static json_t *kv_json(const struct summary *summary)
{
    json_t *types = json_object();

    for (int i = 0; i < KV_TYPE_COUNT; i++) {
        enum kv_type type = (enum kv_type)i;

        json_object_set_new(types, kv_type_name(type),
                            json_integer((json_int_t)summary->kv_bytes_token[i]));
    }
    return types;
}

static json_t *summary_json(const struct catalog *catalog, const struct summary *summary)
{
    const struct parameter_counts *parameters = &summary->parameters;

    return json_pack(
        "{s:o,s:s,s:{s:I,s:I,s:I,s:I},s:I,s:I,s:{s:I,s:I},s:I,s:o,s:I,s:I,s:o,s:o,s:o,"
        "s:o}",
        "architecture", arch_json(&catalog->arch), "format",
        catalog->weights.source == WEIGHTS_DUMMY ? "config.json alone"
                                                 : model_format_name(catalog->format),
        "parameters", "total", (json_int_t)parameters->total, "active",
        (json_int_t)parameters->active, "expert", (json_int_t)parameters->expert, "draft",
        (json_int_t)parameters->draft, "bytes", (json_int_t)summary->total_bytes, "active_bytes",
        (json_int_t)summary->active_bytes, "expert_bytes", "min",
        (json_int_t)summary->expert_bytes_min, "max", (json_int_t)summary->expert_bytes_max,
        "kv_values_per_token", (json_int_t)summary->kv_values_token, "kv_bytes_per_token",
        kv_json(summary), "files", (json_int_t)catalog->file_count, "unused_tensors",
        (json_int_t)summary->unused_count, "unused",
        names_json(catalog->unused, catalog->unused_count), "types",
        types_json(summary->bytes_of_type, summary->tensors_of_type), "parts",
        parts_json(summary->bytes_of_part), "layers", layers_json(catalog, summary));
}

json_t *inspect_json(const struct inspection *inspection)
{
    json_t *object = inspection->catalog != NULL
                         ? summary_json(inspection->catalog, inspection->summary)
                         : json_pack("{s:s,s:I}", "problem", inspection->problem.message, "files",
                                     (json_int_t)inspection->files.file_count);

    json_object_set_new(object, "missing", missing_json(inspection));
    return object;
}
