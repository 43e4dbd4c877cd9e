#ifndef SHOAL_MODEL_GGUF_INTERNAL_H
#define SHOAL_MODEL_GGUF_INTERNAL_H

/* Between the gguf*.c files. */
#include "common/model/gguf.h"

#include <string.h>

uint32_t gguf_type_bytes(enum gguf_type type); /* 0 for strings and arrays */

/* Keys in the order of header->values. */
int gguf_key_compare(struct gguf_string left, struct gguf_string right);

static inline uint32_t gguf_load_u32(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline uint64_t gguf_load_u64(const uint8_t *at)
{
    return gguf_load_u32(at) | (uint64_t)gguf_load_u32(at + 4) << 32;
}

#endif
