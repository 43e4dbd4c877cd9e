/* arch_config.c - config.json to struct arch, every field checked.
 *
 * Bounds are generous (four times the largest published model and more) but small enough that
 * every product of dimensions, in bytes and over all layers and experts, stays inside 64 bits and
 * every row count inside 32: users of the struct multiply without looking. What would silently
 * compute something else (another activation, another rope scaling, quantised weights) is refused
 * by name. A family is a row of a table: which attention, which experts, which defaults.
 */
#include "common/model/arch_internal.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/model/catalog.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#define CONFIG_BYTES_MAX (4u << 20)

enum expert_style {
    EXPERTS_NONE,
    EXPERTS_DEEPSEEK, /* after some dense layers, with shared ones, perhaps in groups */
    EXPERTS_QWEN,     /* alike, no shared one, no groups */
};

/* What a model_type stands for, and what it assumes where its config is silent. */
struct arch_family {
    const char *name;
    enum attention_kind attention;
    enum expert_style experts;
    double rope_theta; /* NaN: required */
    /* Routed experts. */
    const char *scoring;
    const char *method;
    bool normalise;
    /* Grouped attention. */
    enum presence head_dim; /* FIELD_OR_ZERO: hidden_size / num_attention_heads */
    bool qk_norm;
    uint32_t bias;           /* always there */
    uint32_t bias_if_wanted; /* with attention_bias */
};

static const struct arch_family families[] = {
    {"deepseek_v3", ATTENTION_MLA, EXPERTS_DEEPSEEK, NAN, .scoring = "sigmoid",
     .method = "noaux_tc", .normalise = true},
    {"deepseek_v2", ATTENTION_MLA, EXPERTS_DEEPSEEK, NAN, .scoring = "softmax", .method = "greedy"},
    {"llama", ATTENTION_GQA, EXPERTS_NONE, 10000, .head_dim = FIELD_OR_ZERO,
     .bias_if_wanted = BIAS_QKV | BIAS_OUT},
    {"qwen2", ATTENTION_GQA, EXPERTS_NONE, 10000, .head_dim = FIELD_OR_ZERO, .bias = BIAS_QKV},
    {"qwen3", ATTENTION_GQA, EXPERTS_NONE, 10000, .qk_norm = true,
     .bias_if_wanted = BIAS_QKV | BIAS_OUT},
    {"qwen3_moe", ATTENTION_GQA, EXPERTS_QWEN, 10000, .scoring = "softmax", .method = "greedy",
     .qk_norm = true, .bias_if_wanted = BIAS_QKV | BIAS_OUT},
};

/* The scorings and methods that belong together. */
struct router_kind {
    const char *scoring_name;
    const char *method_name;
    enum router_scoring scoring;
    enum router_method method;
};

static const struct router_kind router_kinds[] = {
    {"sigmoid", "noaux_tc", ROUTER_SIGMOID, ROUTER_NOAUX_TC},
    {"softmax", "greedy", ROUTER_SOFTMAX, ROUTER_GREEDY},
    {"softmax", "group_limited_greedy", ROUTER_SOFTMAX, ROUTER_GROUP_LIMITED_GREEDY},
};

#define AT(member) offsetof(struct arch, member)
static const struct u32_field common_fields[] = {
    {"num_hidden_layers", AT(layer_count), 1, 512, FIELD_REQUIRED},
    {"hidden_size", AT(hidden), 1, 1u << 17, FIELD_REQUIRED},
    {"vocab_size", AT(vocab), 1, 1u << 24, FIELD_REQUIRED},
    {"max_position_embeddings", AT(context_tokens_max), 1, 1u << 24, FIELD_REQUIRED},
    {"num_attention_heads", AT(head_count), 1, 4096, FIELD_REQUIRED},
    {"intermediate_size", AT(dense_width), 1, 1u << 20, FIELD_REQUIRED},
};
static const struct u32_field latent_fields[] = {
    {"q_lora_rank", AT(q_lora_rank), 1, 1u << 16, FIELD_OR_ZERO},
    {"kv_lora_rank", AT(kv_lora_rank), 1, 1u << 16, FIELD_REQUIRED},
    {"qk_nope_head_dim", AT(qk_nope_dim), 1, 4096, FIELD_REQUIRED},
    {"qk_rope_head_dim", AT(qk_rope_dim), 2, 4096, FIELD_REQUIRED},
    {"v_head_dim", AT(v_head_dim), 1, 4096, FIELD_REQUIRED},
};
static const struct u32_field deepseek_fields[] = {
    {"num_nextn_predict_layers", AT(draft_layer_count), 0, 16, FIELD_OR_ZERO},
    {"first_k_dense_replace", AT(dense_layer_count), 0, 512, FIELD_REQUIRED},
    {"moe_intermediate_size", AT(expert_width), 1, 1u << 20, FIELD_REQUIRED},
    {"n_routed_experts", AT(router.expert_count), 1, 4096, FIELD_REQUIRED},
    {"num_experts_per_tok", AT(router.chosen_count), 1, 256, FIELD_REQUIRED},
    {"n_group", AT(router.group_count), 1, 4096, FIELD_OR_ZERO},
    {"topk_group", AT(router.group_chosen_count), 1, 4096, FIELD_OR_ZERO},
};
static const struct u32_field qwen_moe_fields[] = {
    {"moe_intermediate_size", AT(expert_width), 1, 1u << 20, FIELD_REQUIRED},
    {"num_experts", AT(router.expert_count), 1, 4096, FIELD_REQUIRED},
    {"num_experts_per_tok", AT(router.chosen_count), 1, 256, FIELD_REQUIRED},
};
#undef AT

static const struct arch_family *family_of(const json_t *config, struct error *err)
{
    const char *name;
    char list[128] = "";

    if (!json_get_string(config, "model_type", &name, err)) {
        return NULL;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(families); i++) {
        if (strcmp(families[i].name, name) == 0) {
            return &families[i];
        }
        strcat(list, i == 0 ? "" : ", ");
        strcat(list, families[i].name);
    }
    error_set(err, ERROR_INPUT, "model_type \"%.64s\" is not supported; supported: %s", name, list);
    return NULL;
}

/* A text whose one known value is what the weights' decoder computes. */
static bool require_text(const json_t *object, const char *field, const char *fallback,
                         const char *wanted, struct error *err)
{
    const char *value;

    if (!json_get_string_or(object, field, fallback, &value, err)) {
        return false;
    }
    return strcmp(value, wanted) == 0 ||
           error_set(err, ERROR_INPUT, "%s \"%.64s\" is not supported; only \"%s\" is", field,
                     value, wanted);
}

static bool check_scale_blocks(const json_t *quantization, struct error *err)
{
    json_t *block;
    bool known;

    if (!json_get_array_or_null(quantization, "weight_block_size", &block, err)) {
        return false;
    }
    known = json_array_size(block) == 2; /* 0 for NULL */
    for (size_t i = 0; known && i < 2; i++) {
        known = json_integer_value(json_array_get(block, i)) == SCALE_BLOCK;
    }
    return known || error_set(err, ERROR_INPUT, "weight_block_size must be [%d, %d]", SCALE_BLOCK,
                              SCALE_BLOCK);
}

/* What DeepSeek published: e4m3 weights with scales by block, activations in full precision or
 * rounded on the fly; we do not round them. */
static bool check_quantization(const json_t *config, struct error *err)
{
    json_t *quantization;

    if (!json_get_object_or_null(config, "quantization_config", &quantization, err)) {
        return false;
    }
    return quantization == NULL ||
           (require_text(quantization, "quant_method", "unnamed", "fp8", err) &&
            require_text(quantization, "fmt", "e4m3", "e4m3", err) &&
            require_text(quantization, "activation_scheme", "dynamic", "dynamic", err) &&
            check_scale_blocks(quantization, err)) ||
           error_wrap(err, "quantization_config");
}

static bool fields_read(const json_t *config, const struct u32_field *fields, size_t count,
                        struct arch *arch, struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t *out = (uint32_t *)(void *)((char *)arch + fields[i].offset);

        if (!config_u32(config, &fields[i], out, err)) {
            return false;
        }
    }
    return true;
}
#define FIELDS_READ(config, fields, arch, err)                                                     \
    fields_read(config, fields, ARRAY_LENGTH(fields), arch, err)

static bool parse_common(const json_t *config, struct arch *arch, struct error *err)
{
    static const struct number_field eps_field = {"rms_norm_eps", NAN, 1e-12, 0.1};
    const char *activation;
    double eps;

    if (!FIELDS_READ(config, common_fields, arch, err) ||
        !config_number(config, &eps_field, &eps, err) ||
        !json_get_bool_or(config, "tie_word_embeddings", false, &arch->tied_embedding, err) ||
        !json_get_string_or(config, "hidden_act", "silu", &activation, err)) {
        return false;
    }
    if (strcmp(activation, "silu") != 0) {
        return error_set(err, ERROR_INPUT, "hidden_act \"%.64s\" is not supported; supported: silu",
                         activation);
    }
    arch->norm_eps = (float)eps;
    return true;
}

static bool parse_latent(const json_t *config, struct arch *arch, struct error *err)
{
    arch->kv_head_count = 1;
    arch->latent_norm_eps = 1e-6f;
    arch->rope.style = ROPE_ADJACENT;
    if (!FIELDS_READ(config, latent_fields, arch, err)) {
        return false;
    }
    if (arch->qk_rope_dim % 2 != 0) {
        return error_set(err, ERROR_INPUT, "field \"qk_rope_head_dim\" is %u; it must be even",
                         arch->qk_rope_dim);
    }
    return config_require_bool(config, "attention_bias", false, err) &&
           config_require_bool(config, "rope_interleave", true, err) &&
           config_require_u32(config, "num_key_value_heads", arch->head_count, err);
}

static bool parse_head_dim(const json_t *config, const struct arch_family *family,
                           struct arch *arch, struct error *err)
{
    struct u32_field field = {"head_dim", 0, 2, 4096, family->head_dim};
    uint32_t dim;

    if (!config_u32(config, &field, &dim, err)) {
        return false;
    }
    if (dim == 0 && arch->hidden % arch->head_count != 0) {
        return error_set(err, ERROR_INPUT,
                         "hidden_size %u is not a multiple of num_attention_heads %u, and there is "
                         "no head_dim",
                         arch->hidden, arch->head_count);
    }
    dim = dim == 0 ? arch->hidden / arch->head_count : dim;
    if (dim % 2 != 0 || dim > field.max) {
        return error_set(err, ERROR_INPUT,
                         "heads of %u dimensions are not supported; even sizes up to %u are", dim,
                         field.max);
    }
    arch->qk_rope_dim = dim;
    arch->v_head_dim = dim;
    return true;
}

static bool parse_grouped(const json_t *config, const struct arch_family *family, struct arch *arch,
                          struct error *err)
{
    static const struct u32_field kv_heads = {"num_key_value_heads", 0, 1, 4096, FIELD_OR_ZERO};
    static const struct number_field rotary = {"partial_rotary_factor", 1, 1, 1};
    bool bias = false;
    double factor;

    arch->rope.style = ROPE_HALVES;
    arch->qk_norm = family->qk_norm;
    if (!config_u32(config, &kv_heads, &arch->kv_head_count, err) ||
        !parse_head_dim(config, family, arch, err) ||
        !config_number(config, &rotary, &factor, err) ||
        !config_require_bool(config, "mlp_bias", false, err) ||
        !config_require_bool(config, "use_sliding_window", false, err) ||
        (family->bias_if_wanted != 0 &&
         !json_get_bool_or(config, "attention_bias", false, &bias, err))) {
        return false;
    }
    arch->attention_bias = family->bias | (bias ? family->bias_if_wanted : 0);
    if (arch->kv_head_count == 0) {
        arch->kv_head_count = arch->head_count;
    }
    return arch->head_count % arch->kv_head_count == 0 ||
           error_set(err, ERROR_INPUT,
                     "num_attention_heads %u is not a multiple of num_key_value_heads %u",
                     arch->head_count, arch->kv_head_count);
}

static bool parse_router_kind(const json_t *config, const struct arch_family *family,
                              struct router_config *router, struct error *err)
{
    const char *scoring, *method;

    if (!json_get_string_or(config, "scoring_func", family->scoring, &scoring, err) ||
        !json_get_string_or(config, "topk_method", family->method, &method, err)) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(router_kinds); i++) {
        if (strcmp(scoring, router_kinds[i].scoring_name) == 0 &&
            strcmp(method, router_kinds[i].method_name) == 0) {
            router->scoring = router_kinds[i].scoring;
            router->method = router_kinds[i].method;
            return true;
        }
    }
    return error_set(
        err, ERROR_INPUT,
        "scoring_func \"%.64s\" with topk_method \"%.64s\" is not supported; supported: "
        "sigmoid with noaux_tc, softmax with greedy or group_limited_greedy",
        scoring, method);
}

static bool check_groups(const struct router_config *router, struct error *err)
{
    uint32_t group_size = router->expert_count / router->group_count;

    if (router->expert_count % router->group_count != 0) {
        return error_set(err, ERROR_INPUT, "n_routed_experts %u is not a multiple of n_group %u",
                         router->expert_count, router->group_count);
    }
    if (router->group_chosen_count > router->group_count) {
        return error_set(err, ERROR_INPUT, "topk_group %u exceeds n_group %u",
                         router->group_chosen_count, router->group_count);
    }
    if (router->group_count > 1 && router->method == ROUTER_NOAUX_TC && group_size < 2) {
        return error_set(err, ERROR_INPUT,
                         "n_group %u leaves one expert in a group; noaux_tc needs two",
                         router->group_count);
    }
    if (router->chosen_count > router->group_chosen_count * group_size) {
        return error_set(err, ERROR_INPUT,
                         "num_experts_per_tok %u exceeds the %u experts of topk_group %u",
                         router->chosen_count, router->group_chosen_count * group_size,
                         router->group_chosen_count);
    }
    return true;
}

static bool parse_router(const json_t *config, const struct arch_family *family,
                         struct router_config *router, struct error *err)
{
    struct number_field scale_field = {"routed_scaling_factor", NAN, 1e-6, 1e6};
    double scale;

    scale_field.fallback = family->experts == EXPERTS_DEEPSEEK ? NAN : 1.0;
    if (!parse_router_kind(config, family, router, err) ||
        !json_get_bool_or(config, "norm_topk_prob", family->normalise, &router->normalise, err) ||
        !config_number(config, &scale_field, &scale, err)) {
        return false;
    }
    router->scale = (float)scale;
    if (router->group_count == 0) {
        router->group_count = 1;
    }
    if (router->group_chosen_count == 0 || router->method == ROUTER_GREEDY) {
        router->group_chosen_count = router->group_count;
    }
    return check_groups(router, err);
}

static bool parse_deepseek_experts(const json_t *config, const struct arch_family *family,
                                   struct arch *arch, struct error *err)
{
    static const struct u32_field shared = {"n_shared_experts", 0, 0, 64, FIELD_OR_ZERO};
    uint32_t shared_count;

    if (!FIELDS_READ(config, deepseek_fields, arch, err) ||
        !config_u32(config, &shared, &shared_count, err) ||
        !config_require_u32(config, "moe_layer_freq", 1, err)) {
        return false;
    }
    if (arch->dense_layer_count > arch->layer_count) {
        return error_set(err, ERROR_INPUT, "first_k_dense_replace %u exceeds num_hidden_layers %u",
                         arch->dense_layer_count, arch->layer_count);
    }
    arch->shared_width = shared_count * arch->expert_width;
    return parse_router(config, family, &arch->router, err);
}

/* mlp_only_layers names the dense ones; they must come first. */
static bool parse_mlp_only_layers(const json_t *config, struct arch *arch, struct error *err)
{
    json_t *layers;
    const json_t *layer;
    size_t i;

    if (!json_get_array_or_null(config, "mlp_only_layers", &layers, err)) {
        return false;
    }
    json_array_foreach(layers, i, layer)
    {
        if (!json_is_integer(layer) || json_integer_value(layer) != (json_int_t)i ||
            i >= arch->layer_count) {
            return error_set(err, ERROR_INPUT,
                             "field \"mlp_only_layers\": only the first layers, in order (0, 1, "
                             "…), can be dense");
        }
        arch->dense_layer_count = (uint32_t)i + 1;
    }
    return true;
}

static bool parse_qwen_experts(const json_t *config, const struct arch_family *family,
                               struct arch *arch, struct error *err)
{
    if (!FIELDS_READ(config, qwen_moe_fields, arch, err) ||
        !config_require_u32(config, "decoder_sparse_step", 1, err) ||
        !parse_mlp_only_layers(config, arch, err)) {
        return false;
    }
    if (arch->router.chosen_count > arch->router.expert_count) {
        return error_set(err, ERROR_INPUT, "num_experts_per_tok %u exceeds num_experts %u",
                         arch->router.chosen_count, arch->router.expert_count);
    }
    return parse_router(config, family, &arch->router, err);
}

static bool parse_experts(const json_t *config, const struct arch_family *family, struct arch *arch,
                          struct error *err)
{
    switch (family->experts) {
    case EXPERTS_NONE:
        break;
    case EXPERTS_DEEPSEEK:
        return parse_deepseek_experts(config, family, arch, err);
    case EXPERTS_QWEN:
        return parse_qwen_experts(config, family, arch, err);
    }
    arch->dense_layer_count = arch->layer_count;
    arch->router = (struct router_config){
        .method = ROUTER_GREEDY, .group_count = 1, .group_chosen_count = 1, .scale = 1.0f};
    return true;
}

static bool eos_add(struct arch *arch, const json_t *value, struct error *err)
{
    json_int_t id = json_integer_value(value);

    if (!json_is_integer(value)) {
        return error_set(err, ERROR_INPUT,
                         "field \"eos_token_id\" must be an integer or a list of integers, got %s",
                         json_type_word(value));
    }
    if (id < 0 || id >= arch->vocab) {
        return error_set(err, ERROR_INPUT,
                         "field \"eos_token_id\" is %lld; vocab_size %u allows 0 to %u",
                         (long long)id, arch->vocab, arch->vocab - 1);
    }
    if (arch_is_eos(arch, (uint32_t)id)) {
        return true;
    }
    if (arch->eos_count == ARCH_EOS_MAX) {
        return error_set(err, ERROR_LIMIT, "field \"eos_token_id\" has more than %d values",
                         ARCH_EOS_MAX);
    }
    arch->eos_ids[arch->eos_count++] = (uint32_t)id;
    return true;
}

/* An integer, a list, null or nothing; what is there already stays. */
static bool eos_add_all(struct arch *arch, const json_t *object, struct error *err)
{
    const json_t *value = json_object_get(object, "eos_token_id");
    const json_t *element;
    size_t i;

    if (value == NULL || json_is_null(value)) {
        return true;
    }
    if (!json_is_array(value)) {
        return eos_add(arch, value, err);
    }
    json_array_foreach(value, i, element)
    {
        if (!eos_add(arch, element, err)) {
            return false;
        }
    }
    return true;
}

static bool parse_tokens(const json_t *config, struct arch *arch, struct error *err)
{
    if (!json_get_u32_or(config, "bos_token_id", ARCH_NO_TOKEN, &arch->bos_id, err)) {
        return false;
    }
    if (arch->bos_id != ARCH_NO_TOKEN && arch->bos_id >= arch->vocab) {
        return error_set(err, ERROR_INPUT,
                         "field \"bos_token_id\" is %u; vocab_size %u allows 0 to %u", arch->bos_id,
                         arch->vocab, arch->vocab - 1);
    }
    return eos_add_all(arch, config, err);
}

static bool config_parse(const json_t *config, struct arch *arch, struct error *err)
{
    const struct arch_family *family;

    if (!json_is_object(config)) {
        return error_set(err, ERROR_INPUT, "must be an object, got %s", json_type_word(config));
    }
    family = family_of(config, err);
    if (family == NULL || !check_quantization(config, err) || !parse_common(config, arch, err) ||
        !arch_parse_rope(config, family->rope_theta, &arch->rope, err) ||
        !(family->attention == ATTENTION_MLA ? parse_latent(config, arch, err)
                                             : parse_grouped(config, family, arch, err)) ||
        !parse_experts(config, family, arch, err) || !parse_tokens(config, arch, err)) {
        return false;
    }
    arch->attention = family->attention;
    memcpy(arch->name, family->name, strlen(family->name) + 1);
    return true;
}

bool arch_parse(const char *text, size_t length, const char *name, struct arch *out,
                struct error *err)
{
    json_t *config = json_parse(text, length, name, err);
    struct arch arch = {0};
    bool parsed;

    if (config == NULL) {
        return false;
    }
    parsed = config_parse(config, &arch, err) || error_wrap(err, "%s", name);
    json_decref(config);
    if (parsed) {
        *out = arch;
    }
    return parsed;
}

static bool generation_config_read(const char *path, struct arch *arch, struct error *err)
{
    json_t *config = json_read_file(path, CONFIG_BYTES_MAX, err);
    bool parsed;

    if (config == NULL) {
        return false;
    }
    parsed = json_is_object(config)
                 ? eos_add_all(arch, config, err)
                 : error_set(err, ERROR_INPUT, "must be an object, got %s", json_type_word(config));
    json_decref(config);
    return parsed || error_wrap(err, "%s", path);
}

bool arch_read(const char *directory, struct arch *out, struct error *err)
{
    char *path = mem_printf("%s/config.json", directory);
    struct arch arch;
    char *text = NULL;
    size_t length;
    bool read = file_read(path, CONFIG_BYTES_MAX, &text, &length, err) &&
                arch_parse(text, length, path, &arch, err);

    mem_free(text);
    mem_free(path);
    if (!read) {
        return false;
    }
    path = mem_printf("%s/generation_config.json", directory);
    read = !file_exists(path) || generation_config_read(path, &arch, err);
    mem_free(path);
    if (read) {
        *out = arch;
    }
    return read;
}
