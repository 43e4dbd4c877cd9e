#ifndef SHOAL_MODEL_CATALOG_INTERNAL_H
#define SHOAL_MODEL_CATALOG_INTERNAL_H

/* Between the catalog*.c files. */
#include "common/base/arena.h"
#include "common/model/catalog.h"

/* catalog->memory */
struct catalog_memory {
    struct arena names; /* of files and tensors */
    uint32_t tensor_capacity;
    uint32_t unused_capacity;
    struct scale_entry *scales; /* catalog_scales.c's */
    uint32_t scale_count;
    uint32_t scale_capacity;
};

/* Fills catalog->files and adds every entry of every header; the index is fully accounted for. */
bool catalog_read_files(struct catalog *catalog, const char *directory,
                        struct error *err) MUST_CHECK;

/* Reads the architecture, fills catalog->files and adds every tensor of a GGUF model. */
bool catalog_read_gguf(struct catalog *catalog, const char *path, struct error *err) MUST_CHECK;

/* How long the JSON header of a safetensors file is, that begins behind its length. */
#define CATALOG_HEADER_BEGIN 8
bool catalog_header_length(int fd, const struct catalog_file *file, size_t *length,
                           struct error *err) MUST_CHECK;

/* Checks type and shape of a tensor with a role and lists it; copies the name. */
bool catalog_add_entry(struct catalog *catalog, uint32_t file,
                       const struct safetensors_entry *entry, struct error *err) MUST_CHECK;
bool catalog_add_unused(struct catalog *catalog, const char *name, struct error *err) MUST_CHECK;

/* Takes a tensor whose fields are right; copies the name. */
bool catalog_add_tensor(struct catalog *catalog, const struct tensor *tensor,
                        struct error *err) MUST_CHECK;
/* "[7168, 1536]" */
void catalog_write_shape(char *text, size_t bytes, const uint64_t *dimensions, uint32_t count);
/* An empty catalog; catalog_close frees it. */
struct catalog *catalog_make(void);

/* Notes an entry that holds a tensor's scales, type and shape checked. */
enum scales_found { SCALES_NONE, SCALES_TAKEN };
bool catalog_add_scales(struct catalog *catalog, uint32_t file,
                        const struct safetensors_entry *entry, enum scales_found *found,
                        struct error *err) MUST_CHECK;
/* Once the tensors are sorted: gives each its scales; those that nothing needs become unused. */
bool catalog_attach_scales(struct catalog *catalog, struct error *err) MUST_CHECK;
bool catalog_check_scales(const struct catalog *catalog, struct error *err) MUST_CHECK;

#endif
