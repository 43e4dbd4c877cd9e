#ifndef SHOAL_KERNELS_PACKED_PANEL_H
#define SHOAL_KERNELS_PACKED_PANEL_H

/* Inside of packed.c: whole panels of 16 source rows, `stride` values apart. Returns how many
 * columns are done. */
#include "worker/kernels/packed.h"

/* Asks for the lines that will be written a little later: fresh memory is far away, and stores
 * alone wait for few lines at a time. */
static inline void panel_fetch_ahead(const void *out, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64) {
        __builtin_prefetch((const char *)out + 2048 + i, 1);
    }
}

size_t pack_panel_8bit_avx2(uint8_t *out, const uint8_t *in, size_t stride, size_t columns);
/* Looks at the first codes and returns how many they were. */
size_t f8_codes_seen_avx2(const uint8_t *codes, size_t count, bool *has_nan);

#endif
