/* model_headers.c - what can be said of a model before it is downloaded. */
#include "coordinator/cli/model_headers.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <string.h>
#include <sys/stat.h>

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);

    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/* Nothing downloaded but the description: a config.json, or a directory in which no weights are. */
static bool is_bare(const char *path)
{
    static const char *const weights[] = {"model.safetensors", "model.safetensors.index.json"};
    struct stat facts;
    bool found = false;

    if (stat(path, &facts) == 0 && !S_ISDIR(facts.st_mode)) {
        return ends_with(path, ".json");
    }
    for (size_t i = 0; i < ARRAY_LENGTH(weights); i++) {
        char *file = mem_printf("%s/%s", path, weights[i]);

        found = found || file_exists(file);
        mem_free(file);
    }
    return !found;
}

struct catalog *model_headers_open(const char *path, struct error *err)
{
    struct weights_choice weights = {.source = is_bare(path) ? WEIGHTS_DUMMY : WEIGHTS_PUBLISHED};

    return catalog_open_weights(path, &weights, err);
}
