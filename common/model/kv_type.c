/* kv_type.c - names and sizes of the cache's storage types, and the layout of a block. */
#include "common/model/kv_type.h"

#include <string.h>

static const struct {
    const char *name;
    uint32_t bytes;
} traits[KV_TYPE_COUNT] = {
    [KV_F32] = {"f32", 4},
    [KV_F16] = {"f16", 2},
    [KV_BF16] = {"bf16", 2},
    [KV_Q8] = {"q8", 1},
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
    return error_set(err, ERROR_USAGE, "unknown KV type \"%s\": one of f16, f32, bf16, q8", text);
}

struct kv_layout kv_layout_of(const struct arch *arch, enum kv_type type)
{
    const bool latent = arch->attention == ATTENTION_MLA;
    const uint64_t row_bytes = (uint64_t)KV_BLOCK_TOKENS * kv_type_bytes(type);
    struct kv_layout layout = {
        .type = type,
        .latent = latent,
        .head_count = latent ? 1 : arch->kv_head_count,
        .key_width = latent ? arch->kv_lora_rank + arch->qk_rope_dim : arch->qk_rope_dim,
        .value_width = latent ? arch->kv_lora_rank : arch->v_head_dim,
    };

    layout.scale_count = type == KV_Q8 ? 2 * layout.head_count : 0;
    layout.value_begin = latent ? 0 : row_bytes * layout.head_count * layout.key_width;
    layout.scale_begin = row_bytes * arch_kv_values(arch);
    layout.block_bytes = layout.scale_begin + KV_BLOCK_TOKENS * layout.scale_count * sizeof(float);
    return layout;
}

uint64_t kv_layout_token_bytes(const struct kv_layout *layout)
{
    return layout->block_bytes / KV_BLOCK_TOKENS;
}
