/* arch_rope.c - how a config.json says that positions are rotated.
 *
 * The scaling lies in rope_scaling, under "type" or "rope_type", or together with rope_theta in the
 * rope_parameters of newer configs. A kind, or a setting of a kind, that would silently compute
 * something else is refused by name.
 */
#include "common/model/arch_internal.h"

#include "common/base/check.h"

#include <math.h>
#include <string.h>

#define FACTOR_MAX 1e6

static const struct u32_field original_context = {"original_max_position_embeddings", 0, 1,
                                                  1u << 24, FIELD_REQUIRED};
static const struct number_field factor = {"factor", NAN, 1, FACTOR_MAX};

static bool parse_yarn(const json_t *scaling, struct rope_config *rope, struct error *err)
{
    static const struct number_field beta_fast = {"beta_fast", 32, 1e-3, FACTOR_MAX};
    static const struct number_field beta_slow = {"beta_slow", 1, 1e-3, FACTOR_MAX};
    static const struct number_field mscale = {"mscale", 1, 0, 100};
    static const struct number_field mscale_all_dim = {"mscale_all_dim", 0, 0, 100};

    rope->scaling = ROPE_YARN;
    if (!config_is_absent(scaling, "attention_factor")) {
        return error_set(err, ERROR_INPUT, "field \"attention_factor\" is not supported");
    }
    return config_require_bool(scaling, "truncate", true, err) &&
           config_number(scaling, &factor, &rope->factor, err) &&
           config_number(scaling, &beta_fast, &rope->beta_fast, err) &&
           config_number(scaling, &beta_slow, &rope->beta_slow, err) &&
           config_number(scaling, &mscale, &rope->mscale, err) &&
           config_number(scaling, &mscale_all_dim, &rope->mscale_all_dim, err) &&
           config_u32(scaling, &original_context, &rope->original_context, err);
}

static bool parse_llama3(const json_t *scaling, struct rope_config *rope, struct error *err)
{
    static const struct number_field low = {"low_freq_factor", NAN, 1e-3, FACTOR_MAX};
    static const struct number_field high = {"high_freq_factor", NAN, 1e-3, FACTOR_MAX};

    rope->scaling = ROPE_LLAMA3;
    if (!config_number(scaling, &factor, &rope->factor, err) ||
        !config_number(scaling, &low, &rope->low_freq_factor, err) ||
        !config_number(scaling, &high, &rope->high_freq_factor, err) ||
        !config_u32(scaling, &original_context, &rope->original_context, err)) {
        return false;
    }
    return rope->low_freq_factor < rope->high_freq_factor ||
           error_set(err, ERROR_INPUT, "low_freq_factor %g is not below high_freq_factor %g",
                     rope->low_freq_factor, rope->high_freq_factor);
}

static bool parse_linear(const json_t *scaling, struct rope_config *rope, struct error *err)
{
    rope->scaling = ROPE_LINEAR;
    return config_number(scaling, &factor, &rope->factor, err);
}

static bool parse_plain(const json_t *scaling, struct rope_config *rope, struct error *err)
{
    (void)scaling;
    (void)err;
    rope->scaling = ROPE_PLAIN;
    return true;
}

static const struct {
    const char *type;
    bool (*parse)(const json_t *scaling, struct rope_config *rope, struct error *err);
} scalings[] = {
    {"default", parse_plain},
    {"linear", parse_linear},
    {"yarn", parse_yarn},
    {"llama3", parse_llama3},
};

static bool parse_scaling(const json_t *scaling, struct rope_config *rope, struct error *err)
{
    const char *key = config_is_absent(scaling, "rope_type") ? "type" : "rope_type";
    const char *type;

    if (!json_get_string(scaling, key, &type, err)) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(scalings); i++) {
        if (strcmp(scalings[i].type, type) == 0) {
            return scalings[i].parse(scaling, rope, err);
        }
    }
    return error_set(err, ERROR_INPUT,
                     "%s \"%.64s\" is not supported; supported: default, linear, yarn, llama3", key,
                     type);
}

bool arch_parse_rope(const json_t *config, double theta_fallback, struct rope_config *rope,
                     struct error *err)
{
    struct number_field theta = {"rope_theta", theta_fallback, 1.001, 1e12};
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
        theta_home = config_is_absent(config, "rope_theta") ? parameters : config;
    }
    if (scaling != NULL && !parse_scaling(scaling, rope, err)) {
        return error_wrap(err, "%s", home);
    }
    return config_number(theta_home, &theta, &rope->theta, err);
}
