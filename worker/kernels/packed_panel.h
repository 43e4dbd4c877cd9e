#ifndef SHOAL_KERNELS_PACKED_PANEL_H
#define SHOAL_KERNELS_PACKED_PANEL_H

/* Inside of packed.c and packed_blocks.c. */
#include "worker/kernels/packed.h"

/* Asks for the lines that will be written a little later: fresh memory is far away, and stores
 * alone wait for few lines at a time. */
static inline void panel_fetch_ahead(const void *out, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64) {
        __builtin_prefetch((const char *)out + 2048 + i, 1);
    }
}

/* Looks at the first codes and returns how many they were. */
size_t f8_codes_seen_avx2(const uint8_t *codes, size_t count, bool *has_nan);

#endif
