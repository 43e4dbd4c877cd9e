/* arch_gguf_deepseek.c - what GGUF files of DeepSeek-V2, V3 and R1 say in their own way.
 *
 * Head sizes are stored in two ways, the scale of yarn's temperature as a tenth, the router's
 * method not at all, and its groups only in files of late 2025 and after.
 */
#include "common/model/arch_gguf_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Groups of published models whose older conversions do not have them. */
struct known_groups {
    uint32_t hidden;
    uint32_t experts;
    uint32_t chosen;
    uint32_t group_count;
    uint32_t group_chosen;
};

static const struct known_groups known_groups[] = {
    {7168, 256, 8, 8, 4}, /* DeepSeek-V3, R1 */
    {5120, 160, 6, 8, 3}, /* DeepSeek-V2, V2.5, Coder-V2 */
};

/* Ten times a short decimal, as exact as the decimal itself: 0.0707 gives 0.707. */
static double tenfold(double value)
{
    char text[64];

    if (!(fabs(value) < 1e6)) {
        return 10 * value;
    }
    (void)snprintf(text, sizeof(text), "%.12fe1", value);
    return strtod(text, NULL);
}

/* mscale and mscale_all_dim are equal in all published configs, and GGUF keeps one of them. */
static bool deepseek_mscale_put(struct translation *translation, struct error *err)
{
    json_t *scaling = json_object_get(translation->config, "rope_scaling");
    double multiplier;

    if (!gguf_get_number_or(translation->header,
                            translation_key(translation, "rope.scaling.yarn_log_multiplier"), 0,
                            &multiplier, err)) {
        return false;
    }
    if (scaling != NULL) {
        json_object_set_new(scaling, "mscale", json_real(tenfold(multiplier)));
        json_object_set_new(scaling, "mscale_all_dim", json_real(tenfold(multiplier)));
    }
    return true;
}

/* Newer files: one latent key head, its lengths, and the real ones apart. Older: real ones only. */
static bool deepseek_heads_put(struct translation *translation, struct error *err)
{
    const struct gguf_header *header = translation->header;
    bool is_latent =
        gguf_find(header, translation_key(translation, "attention.key_length_mla")) != NULL;
    uint32_t heads = translation_field(translation, "num_attention_heads");
    uint32_t rope = translation_field(translation, "qk_rope_head_dim");
    uint32_t latent = translation_field(translation, "kv_lora_rank");
    uint32_t key_heads, key, value, key_mla, value_mla;

    if (!gguf_get_u32(header, translation_key(translation, "attention.value_length"), &value,
                      err) ||
        !gguf_get_u32_or(header, translation_key(translation, "attention.key_length_mla"), 0,
                         &key_mla, err) ||
        !gguf_get_u32_or(header, translation_key(translation, "attention.value_length_mla"), 0,
                         &value_mla, err) ||
        !gguf_get_u32_or(header, translation_key(translation, "attention.head_count_kv"), heads,
                         &key_heads, err) ||
        !gguf_get_u32(header, translation_key(translation, "attention.key_length"), &key, err)) {
        return false;
    }
    if (is_latent && (key != (uint64_t)latent + rope || value != latent || key_heads != 1)) {
        return error_set(err, ERROR_INPUT,
                         "attention lengths %u and %u with %u key heads do not belong to latents "
                         "of %u and rotary keys of %u",
                         key, value, key_heads, latent, rope);
    }
    if (!is_latent && key_heads != heads) {
        return error_set(err, ERROR_INPUT, "attention.head_count_kv is %u, with %u heads",
                         key_heads, heads);
    }
    key = is_latent ? key_mla : key;
    if (key <= rope) {
        return error_set(err, ERROR_INPUT, "keys of %u values have no room for %u rotary ones", key,
                         rope);
    }
    translation_set(translation, "num_key_value_heads", heads);
    translation_set(translation, "qk_nope_head_dim", key - rope);
    translation_set(translation, "v_head_dim", is_latent ? value_mla : value);
    return true;
}

static void deepseek_groups_put(struct translation *translation)
{
    for (size_t i = 0; i < ARRAY_LENGTH(known_groups); i++) {
        const struct known_groups *known = &known_groups[i];

        if (known->hidden == translation_field(translation, "hidden_size") &&
            known->experts == translation_field(translation, "n_routed_experts") &&
            known->chosen == translation_field(translation, "num_experts_per_tok")) {
            translation_set(translation, "n_group", known->group_count);
            translation_set(translation, "topk_group", known->group_chosen);
        }
    }
}

static bool deepseek_router_put(struct translation *translation, struct error *err)
{
    const char *scoring = "softmax", *method = "greedy", *model_type = "deepseek_v2";
    uint32_t gating;

    if (!gguf_get_u32_or(translation->header, translation_key(translation, "expert_gating_func"), 1,
                         &gating, err)) {
        return false;
    }
    if (gating != 1 && gating != 2) {
        return error_set(err, ERROR_INPUT,
                         "key \"%s\" is %u; 1 (softmax) and 2 (sigmoid) can be used",
                         translation->key, gating);
    }
    if (json_object_get(translation->config, "n_group") == NULL) {
        deepseek_groups_put(translation);
    }
    if (gating == 2) {
        scoring = "sigmoid";
        method = "noaux_tc";
        model_type = "deepseek_v3";
    } else if (translation_field(translation, "n_group") > 1) {
        method = "group_limited_greedy";
    }
    json_object_set_new(translation->config, "scoring_func", json_string(scoring));
    json_object_set_new(translation->config, "topk_method", json_string(method));
    json_object_set_new(translation->config, "model_type", json_string(model_type));
    return true;
}

bool arch_gguf_deepseek(struct translation *translation, struct error *err)
{
    return deepseek_heads_put(translation, err) && deepseek_router_put(translation, err) &&
           deepseek_mscale_put(translation, err);
}
