#ifndef SHOAL_MODEL_MISSING_FILES_H
#define SHOAL_MODEL_MISSING_FILES_H

/* Which files of a model are not there, as after a download that broke off: those that
 * model.safetensors.index.json names, or the other splits of a GGUF file. */
#include "common/base/arena.h"
#include "common/base/error.h"

#include <stdint.h>

struct missing_files {
    uint32_t file_count; /* that the model has; 0: nothing lists them */
    uint32_t missing_count;
    const char **names; /* [missing_count], in the arena, in order */
};

/* `path` as given as --model. False: the list itself cannot be read. */
bool missing_files_find(const char *path, struct arena *arena, struct missing_files *out,
                        struct error *err) MUST_CHECK;

#endif
