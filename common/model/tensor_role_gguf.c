/* tensor_role_gguf.c - the names that llama.cpp gives to the roles (gguf-py/gguf/constants.py).
 *
 * Everything of a layer is named blk.<layer>.; its routed experts are stacked in one tensor.
 */
#include "common/model/tensor_role_internal.h"

#include "common/base/check.h"

#include <stdio.h>
#include <string.h>

static const char layer_prefix[] = "blk.";

/* Below the layer, for those in layers. */
static const char *const suffixes[ROLE_COUNT] = {
    [ROLE_EMBEDDING] = "token_embd.weight",
    [ROLE_FINAL_NORM] = "output_norm.weight",
    [ROLE_HEAD] = "output.weight",
    [ROLE_INPUT_NORM] = "attn_norm.weight",
    [ROLE_POST_NORM] = "ffn_norm.weight",
    [ROLE_Q] = "attn_q.weight",
    [ROLE_Q_A] = "attn_q_a.weight",
    [ROLE_Q_A_NORM] = "attn_q_a_norm.weight",
    [ROLE_Q_B] = "attn_q_b.weight",
    [ROLE_KV_A] = "attn_kv_a_mqa.weight",
    [ROLE_KV_A_NORM] = "attn_kv_a_norm.weight",
    [ROLE_KV_B] = "attn_kv_b.weight",
    [ROLE_K_B] = "attn_k_b.weight",
    [ROLE_V_B] = "attn_v_b.weight",
    [ROLE_K] = "attn_k.weight",
    [ROLE_V] = "attn_v.weight",
    [ROLE_Q_BIAS] = "attn_q.bias",
    [ROLE_K_BIAS] = "attn_k.bias",
    [ROLE_V_BIAS] = "attn_v.bias",
    [ROLE_Q_NORM] = "attn_q_norm.weight",
    [ROLE_K_NORM] = "attn_k_norm.weight",
    [ROLE_ATTENTION_OUT] = "attn_output.weight",
    [ROLE_OUT_BIAS] = "attn_output.bias",
    [ROLE_GATE] = "ffn_gate.weight",
    [ROLE_UP] = "ffn_up.weight",
    [ROLE_DOWN] = "ffn_down.weight",
    [ROLE_ROUTER] = "ffn_gate_inp.weight",
    [ROLE_ROUTER_BIAS] = "exp_probs_b.bias",
    [ROLE_EXPERT_GATE] = "ffn_gate_exps.weight",
    [ROLE_EXPERT_UP] = "ffn_up_exps.weight",
    [ROLE_EXPERT_DOWN] = "ffn_down_exps.weight",
    [ROLE_SHARED_GATE] = "ffn_gate_shexp.weight",
    [ROLE_SHARED_UP] = "ffn_up_shexp.weight",
    [ROLE_SHARED_DOWN] = "ffn_down_shexp.weight",
    [ROLE_DRAFT_EMBEDDING] = "nextn.embed_tokens.weight",
    [ROLE_DRAFT_TOKEN_NORM] = "nextn.enorm.weight",
    [ROLE_DRAFT_HIDDEN_NORM] = "nextn.hnorm.weight",
    [ROLE_DRAFT_PROJECTION] = "nextn.eh_proj.weight",
    [ROLE_DRAFT_FINAL_NORM] = "nextn.shared_head_norm.weight",
    [ROLE_DRAFT_HEAD] = "nextn.shared_head_head.weight",
};

bool tensor_role_of_gguf_name(const struct arch *arch, const char *name, enum tensor_role *role,
                              uint32_t *layer)
{
    const char *rest = name;

    *layer = CATALOG_NO_LAYER;
    if (tensor_name_take_prefix(&rest, layer_prefix) && !tensor_name_take_index(&rest, layer)) {
        return false;
    }
    for (int i = 0; i < ROLE_COUNT; i++) {
        if (strcmp(suffixes[i], rest) == 0) {
            *role = (enum tensor_role)i;
            return tensor_role_count(arch, *role, *layer) > 0;
        }
    }
    return false;
}

const char *tensor_role_write_gguf_name(enum tensor_role role, uint32_t layer,
                                        char name[TENSOR_NAME_BYTES_MAX])
{
    int length =
        layer == CATALOG_NO_LAYER
            ? snprintf(name, TENSOR_NAME_BYTES_MAX, "%s", suffixes[role])
            : snprintf(name, TENSOR_NAME_BYTES_MAX, "%s%u.%s", layer_prefix, layer, suffixes[role]);

    ASSERT(length > 0 && length < TENSOR_NAME_BYTES_MAX);
    return name;
}
