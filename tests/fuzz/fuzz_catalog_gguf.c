/* fuzz_catalog_gguf.c - any bytes as a GGUF model: as a file of their own, and as the beginning of
 * one with room for data, so that headers are met whose tensors are all there. */
#include "common/base/mem.h"
#include "common/model/catalog.h"
#include "common/model/model_hash.h"
#include "common/model/summary.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define ROOMY_BYTES     ((size_t)3 << 20)
#define WHOLE_BYTES_MIN 1024 /* of a model's header */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_catalog(const struct catalog *catalog)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < catalog->tensor_count; i++) {
        const struct tensor *tensor = &catalog->tensors[i];

        ASSERT(tensor->file < catalog->file_count && tensor->role < ROLE_COUNT);
        ASSERT(tensor->columns % weight_type_block_values(tensor->type) == 0);
        ASSERT(tensor->bytes == tensor->rows * weight_row_bytes(tensor->type, tensor->columns));
        ASSERT(tensor->offset <= catalog->files[tensor->file].bytes);
        ASSERT(tensor->bytes <= catalog->files[tensor->file].bytes - tensor->offset);
        ASSERT(catalog_find(catalog, tensor->role, tensor->layer, tensor->expert) == tensor);
        bytes += tensor->bytes;
    }
    ASSERT(bytes == catalog->total_bytes);
}

/* What every command does with a catalog. */
static void use_catalog(const struct catalog *catalog)
{
    struct summary *summary = summary_create(catalog);
    char hash[MODEL_HASH_BYTES];

    check_catalog(catalog);
    model_hash(catalog, hash);
    ASSERT(summary->total_bytes == catalog->total_bytes);
    summary_destroy(summary);
}

static void open_model(const uint8_t *data, size_t size, size_t file_bytes)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    struct error err = {0};
    struct catalog *catalog;
    char path[64];

    ASSERT(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    ASSERT(ftruncate(fd, (off_t)file_bytes) == 0);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    catalog = catalog_open(path, &err);
    if (catalog != NULL) {
        use_catalog(catalog);
    } else {
        ASSERT(err.code != ERROR_NONE && err.message[0] != '\0');
    }
    catalog_close(catalog);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    open_model(data, size, size);
    if (size >= WHOLE_BYTES_MIN && size < ROOMY_BYTES) {
        open_model(data, size, ROOMY_BYTES);
    }
    return 0;
}
