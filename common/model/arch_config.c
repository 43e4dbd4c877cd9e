/* arch_config.c - config.json to struct arch, every field checked.
 *
 * Bounds are generous (four times the largest published model and more) but small enough that
 * every product of dimensions, in bytes and over all layers and experts, stays inside 64 bits and
 * every row count inside 32: users of the struct multiply without looking. What would silently
 * compute something else (another activation, another rope scaling, biases, quantised weights) is
 * refused by name.
 */
#include "common/model/arch.h"

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#define CONFIG_BYTES_MAX (4u << 20)

/* What an architecture assumes where its config is silent. */
struct arch_defaults {
    const char *name;
    const char *scoring;
    const char *method;
    bool normalise;
};

static const struct arch_defaults supported[] = {
    {"deepseek_v3", "sigmoid", "noaux_tc", true},
    {"deepseek_v2", "softmax", "greedy", false},
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

enum presence {
    FIELD_REQUIRED,
    FIELD_OR_ZERO, /* missing or null means 0, which then need not lie in the range */
};

struct u32_field {
    const char *name;
    size_t offset;
    uint32_t min;
    uint32_t max;
    enum presence presence;
};

/* A number in [min, max]; missing or null gives the fallback, and NaN there means required. */
struct number_field {
    const char *name;
    double fallback;
    double min;
    double max;
};

#define AT(member) offsetof(struct arch, member)
static const struct u32_field u32_fields[] = {
    {"num_hidden_layers", AT(layer_count), 1, 512, FIELD_REQUIRED},
    {"num_nextn_predict_layers", AT(draft_layer_count), 0, 16, FIELD_OR_ZERO},
    {"first_k_dense_replace", AT(dense_layer_count), 0, 512, FIELD_REQUIRED},
    {"hidden_size", AT(hidden), 1, 1u << 17, FIELD_REQUIRED},
    {"vocab_size", AT(vocab), 1, 1u << 24, FIELD_REQUIRED},
    {"max_position_embeddings", AT(context_tokens_max), 1, 1u << 24, FIELD_REQUIRED},
    {"num_attention_heads", AT(head_count), 1, 4096, FIELD_REQUIRED},
    {"q_lora_rank", AT(q_lora_rank), 1, 1u << 16, FIELD_OR_ZERO},
    {"kv_lora_rank", AT(kv_lora_rank), 1, 1u << 16, FIELD_REQUIRED},
    {"qk_nope_head_dim", AT(qk_nope_dim), 1, 4096, FIELD_REQUIRED},
    {"qk_rope_head_dim", AT(qk_rope_dim), 2, 4096, FIELD_REQUIRED},
    {"v_head_dim", AT(v_head_dim), 1, 4096, FIELD_REQUIRED},
    {"intermediate_size", AT(dense_width), 1, 1u << 20, FIELD_REQUIRED},
    {"moe_intermediate_size", AT(expert_width), 1, 1u << 20, FIELD_REQUIRED},
    {"n_routed_experts", AT(router.expert_count), 1, 4096, FIELD_REQUIRED},
    {"num_experts_per_tok", AT(router.chosen_count), 1, 256, FIELD_REQUIRED},
    {"n_group", AT(router.group_count), 1, 4096, FIELD_OR_ZERO},
    {"topk_group", AT(router.group_chosen_count), 1, 4096, FIELD_OR_ZERO},
};
#undef AT

static bool is_absent(const json_t *object, const char *field)
{
    const json_t *value = json_object_get(object, field);

    return value == NULL || json_is_null(value);
}

static bool u32_in_range(const json_t *config, const struct u32_field *field, uint32_t *out,
                         struct error *err)
{
    if (field->presence == FIELD_OR_ZERO && is_absent(config, field->name)) {
        *out = 0;
        return true;
    }
    if (!json_get_u32(config, field->name, out, err)) {
        return false;
    }
    if (*out < field->min || *out > field->max) {
        return error_set(err, ERROR_INPUT, "field \"%s\" is %u; %u to %u can be used", field->name,
                         *out, field->min, field->max);
    }
    return true;
}

static bool number_in_range(const json_t *object, const struct number_field *field, double *out,
                            struct error *err)
{
    if (isnan(field->fallback) && is_absent(object, field->name)) {
        return error_set(err, ERROR_INPUT, "field \"%s\" is missing; it must be a number",
                         field->name);
    }
    if (!json_get_number_or(object, field->name, field->fallback, out, err)) {
        return false;
    }
    if (!(*out >= field->min && *out <= field->max)) {
        return error_set(err, ERROR_INPUT, "field \"%s\" is %g; %g to %g can be used", field->name,
                         *out, field->min, field->max);
    }
    return true;
}

static const struct arch_defaults *defaults_of(const json_t *config, struct error *err)
{
    const char *name;
    char list[128] = "";

    if (!json_get_string(config, "model_type", &name, err)) {
        return NULL;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(supported); i++) {
        if (strcmp(supported[i].name, name) == 0) {
            return &supported[i];
        }
        strcat(list, i == 0 ? "" : ", ");
        strcat(list, supported[i].name);
    }
    error_set(err, ERROR_INPUT, "model_type \"%.64s\" is not supported; supported: %s", name, list);
    return NULL;
}

static bool refuse_quantised(const json_t *config, struct error *err)
{
    json_t *quantization;
    const char *method;

    if (!json_get_object_or_null(config, "quantization_config", &quantization, err)) {
        return false;
    }
    if (quantization == NULL) {
        return true;
    }
    if (!json_get_string_or(quantization, "quant_method", "unnamed", &method, err)) {
        return error_wrap(err, "quantization_config");
    }
    return error_set(err, ERROR_INPUT,
                     "weights of quant_method \"%.64s\" are not supported by this build", method);
}

/* A field whose one known value is all that the forward pass computes. */
static bool require_bool(const json_t *config, const char *field, bool wanted, struct error *err)
{
    bool value;

    if (!json_get_bool_or(config, field, wanted, &value, err)) {
        return false;
    }
    return value == wanted ||
           error_set(err, ERROR_INPUT, "field \"%s\" is %s; only %s is supported", field,
                     value ? "true" : "false", wanted ? "true" : "false");
}

static bool require_u32(const json_t *config, const char *field, uint32_t wanted, struct error *err)
{
    uint32_t value;

    if (!json_get_u32_or(config, field, wanted, &value, err)) {
        return false;
    }
    return value == wanted ||
           error_set(err, ERROR_INPUT, "field \"%s\" is %u; only %u is supported", field, value,
                     wanted);
}

static bool check_conventions(const json_t *config, const struct arch *arch, struct error *err)
{
    const char *activation;

    if (!json_get_string_or(config, "hidden_act", "silu", &activation, err)) {
        return false;
    }
    if (strcmp(activation, "silu") != 0) {
        return error_set(err, ERROR_INPUT, "hidden_act \"%.64s\" is not supported; supported: silu",
                         activation);
    }
    return require_bool(config, "attention_bias", false, err) &&
           require_bool(config, "rope_interleave", true, err) &&
           require_u32(config, "moe_layer_freq", 1, err) &&
           require_u32(config, "num_key_value_heads", arch->head_count, err);
}

static bool parse_dimensions(const json_t *config, struct arch *arch, struct error *err)
{
    static const struct number_field eps_field = {"rms_norm_eps", NAN, 1e-12, 0.1};
    uint32_t shared_count;
    double eps;

    for (size_t i = 0; i < ARRAY_LENGTH(u32_fields); i++) {
        uint32_t *out = (uint32_t *)(void *)((char *)arch + u32_fields[i].offset);

        if (!u32_in_range(config, &u32_fields[i], out, err)) {
            return false;
        }
    }
    if (!u32_in_range(config, &(struct u32_field){"n_shared_experts", 0, 0, 64, FIELD_OR_ZERO},
                      &shared_count, err) ||
        !number_in_range(config, &eps_field, &eps, err) ||
        !json_get_bool_or(config, "tie_word_embeddings", false, &arch->tied_embedding, err)) {
        return false;
    }
    arch->shared_width = shared_count * arch->expert_width;
    arch->norm_eps = (float)eps;
    arch->latent_norm_eps = 1e-6f;
    if (arch->dense_layer_count > arch->layer_count) {
        return error_set(err, ERROR_INPUT, "first_k_dense_replace %u exceeds num_hidden_layers %u",
                         arch->dense_layer_count, arch->layer_count);
    }
    if (arch->qk_rope_dim % 2 != 0) {
        return error_set(err, ERROR_INPUT, "field \"qk_rope_head_dim\" is %u; it must be even",
                         arch->qk_rope_dim);
    }
    return true;
}

static bool parse_yarn(const json_t *scaling, struct rope_config *rope, struct error *err)
{
    static const struct number_field factor = {"factor", NAN, 1, 1e6};
    static const struct number_field beta_fast = {"beta_fast", 32, 1e-3, 1e6};
    static const struct number_field beta_slow = {"beta_slow", 1, 1e-3, 1e6};
    static const struct number_field mscale = {"mscale", 1, 0, 100};
    static const struct number_field mscale_all_dim = {"mscale_all_dim", 0, 0, 100};
    static const struct u32_field original = {"original_max_position_embeddings", 0, 1, 1u << 24,
                                              FIELD_REQUIRED};

    rope->scaling = ROPE_YARN;
    return number_in_range(scaling, &factor, &rope->factor, err) &&
           number_in_range(scaling, &beta_fast, &rope->beta_fast, err) &&
           number_in_range(scaling, &beta_slow, &rope->beta_slow, err) &&
           number_in_range(scaling, &mscale, &rope->mscale, err) &&
           number_in_range(scaling, &mscale_all_dim, &rope->mscale_all_dim, err) &&
           u32_in_range(scaling, &original, &rope->original_context, err);
}

static bool parse_scaling(const json_t *scaling, struct rope_config *rope, struct error *err)
{
    const char *key = is_absent(scaling, "rope_type") ? "type" : "rope_type";
    const char *type;

    if (!json_get_string(scaling, key, &type, err)) {
        return false;
    }
    if (strcmp(type, "default") == 0) {
        return true;
    }
    if (strcmp(type, "yarn") != 0) {
        return error_set(err, ERROR_INPUT,
                         "%s \"%.64s\" is not supported; supported: yarn, default", key, type);
    }
    return parse_yarn(scaling, rope, err);
}

/* Newer configs keep the scaling and rope_theta together in rope_parameters. */
static bool parse_rope(const json_t *config, struct rope_config *rope, struct error *err)
{
    static const struct number_field theta = {"rope_theta", NAN, 1.001, 1e12};
    json_t *scaling, *parameters;
    const json_t *theta_home = config;
    const char *home = "rope_scaling";

    *rope = (struct rope_config){.scaling = ROPE_PLAIN, .factor = 1, .mscale = 1};
    if (!json_get_object_or_null(config, "rope_scaling", &scaling, err) ||
        !json_get_object_or_null(config, "rope_parameters", &parameters, err)) {
        return false;
    }
    if (parameters != NULL && scaling != NULL) {
        return error_set(err, ERROR_INPUT, "both \"rope_scaling\" and \"rope_parameters\" are set");
    }
    if (parameters != NULL) {
        scaling = parameters;
        home = "rope_parameters";
        theta_home = is_absent(config, "rope_theta") ? parameters : config;
    }
    if (scaling != NULL && !parse_scaling(scaling, rope, err)) {
        return error_wrap(err, "%s", home);
    }
    return number_in_range(theta_home, &theta, &rope->theta, err);
}

static bool parse_router_kind(const json_t *config, const struct arch_defaults *defaults,
                              struct router_config *router, struct error *err)
{
    const char *scoring, *method;

    if (!json_get_string_or(config, "scoring_func", defaults->scoring, &scoring, err) ||
        !json_get_string_or(config, "topk_method", defaults->method, &method, err)) {
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

static bool parse_router(const json_t *config, const struct arch_defaults *defaults,
                         struct router_config *router, struct error *err)
{
    static const struct number_field scale_field = {"routed_scaling_factor", NAN, 1e-6, 1e6};
    double scale;

    if (!parse_router_kind(config, defaults, router, err) ||
        !json_get_bool_or(config, "norm_topk_prob", defaults->normalise, &router->normalise, err) ||
        !number_in_range(config, &scale_field, &scale, err)) {
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
    const struct arch_defaults *defaults;

    if (!json_is_object(config)) {
        return error_set(err, ERROR_INPUT, "must be an object, got %s", json_type_word(config));
    }
    defaults = defaults_of(config, err);
    if (defaults == NULL || !refuse_quantised(config, err) ||
        !parse_dimensions(config, arch, err) || !check_conventions(config, arch, err) ||
        !parse_rope(config, &arch->rope, err) ||
        !parse_router(config, defaults, &arch->router, err) || !parse_tokens(config, arch, err)) {
        return false;
    }
    arch->attention = ATTENTION_MLA;
    arch->kv_head_count = 1;
    memcpy(arch->name, defaults->name, strlen(defaults->name) + 1);
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
