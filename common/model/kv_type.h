#ifndef SHOAL_MODEL_KV_TYPE_H
#define SHOAL_MODEL_KV_TYPE_H

/* Storage types of the KV cache (--kv-type). Part of the numerics id. */
#include "common/base/error.h"

#include <stdint.h>

enum kv_type { KV_F32, KV_F16, KV_BF16, KV_TYPE_COUNT };

const char *kv_type_name(enum kv_type type); /* "f16" */
uint32_t kv_type_bytes(enum kv_type type);   /* of one value */
bool kv_type_parse(const char *text, enum kv_type *out, struct error *err) MUST_CHECK;

#endif
