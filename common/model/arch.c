/* arch.c - what follows from an architecture's numbers. Reading them is arch_config.c's. */
#include "common/model/arch.h"

#include "common/model/portable_math.h"

#include <math.h>

#define COMBINE_RANGES 8

bool arch_layer_is_moe(const struct arch *arch, uint32_t layer)
{
    return layer >= arch->dense_layer_count;
}

uint32_t arch_combine_group_count(const struct arch *arch)
{
    return arch->router.group_count > 1 ? arch->router.group_count : COMBINE_RANGES;
}

uint32_t arch_combine_group(const struct arch *arch, uint32_t expert)
{
    return expert * arch_combine_group_count(arch) / arch->router.expert_count;
}

uint32_t arch_kv_values(const struct arch *arch)
{
    if (arch->attention == ATTENTION_GQA) {
        return arch->kv_head_count * (arch->qk_rope_dim + arch->v_head_dim);
    }
    return arch->kv_lora_rank + arch->qk_rope_dim;
}

float arch_softmax_scale(const struct arch *arch)
{
    double width = (double)arch->qk_nope_dim + arch->qk_rope_dim;
    double m = 1.0;

    if (arch->rope.scaling == ROPE_YARN) {
        m = 0.1 * arch->rope.mscale_all_dim * portable_log(arch->rope.factor) + 1.0;
    }
    return (float)(m * m / sqrt(width));
}

bool arch_is_eos(const struct arch *arch, uint32_t token)
{
    for (uint32_t i = 0; i < arch->eos_count; i++) {
        if (arch->eos_ids[i] == token) {
            return true;
        }
    }
    return false;
}
