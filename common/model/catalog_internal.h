#ifndef SHOAL_MODEL_CATALOG_INTERNAL_H
#define SHOAL_MODEL_CATALOG_INTERNAL_H

/* Between catalog.c and catalog_files.c. */
#include "common/base/arena.h"
#include "common/model/catalog.h"

/* catalog->memory */
struct catalog_memory {
    struct arena names; /* of files and tensors */
    uint32_t tensor_capacity;
    uint32_t unused_capacity;
};

/* Fills catalog->files and adds every entry of every header; the index is fully accounted for. */
bool catalog_read_files(struct catalog *catalog, const char *directory,
                        struct error *err) MUST_CHECK;

/* Checks type and shape of a tensor with a role and lists it; copies the name. */
bool catalog_add_entry(struct catalog *catalog, uint32_t file,
                       const struct safetensors_entry *entry, struct error *err) MUST_CHECK;

#endif
