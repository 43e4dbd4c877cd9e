/* tensor_role.c - the one table of names and shapes.
 *
 * A role's tensors live in every layer, in dense, MoE or draft layers, in each expert, or outside
 * the layers; with the dimensions, given as functions of the architecture's numbers, that is all
 * there is to know. Names are matched by suffix after the layer (and expert) number.
 */
#include "common/model/tensor_role_internal.h"

#include "common/base/check.h"

#include <stdio.h>
#include <string.h>

enum home { HOME_MODEL, HOME_LAYER, HOME_DENSE, HOME_MOE, HOME_EXPERT, HOME_SHARED, HOME_DRAFT };

enum dimension {
    DIM_ONE, /* as rows: a vector */
    DIM_VOCAB,
    DIM_HIDDEN,
    DIM_TWO_HIDDEN,
    DIM_Q_LORA,
    DIM_HEADS_QK, /* heads * (nope + rope) */
    DIM_LATENT,   /* kv_lora + rope */
    DIM_KV_LORA,
    DIM_HEADS_KV, /* heads * (nope + v) */
    DIM_HEADS_V,
    DIM_HEADS_LATENT, /* heads * kv_lora */
    DIM_NOPE,
    DIM_HEAD, /* of grouped attention: a query, key or value head */
    DIM_KV_HEADS_K,
    DIM_KV_HEADS_V,
    DIM_DENSE,
    DIM_EXPERT,
    DIM_SHARED,
    DIM_EXPERTS,
};

struct role_row {
    const char *label;  /* for tables */
    const char *suffix; /* below the layer or expert; the whole name for HOME_MODEL; NULL: none */
    enum home home;
    enum dimension rows;
    enum dimension columns;
};

static const struct role_row role_rows[ROLE_COUNT] = {
    [ROLE_EMBEDDING] = {"embedding", "model.embed_tokens.weight", HOME_MODEL, DIM_VOCAB,
                        DIM_HIDDEN},
    [ROLE_FINAL_NORM] = {"final_norm", "model.norm.weight", HOME_MODEL, DIM_ONE, DIM_HIDDEN},
    [ROLE_HEAD] = {"head", "lm_head.weight", HOME_MODEL, DIM_VOCAB, DIM_HIDDEN},
    [ROLE_INPUT_NORM] = {"input_norm", "input_layernorm.weight", HOME_LAYER, DIM_ONE, DIM_HIDDEN},
    [ROLE_POST_NORM] = {"post_norm", "post_attention_layernorm.weight", HOME_LAYER, DIM_ONE,
                        DIM_HIDDEN},
    [ROLE_Q] = {"q", "self_attn.q_proj.weight", HOME_LAYER, DIM_HEADS_QK, DIM_HIDDEN},
    [ROLE_Q_A] = {"q_a", "self_attn.q_a_proj.weight", HOME_LAYER, DIM_Q_LORA, DIM_HIDDEN},
    [ROLE_Q_A_NORM] = {"q_a_norm", "self_attn.q_a_layernorm.weight", HOME_LAYER, DIM_ONE,
                       DIM_Q_LORA},
    [ROLE_Q_B] = {"q_b", "self_attn.q_b_proj.weight", HOME_LAYER, DIM_HEADS_QK, DIM_Q_LORA},
    [ROLE_KV_A] = {"kv_a", "self_attn.kv_a_proj_with_mqa.weight", HOME_LAYER, DIM_LATENT,
                   DIM_HIDDEN},
    [ROLE_KV_A_NORM] = {"kv_a_norm", "self_attn.kv_a_layernorm.weight", HOME_LAYER, DIM_ONE,
                        DIM_KV_LORA},
    [ROLE_KV_B] = {"kv_b", "self_attn.kv_b_proj.weight", HOME_LAYER, DIM_HEADS_KV, DIM_KV_LORA},
    [ROLE_K_B] = {"k_b", NULL, HOME_LAYER, DIM_HEADS_LATENT, DIM_NOPE},
    [ROLE_V_B] = {"v_b", NULL, HOME_LAYER, DIM_HEADS_V, DIM_KV_LORA},
    [ROLE_K] = {"k", "self_attn.k_proj.weight", HOME_LAYER, DIM_KV_HEADS_K, DIM_HIDDEN},
    [ROLE_V] = {"v", "self_attn.v_proj.weight", HOME_LAYER, DIM_KV_HEADS_V, DIM_HIDDEN},
    [ROLE_Q_BIAS] = {"q_bias", "self_attn.q_proj.bias", HOME_LAYER, DIM_ONE, DIM_HEADS_QK},
    [ROLE_K_BIAS] = {"k_bias", "self_attn.k_proj.bias", HOME_LAYER, DIM_ONE, DIM_KV_HEADS_K},
    [ROLE_V_BIAS] = {"v_bias", "self_attn.v_proj.bias", HOME_LAYER, DIM_ONE, DIM_KV_HEADS_V},
    [ROLE_Q_NORM] = {"q_norm", "self_attn.q_norm.weight", HOME_LAYER, DIM_ONE, DIM_HEAD},
    [ROLE_K_NORM] = {"k_norm", "self_attn.k_norm.weight", HOME_LAYER, DIM_ONE, DIM_HEAD},
    [ROLE_OUT_BIAS] = {"attention_out_bias", "self_attn.o_proj.bias", HOME_LAYER, DIM_ONE,
                       DIM_HIDDEN},
    [ROLE_ATTENTION_OUT] = {"attention_out", "self_attn.o_proj.weight", HOME_LAYER, DIM_HIDDEN,
                            DIM_HEADS_V},
    [ROLE_GATE] = {"gate", "mlp.gate_proj.weight", HOME_DENSE, DIM_DENSE, DIM_HIDDEN},
    [ROLE_UP] = {"up", "mlp.up_proj.weight", HOME_DENSE, DIM_DENSE, DIM_HIDDEN},
    [ROLE_DOWN] = {"down", "mlp.down_proj.weight", HOME_DENSE, DIM_HIDDEN, DIM_DENSE},
    [ROLE_ROUTER] = {"router", "mlp.gate.weight", HOME_MOE, DIM_EXPERTS, DIM_HIDDEN},
    [ROLE_ROUTER_BIAS] = {"router_bias", "mlp.gate.e_score_correction_bias", HOME_MOE, DIM_ONE,
                          DIM_EXPERTS},
    [ROLE_EXPERT_GATE] = {"experts.gate", "gate_proj.weight", HOME_EXPERT, DIM_EXPERT, DIM_HIDDEN},
    [ROLE_EXPERT_UP] = {"experts.up", "up_proj.weight", HOME_EXPERT, DIM_EXPERT, DIM_HIDDEN},
    [ROLE_EXPERT_DOWN] = {"experts.down", "down_proj.weight", HOME_EXPERT, DIM_HIDDEN, DIM_EXPERT},
    [ROLE_SHARED_GATE] = {"shared.gate", "mlp.shared_experts.gate_proj.weight", HOME_SHARED,
                          DIM_SHARED, DIM_HIDDEN},
    [ROLE_SHARED_UP] = {"shared.up", "mlp.shared_experts.up_proj.weight", HOME_SHARED, DIM_SHARED,
                        DIM_HIDDEN},
    [ROLE_SHARED_DOWN] = {"shared.down", "mlp.shared_experts.down_proj.weight", HOME_SHARED,
                          DIM_HIDDEN, DIM_SHARED},
    [ROLE_DRAFT_EMBEDDING] = {"draft.embedding", "embed_tokens.weight", HOME_DRAFT, DIM_VOCAB,
                              DIM_HIDDEN},
    [ROLE_DRAFT_TOKEN_NORM] = {"draft.token_norm", "enorm.weight", HOME_DRAFT, DIM_ONE, DIM_HIDDEN},
    [ROLE_DRAFT_HIDDEN_NORM] = {"draft.hidden_norm", "hnorm.weight", HOME_DRAFT, DIM_ONE,
                                DIM_HIDDEN},
    [ROLE_DRAFT_PROJECTION] = {"draft.projection", "eh_proj.weight", HOME_DRAFT, DIM_HIDDEN,
                               DIM_TWO_HIDDEN},
    [ROLE_DRAFT_FINAL_NORM] = {"draft.final_norm", "shared_head.norm.weight", HOME_DRAFT, DIM_ONE,
                               DIM_HIDDEN},
    [ROLE_DRAFT_HEAD] = {"draft.head", "shared_head.head.weight", HOME_DRAFT, DIM_VOCAB,
                         DIM_HIDDEN},
};

static const char layer_prefix[] = "model.layers.";
static const char expert_prefix[] = "mlp.experts.";

static uint32_t dimension_of(const struct arch *arch, enum dimension dimension)
{
    switch (dimension) {
    case DIM_ONE:
        return 1;
    case DIM_VOCAB:
        return arch->vocab;
    case DIM_HIDDEN:
        return arch->hidden;
    case DIM_TWO_HIDDEN:
        return 2 * arch->hidden;
    case DIM_Q_LORA:
        return arch->q_lora_rank;
    case DIM_HEADS_QK:
        return arch->head_count * (arch->qk_nope_dim + arch->qk_rope_dim);
    case DIM_LATENT:
        return arch->kv_lora_rank + arch->qk_rope_dim;
    case DIM_KV_LORA:
        return arch->kv_lora_rank;
    case DIM_HEADS_KV:
        return arch->head_count * (arch->qk_nope_dim + arch->v_head_dim);
    case DIM_HEADS_V:
        return arch->head_count * arch->v_head_dim;
    case DIM_HEADS_LATENT:
        return arch->head_count * arch->kv_lora_rank;
    case DIM_NOPE:
        return arch->qk_nope_dim;
    case DIM_HEAD:
        return arch->qk_rope_dim;
    case DIM_KV_HEADS_K:
        return arch->kv_head_count * arch->qk_rope_dim;
    case DIM_KV_HEADS_V:
        return arch->kv_head_count * arch->v_head_dim;
    case DIM_DENSE:
        return arch->dense_width;
    case DIM_EXPERT:
        return arch->expert_width;
    case DIM_SHARED:
        return arch->shared_width;
    case DIM_EXPERTS:
        return arch->router.expert_count;
    }
    return 0;
}

/* What the configuration switches on or off, whatever the layer. */
static bool exists_at_all(const struct arch *arch, enum tensor_role role)
{
    switch (role) {
    case ROLE_HEAD:
        return !arch->tied_embedding;
    case ROLE_Q:
        return arch->q_lora_rank == 0;
    case ROLE_Q_A:
    case ROLE_Q_A_NORM:
    case ROLE_Q_B:
        return arch->q_lora_rank != 0;
    case ROLE_KV_A:
    case ROLE_KV_A_NORM:
        return arch->attention == ATTENTION_MLA;
    case ROLE_KV_B:
        return arch->attention == ATTENTION_MLA && arch->kv_b_layout == KV_B_JOINED;
    case ROLE_K_B:
    case ROLE_V_B:
        return arch->attention == ATTENTION_MLA && arch->kv_b_layout == KV_B_SPLIT;
    case ROLE_K:
    case ROLE_V:
        return arch->attention == ATTENTION_GQA;
    case ROLE_Q_BIAS:
    case ROLE_K_BIAS:
    case ROLE_V_BIAS:
        return (arch->attention_bias & BIAS_QKV) != 0;
    case ROLE_OUT_BIAS:
        return (arch->attention_bias & BIAS_OUT) != 0;
    case ROLE_Q_NORM:
    case ROLE_K_NORM:
        return arch->qk_norm;
    case ROLE_ROUTER_BIAS:
        return arch->router.method == ROUTER_NOAUX_TC;
    default:
        return true;
    }
}

uint32_t tensor_role_count(const struct arch *arch, enum tensor_role role, uint32_t layer)
{
    bool in_layers = layer < arch->layer_count + arch->draft_layer_count;
    bool moe = in_layers && arch_layer_is_moe(arch, layer);

    ASSERT(role < ROLE_COUNT);
    if (!exists_at_all(arch, role)) {
        return 0;
    }
    switch (role_rows[role].home) {
    case HOME_MODEL:
        return layer == CATALOG_NO_LAYER;
    case HOME_LAYER:
        return in_layers;
    case HOME_DENSE:
        return in_layers && !moe;
    case HOME_MOE:
        return moe;
    case HOME_EXPERT:
        return moe ? arch->router.expert_count : 0;
    case HOME_SHARED:
        return moe && arch->shared_width > 0;
    case HOME_DRAFT:
        return in_layers && layer >= arch->layer_count;
    }
    return 0;
}

struct tensor_shape tensor_role_shape(const struct arch *arch, enum tensor_role role)
{
    ASSERT(role < ROLE_COUNT);
    return (struct tensor_shape){.rows = dimension_of(arch, role_rows[role].rows),
                                 .columns = dimension_of(arch, role_rows[role].columns),
                                 .dimension_count = role_rows[role].rows == DIM_ONE ? 1 : 2};
}

bool tensor_name_take_index(const char **text, uint32_t *index)
{
    const char *digit = *text;
    uint32_t value = 0;

    while (*digit >= '0' && *digit <= '9' && digit - *text < 6) {
        value = value * 10 + (uint32_t)(*digit++ - '0');
    }
    if (digit == *text || *digit != '.' || (**text == '0' && digit - *text > 1)) {
        return false;
    }
    *text = digit + 1;
    *index = value;
    return true;
}

bool tensor_name_take_prefix(const char **text, const char *prefix)
{
    size_t length = strlen(prefix);

    if (strncmp(*text, prefix, length) != 0) {
        return false;
    }
    *text += length;
    return true;
}

bool tensor_role_of_name(const struct arch *arch, const char *name, enum tensor_role *role,
                         uint32_t *layer, uint32_t *expert)
{
    const char *rest = name;

    *layer = CATALOG_NO_LAYER;
    *expert = CATALOG_NO_EXPERT;
    if (tensor_name_take_prefix(&rest, layer_prefix)) {
        if (!tensor_name_take_index(&rest, layer)) {
            return false;
        }
        if (tensor_name_take_prefix(&rest, expert_prefix) &&
            !tensor_name_take_index(&rest, expert)) {
            return false;
        }
    }
    for (int i = 0; i < ROLE_COUNT; i++) {
        bool of_expert = role_rows[i].home == HOME_EXPERT;

        if (of_expert == (*expert != CATALOG_NO_EXPERT) && role_rows[i].suffix != NULL &&
            strcmp(role_rows[i].suffix, rest) == 0) {
            uint32_t count = tensor_role_count(arch, (enum tensor_role)i, *layer);

            *role = (enum tensor_role)i;
            return count > 0 && (!of_expert || *expert < count);
        }
    }
    return false;
}

const char *tensor_role_write_name(enum tensor_role role, uint32_t layer, uint32_t expert,
                                   char name[TENSOR_NAME_BYTES_MAX])
{
    const char *suffix = role_rows[role].suffix;
    int length;

    ASSERT(suffix != NULL);
    if (layer == CATALOG_NO_LAYER) {
        length = snprintf(name, TENSOR_NAME_BYTES_MAX, "%s", suffix);
    } else if (expert == CATALOG_NO_EXPERT) {
        length = snprintf(name, TENSOR_NAME_BYTES_MAX, "%s%u.%s", layer_prefix, layer, suffix);
    } else {
        length = snprintf(name, TENSOR_NAME_BYTES_MAX, "%s%u.%s%u.%s", layer_prefix, layer,
                          expert_prefix, expert, suffix);
    }
    ASSERT(length > 0 && length < TENSOR_NAME_BYTES_MAX);
    return name;
}

bool tensor_role_is_expert(enum tensor_role role)
{
    return role_rows[role].home == HOME_EXPERT;
}

bool tensor_role_is_optional(enum tensor_role role)
{
    return role == ROLE_DRAFT_EMBEDDING || role == ROLE_DRAFT_HEAD;
}

const char *tensor_role_name(enum tensor_role role)
{
    ASSERT(role < ROLE_COUNT);
    return role_rows[role].label;
}
