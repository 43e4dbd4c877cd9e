/* kv_type.c - names and sizes of the cache's storage types. */
#include "common/model/kv_type.h"

#include <string.h>

static const struct {
    const char *name;
    uint32_t bytes;
} traits[KV_TYPE_COUNT] = {
    [KV_F32] = {"f32", 4},
    [KV_F16] = {"f16", 2},
    [KV_BF16] = {"bf16", 2},
};

const char *kv_type_name(enum kv_type type)
{
    ASSERT(type < KV_TYPE_COUNT);
    return traits[type].name;
}

uint32_t kv_type_bytes(enum kv_type type)
{
    ASSERT(type < KV_TYPE_COUNT);
    return traits[type].bytes;
}

bool kv_type_parse(const char *text, enum kv_type *out, struct error *err)
{
    for (enum kv_type type = 0; type < KV_TYPE_COUNT; type++) {
        if (strcmp(text, traits[type].name) == 0) {
            *out = type;
            return true;
        }
    }
    return error_set(err, ERROR_USAGE, "unknown KV type \"%s\": one of f32, f16, bf16", text);
}
