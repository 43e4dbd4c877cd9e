/* missing_files.c - names from the model's own list, and a look at each. */
#include "common/model/missing_files.h"

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/model/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define INDEX_BYTES_MAX ((size_t)256 << 20) /* R1's is 9 MB */

static const char index_name[] = "model.safetensors.index.json";

static int compare_names(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* Sorted, each once; returns their number. */
static size_t names_unique(const char **names, size_t count)
{
    size_t unique = 0;

    qsort(names, count, sizeof(*names), compare_names);
    for (size_t i = 0; i < count; i++) {
        if (unique == 0 || strcmp(names[unique - 1], names[i]) != 0) {
            names[unique++] = names[i];
        }
    }
    return unique;
}

/* Keeps the names of files that are not there. */
static void look(const char *folder, const char **names, size_t count, struct missing_files *out)
{
    out->names = names;
    out->file_count = (uint32_t)count;
    for (size_t i = 0; i < count; i++) {
        char *path = mem_printf("%s/%s", folder, names[i]);

        if (!file_exists(path)) {
            names[out->missing_count++] = names[i];
        }
        mem_free(path);
    }
}

static bool index_look(const char *folder, const char *index_path, struct arena *arena,
                       struct missing_files *out, struct error *err)
{
    json_t *index = json_read_file(index_path, INDEX_BYTES_MAX, err);
    json_t *map = json_object_get(index, "weight_map");
    const char **names;
    const char *tensor;
    json_t *file;
    size_t count = 0;

    if (index == NULL) {
        return false;
    }
    if (!json_is_object(map)) {
        json_decref(index);
        return error_set(err, ERROR_INPUT, "%s: \"weight_map\" must be an object", index_path);
    }
    names = arena_new_array(arena, const char *, json_object_size(map));
    json_object_foreach(map, tensor, file)
    {
        if (json_is_string(file)) {
            names[count++] = arena_strdup(arena, json_string_value(file));
        }
    }
    json_decref(index);
    look(folder, names, names_unique(names, count), out);
    return true;
}

/* "…-00001-of-00009.gguf": the others differ in five digits. */
static void splits_look(const char *path, struct arena *arena, struct missing_files *out)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    char *folder = slash != NULL ? arena_strndup(arena, path, (size_t)(slash - path))
                                 : arena_strdup(arena, ".");
    uint32_t number, count;
    const char **names;
    int kept;

    if (!gguf_split_of_name(path, &number, &count)) {
        return;
    }
    kept = (int)(strlen(name) - GGUF_SPLIT_SUFFIX_LENGTH);
    names = arena_new_array(arena, const char *, count);
    for (uint32_t i = 0; i < count; i++) {
        names[i] = arena_printf(arena, "%.*s-%05u-of-%05u.gguf", kept, name, i + 1, count);
    }
    look(folder, names, count, out);
}

bool missing_files_find(const char *path, struct arena *arena, struct missing_files *out,
                        struct error *err)
{
    struct stat facts;
    char *index_path;
    bool good = true;

    *out = (struct missing_files){.names = NULL};
    if (stat(path, &facts) != 0 || !S_ISDIR(facts.st_mode)) {
        splits_look(path, arena, out);
        return true;
    }
    index_path = mem_printf("%s/%s", path, index_name);
    if (file_exists(index_path)) {
        good = index_look(path, index_path, arena, out, err);
    }
    mem_free(index_path);
    return good;
}
