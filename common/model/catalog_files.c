/* catalog_files.c - which files a checkpoint has, and their headers.
 *
 * The headers say what is where; the index is only held against them: a name is struck from it
 * when the header of its file has it, and what remains is missing. File names of the index stay
 * inside the directory.
 */
#include "common/base/bytes.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/model/catalog_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER_BYTES_MAX (UINT64_C(64) << 20)
#define INDEX_BYTES_MAX  ((size_t)64 << 20)
#define FILES_MAX        65536u
#define SHARD_NAME_MAX   255

static const char index_name[] = "model.safetensors.index.json";
static const char single_name[] = "model.safetensors";

/* One file's header being read. */
struct header_visit {
    struct catalog *catalog;
    json_t *weight_map; /* what of the index has not been seen yet; NULL without an index */
    const char *file_name;
    uint32_t file;
};

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

    index_strike(visit, entry->name);
    return catalog_add_entry(visit->catalog, visit->file, entry, err);
}

bool catalog_header_length(int fd, const struct catalog_file *file, size_t *length,
                           struct error *err)
{
    uint8_t bytes[CATALOG_HEADER_BEGIN];
    uint64_t claimed;

    if (file->bytes < sizeof(bytes)) {
        return error_set(err, ERROR_INPUT,
                         "%s: %" PRIu64 " bytes are too few for a safetensors file", file->path,
                         file->bytes);
    }
    if (!file_pread(fd, bytes, sizeof(bytes), 0, file->path, err)) {
        return false;
    }
    if (memcmp(bytes, "version ", sizeof(bytes)) == 0) {
        return error_set(err, ERROR_INPUT,
                         "%s: is a git-lfs pointer, not the weights; run `git lfs pull`",
                         file->path);
    }
    claimed = bytes_get(bytes, sizeof(bytes));
    if (claimed > file->bytes - sizeof(bytes)) {
        return error_set(err, ERROR_INPUT, "%s: header claims %" PRIu64 " bytes, %" PRIu64 " left",
                         file->path, claimed, file->bytes - sizeof(bytes));
    }
    if (claimed > HEADER_BYTES_MAX) {
        return error_set(err, ERROR_LIMIT, "%s: header of %" PRIu64 " bytes exceeds %" PRIu64,
                         file->path, claimed, HEADER_BYTES_MAX);
    }
    *length = (size_t)claimed;
    return true;
}

/* Fills file->bytes. The caller owns *text. */
static bool header_read(int fd, struct catalog_file *file, char **text, size_t *length,
                        struct error *err)
{
    struct stat status;

    if (fstat(fd, &status) != 0) {
        return error_set_errno(err, "%s", file->path);
    }
    if (!S_ISREG(status.st_mode)) {
        return error_set(err, ERROR_INPUT, "%s: is not a file", file->path);
    }
    file->bytes = (uint64_t)status.st_size;
    if (!catalog_header_length(fd, file, length, err)) {
        return false;
    }
    *text = mem_try_array(char, *length, err);
    if (*text == NULL) {
        return error_wrap(err, "%s", file->path);
    }
    if (!file_pread(fd, *text, *length, 8, file->path, err)) {
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
    visited = header_read(fd, file, &text, &length, err);
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
bool catalog_read_files(struct catalog *catalog, const char *directory, struct error *err)
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
