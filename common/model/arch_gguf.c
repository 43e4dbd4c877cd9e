/* arch_gguf.c - GGUF metadata to the config.json they were made from, then to struct arch.
 *
 * Tables say which key is which field; code is left for what has no counterpart. Ranges and what
 * fits together are arch_config.c's.
 */
#include "common/model/arch_gguf_internal.h"

#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

enum field_kind {
    FIELD_INTEGER,
    FIELD_INTEGER_OR_NONE, /* a missing key leaves the field out */
    FIELD_NUMBER,
    FIELD_NUMBER_OR_ONE,
    FIELD_NUMBER_OR_NONE,
    FIELD_BOOL_OR_FALSE,
};

struct field_row {
    const char *key; /* below the architecture's name */
    const char *field;
    enum field_kind kind;
};

static const struct field_row all_fields[] = {
    {"context_length", "max_position_embeddings", FIELD_INTEGER},
    {"embedding_length", "hidden_size", FIELD_INTEGER},
    {"attention.head_count", "num_attention_heads", FIELD_INTEGER},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", FIELD_NUMBER},
    {"rope.freq_base", "rope_theta", FIELD_NUMBER},
};

static const struct field_row deepseek_fields[] = {
    {"feed_forward_length", "intermediate_size", FIELD_INTEGER},
    {"leading_dense_block_count", "first_k_dense_replace", FIELD_INTEGER},
    {"nextn_predict_layers", "num_nextn_predict_layers", FIELD_INTEGER_OR_NONE},
    {"attention.q_lora_rank", "q_lora_rank", FIELD_INTEGER_OR_NONE},
    {"attention.kv_lora_rank", "kv_lora_rank", FIELD_INTEGER},
    {"rope.dimension_count", "qk_rope_head_dim", FIELD_INTEGER},
    {"expert_count", "n_routed_experts", FIELD_INTEGER},
    {"expert_used_count", "num_experts_per_tok", FIELD_INTEGER},
    {"expert_shared_count", "n_shared_experts", FIELD_INTEGER_OR_NONE},
    {"expert_group_count", "n_group", FIELD_INTEGER_OR_NONE},
    {"expert_group_used_count", "topk_group", FIELD_INTEGER_OR_NONE},
    {"expert_feed_forward_length", "moe_intermediate_size", FIELD_INTEGER},
    {"expert_weights_scale", "routed_scaling_factor", FIELD_NUMBER_OR_ONE},
    {"expert_weights_norm", "norm_topk_prob", FIELD_BOOL_OR_FALSE},
};

static const struct field_row dense_fields[] = {
    {"feed_forward_length", "intermediate_size", FIELD_INTEGER},
    {"attention.head_count_kv", "num_key_value_heads", FIELD_INTEGER_OR_NONE},
    {"attention.key_length", "head_dim", FIELD_INTEGER_OR_NONE},
};

static const struct field_row qwen3moe_fields[] = {
    {"feed_forward_length", "intermediate_size", FIELD_INTEGER_OR_NONE},
    {"attention.head_count_kv", "num_key_value_heads", FIELD_INTEGER_OR_NONE},
    {"attention.key_length", "head_dim", FIELD_INTEGER_OR_NONE},
    {"expert_count", "num_experts", FIELD_INTEGER},
    {"expert_used_count", "num_experts_per_tok", FIELD_INTEGER},
    {"expert_feed_forward_length", "moe_intermediate_size", FIELD_INTEGER},
};

static const struct field_row scaling_fields[] = {
    {"rope.scaling.factor", "factor", FIELD_NUMBER},
    {"rope.scaling.original_context_length", "original_max_position_embeddings",
     FIELD_INTEGER_OR_NONE},
    {"rope.scaling.yarn_beta_fast", "beta_fast", FIELD_NUMBER_OR_NONE},
    {"rope.scaling.yarn_beta_slow", "beta_slow", FIELD_NUMBER_OR_NONE},
};

struct architecture {
    const char *name;
    const char *model_type; /* NULL: `special` sets it */
    const struct field_row *fields;
    size_t field_count;
    enum rope_style rope_style; /* of the weights as stored, which a config cannot say */
    bool (*special)(struct translation *translation, struct error *err);
};

const char *translation_key(struct translation *translation, const char *name)
{
    (void)snprintf(translation->key, sizeof(translation->key), "%s.%s",
                   translation->architecture->name, name);
    return translation->key;
}

uint32_t translation_field(const struct translation *translation, const char *field)
{
    return (uint32_t)json_integer_value(json_object_get(translation->config, field));
}

void translation_set(struct translation *translation, const char *field, uint32_t value)
{
    json_object_set_new(translation->config, field, json_integer(value));
}

static bool integer_put(struct translation *translation, const char *key, json_t *object,
                        const char *field, struct error *err)
{
    uint32_t value;

    if (!gguf_get_u32(translation->header, key, &value, err)) {
        return false;
    }
    json_object_set_new(object, field, json_integer(value));
    return true;
}

static bool number_put(struct translation *translation, const struct field_row *row, json_t *object,
                       struct error *err)
{
    const char *key = translation_key(translation, row->key);
    double value;

    if (!(row->kind == FIELD_NUMBER_OR_ONE
              ? gguf_get_number_or(translation->header, key, 1.0, &value, err)
              : gguf_get_number(translation->header, key, &value, err))) {
        return false;
    }
    json_object_set_new(object, row->field, json_real(value));
    return true;
}

static bool field_put(struct translation *translation, const struct field_row *row, json_t *object,
                      struct error *err)
{
    const char *key = translation_key(translation, row->key);
    bool flag;

    switch (row->kind) {
    case FIELD_INTEGER_OR_NONE:
        if (gguf_find(translation->header, key) == NULL) {
            return true;
        }
        return integer_put(translation, key, object, row->field, err);
    case FIELD_INTEGER:
        return integer_put(translation, key, object, row->field, err);
    case FIELD_NUMBER_OR_NONE:
        if (gguf_find(translation->header, key) == NULL) {
            return true;
        }
        return number_put(translation, row, object, err);
    case FIELD_NUMBER:
    case FIELD_NUMBER_OR_ONE:
        return number_put(translation, row, object, err);
    case FIELD_BOOL_OR_FALSE:
        if (!gguf_get_bool_or(translation->header, key, false, &flag, err)) {
            return false;
        }
        json_object_set_new(object, row->field, json_boolean(flag));
        return true;
    }
    return false;
}

static bool fields_put(struct translation *translation, const struct field_row *rows, size_t count,
                       json_t *object, struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (!field_put(translation, &rows[i], object, err)) {
            return false;
        }
    }
    return true;
}

/* block_count has the draft layers in it. */
static bool layers_put(struct translation *translation, struct error *err)
{
    uint32_t blocks, drafts;

    if (!gguf_get_u32_or(translation->header, translation_key(translation, "nextn_predict_layers"),
                         0, &drafts, err) ||
        !gguf_get_u32(translation->header, translation_key(translation, "block_count"), &blocks,
                      err)) {
        return false;
    }
    if (drafts > blocks) {
        return error_set(err, ERROR_INPUT, "key \"%s\" is %u, with %u draft layers in it",
                         translation->key, blocks, drafts);
    }
    translation_set(translation, "num_hidden_layers", blocks - drafts);
    return true;
}

/* The embedding may have more rows than there are tokens; only vocab_size says how many. */
static bool vocab_put(struct translation *translation, struct error *err)
{
    const char *key = translation_key(translation, "vocab_size");
    struct gguf_array tokens;

    if (gguf_find(translation->header, key) != NULL) {
        return integer_put(translation, key, translation->config, "vocab_size", err);
    }
    if (!gguf_get_array(translation->header, "tokenizer.ggml.tokens", GGUF_STRING, &tokens, err)) {
        return error_wrap(err, "without \"%s\"", key);
    }
    json_object_set_new(translation->config, "vocab_size",
                        json_integer((json_int_t)(tokens.count < INT64_MAX ? tokens.count : 0)));
    return true;
}

static bool tokens_put(struct translation *translation, struct error *err)
{
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    static const char first[] = "tokenizer.ggml.bos_token_id";
    json_t *eos = json_array();

    json_object_set_new(translation->config, "eos_token_id", eos);
    for (size_t i = 0; i < ARRAY_LENGTH(ends); i++) {
        uint32_t id;

        if (!gguf_get_u32_or(translation->header, ends[i], ARCH_NO_TOKEN, &id, err)) {
            return false;
        }
        if (id != ARCH_NO_TOKEN) {
            json_array_append_new(eos, json_integer(id));
        }
    }
    return gguf_find(translation->header, first) == NULL ||
           integer_put(translation, first, translation->config, "bos_token_id", err);
}

/* The type's name into `type`; "none" when the key is missing. */
static bool scaling_type(struct translation *translation, char type[16], struct error *err)
{
    const char *key = translation_key(translation, "rope.scaling.type");
    struct gguf_string name = {"none", 4};

    if (gguf_find(translation->header, key) != NULL &&
        !gguf_get_string(translation->header, key, &name, err)) {
        return false;
    }
    if (!gguf_string_equals(name, "none") && !gguf_string_equals(name, "linear") &&
        !gguf_string_equals(name, "yarn")) {
        return error_set(err, ERROR_INPUT, "key \"%s\" is none of: none, linear, yarn", key);
    }
    (void)snprintf(type, 16, "%.*s", (int)name.length, name.text);
    return true;
}

/* The attention factor that a config has no field for. */
static bool attention_factor_check(struct translation *translation, struct error *err)
{
    double factor;

    if (!gguf_get_number_or(translation->header,
                            translation_key(translation, "rope.scaling.attn_factor"), 1.0, &factor,
                            err)) {
        return false;
    }
    return factor == 1.0 || error_set(err, ERROR_INPUT, "key \"%s\" is %g; only 1 is supported",
                                      translation->key, factor);
}

static bool scaling_put(struct translation *translation, struct error *err)
{
    char type[16];
    json_t *scaling;

    if (!scaling_type(translation, type, err) || !attention_factor_check(translation, err)) {
        return false;
    }
    if (strcmp(type, "none") == 0) {
        return true;
    }
    if (gguf_find_tensor(translation->gguf, GGUF_ROPE_DIVISORS_NAME) != NULL) {
        return error_set(err, ERROR_INPUT,
                         "key \"%s\" is %s and there is a tensor " GGUF_ROPE_DIVISORS_NAME
                         "; only one of them can scale the frequencies",
                         translation_key(translation, "rope.scaling.type"), type);
    }
    scaling = json_pack("{s:s}", "rope_type", type);
    json_object_set_new(translation->config, "rope_scaling", scaling);
    return fields_put(translation, scaling_fields, ARRAY_LENGTH(scaling_fields), scaling, err);
}

/* The architecture llama also names mixtures of experts that are others' models. */
static bool dense_put(struct translation *translation, struct error *err)
{
    uint32_t experts;

    if (!gguf_get_u32_or(translation->header, translation_key(translation, "expert_count"), 0,
                         &experts, err)) {
        return false;
    }
    return experts == 0 || error_set(err, ERROR_INPUT,
                                     "key \"%s\" is %u; %s with experts is not "
                                     "supported",
                                     translation->key, experts, translation->architecture->name);
}

/* No key says so; all published models of this type have it. */
static bool qwen3moe_put(struct translation *translation, struct error *err)
{
    (void)err;
    json_object_set_new(translation->config, "norm_topk_prob", json_true());
    return true;
}

#define FIELDS(rows) rows, ARRAY_LENGTH(rows)
static const struct architecture architectures[] = {
    {"deepseek2", NULL, FIELDS(deepseek_fields), ROPE_ADJACENT, arch_gguf_deepseek},
    {"llama", "llama", FIELDS(dense_fields), ROPE_ADJACENT, dense_put},
    {"qwen2", "qwen2", FIELDS(dense_fields), ROPE_HALVES, dense_put},
    {"qwen3", "qwen3", FIELDS(dense_fields), ROPE_HALVES, dense_put},
    {"qwen3moe", "qwen3_moe", FIELDS(qwen3moe_fields), ROPE_HALVES, qwen3moe_put},
};
#undef FIELDS

static const struct architecture *architecture_of(const struct gguf_header *header,
                                                  struct error *err)
{
    char shown[33] = "", list[64] = "";
    struct gguf_string name;

    if (!gguf_get_string(header, "general.architecture", &name, err)) {
        return NULL;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(architectures); i++) {
        if (gguf_string_equals(name, architectures[i].name)) {
            return &architectures[i];
        }
        strcat(list, i == 0 ? "" : ", ");
        strcat(list, architectures[i].name);
    }
    for (size_t i = 0; i < name.length && i < sizeof(shown) - 1; i++) {
        shown[i] = name.text[i] > 0x20 && name.text[i] < 0x7f ? name.text[i] : '?';
    }
    error_set(err, ERROR_INPUT, "architecture \"%s\" is not supported; supported: %s", shown, list);
    return NULL;
}

static bool config_put(struct translation *translation, struct error *err)
{
    const struct architecture *architecture = translation->architecture;
    bool is_tied = gguf_find_tensor(translation->gguf, "output.weight") == NULL;

    json_object_set_new(translation->config, "tie_word_embeddings", json_boolean(is_tied));
    if (architecture->model_type != NULL) {
        json_object_set_new(translation->config, "model_type",
                            json_string(architecture->model_type));
    }
    return layers_put(translation, err) &&
           fields_put(translation, all_fields, ARRAY_LENGTH(all_fields), translation->config,
                      err) &&
           fields_put(translation, architecture->fields, architecture->field_count,
                      translation->config, err) &&
           vocab_put(translation, err) && tokens_put(translation, err) &&
           scaling_put(translation, err) && architecture->special(translation, err);
}

static char *config_text(const struct gguf *gguf, const struct architecture *architecture,
                         struct error *err)
{
    struct translation translation = {.gguf = gguf,
                                      .header = &gguf->header,
                                      .architecture = architecture,
                                      .config = json_object()};
    char *text = NULL;

    if (config_put(&translation, err)) {
        size_t length = json_dumpb(translation.config, NULL, 0, JSON_INDENT(2));

        text = mem_new_array(char, length + 1);
        (void)json_dumpb(translation.config, text, length, JSON_INDENT(2));
    }
    json_decref(translation.config);
    return text;
}

char *arch_gguf_config(const struct gguf *gguf, struct error *err)
{
    const struct architecture *architecture = architecture_of(&gguf->header, err);
    char *text = architecture != NULL ? config_text(gguf, architecture, err) : NULL;

    if (text == NULL) {
        error_wrap(err, "%s", gguf->files[0].path);
    }
    return text;
}

/* Of grouped attention, whose heads are rotated whole. */
static bool rotary_check(const struct gguf *gguf, const struct architecture *architecture,
                         const struct arch *arch, struct error *err)
{
    struct translation translation = {.architecture = architecture};
    const char *key = translation_key(&translation, "rope.dimension_count");
    uint32_t dim;

    if (!gguf_get_u32_or(&gguf->header, key, arch->qk_rope_dim, &dim, err)) {
        return false;
    }
    return dim == arch->qk_rope_dim ||
           error_set(err, ERROR_INPUT, "key \"%s\" is %u; only whole heads of %u are rotated", key,
                     dim, arch->qk_rope_dim);
}

bool arch_read_gguf(const struct gguf *gguf, struct arch *out, struct error *err)
{
    char *text = arch_gguf_config(gguf, err);
    const struct architecture *architecture;
    struct arch arch;
    char *name;
    bool parsed;

    if (text == NULL) {
        return false;
    }
    name = mem_printf("%s: its metadata as config", gguf->files[0].path);
    parsed = arch_parse(text, strlen(text), name, &arch, err);
    mem_free(name);
    mem_free(text);
    if (parsed) {
        architecture = architecture_of(&gguf->header, err);
        arch.rope.style = architecture->rope_style;
        parsed =
            (rotary_check(gguf, architecture, &arch, err) && arch_gguf_tensors(gguf, &arch, err)) ||
            error_wrap(err, "%s", gguf->files[0].path);
    }
    if (parsed) {
        *out = arch;
    }
    return parsed;
}
