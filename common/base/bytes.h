#ifndef SHOAL_BASE_BYTES_H
#define SHOAL_BASE_BYTES_H

/* Little-endian integers of 1 to 8 bytes, as formats and messages have them. Pure. */
#include <stddef.h>
#include <stdint.h>

static inline void bytes_put(uint8_t *out, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        out[i] = (uint8_t)(value >> (8 * i));
    }
}

static inline uint64_t bytes_get(const uint8_t *in, size_t bytes)
{
    uint64_t value = 0;

    for (size_t i = 0; i < bytes; i++) {
        value |= (uint64_t)in[i] << (8 * i);
    }
    return value;
}

#endif
