/* fuzz_placement.c - any bytes as a placement file. */
#include "coordinator/cluster/placement_file.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    struct error err = {0};
    struct placement *placement;

    arena_init(&arena, 4096);
    placement = placement_file_parse((const char *)data, size, "fuzz", &arena, &err);
    ASSERT(placement != NULL || err.message[0] != '\0');
    ASSERT(placement == NULL || placement_check(placement, &err));
    arena_deinit(&arena);
    return 0;
}
