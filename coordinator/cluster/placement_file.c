/* placement_file.c - placements from and to JSON.
 *
 * Counts are bounded before anything is sized by them; what the numbers mean together is left to
 * placement_check, so that files and messages are held to the same rules.
 */
#include "coordinator/cluster/placement_file.h"

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"

#include <string.h>

#define FILE_VERSION   1
#define FILE_BYTES_MAX ((size_t)256 << 20)
#define LAYERS_MAX     4096
#define EXPERTS_MAX    65536
#define MEMBERS_MAX    65536
#define OWNERS_MAX     ((size_t)1 << 22)

/* A list of numbers below 2^32, in the arena. `what` is for messages. */
static bool numbers_read(const json_t *array, const char *what, struct arena *arena, uint32_t **out,
                         struct error *err)
{
    size_t count = json_array_size(array);
    uint32_t *numbers;

    if (!json_is_array(array)) {
        return error_set(err, ERROR_INPUT, "%s must be an array, got %s", what,
                         json_type_word(array));
    }
    if (count > MEMBERS_MAX) {
        return error_set(err, ERROR_LIMIT, "%s has %zu entries, at most %d", what, count,
                         MEMBERS_MAX);
    }
    numbers = arena_new_array(arena, uint32_t, count);
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_array_get(array, i);

        if (!json_is_integer(value) || json_integer_value(value) < 0 ||
            json_integer_value(value) >= UINT32_MAX) {
            return error_set(err, ERROR_INPUT, "%s[%zu] must be a number from 0, got %s", what, i,
                             json_type_word(value));
        }
        numbers[i] = (uint32_t)json_integer_value(value);
    }
    *out = numbers;
    return true;
}

static bool array_need(const json_t *object, const char *field, json_t **out, struct error *err)
{
    if (!json_get_array_or_null(object, field, out, err)) {
        return false;
    }
    return *out != NULL || error_set(err, ERROR_INPUT, "field \"%s\" is missing", field);
}

static bool stage_read(const json_t *value, struct arena *arena, struct placement_stage *out,
                       struct error *err)
{
    json_t *layers, *workers;
    uint32_t *range;

    if (!json_is_object(value)) {
        return error_set(err, ERROR_INPUT, "must be an object, got %s", json_type_word(value));
    }
    if (!array_need(value, "layers", &layers, err) ||
        !array_need(value, "workers", &workers, err) ||
        !numbers_read(layers, "layers", arena, &range, err) ||
        !numbers_read(workers, "workers", arena, &out->workers, err)) {
        return false;
    }
    if (json_array_size(layers) != 2) {
        return error_set(err, ERROR_INPUT, "layers must be [begin, end]");
    }
    out->layer_begin = range[0];
    out->layer_end = range[1];
    out->member_count = (uint32_t)json_array_size(workers);
    return true;
}

static bool stages_read(const json_t *root, struct arena *arena, struct placement *out,
                        struct error *err)
{
    json_t *stages;

    if (!array_need(root, "stages", &stages, err)) {
        return false;
    }
    if (json_array_size(stages) == 0 || json_array_size(stages) > LAYERS_MAX) {
        return error_set(err, ERROR_INPUT, "stages: %zu of them, 1 to %d make sense",
                         json_array_size(stages), LAYERS_MAX);
    }
    out->stage_count = (uint32_t)json_array_size(stages);
    out->stages = arena_new_array(arena, struct placement_stage, out->stage_count);
    for (uint32_t i = 0; i < out->stage_count; i++) {
        if (!stage_read(json_array_get(stages, i), arena, &out->stages[i], err)) {
            return error_wrap(err, "stages[%u]", i);
        }
    }
    return true;
}

static bool lanes_read(const json_t *root, struct arena *arena, struct placement *out,
                       struct error *err)
{
    json_t *rows;
    uint32_t *members;

    if (!json_get_u32(root, "lane_count", &out->lane_count, err) ||
        !array_need(root, "lane_member", &rows, err)) {
        return false;
    }
    if (out->lane_count == 0 || out->lane_count > MEMBERS_MAX ||
        json_array_size(rows) != out->stage_count) {
        return error_set(err, ERROR_INPUT, "lane_member must have %u rows of 1 to %d lanes",
                         out->stage_count, MEMBERS_MAX);
    }
    out->lane_member = arena_new_array(arena, uint32_t, (size_t)out->stage_count * out->lane_count);
    for (uint32_t i = 0; i < out->stage_count; i++) {
        const json_t *row = json_array_get(rows, i);

        if (!numbers_read(row, "lane_member row", arena, &members, err)) {
            return false;
        }
        if (json_array_size(row) != out->lane_count) {
            return error_set(err, ERROR_INPUT, "lane_member[%u] has %zu lanes, lane_count is %u", i,
                             json_array_size(row), out->lane_count);
        }
        memcpy(out->lane_member + (size_t)i * out->lane_count, members,
               out->lane_count * sizeof(*members));
    }
    return true;
}

/* Owners are counted before the list is made. */
static size_t owners_count(const json_t *layers)
{
    size_t count = 0;
    size_t i, j;
    json_t *layer, *owners;

    json_array_foreach(layers, i, layer)
    {
        json_array_foreach(layer, j, owners)
        {
            count += json_array_size(owners);
        }
    }
    return count;
}

static bool layer_experts_read(const json_t *layer, uint32_t number, struct arena *arena,
                               struct placement *out, struct error *err)
{
    size_t index = (size_t)number * out->expert_count;
    uint32_t next = out->replica_offset[index];
    size_t count = json_array_size(layer);

    if (!json_is_array(layer) || (count != 0 && count != out->expert_count)) {
        return error_set(err, ERROR_INPUT, "must be an array of %u experts, or empty",
                         out->expert_count);
    }
    for (uint32_t e = 0; e < out->expert_count; e++) {
        const json_t *owners = json_array_get(layer, e);
        uint32_t *members;

        if (count > 0) {
            if (!numbers_read(owners, "owners", arena, &members, err)) {
                return error_wrap(err, "expert %u", e);
            }
            memcpy(out->replica_member + next, members, json_array_size(owners) * sizeof(*members));
            next += (uint32_t)json_array_size(owners);
        }
        out->replica_offset[index + e + 1] = next;
    }
    return true;
}

static bool experts_read(const json_t *root, struct arena *arena, struct placement *out,
                         struct error *err)
{
    uint32_t layer_count = placement_layers(out);
    size_t pairs = (size_t)layer_count * out->expert_count;
    json_t *layers;
    size_t owners;

    if (out->expert_count == 0) {
        return true;
    }
    if (!array_need(root, "experts", &layers, err)) {
        return false;
    }
    owners = owners_count(layers);
    if (json_array_size(layers) != layer_count || owners > OWNERS_MAX) {
        return error_set(err, ERROR_INPUT,
                         "experts has %zu layers and %zu owners; layer_count is %u, "
                         "draft_layer_count %u",
                         json_array_size(layers), owners, out->layer_count, out->draft_layer_count);
    }
    out->replica_offset = arena_new_array(arena, uint32_t, pairs + 1);
    out->replica_member = arena_new_array(arena, uint32_t, owners);
    for (uint32_t layer = 0; layer < layer_count; layer++) {
        if (!layer_experts_read(json_array_get(layers, layer), layer, arena, out, err)) {
            return error_wrap(err, "experts[%u]", layer);
        }
    }
    return true;
}

static bool budget_read(const json_t *root, struct placement *out, struct error *err)
{
    const char *kv_type;

    return json_get_string(root, "kv_type", &kv_type, err) &&
           kv_type_parse(kv_type, &out->kv_type, err) &&
           json_get_u32(root, "kv_block_count", &out->kv_block_count, err) &&
           json_get_u32(root, "slot_count", &out->slot_count, err) &&
           json_get_u32(root, "context_tokens_max", &out->context_tokens_max, err) &&
           json_get_u32(root, "step_rows_max", &out->step_rows_max, err) &&
           json_get_u32(root, "steps_in_flight_max", &out->steps_in_flight_max, err);
}

static bool sizes_read(const json_t *root, struct placement *out, struct error *err)
{
    uint32_t version;

    if (!json_is_object(root)) {
        return error_set(err, ERROR_INPUT, "must be an object, got %s", json_type_word(root));
    }
    if (!json_get_u32(root, "version", &version, err)) {
        return false;
    }
    if (version != FILE_VERSION) {
        return error_set(err, ERROR_INPUT, "version %u; this program reads version %d", version,
                         FILE_VERSION);
    }
    if (!json_get_u32(root, "layer_count", &out->layer_count, err) ||
        !json_get_u32_or(root, "expert_count", 0, &out->expert_count, err) ||
        !json_get_u32_or(root, "dense_layer_count", 0, &out->dense_layer_count, err) ||
        !json_get_u32_or(root, "draft_layer_count", 0, &out->draft_layer_count, err)) {
        return false;
    }
    if (out->draft_layer_count > 1) {
        return error_set(err, ERROR_INPUT, "draft_layer_count is %u, must be 0 or 1",
                         out->draft_layer_count);
    }
    if (out->layer_count > LAYERS_MAX || out->expert_count > EXPERTS_MAX) {
        return error_set(err, ERROR_LIMIT, "%u layers of %u experts are more than %d of %d",
                         out->layer_count, out->expert_count, LAYERS_MAX, EXPERTS_MAX);
    }
    return true;
}

struct placement *placement_file_parse(const char *text, size_t length, const char *name,
                                       struct arena *arena, struct error *err)
{
    struct placement *placement = arena_new(arena, struct placement);
    json_t *root = json_parse(text, length, name, err);
    bool good;

    if (root == NULL) {
        return NULL;
    }
    /* Set per run; placement_check wants them to be there. */
    placement->epoch = 1;
    memcpy(placement->numerics_id, "file", sizeof("file"));
    good = sizes_read(root, placement, err) && stages_read(root, arena, placement, err) &&
           lanes_read(root, arena, placement, err) && experts_read(root, arena, placement, err) &&
           budget_read(root, placement, err) && placement_check(placement, err);
    json_decref(root);
    if (!good) {
        error_wrap(err, "%s", name);
        return NULL;
    }
    return placement;
}

struct placement *placement_file_read(const char *path, struct arena *arena, struct error *err)
{
    struct placement *placement;
    char *text;
    size_t length;

    if (!file_read(path, FILE_BYTES_MAX, &text, &length, err)) {
        return NULL;
    }
    placement = placement_file_parse(text, length, path, arena, err);
    mem_free(text);
    return placement;
}

static json_t *numbers_write(const uint32_t *numbers, size_t count)
{
    json_t *array = json_array();

    for (size_t i = 0; i < count; i++) {
        json_array_append_new(array, json_integer(numbers[i]));
    }
    return array;
}

static json_t *stages_write(const struct placement *placement)
{
    json_t *stages = json_array();

    for (uint32_t i = 0; i < placement->stage_count; i++) {
        const struct placement_stage *stage = &placement->stages[i];

        json_array_append_new(stages,
                              json_pack("{s:[i,i],s:o}", "layers", (int)stage->layer_begin,
                                        (int)stage->layer_end, "workers",
                                        numbers_write(stage->workers, stage->member_count)));
    }
    return stages;
}

static json_t *lanes_write(const struct placement *placement)
{
    json_t *rows = json_array();

    for (uint32_t i = 0; i < placement->stage_count; i++) {
        json_array_append_new(
            rows, numbers_write(placement->lane_member + (size_t)i * placement->lane_count,
                                placement->lane_count));
    }
    return rows;
}

static json_t *experts_write(const struct placement *placement)
{
    json_t *layers = json_array();

    for (uint32_t layer = 0; layer < placement_layers(placement); layer++) {
        const uint32_t *offsets =
            placement->replica_offset + (size_t)layer * placement->expert_count;
        json_t *experts = json_array();

        for (uint32_t e = 0; layer >= placement->dense_layer_count && e < placement->expert_count;
             e++) {
            json_array_append_new(experts, numbers_write(placement->replica_member + offsets[e],
                                                         offsets[e + 1] - offsets[e]));
        }
        json_array_append_new(layers, experts);
    }
    return layers;
}

json_t *placement_file_json(const struct placement *placement)
{
    json_t *root = json_pack(
        "{s:i,s:I,s:I,s:I,s:o,s:I,s:o}", "version", FILE_VERSION, "layer_count",
        (json_int_t)placement->layer_count, "expert_count", (json_int_t)placement->expert_count,
        "dense_layer_count", (json_int_t)placement->dense_layer_count, "stages",
        stages_write(placement), "lane_count", (json_int_t)placement->lane_count, "lane_member",
        lanes_write(placement));

    if (placement->draft_layer_count > 0) {
        json_object_set_new(root, "draft_layer_count", json_integer(placement->draft_layer_count));
    }
    if (placement->expert_count > 0) {
        json_object_set_new(root, "experts", experts_write(placement));
    }
    json_object_set_new(root, "kv_type", json_string(kv_type_name(placement->kv_type)));
    json_object_set_new(root, "kv_block_count", json_integer(placement->kv_block_count));
    json_object_set_new(root, "slot_count", json_integer(placement->slot_count));
    json_object_set_new(root, "context_tokens_max", json_integer(placement->context_tokens_max));
    json_object_set_new(root, "step_rows_max", json_integer(placement->step_rows_max));
    json_object_set_new(root, "steps_in_flight_max", json_integer(placement->steps_in_flight_max));
    return root;
}

bool placement_file_write(const char *path, const struct placement *placement, struct error *err)
{
    json_t *root = placement_file_json(placement);
    char *text = json_dumps(root, JSON_COMPACT);
    bool written;

    json_decref(root);
    if (text == NULL) {
        return error_set(err, ERROR_SYSTEM, "%s: out of memory", path);
    }
    written = file_write(path, text, strlen(text), 0644, err);
    free(text); /* jansson's */
    return written;
}
