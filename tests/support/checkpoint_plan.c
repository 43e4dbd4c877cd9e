/* checkpoint_plan.c - the table of contents of a checkpoint that does not exist yet.
 *
 * Shards are cut in the order of use, so one holds neighbouring layers, and scales may fall into
 * the shard behind their tensor's, as in published checkpoints. Inside a shard wide types come
 * first: all data stay aligned to their type whatever the shapes.
 */
#include "tests/support/checkpoint_plan.h"

#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/model/tensor_role.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_ALIGN 8

static bool config_is_f8(const char *config)
{
    struct error err;
    json_t *root = json_parse(config, strlen(config), "config.json", &err);
    const char *method = json_string_value(
        json_object_get(json_object_get(root, "quantization_config"), "quant_method"));
    bool is_f8 = method != NULL && strcmp(method, "fp8") == 0;

    json_decref(root);
    return is_f8;
}

/* Projections; what is looked up, decides or ends the model stays as trained. */
static bool role_is_f8(enum tensor_role role, const struct tensor_shape *shape)
{
    switch (role) {
    case ROLE_EMBEDDING:
    case ROLE_HEAD:
    case ROLE_ROUTER:
    case ROLE_DRAFT_EMBEDDING:
    case ROLE_DRAFT_PROJECTION:
    case ROLE_DRAFT_HEAD:
        return false;
    default:
        return shape->dimension_count == 2;
    }
}

static void plan_add(struct checkpoint_plan *plan, struct planned_tensor tensor)
{
    if (plan->count == plan->capacity) {
        plan->capacity = plan->capacity == 0 ? 256 : 2 * plan->capacity;
        plan->tensors = mem_resize(plan->tensors, plan->capacity, sizeof(*plan->tensors));
    }
    tensor.bytes = tensor.values * weight_type_bytes(tensor.type);
    plan->tensors[plan->count++] = tensor;
}

static void plan_tensor(struct checkpoint_plan *plan, const struct arch *arch,
                        struct planned_tensor tensor)
{
    struct tensor_shape shape = tensor_role_shape(arch, tensor.role);
    bool is_f8 = plan->is_f8 && role_is_f8(tensor.role, &shape);

    tensor.values = (uint64_t)shape.rows * shape.columns;
    tensor.type = is_f8                             ? WEIGHT_F8_E4M3
                  : tensor.role == ROLE_ROUTER_BIAS ? WEIGHT_F32
                                                    : WEIGHT_BF16;
    plan_add(plan, tensor);
    if (is_f8) {
        tensor.values = (uint64_t)scale_block_count(shape.rows) * scale_block_count(shape.columns);
        tensor.type = WEIGHT_F32;
        tensor.is_scales = true;
        plan_add(plan, tensor);
    }
}

static void plan_layer(struct checkpoint_plan *plan, const struct arch *arch, uint32_t layer)
{
    for (enum tensor_role role = 0; role < ROLE_COUNT; role++) {
        uint32_t count = tensor_role_count(arch, role, layer);

        for (uint32_t i = 0; i < count; i++) {
            plan_tensor(plan, arch,
                        (struct planned_tensor){
                            .role = role,
                            .layer = layer,
                            .expert = tensor_role_is_expert(role) ? i : CATALOG_NO_EXPERT,
                        });
        }
    }
}

static void cut_by_bytes(struct checkpoint_plan *plan, uint64_t shard_bytes)
{
    uint64_t used = 0;
    uint32_t shard = 0;

    for (size_t i = 0; i < plan->count; i++) {
        if (used > 0 && used + plan->tensors[i].bytes > shard_bytes) {
            shard++;
            used = 0;
        }
        used += plan->tensors[i].bytes;
        plan->tensors[i].shard = shard;
    }
    plan->shard_count = shard + 1;
}

/* Shard k begins with the first tensor that begins in the k-th part of all bytes. */
static bool cut_by_count(struct checkpoint_plan *plan, uint32_t shard_count, struct error *err)
{
    uint64_t total = 0;
    uint64_t begin = 0;
    uint32_t next = 0; /* all shards below have tensors */

    for (size_t i = 0; i < plan->count; i++) {
        total += plan->tensors[i].bytes;
    }
    for (size_t i = 0; i < plan->count; i++) {
        uint32_t shard = (uint32_t)((double)begin / (double)total * shard_count);

        if (shard > next) {
            break;
        }
        next = shard + 1;
        plan->tensors[i].shard = shard;
        begin += plan->tensors[i].bytes;
    }
    plan->shard_count = shard_count;
    return (next == shard_count && begin == total) ||
           error_set(err, ERROR_USAGE, "the tensors cannot be spread over %u files", shard_count);
}

static int planned_compare(const void *left, const void *right)
{
    const struct planned_tensor *a = left;
    const struct planned_tensor *b = right;
    uint32_t a_bytes = weight_type_bytes(a->type);
    uint32_t b_bytes = weight_type_bytes(b->type);

    if (a->shard != b->shard) {
        return a->shard < b->shard ? -1 : 1;
    }
    if (a_bytes != b_bytes) {
        return a_bytes > b_bytes ? -1 : 1;
    }
    if (a->layer != b->layer) {
        return a->layer < b->layer ? -1 : 1;
    }
    if (a->role != b->role) {
        return a->role < b->role ? -1 : 1;
    }
    return (a->expert > b->expert) - (a->expert < b->expert);
}

static void place_all(struct checkpoint_plan *plan)
{
    uint64_t offset = 0;

    qsort(plan->tensors, plan->count, sizeof(*plan->tensors), planned_compare);
    for (size_t i = 0; i < plan->count; i++) {
        if (i > 0 && plan->tensors[i].shard != plan->tensors[i - 1].shard) {
            offset = 0;
        }
        plan->tensors[i].offset = offset;
        offset += plan->tensors[i].bytes;
    }
}

bool checkpoint_plan_make(struct checkpoint_plan *plan, const struct arch *arch, const char *config,
                          const struct checkpoint_settings *settings, struct error *err)
{
    *plan = (struct checkpoint_plan){.is_f8 = config_is_f8(config)};
    for (uint32_t layer = 0; layer < arch->layer_count + arch->draft_layer_count; layer++) {
        plan_layer(plan, arch, layer);
    }
    plan_layer(plan, arch, CATALOG_NO_LAYER);
    if (settings->shard_count == 0) {
        cut_by_bytes(plan, settings->shard_bytes);
    } else if (!cut_by_count(plan, settings->shard_count, err)) {
        checkpoint_plan_free(plan);
        return false;
    }
    place_all(plan);
    return true;
}

void checkpoint_plan_free(struct checkpoint_plan *plan)
{
    mem_free(plan->tensors);
    plan->tensors = NULL;
}

const char *checkpoint_shard_name(const struct checkpoint_plan *plan, uint32_t shard,
                                  char name[SHARD_NAME_BYTES_MAX])
{
    if (plan->shard_count == 1) {
        (void)snprintf(name, SHARD_NAME_BYTES_MAX, "model.safetensors");
    } else {
        (void)snprintf(name, SHARD_NAME_BYTES_MAX, "model-%05u-of-%06u.safetensors", shard + 1,
                       plan->shard_count);
    }
    return name;
}

static void append_name(struct buffer *out, const struct planned_tensor *tensor)
{
    char name[TENSOR_NAME_BYTES_MAX];

    buffer_printf(
        out, "\"%s%s\":", tensor_role_write_name(tensor->role, tensor->layer, tensor->expert, name),
        tensor->is_scales ? "_scale_inv" : "");
}

static void append_entry(struct buffer *out, const struct arch *arch,
                         const struct planned_tensor *tensor)
{
    struct tensor_shape shape = tensor_role_shape(arch, tensor->role);

    if (tensor->is_scales) {
        shape.rows = scale_block_count(shape.rows);
        shape.columns = scale_block_count(shape.columns);
    }
    buffer_append_char(out, ',');
    append_name(out, tensor);
    buffer_printf(out, "{\"dtype\":\"%s\",\"shape\":[", weight_type_name(tensor->type));
    if (shape.dimension_count == 2) {
        buffer_printf(out, "%u,", shape.rows);
    }
    buffer_printf(out, "%u],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", shape.columns,
                  tensor->offset, tensor->offset + tensor->bytes);
}

void checkpoint_header(const struct arch *arch, const struct planned_tensor *tensors, size_t count,
                       struct buffer *out)
{
    buffer_append_text(out, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < count; i++) {
        append_entry(out, arch, &tensors[i]);
    }
    buffer_append_char(out, '}');
    while (out->length % HEADER_ALIGN != 0) {
        buffer_append_char(out, ' ');
    }
}

void checkpoint_index(const struct checkpoint_plan *plan, struct buffer *out)
{
    uint64_t total = 0;

    for (size_t i = 0; i < plan->count; i++) {
        total += plan->tensors[i].bytes;
    }
    buffer_printf(out, "{\"metadata\":{\"total_size\":%" PRIu64 "},\"weight_map\":{", total);
    for (size_t i = 0; i < plan->count; i++) {
        char name[SHARD_NAME_BYTES_MAX];

        buffer_append_text(out, i > 0 ? ",\n" : "\n");
        append_name(out, &plan->tensors[i]);
        buffer_printf(out, "\"%s\"", checkpoint_shard_name(plan, plan->tensors[i].shard, name));
    }
    buffer_append_text(out, "}}\n");
}
