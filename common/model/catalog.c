/* catalog.c - from a model directory to the list of its tensors.
 *
 * Three passes: the file list (one file, or the shards that the index names), every file's header
 * (safetensors.c checks it, each entry gets its role, type and shape checked here), then the set
 * as a whole. The headers say what is where; the index is only held against them: a name is
 * struck from it when its header has it, and what remains is missing. After sorting, duplicates
 * are neighbours and the required set is compared in one walk.
 */
#include "common/model/catalog.h"

#include "common/base/arena.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/model/tensor_role.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER_BYTES_MAX (UINT64_C(64) << 20)
#define INDEX_BYTES_MAX  ((size_t)64 << 20)
#define FILES_MAX        65536u
#define TENSORS_MAX      (8u << 20)
#define SHARD_NAME_MAX   255

static const char index_name[] = "model.safetensors.index.json";
static const char single_name[] = "model.safetensors";

/* catalog->memory */
struct catalog_memory {
    struct arena names; /* of files and tensors */
    uint32_t tensor_capacity;
    uint32_t unused_capacity;
};

/* One file's header being read. */
struct header_visit {
    struct catalog *catalog;
    json_t *weight_map; /* what of the index has not been seen yet; NULL without an index */
    const char *file_name;
    uint32_t file;
};

static const struct {
    const char *name;
    uint32_t bytes;
} weight_types[WEIGHT_TYPE_COUNT] = {
    [WEIGHT_F32] = {"F32", 4},
    [WEIGHT_F16] = {"F16", 2},
    [WEIGHT_BF16] = {"BF16", 2},
};

static bool weight_type_find(const char *name, enum weight_type *type)
{
    for (int i = 0; i < WEIGHT_TYPE_COUNT; i++) {
        if (strcmp(weight_types[i].name, name) == 0) {
            *type = (enum weight_type)i;
            return true;
        }
    }
    return false;
}

/* "[7168, 1536]" */
static void shape_write(char *text, size_t bytes, const uint64_t *dimensions, uint32_t count)
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
    shape_write(found_text, sizeof(found_text), entry->dimensions, entry->dimension_count);
    shape_write(wanted_text, sizeof(wanted_text), first, shape.dimension_count);
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

static bool unused_add(struct catalog *catalog, const char *name, struct error *err)
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

static bool tensor_add(struct catalog *catalog, const struct tensor *tensor, struct error *err)
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

static void index_strike(const struct header_visit *visit, const char *name)
{
    const char *place;

    if (visit->weight_map == NULL) {
        return;
    }
    place = json_string_value(json_object_get(visit->weight_map, name));
    if (place != NULL && strcmp(place, visit->file_name) == 0) {
        json_object_del(visit->weight_map, name);
    }
}

static bool entry_visit(void *context, const struct safetensors_entry *entry, struct error *err)
{
    const struct header_visit *visit = context;
    struct catalog *catalog = visit->catalog;
    struct tensor tensor = {
        .name = entry->name, .file = visit->file, .offset = entry->offset, .bytes = entry->bytes};
    struct tensor_shape shape;

    index_strike(visit, entry->name);
    if (!tensor_role_of_name(&catalog->arch, entry->name, &tensor.role, &tensor.layer,
                             &tensor.expert)) {
        return unused_add(catalog, entry->name, err);
    }
    if (!weight_type_find(entry->dtype, &tensor.type)) {
        return error_set(err, ERROR_INPUT, "tensor %s has type %s; BF16, F16 and F32 can be read",
                         entry->name, entry->dtype);
    }
    if (!shape_check(&catalog->arch, tensor.role, entry, err)) {
        return false;
    }
    shape = tensor_role_shape(&catalog->arch, tensor.role);
    tensor.rows = shape.rows;
    tensor.columns = shape.columns;
    return tensor_add(catalog, &tensor, err);
}

static bool header_length(int fd, const char *path, uint64_t file_bytes, uint64_t *length,
                          struct error *err)
{
    unsigned char bytes[8];

    if (file_bytes < sizeof(bytes)) {
        return error_set(err, ERROR_INPUT,
                         "%s: %" PRIu64 " bytes are too few for a safetensors file", path,
                         file_bytes);
    }
    if (!file_pread(fd, bytes, sizeof(bytes), 0, path, err)) {
        return false;
    }
    if (memcmp(bytes, "version ", sizeof(bytes)) == 0) {
        return error_set(err, ERROR_INPUT,
                         "%s: is a git-lfs pointer, not the weights; run `git lfs pull`", path);
    }
    *length = 0;
    for (int i = 7; i >= 0; i--) {
        *length = *length << 8 | bytes[i];
    }
    if (*length > file_bytes - sizeof(bytes)) {
        return error_set(err, ERROR_INPUT, "%s: header claims %" PRIu64 " bytes, %" PRIu64 " left",
                         path, *length, file_bytes - sizeof(bytes));
    }
    if (*length > HEADER_BYTES_MAX) {
        return error_set(err, ERROR_LIMIT, "%s: header of %" PRIu64 " bytes exceeds %" PRIu64, path,
                         *length, HEADER_BYTES_MAX);
    }
    return true;
}

/* The caller owns *text. */
static bool header_read(int fd, const char *path, uint64_t *file_bytes, char **text, size_t *length,
                        struct error *err)
{
    struct stat status;
    uint64_t claimed;

    if (fstat(fd, &status) != 0) {
        return error_set_errno(err, "%s", path);
    }
    if (!S_ISREG(status.st_mode)) {
        return error_set(err, ERROR_INPUT, "%s: is not a file", path);
    }
    *file_bytes = (uint64_t)status.st_size;
    if (!header_length(fd, path, *file_bytes, &claimed, err)) {
        return false;
    }
    *length = (size_t)claimed;
    *text = mem_try_array(char, *length, err);
    if (*text == NULL) {
        return false;
    }
    if (!file_pread(fd, *text, *length, 8, path, err)) {
        mem_free(*text);
        *text = NULL;
        return false;
    }
    return true;
}

static bool file_visit(struct header_visit *visit, struct error *err)
{
    struct catalog_file *file = &visit->catalog->files[visit->file];
    int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char *text = NULL;
    size_t length = 0;
    bool visited;

    if (fd < 0 && errno == ENOENT && visit->weight_map != NULL) {
        return error_set(err, ERROR_INPUT, "%s: is missing, though %s names it", file->path,
                         index_name);
    }
    if (fd < 0) {
        return error_set_errno(err, "%s", file->path);
    }
    visited = header_read(fd, file->path, &file->bytes, &text, &length, err);
    close(fd);
    if (!visited) {
        return false;
    }
    visited = safetensors_parse_header(text, length, file->bytes, entry_visit, visit, err) ||
              error_wrap(err, "%s", file->path);
    mem_free(text);
    return visited;
}

static int text_compare(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* The file of one index entry; it has to stay inside the directory. */
static bool shard_name_check(const char *tensor, const json_t *place, struct error *err)
{
    const char *name = json_string_value(place);

    if (name == NULL) {
        return error_set(err, ERROR_INPUT, "weight_map: tensor %.160s: must be a string, got %s",
                         tensor, json_type_word(place));
    }
    if (name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL ||
        strlen(name) > SHARD_NAME_MAX) {
        return error_set(err, ERROR_INPUT,
                         "weight_map: tensor %.160s: \"%.100s\" is not a plain file name", tensor,
                         name);
    }
    return true;
}

/* Each shard once, in name order. *names borrows from the map; the caller frees the array. */
static bool shard_names(json_t *weight_map, const char ***names, uint32_t *count, struct error *err)
{
    size_t entry_count = json_object_size(weight_map), kept = 0, i = 0;
    const char **all = mem_try_array(const char *, entry_count, err);
    const char *tensor;
    json_t *place;

    if (all == NULL) {
        return false;
    }
    json_object_foreach(weight_map, tensor, place)
    {
        if (!shard_name_check(tensor, place, err)) {
            mem_free(all);
            return false;
        }
        all[i++] = json_string_value(place);
    }
    qsort(all, entry_count, sizeof(*all), text_compare);
    for (i = 0; i < entry_count; i++) {
        if (kept == 0 || strcmp(all[kept - 1], all[i]) != 0) {
            all[kept++] = all[i];
        }
    }
    if (kept == 0 || kept > FILES_MAX) {
        mem_free(all);
        return error_set(err, kept == 0 ? ERROR_INPUT : ERROR_LIMIT,
                         "weight_map names %zu files; 1 to %u can be used", kept, FILES_MAX);
    }
    *names = all;
    *count = (uint32_t)kept;
    return true;
}

static bool files_visit(struct catalog *catalog, const char *directory, const char **names,
                        json_t *weight_map, struct error *err)
{
    struct catalog_memory *memory = catalog->memory;

    catalog->files = mem_new_array(struct catalog_file, catalog->file_count);
    for (uint32_t i = 0; i < catalog->file_count; i++) {
        struct header_visit visit = {catalog, weight_map, NULL, i};
        const char *path = arena_printf(&memory->names, "%s/%s", directory, names[i]);

        catalog->files[i].path = path;
        visit.file_name = strrchr(path, '/') + 1; /* outlives the index entries struck out */
        if (!file_visit(&visit, err)) {
            return false;
        }
    }
    return true;
}

/* What is left of the index lies in no header that it names. */
static bool index_is_spent(const json_t *weight_map, struct error *err)
{
    void *first = json_object_iter((json_t *)weight_map);

    return first == NULL ||
           error_set(err, ERROR_INPUT, "tensor %.160s is not in %.100s (%zu such tensors)",
                     json_object_iter_key(first), json_string_value(json_object_iter_value(first)),
                     json_object_size(weight_map));
}

static bool shards_read(struct catalog *catalog, const char *directory, json_t *weight_map,
                        struct error *err)
{
    const char **names = NULL;
    bool read;

    if (!shard_names(weight_map, &names, &catalog->file_count, err)) {
        return false;
    }
    for (uint32_t i = 0; i < catalog->file_count; i++) {
        struct catalog_memory *memory = catalog->memory;

        names[i] = arena_strdup(&memory->names, names[i]); /* the map loses entries on the way */
    }
    read = files_visit(catalog, directory, names, weight_map, err) &&
           (index_is_spent(weight_map, err) || error_wrap(err, "%s/%s", directory, index_name));
    mem_free(names);
    return read;
}

static bool index_read(struct catalog *catalog, const char *directory, const char *path,
                       struct error *err)
{
    json_t *index = json_read_file(path, INDEX_BYTES_MAX, err);
    json_t *weight_map = NULL;
    bool read = false;

    if (index == NULL) {
        return false;
    }
    if (!json_is_object(index)) {
        error_set(err, ERROR_INPUT, "%s: must be an object, got %s", path, json_type_word(index));
    } else if (!json_get_object_or_null(index, "weight_map", &weight_map, err)) {
        error_wrap(err, "%s", path);
    } else if (weight_map == NULL) {
        error_set(err, ERROR_INPUT, "%s: field \"weight_map\" is missing", path);
    } else {
        read = shards_read(catalog, directory, weight_map, err);
    }
    json_decref(index);
    return read;
}

/* As Hugging Face's loader: the single file if it is there, else the index. */
static bool headers_read(struct catalog *catalog, const char *directory, struct error *err)
{
    const char *name = single_name;
    char *single = mem_printf("%s/%s", directory, single_name);
    char *index = mem_printf("%s/%s", directory, index_name);
    bool read;

    if (file_exists(single)) {
        catalog->file_count = 1;
        read = files_visit(catalog, directory, &name, NULL, err);
    } else if (file_exists(index)) {
        read = index_read(catalog, directory, index, err);
    } else {
        read = error_set(err, ERROR_INPUT, "%s: has neither %s nor %s", directory, single_name,
                         index_name);
    }
    mem_free(single);
    mem_free(index);
    return read;
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

static void walk_one(struct required_walk *walk, const struct tensor *required)
{
    const struct catalog *catalog = walk->catalog;

    if (walk->at < catalog->tensor_count &&
        tensor_compare(&catalog->tensors[walk->at], required) == 0) {
        walk->at++;
        walk->present++;
    } else if (!tensor_role_is_optional(required->role) && walk->missing++ == 0) {
        tensor_role_write_name(required->role, required->layer, required->expert,
                               walk->first_missing);
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
    return walk_is_complete(&draft_walk,
                            "of the draft layers (num_nextn_predict_layers 0 in config.json goes "
                            "without them)",
                            err);
}

struct catalog *catalog_open(const char *directory, struct error *err)
{
    struct catalog *catalog = mem_new(struct catalog);
    struct catalog_memory *memory = mem_new(struct catalog_memory);

    catalog->memory = memory;
    arena_init(&memory->names, 1 << 20);
    if (!arch_read(directory, &catalog->arch, err) || !headers_read(catalog, directory, err)) {
        catalog_close(catalog);
        return NULL;
    }
    if (catalog->tensor_count > 0) {
        qsort(catalog->tensors, catalog->tensor_count, sizeof(*catalog->tensors), tensor_compare);
    }
    if (catalog->unused_count > 0) {
        qsort(catalog->unused, catalog->unused_count, sizeof(*catalog->unused), text_compare);
    }
    if (!names_are_unique(catalog, err) || !required_are_present(catalog, err)) {
        error_wrap(err, "%s", directory);
        catalog_close(catalog);
        return NULL;
    }
    return catalog;
}

void catalog_close(struct catalog *catalog)
{
    struct catalog_memory *memory;

    if (catalog == NULL) {
        return;
    }
    memory = catalog->memory;
    arena_deinit(&memory->names);
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

const char *weight_type_name(enum weight_type type)
{
    ASSERT(type < WEIGHT_TYPE_COUNT);
    return weight_types[type].name;
}

uint32_t weight_type_bytes(enum weight_type type)
{
    ASSERT(type < WEIGHT_TYPE_COUNT);
    return weight_types[type].bytes;
}
