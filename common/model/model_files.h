#ifndef SHOAL_MODEL_MODEL_FILES_H
#define SHOAL_MODEL_MODEL_FILES_H

/* The files that make a model, and which of their bytes describe it: whoever has these bytes at
 * their places, in files of the right sizes, can open the catalog. What is not here (tokenizer,
 * chat template) no worker needs. Any thread.
 */
#include "common/base/arena.h"
#include "common/model/catalog.h"

struct model_file {
    const char *path;
    const char *name; /* the path's last component */
    uint64_t bytes;
    uint64_t header_bytes; /* from the beginning; a JSON file is all header */
    /* A part of the data that opening the catalog reads too; bytes 0: none. */
    uint64_t extra_offset, extra_bytes;
};
struct model_files {
    uint32_t count;
    struct model_file *files; /* sorted by name */
};

/* Of a catalog with published weights. Everything lies in the arena. ERROR_INPUT: two files of one
 * name, or one that has changed. */
bool model_files_find(const struct catalog *catalog, struct arena *arena, struct model_files *out,
                      struct error *err) MUST_CHECK;

#endif
