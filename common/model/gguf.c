/* gguf.c - a model's GGUF files: the only one, or all splits of a set.
 *
 * A header is read in growing pieces until it is whole; the first file's bytes stay, because its
 * metadata (a vocabulary is megabytes) are views of them. The splits' own numbers are held against
 * their names, so that a missing file, a renamed one or one of another download is named.
 */
#include "common/model/gguf.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIRST_READ_BYTES ((size_t)1 << 20)
#define HEADER_BYTES_MAX ((size_t)512 << 20)
#define SPLITS_MAX       4096u
#define SUFFIX_LENGTH    GGUF_SPLIT_SUFFIX_LENGTH

struct gguf_memory {
    struct arena names;
    char *header_bytes; /* of the first file */
};

/* Where a split stands in its set, by its metadata: 0 of 1 for a whole file. */
struct split {
    uint32_t index;
    uint32_t count;
    uint32_t tensor_count; /* of the set */
};

/* Reads until the header is whole. The caller owns *bytes and, with it, deinits *header. */
static bool header_read(int fd, const struct gguf_file *file, char **bytes,
                        struct gguf_header *header, struct error *err)
{
    for (size_t want = FIRST_READ_BYTES; want <= HEADER_BYTES_MAX; want *= 8) {
        size_t length = file->bytes < want ? (size_t)file->bytes : want;
        enum gguf_outcome outcome = GGUF_REFUSED;
        char *read = mem_try_array(char, length, err);

        if (read != NULL && file_pread(fd, read, length, 0, file->path, err)) {
            outcome = gguf_header_init(header, read, length, file->bytes, err);
        }
        if (outcome == GGUF_PARSED) {
            *bytes = read;
            return true;
        }
        mem_free(read);
        if (outcome == GGUF_REFUSED) {
            return false;
        }
    }
    return error_set(err, ERROR_LIMIT, "the header exceeds %zu bytes", HEADER_BYTES_MAX);
}

/* Fills file->bytes; errors have the path in front. */
static bool file_open(struct gguf_file *file, char **bytes, struct gguf_header *header,
                      struct error *err)
{
    int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat status;
    bool opened;

    if (fd < 0) {
        return error_set_errno(err, "%s", file->path);
    }
    if (fstat(fd, &status) != 0) {
        opened = error_set_errno(err, "%s", file->path);
    } else if (!S_ISREG(status.st_mode)) {
        opened = error_set(err, ERROR_INPUT, "%s: is not a file", file->path);
    } else {
        file->bytes = (uint64_t)status.st_size;
        opened = header_read(fd, file, bytes, header, err) || error_wrap(err, "%s", file->path);
    }
    close(fd);
    return opened;
}

static bool split_of_header(const struct gguf_header *header, struct split *split,
                            struct error *err)
{
    if (!gguf_get_u32_or(header, "split.no", 0, &split->index, err) ||
        !gguf_get_u32_or(header, "split.count", 1, &split->count, err) ||
        !gguf_get_u32_or(header, "split.tensors.count", UINT32_MAX, &split->tensor_count, err)) {
        return false;
    }
    if (split->count == 0) { /* what some writers give a whole file */
        split->count = 1;
    }
    if (split->index >= split->count || split->count > SPLITS_MAX) {
        return error_set(err, ERROR_INPUT,
                         "key \"split.no\" is %u with \"split.count\" %u; at most %u splits can be "
                         "used",
                         split->index, split->count, SPLITS_MAX);
    }
    return true;
}

static bool five_digits(const char *text, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < 5; i++) {
        if (!isdigit((unsigned char)text[i])) {
            return false;
        }
        *out = *out * 10 + (uint32_t)(text[i] - '0');
    }
    return true;
}

bool gguf_split_of_name(const char *path, uint32_t *number, uint32_t *count)
{
    size_t length = strlen(path);
    const char *suffix = length > SUFFIX_LENGTH ? path + length - SUFFIX_LENGTH : path;

    return length > SUFFIX_LENGTH && suffix[0] == '-' && five_digits(suffix + 1, number) &&
           memcmp(suffix + 6, "-of-", 4) == 0 && five_digits(suffix + 10, count) &&
           strcmp(suffix + 15, ".gguf") == 0;
}

static const char *split_path(struct gguf *gguf, uint32_t index)
{
    struct gguf_memory *memory = gguf->memory;
    const char *first = gguf->files[0].path;

    return arena_printf(&memory->names, "%.*s-%05u-of-%05u.gguf",
                        (int)(strlen(first) - SUFFIX_LENGTH), first, index + 1, gguf->file_count);
}

/* The first file's own word against its name. */
static bool first_split_check(const char *path, const struct split *split, struct error *err)
{
    uint32_t number = 1, count = 1;
    bool named = gguf_split_of_name(path, &number, &count);

    if (split->index != 0) {
        return error_set(err, ERROR_INPUT,
                         "is split %u of %u; the model is given by the first of them",
                         split->index + 1, split->count);
    }
    if (!named && split->count > 1) {
        return error_set(err, ERROR_INPUT,
                         "is split 1 of %u, but its name does not end in -00001-of-%05u.gguf, so "
                         "the others cannot be found",
                         split->count, split->count);
    }
    if (named && (number != 1 || count != split->count)) {
        return error_set(err, ERROR_INPUT,
                         "its name says split %u of %u, its metadata split 1 of %u", number, count,
                         split->count);
    }
    if (split->count > 1 && split->tensor_count == UINT32_MAX) {
        return error_set(err, ERROR_INPUT, "key \"split.tensors.count\" is missing");
    }
    return true;
}

/* Names move to the gguf's own memory: the headers of later splits go. */
static void tensors_add(struct gguf *gguf, uint32_t file, const struct gguf_header *header)
{
    struct gguf_memory *memory = gguf->memory;

    if (header->tensor_count == 0) {
        return;
    }
    gguf->tensors = mem_resize(gguf->tensors, (size_t)gguf->tensor_count + header->tensor_count,
                               sizeof(*gguf->tensors));
    for (uint32_t i = 0; i < header->tensor_count; i++) {
        struct gguf_tensor *tensor = &gguf->tensors[gguf->tensor_count++];

        *tensor = header->tensors[i];
        tensor->file = file;
        tensor->name = arena_strdup(&memory->names, tensor->name);
    }
}

static bool later_split_check(const struct gguf_header *header, uint32_t index,
                              const struct split *first, struct error *err)
{
    struct split split;

    if (!split_of_header(header, &split, err)) {
        return false;
    }
    if (split.index != index || split.count != first->count ||
        split.tensor_count != first->tensor_count) {
        return error_set(err, ERROR_INPUT,
                         "says split %u of %u with %u tensors; split %u of %u with %u belongs here",
                         split.index + 1, split.count, split.tensor_count, index + 1, first->count,
                         first->tensor_count);
    }
    return true;
}

static bool later_split_read(struct gguf *gguf, uint32_t index, const struct split *first,
                             struct error *err)
{
    struct gguf_file *file = &gguf->files[index];
    struct gguf_header header;
    char *bytes;
    bool fits;

    file->path = split_path(gguf, index);
    if (!file_exists(file->path)) {
        return error_set(err, ERROR_INPUT, "%s: is missing: split %u of %u", file->path, index + 1,
                         first->count);
    }
    if (!file_open(file, &bytes, &header, err)) {
        return false;
    }
    fits = later_split_check(&header, index, first, err) || error_wrap(err, "%s", file->path);
    if (fits) {
        tensors_add(gguf, index, &header);
    }
    gguf_header_deinit(&header);
    mem_free(bytes);
    return fits;
}

static int tensor_compare(const void *left, const void *right)
{
    return strcmp(((const struct gguf_tensor *)left)->name,
                  ((const struct gguf_tensor *)right)->name);
}

static bool tensors_check(struct gguf *gguf, const struct split *first, struct error *err)
{
    if (first->count > 1 && gguf->tensor_count != first->tensor_count) {
        return error_set(err, ERROR_INPUT,
                         "%s: its %u splits have %u tensors, not the %u of \"split.tensors.count\"",
                         gguf->files[0].path, first->count, gguf->tensor_count,
                         first->tensor_count);
    }
    if (gguf->tensor_count > 0) {
        qsort(gguf->tensors, gguf->tensor_count, sizeof(*gguf->tensors), tensor_compare);
    }
    for (uint32_t i = 1; i < gguf->tensor_count; i++) {
        const struct gguf_tensor *tensor = &gguf->tensors[i];

        if (tensor_compare(tensor - 1, tensor) == 0) {
            return error_set(err, ERROR_INPUT, "tensor %s is in %s and in %s", tensor->name,
                             gguf->files[tensor[-1].file].path, gguf->files[tensor->file].path);
        }
    }
    return true;
}

static bool files_read(struct gguf *gguf, const char *path, struct error *err)
{
    struct gguf_memory *memory = gguf->memory;
    struct gguf_file only = {.path = arena_strdup(&memory->names, path)};
    struct split first;

    if (!file_open(&only, &memory->header_bytes, &gguf->header, err)) {
        return false;
    }
    if (!split_of_header(&gguf->header, &first, err) || !first_split_check(path, &first, err)) {
        return error_wrap(err, "%s", path);
    }
    gguf->file_count = first.count;
    gguf->files = mem_new_array(struct gguf_file, first.count);
    gguf->files[0] = only;
    tensors_add(gguf, 0, &gguf->header);
    for (uint32_t i = 1; i < first.count; i++) {
        if (!later_split_read(gguf, i, &first, err)) {
            return false;
        }
    }
    return tensors_check(gguf, &first, err);
}

struct gguf *gguf_open(const char *path, struct error *err)
{
    struct gguf *gguf = mem_new(struct gguf);
    struct gguf_memory *memory = mem_new(struct gguf_memory);

    gguf->memory = memory;
    arena_init(&memory->names, 1 << 16);
    if (!files_read(gguf, path, err)) {
        gguf_close(gguf);
        return NULL;
    }
    return gguf;
}

void gguf_close(struct gguf *gguf)
{
    struct gguf_memory *memory;

    if (gguf == NULL) {
        return;
    }
    memory = gguf->memory;
    gguf_header_deinit(&gguf->header);
    arena_deinit(&memory->names);
    mem_free(memory->header_bytes);
    mem_free(memory);
    mem_free(gguf->files);
    mem_free(gguf->tensors);
    mem_free(gguf);
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *gguf, const char *name)
{
    struct gguf_tensor key = {.name = name};

    return gguf->tensor_count == 0
               ? NULL
               : bsearch(&key, gguf->tensors, gguf->tensor_count, sizeof(key), tensor_compare);
}
