/* model_path.c - a directory or a GGUF file, and what to call it.
 *
 * A wrong path is the first thing that goes wrong for a new user, so the messages say what the path
 * is and what to give instead.
 */
#include "common/model/model_path.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/model/gguf.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char gguf_suffix[] = ".gguf";

static bool ends_with(const char *text, const char *suffix)
{
    size_t length = strlen(text), suffix_length = strlen(suffix);

    return length > suffix_length && strcmp(text + length - suffix_length, suffix) == 0;
}

/* A model's GGUF file in a directory, first in name order; NULL: none. The caller owns it. */
static char *gguf_in(const char *directory)
{
    DIR *entries = opendir(directory);
    const struct dirent *entry;
    char *found = NULL;

    while (entries != NULL && (entry = readdir(entries)) != NULL) {
        if (ends_with(entry->d_name, gguf_suffix) &&
            (found == NULL || strcmp(entry->d_name, found) < 0)) {
            mem_free(found);
            found = mem_strdup(entry->d_name);
        }
    }
    if (entries != NULL) {
        closedir(entries);
    }
    return found;
}

static bool directory_check(const char *path, struct error *err)
{
    char *config = mem_printf("%s/config.json", path);
    char *gguf = file_exists(config) ? NULL : gguf_in(path);
    bool fits = gguf == NULL || error_set(err, ERROR_INPUT,
                                          "%s: has no config.json; of GGUF files, name the file "
                                          "itself: %s/%s",
                                          path, path, gguf);

    mem_free(config);
    mem_free(gguf);
    return fits;
}

static bool file_check(const char *path, uint64_t bytes, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char magic[8] = "";
    bool read;

    if (fd < 0) {
        return error_set_errno(err, "%s", path);
    }
    read =
        file_pread(fd, magic, bytes < sizeof(magic) ? (size_t)bytes : sizeof(magic), 0, path, err);
    close(fd);
    if (!read) {
        return false;
    }
    if (memcmp(magic, "version ", sizeof(magic)) == 0) {
        return error_set(err, ERROR_INPUT,
                         "%s: is a git-lfs pointer, not the weights; run `git lfs pull`", path);
    }
    return memcmp(magic, "GGUF", 4) == 0 ||
           error_set(err, ERROR_INPUT,
                     "%s: is no GGUF file; a model is one, or a directory with config.json and "
                     "safetensors",
                     path);
}

bool model_path_format(const char *path, enum model_format *out, struct error *err)
{
    struct stat facts;
    enum model_format format = MODEL_SAFETENSORS;
    bool fits;

    if (stat(path, &facts) != 0) {
        return error_set_errno(err, "%s", path);
    }
    if (S_ISDIR(facts.st_mode)) {
        fits = directory_check(path, err);
    } else if (S_ISREG(facts.st_mode)) {
        format = MODEL_GGUF;
        fits = file_check(path, (uint64_t)facts.st_size, err);
    } else {
        fits = error_set(err, ERROR_INPUT, "%s: is neither a file nor a directory", path);
    }
    if (fits) {
        *out = format;
    }
    return fits;
}

const char *model_format_name(enum model_format format)
{
    return format == MODEL_GGUF ? "GGUF" : "safetensors";
}

/* A GGUF file keeps the name that it was given by: download caches link to names of their own. */
char *model_path_name(const char *path)
{
    char *resolved = ends_with(path, gguf_suffix) ? NULL : realpath(path, NULL);
    const char *text = resolved != NULL ? resolved : path;
    const char *slash = strrchr(text, '/');
    char *name = mem_strdup(slash != NULL && slash[1] != '\0' ? slash + 1 : text);
    uint32_t number, count;

    free(resolved);
    if (gguf_split_of_name(name, &number, &count)) {
        name[strlen(name) - GGUF_SPLIT_SUFFIX_LENGTH] = '\0';
    } else if (ends_with(name, gguf_suffix)) {
        name[strlen(name) - strlen(gguf_suffix)] = '\0';
    }
    return name;
}
