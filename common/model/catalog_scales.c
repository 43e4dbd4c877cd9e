/* catalog_scales.c - the block scales of F8_E4M3 tensors.
 *
 * X.weight_scale_inv multiplies X.weight, in spite of its name: one f32 for each block of 128 × 128
 * values, the last ones ragged. Either may come first and in any shard, so scales wait in a list
 * until all headers are read; each then becomes part of its tensor.
 */
#include "common/base/mem.h"
#include "common/model/catalog_internal.h"
#include "common/model/tensor_role.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NAME_BYTES_MAX (TENSOR_NAME_BYTES_MAX + sizeof(scale_suffix))

static const char scale_suffix[] = "_scale_inv";

struct scale_entry {
    enum tensor_role role;
    uint32_t layer;
    uint32_t expert;
    struct tensor_scales place;
};

/* The role of the tensor that a name of scales belongs to. */
static bool owner_of_name(const struct arch *arch, const char *name, struct scale_entry *out)
{
    size_t length = strlen(name), suffix = strlen(scale_suffix);
    char owner[TENSOR_NAME_BYTES_MAX];

    if (length <= suffix || length - suffix >= sizeof(owner) ||
        strcmp(name + length - suffix, scale_suffix) != 0) {
        return false;
    }
    memcpy(owner, name, length - suffix);
    owner[length - suffix] = '\0';
    return tensor_role_of_name(arch, owner, &out->role, &out->layer, &out->expert) &&
           tensor_role_shape(arch, out->role).dimension_count == 2;
}

static bool scale_check(const struct arch *arch, enum tensor_role role,
                        const struct safetensors_entry *entry, struct error *err)
{
    struct tensor_shape shape = tensor_role_shape(arch, role);
    uint32_t rows = scale_block_count(shape.rows);
    uint32_t columns = scale_block_count(shape.columns);

    if (strcmp(entry->dtype, weight_type_name(WEIGHT_F32)) != 0) {
        return error_set(err, ERROR_INPUT, "tensor %s has type %s; scales are F32", entry->name,
                         entry->dtype);
    }
    if (entry->dimension_count != 2 || entry->dimensions[0] != rows ||
        entry->dimensions[1] != columns) {
        bool two = entry->dimension_count == 2;

        return error_set(err, ERROR_INPUT,
                         "tensor %s has %u dimensions, [%" PRIu64 ", %" PRIu64
                         "]; blocks of 128 × 128 ask for [%u, %u]",
                         entry->name, entry->dimension_count, two ? entry->dimensions[0] : 0,
                         two ? entry->dimensions[1] : 0, rows, columns);
    }
    return true;
}

bool catalog_add_scales(struct catalog *catalog, uint32_t file,
                        const struct safetensors_entry *entry, enum scales_found *found,
                        struct error *err)
{
    struct catalog_memory *memory = catalog->memory;
    struct scale_entry scale = {.place = {file, entry->offset, entry->bytes}};

    *found = SCALES_NONE;
    if (!owner_of_name(&catalog->arch, entry->name, &scale)) {
        return true;
    }
    if (!scale_check(&catalog->arch, scale.role, entry, err)) {
        return false;
    }
    if (memory->scale_count == memory->scale_capacity) {
        memory->scale_capacity = memory->scale_capacity == 0 ? 256 : memory->scale_capacity * 2;
        memory->scales = mem_resize(memory->scales, memory->scale_capacity, sizeof(scale));
    }
    memory->scales[memory->scale_count++] = scale;
    *found = SCALES_TAKEN;
    return true;
}

static const char *scale_name(const struct scale_entry *scale, char name[NAME_BYTES_MAX])
{
    char owner[TENSOR_NAME_BYTES_MAX];

    tensor_role_write_name(scale->role, scale->layer, scale->expert, owner);
    snprintf(name, NAME_BYTES_MAX, "%s%s", owner, scale_suffix);
    return name;
}

bool catalog_attach_scales(struct catalog *catalog, struct error *err)
{
    struct catalog_memory *memory = catalog->memory;
    char name[NAME_BYTES_MAX];

    for (uint32_t i = 0; i < memory->scale_count; i++) {
        const struct scale_entry *scale = &memory->scales[i];
        const struct tensor *found =
            catalog_find(catalog, scale->role, scale->layer, scale->expert);
        struct tensor *tensor = found != NULL ? &catalog->tensors[found - catalog->tensors] : NULL;

        if (tensor == NULL || tensor->type != WEIGHT_F8_E4M3) {
            if (!catalog_add_unused(catalog, scale_name(scale, name), err)) {
                return false;
            }
            continue;
        }
        if (tensor->scales.bytes > 0) {
            return error_set(err, ERROR_INPUT, "tensor %s is in %s and in %s",
                             scale_name(scale, name), catalog->files[tensor->scales.file].path,
                             catalog->files[scale->place.file].path);
        }
        tensor->scales = scale->place;
        catalog->total_bytes += scale->place.bytes;
    }
    return true;
}

bool catalog_check_scales(const struct catalog *catalog, struct error *err)
{
    for (uint32_t i = 0; i < catalog->tensor_count; i++) {
        const struct tensor *tensor = &catalog->tensors[i];

        if (tensor->type == WEIGHT_F8_E4M3 && tensor->scales.bytes == 0) {
            return error_set(err, ERROR_INPUT, "tensor %s is %s, but %s%s is missing", tensor->name,
                             weight_type_name(tensor->type), tensor->name, scale_suffix);
        }
    }
    return true;
}
