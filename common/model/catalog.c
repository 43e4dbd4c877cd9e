/* catalog.c - from a model's files to the list of its tensors.
 *
 * catalog_files.c reads every safetensors header; each entry gets its role, type and shape checked
 * here, those of GGUF files in catalog_gguf.c; then the set as a whole. After sorting, duplicates
 * are neighbours, the required set is compared in one walk, and look-ups are a binary search.
 */
#include "common/model/catalog.h"

#include "common/base/mem.h"
#include "common/model/catalog_internal.h"
#include "common/model/tensor_role.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TENSORS_MAX (8u << 20)

void catalog_write_shape(char *text, size_t bytes, const uint64_t *dimensions, uint32_t count)
{
    size_t used = (size_t)snprintf(text, bytes, "[");

    for (uint32_t i = 0; i < count && used < bytes; i++) {
        used += (size_t)snprintf(text + used, bytes - used, "%s%" PRIu64, i > 0 ? ", " : "",
                                 dimensions[i]);
    }
    if (used < bytes) {
        snprintf(text + used, bytes - used, "]");
    }
}

static bool shape_check(const struct arch *arch, enum tensor_role role,
                        const struct safetensors_entry *entry, struct error *err)
{
    struct tensor_shape shape = tensor_role_shape(arch, role);
    uint64_t wanted[2] = {shape.rows, shape.columns};
    const uint64_t *first = wanted + 2 - shape.dimension_count;
    char found_text[200], wanted_text[64];

    if (entry->dimension_count == shape.dimension_count &&
        memcmp(entry->dimensions, first, shape.dimension_count * sizeof(*first)) == 0) {
        return true;
    }
    catalog_write_shape(found_text, sizeof(found_text), entry->dimensions, entry->dimension_count);
    catalog_write_shape(wanted_text, sizeof(wanted_text), first, shape.dimension_count);
    return error_set(err, ERROR_INPUT, "tensor %s has shape %s; config.json asks for %s",
                     entry->name, found_text, wanted_text);
}

/* Makes room for one more. The bound is far above any model; it only stops runaway headers. */
static bool reserve_one(void **items, size_t size, uint32_t count, uint32_t *capacity,
                        struct error *err)
{
    if (count < *capacity) {
        return true;
    }
    if (count >= TENSORS_MAX) {
        return error_set(err, ERROR_LIMIT, "more than %u tensors", TENSORS_MAX);
    }
    *capacity = *capacity == 0 ? 256 : *capacity * 2;
    *items = mem_resize(*items, *capacity, size);
    return true;
}

bool catalog_add_unused(struct catalog *catalog, const char *name, struct error *err)
{
    struct catalog_memory *memory = catalog->memory;
    void *items = catalog->unused;

    if (!reserve_one(&items, sizeof(*catalog->unused), catalog->unused_count,
                     &memory->unused_capacity, err)) {
        return false;
    }
    catalog->unused = items;
    catalog->unused[catalog->unused_count++] = arena_strdup(&memory->names, name);
    return true;
}

bool catalog_add_tensor(struct catalog *catalog, const struct tensor *tensor, struct error *err)
{
    struct catalog_memory *memory = catalog->memory;
    void *items = catalog->tensors;

    if (!reserve_one(&items, sizeof(*catalog->tensors), catalog->tensor_count,
                     &memory->tensor_capacity, err)) {
        return false;
    }
    catalog->tensors = items;
    catalog->tensors[catalog->tensor_count] = *tensor;
    catalog->tensors[catalog->tensor_count++].name = arena_strdup(&memory->names, tensor->name);
    catalog->total_bytes += tensor->bytes;
    return true;
}

/* Vectors and embeddings are read value by value; nobody publishes them scaled. */
static bool type_check(const struct arch *arch, const struct tensor *tensor,
                       const struct safetensors_entry *entry, struct error *err)
{
    bool scaled = tensor_role_shape(arch, tensor->role).dimension_count == 2 &&
                  tensor->role != ROLE_EMBEDDING && tensor->role != ROLE_DRAFT_EMBEDDING;

    return tensor->type != WEIGHT_F8_E4M3 || scaled ||
           error_set(err, ERROR_INPUT, "tensor %s has type %s; BF16, F16 and F32 can be read here",
                     entry->name, entry->dtype);
}

bool catalog_add_entry(struct catalog *catalog, uint32_t file,
                       const struct safetensors_entry *entry, struct error *err)
{
    struct tensor tensor = {
        .name = entry->name, .file = file, .offset = entry->offset, .bytes = entry->bytes};
    struct tensor_shape shape;

    if (!tensor_role_of_name(&catalog->arch, entry->name, &tensor.role, &tensor.layer,
                             &tensor.expert)) {
        enum scales_found found;

        return catalog_add_scales(catalog, file, entry, &found, err) &&
               (found == SCALES_TAKEN || catalog_add_unused(catalog, entry->name, err));
    }
    if (!weight_type_find(entry->dtype, &tensor.type) || weight_type_is_blocks(tensor.type)) {
        return error_set(err, ERROR_INPUT,
                         "tensor %s has type %s; F8_E4M3, BF16, F16 and F32 can be read",
                         entry->name, entry->dtype);
    }
    if (!type_check(&catalog->arch, &tensor, entry, err) ||
        !shape_check(&catalog->arch, tensor.role, entry, err)) {
        return false;
    }
    shape = tensor_role_shape(&catalog->arch, tensor.role);
    tensor.rows = shape.rows;
    tensor.columns = shape.columns;
    return catalog_add_tensor(catalog, &tensor, err);
}

static int text_compare(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

static int tensor_compare(const void *left, const void *right)
{
    const struct tensor *a = left;
    const struct tensor *b = right;

    if (a->layer != b->layer) {
        return a->layer < b->layer ? -1 : 1;
    }
    if (a->role != b->role) {
        return a->role < b->role ? -1 : 1;
    }
    return (a->expert > b->expert) - (a->expert < b->expert);
}

static bool names_are_unique(const struct catalog *catalog, struct error *err)
{
    for (uint32_t i = 1; i < catalog->tensor_count; i++) {
        const struct tensor *tensor = &catalog->tensors[i];

        if (tensor_compare(tensor - 1, tensor) == 0) {
            return error_set(err, ERROR_INPUT, "tensor %s is in %s and in %s", tensor->name,
                             catalog->files[tensor[-1].file].path,
                             catalog->files[tensor->file].path);
        }
    }
    for (uint32_t i = 1; i < catalog->unused_count; i++) {
        if (strcmp(catalog->unused[i - 1], catalog->unused[i]) == 0) {
            return error_set(err, ERROR_INPUT, "tensor %.200s is in two files", catalog->unused[i]);
        }
    }
    return true;
}

/* Walks the sorted tensors and the required set, which have the same order, side by side. */
struct required_walk {
    const struct catalog *catalog;
    uint32_t at;
    uint32_t present;
    uint32_t missing;
    char first_missing[TENSOR_NAME_BYTES_MAX];
};

static void required_name(enum model_format format, const struct tensor *required,
                          char name[TENSOR_NAME_BYTES_MAX])
{
    if (format == MODEL_GGUF) {
        tensor_role_write_gguf_name(required->role, required->layer, name);
    } else {
        tensor_role_write_name(required->role, required->layer, required->expert, name);
    }
}

static void walk_one(struct required_walk *walk, const struct tensor *required)
{
    const struct catalog *catalog = walk->catalog;

    if (walk->at < catalog->tensor_count &&
        tensor_compare(&catalog->tensors[walk->at], required) == 0) {
        walk->at++;
        walk->present++;
    } else if (!tensor_role_is_optional(required->role) && walk->missing++ == 0) {
        required_name(catalog->format, required, walk->first_missing);
    }
}

static void walk_layer(struct required_walk *walk, uint32_t layer)
{
    for (int i = 0; i < ROLE_COUNT; i++) {
        struct tensor required = {.role = (enum tensor_role)i, .layer = layer};
        uint32_t count = tensor_role_count(&walk->catalog->arch, required.role, layer);

        for (uint32_t j = 0; j < count; j++) {
            required.expert = tensor_role_is_expert(required.role) ? j : CATALOG_NO_EXPERT;
            walk_one(walk, &required);
        }
    }
}

static bool walk_is_complete(const struct required_walk *walk, const char *what, struct error *err)
{
    return walk->missing == 0 ||
           error_set(err, ERROR_INPUT, "%u tensors %s are missing, the first is %s", walk->missing,
                     what, walk->first_missing);
}

static bool required_are_present(struct catalog *catalog, struct error *err)
{
    struct required_walk main_walk = {.catalog = catalog};
    struct required_walk draft_walk = {.catalog = catalog};
    uint32_t layer = 0;

    for (; layer < catalog->arch.layer_count; layer++) {
        walk_layer(&main_walk, layer);
    }
    draft_walk.at = main_walk.at;
    for (; layer < catalog->arch.layer_count + catalog->arch.draft_layer_count; layer++) {
        walk_layer(&draft_walk, layer);
    }
    main_walk.at = draft_walk.at;
    walk_layer(&main_walk, CATALOG_NO_LAYER);
    if (!walk_is_complete(&main_walk, "of the model", err)) {
        return false;
    }
    if (draft_walk.present == 0) {
        catalog->arch.draft_layer_count = 0;
        return true;
    }
    return walk_is_complete(
        &draft_walk,
        catalog->format == MODEL_GGUF
            ? "of the draft layers"
            : "of the draft layers (num_nextn_predict_layers 0 in config.json goes without them)",
        err);
}

struct catalog *catalog_make(void)
{
    struct catalog *catalog = mem_new(struct catalog);
    struct catalog_memory *memory = mem_new(struct catalog_memory);

    catalog->memory = memory;
    arena_init(&memory->names, 1 << 20);
    return catalog;
}

/* All headers are read: the set as a whole. */
static bool set_check(struct catalog *catalog, struct error *err)
{
    if (catalog->tensor_count > 0) {
        qsort(catalog->tensors, catalog->tensor_count, sizeof(*catalog->tensors), tensor_compare);
    }
    if (!catalog_attach_scales(catalog, err)) {
        return false;
    }
    if (catalog->unused_count > 0) {
        qsort(catalog->unused, catalog->unused_count, sizeof(*catalog->unused), text_compare);
    }
    return names_are_unique(catalog, err) && catalog_check_scales(catalog, err) &&
           required_are_present(catalog, err);
}

static bool headers_read(struct catalog *catalog, const char *path, struct error *err)
{
    if (!model_path_format(path, &catalog->format, err)) {
        return false;
    }
    if (catalog->format == MODEL_GGUF) {
        return catalog_read_gguf(catalog, path, err);
    }
    return arch_read(path, &catalog->arch, err) && catalog_read_files(catalog, path, err);
}

struct catalog *catalog_open(const char *path, struct error *err)
{
    struct catalog *catalog = catalog_make();

    if (headers_read(catalog, path, err) &&
        (set_check(catalog, err) || error_wrap(err, "%s", path))) {
        return catalog;
    }
    catalog_close(catalog);
    return NULL;
}

void catalog_close(struct catalog *catalog)
{
    struct catalog_memory *memory;

    if (catalog == NULL) {
        return;
    }
    memory = catalog->memory;
    arena_deinit(&memory->names);
    mem_free(memory->scales);
    mem_free(memory);
    mem_free(catalog->files);
    mem_free(catalog->tensors);
    mem_free(catalog->unused);
    mem_free(catalog);
}

const struct tensor *catalog_find(const struct catalog *catalog, enum tensor_role role,
                                  uint32_t layer, uint32_t expert)
{
    struct tensor key = {.role = role, .layer = layer, .expert = expert};

    if (catalog->tensor_count == 0) {
        return NULL;
    }
    return bsearch(&key, catalog->tensors, catalog->tensor_count, sizeof(key), tensor_compare);
}

enum numerics catalog_numerics(const struct catalog *catalog)
{
    for (uint32_t i = 0; i < catalog->tensor_count; i++) {
        if (weight_type_is_blocks(catalog->tensors[i].type)) {
            return NUMERICS_INT8;
        }
    }
    return NUMERICS_EXACT;
}
