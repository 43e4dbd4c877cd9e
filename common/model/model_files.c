/* model_files.c - which files a model consists of, and where their descriptions end. */
#include "common/model/model_files.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/model/catalog_internal.h"
#include "common/model/gguf.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Beside the weights of a Hugging Face model, where they are there. */
static const char *const descriptions[] = {"config.json", "generation_config.json",
                                           "model.safetensors.index.json"};

/* With the 8 bytes in front that say how long the header is. */
static bool safetensors_header(const struct catalog_file *file, uint64_t *bytes, struct error *err)
{
    int fd = open(file->path, O_RDONLY | O_CLOEXEC);
    size_t length = 0;
    bool read;

    if (fd < 0) {
        return error_set_errno(err, "%s", file->path);
    }
    read = catalog_header_length(fd, file, &length, err);
    (void)close(fd);
    *bytes = CATALOG_HEADER_BEGIN + length;
    return read;
}

static void file_add(struct model_files *out, const struct model_file *file, struct arena *arena)
{
    struct model_file *added = &out->files[out->count++];

    *added = *file;
    added->path = arena_strdup(arena, file->path);
    added->name = file_name(added->path);
}

static bool description_add(struct model_files *out, const char *directory, const char *name,
                            struct arena *arena, struct error *err)
{
    struct model_file file = {.path = arena_printf(arena, "%s/%s", directory, name)};

    if (!file_exists(file.path)) {
        return true;
    }
    if (!file_size(file.path, &file.bytes, err)) {
        return false;
    }
    file.header_bytes = file.bytes;
    file_add(out, &file, arena);
    return true;
}

static bool safetensors_find(const struct catalog *catalog, struct arena *arena,
                             struct model_files *out, struct error *err)
{
    const char *first = catalog->files[0].path;
    int length = (int)(file_name(first) - first);
    const char *directory = arena_printf(arena, "%.*s", length > 0 ? length - 1 : 0, first);

    for (size_t i = 0; i < ARRAY_LENGTH(descriptions); i++) {
        if (!description_add(out, length > 0 ? directory : ".", descriptions[i], arena, err)) {
            return false;
        }
    }
    for (uint32_t i = 0; i < catalog->file_count; i++) {
        struct model_file file = {.path = catalog->files[i].path, .bytes = catalog->files[i].bytes};

        if (!safetensors_header(&catalog->files[i], &file.header_bytes, err)) {
            return false;
        }
        file_add(out, &file, arena);
    }
    return true;
}

/* The header ends where the first tensor's data begin, padding included. */
static bool gguf_find_files(const struct catalog *catalog, struct arena *arena,
                            struct model_files *out, struct error *err)
{
    struct gguf *gguf = gguf_open(catalog->files[0].path, err);
    const struct gguf_tensor *divisors;

    if (gguf == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < gguf->file_count; i++) {
        struct model_file file = {.path = gguf->files[i].path,
                                  .bytes = gguf->files[i].bytes,
                                  .header_bytes = gguf->files[i].bytes};

        file_add(out, &file, arena);
    }
    for (uint32_t i = 0; i < gguf->tensor_count; i++) {
        struct model_file *file = &out->files[gguf->tensors[i].file];

        if (gguf->tensors[i].offset < file->header_bytes) {
            file->header_bytes = gguf->tensors[i].offset;
        }
    }
    divisors = gguf_find_tensor(gguf, "rope_freqs.weight");
    if (divisors != NULL) {
        out->files[divisors->file].extra_offset = divisors->offset;
        out->files[divisors->file].extra_bytes = divisors->bytes;
    }
    gguf_close(gguf);
    return true;
}

static int name_compare(const void *left, const void *right)
{
    const struct model_file *a = left, *b = right;

    return strcmp(a->name, b->name);
}

bool model_files_find(const struct catalog *catalog, struct arena *arena, struct model_files *out,
                      struct error *err)
{
    size_t most = catalog->file_count + ARRAY_LENGTH(descriptions);
    bool found;

    ASSERT(catalog->weights.source == WEIGHTS_PUBLISHED && catalog->file_count > 0);
    out->count = 0;
    out->files = arena_new_array(arena, struct model_file, most);
    found = catalog->format == MODEL_GGUF ? gguf_find_files(catalog, arena, out, err)
                                          : safetensors_find(catalog, arena, out, err);
    if (!found) {
        return false;
    }
    qsort(out->files, out->count, sizeof(*out->files), name_compare);
    for (uint32_t i = 1; i < out->count; i++) {
        if (strcmp(out->files[i - 1].name, out->files[i].name) == 0) {
            return error_set(err, ERROR_INPUT, "%s and %s have one name", out->files[i - 1].path,
                             out->files[i].path);
        }
    }
    return true;
}
