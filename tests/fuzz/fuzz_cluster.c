/* fuzz_cluster.c - any bytes as a described cluster. */
#include "coordinator/cluster/cluster_file.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    struct error err = {0};
    struct cluster_file *file;

    arena_init(&arena, 4096);
    file = cluster_file_parse((const char *)data, size, "fuzz", &arena, &err);
    ASSERT(file != NULL || err.message[0] != '\0');
    for (uint32_t i = 0; file != NULL && i < file->worker_count; i++) {
        ASSERT(file->workers[i].memory_bytes > 0 && file->workers[i].read_bytes_per_s > 0);
        ASSERT(file->ports[i].machine < file->machine_count && file->workers[i].host[0] != '\0');
    }
    arena_deinit(&arena);
    return 0;
}
