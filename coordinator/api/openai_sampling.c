/* openai_sampling.c - the fields of a request that say how tokens are chosen, and what the model's
 * opinion of them is to be told.
 *
 * Log-probabilities are counted as the step has them: 0 none, 1 + n the token's own and the n most
 * likely. The two endpoints spell this differently.
 */
#include "common/base/json.h"
#include "common/base/mem.h"
#include "coordinator/api/openai_fields.h"
#include "coordinator/api/sampling_defaults.h"

#include <stdlib.h>
#include <string.h>

static bool read_number(const json_t *body, const char *field, float fallback, float *value,
                        const struct openai_params *out, struct error *err)
{
    double number;

    if (!json_get_number_or(body, field, (double)fallback, &number, err)) {
        return false;
    }
    *value = (float)number;
    return sampling_params_check(&out->sampling, err);
}

static bool read_temperature(const struct api_config *config, const json_t *body,
                             struct openai_params *out, struct error *err)
{
    return read_number(body, "temperature", config->sampling.temperature,
                       &out->sampling.temperature, out, err);
}

static bool read_top_p(const struct api_config *config, const json_t *body,
                       struct openai_params *out, struct error *err)
{
    return read_number(body, "top_p", config->sampling.top_p, &out->sampling.top_p, out, err);
}

static bool read_min_p(const struct api_config *config, const json_t *body,
                       struct openai_params *out, struct error *err)
{
    return read_number(body, "min_p", config->sampling.min_p, &out->sampling.min_p, out, err);
}

static bool read_top_k(const struct api_config *config, const json_t *body,
                       struct openai_params *out, struct error *err)
{
    int64_t value;

    if (!json_get_i64_or(body, "top_k", config->sampling.top_k, &value, err)) {
        return false;
    }
    if (value < -1 || value > UINT32_MAX) {
        return error_set(err, ERROR_USAGE, "top_k must be 0 (off) or a positive number, got %lld",
                         (long long)value);
    }
    out->sampling.top_k = value < 0 ? 0 : (uint32_t)value; /* -1: off, as other servers take it */
    return true;
}

static bool read_seed(const struct api_config *config, const json_t *body,
                      struct openai_params *out, struct error *err)
{
    const json_t *seed = json_object_get(body, "seed");
    int64_t value;

    (void)config;
    if (!json_get_i64_or(body, "seed", 0, &value, err)) {
        return false;
    }
    out->sampling.seed = seed && !json_is_null(seed) ? (uint64_t)value : generation_random_seed();
    return true;
}

static bool read_repetition_penalty(const struct api_config *config, const json_t *body,
                                    struct openai_params *out, struct error *err)
{
    return read_number(body, "repetition_penalty", config->sampling.repetition_penalty,
                       &out->sampling.repetition_penalty, out, err);
}

static bool read_presence_penalty(const struct api_config *config, const json_t *body,
                                  struct openai_params *out, struct error *err)
{
    return read_number(body, "presence_penalty", config->sampling.presence_penalty,
                       &out->sampling.presence_penalty, out, err);
}

static bool read_frequency_penalty(const struct api_config *config, const json_t *body,
                                   struct openai_params *out, struct error *err)
{
    return read_number(body, "frequency_penalty", config->sampling.frequency_penalty,
                       &out->sampling.frequency_penalty, out, err);
}

/* --- biases --- */

static bool read_bias(const struct api_config *config, const char *key, const json_t *value,
                      struct token_bias *out, struct error *err)
{
    size_t digits = strspn(key, "0123456789");
    unsigned long long token = strtoull(key, NULL, 10);

    if (digits == 0 || key[digits] != '\0' || digits > 10) {
        return error_set(err, ERROR_USAGE, "logit_bias: \"%.40s\" is no token id", key);
    }
    if (token >= config->vocab) {
        return error_set(err, ERROR_USAGE,
                         "logit_bias: token id %llu is not below the vocabulary's %u", token,
                         config->vocab);
    }
    if (!json_is_number(value)) {
        return error_set(err, ERROR_USAGE, "logit_bias of token %llu must be a number, got %s",
                         token, json_type_word(value));
    }
    if (!(json_number_value(value) >= -100 && json_number_value(value) <= 100)) {
        return error_set(err, ERROR_USAGE,
                         "logit_bias of token %llu must be between -100 and 100, got %g", token,
                         json_number_value(value));
    }
    *out = (struct token_bias){.token = (uint32_t)token, .bias = (float)json_number_value(value)};
    return true;
}

static int bias_compare(const void *a, const void *b)
{
    uint32_t left = ((const struct token_bias *)a)->token;
    uint32_t right = ((const struct token_bias *)b)->token;

    return left < right ? -1 : left > right;
}

static bool read_logit_bias(const struct api_config *config, const json_t *body,
                            struct openai_params *out, struct error *err)
{
    json_t *given;
    const char *key;
    json_t *value;
    uint32_t count = 0;

    if (!json_get_object_or_null(body, "logit_bias", &given, err)) {
        return false;
    }
    if (json_object_size(given) > OPENAI_BIASES_MAX) {
        return error_set(err, ERROR_USAGE, "logit_bias holds %zu tokens, at most %d can be biased",
                         json_object_size(given), OPENAI_BIASES_MAX);
    }
    if (json_object_size(given) == 0) {
        return true;
    }
    out->biases = mem_new_array(struct token_bias, json_object_size(given));
    json_object_foreach(given, key, value)
    {
        if (!read_bias(config, key, value, &out->biases[count++], err)) {
            return false;
        }
    }
    qsort(out->biases, count, sizeof(*out->biases), bias_compare);
    for (uint32_t i = 1; i < count; i++) {
        if (out->biases[i].token == out->biases[i - 1].token) {
            return error_set(err, ERROR_USAGE, "logit_bias names token %u twice",
                             out->biases[i].token);
        }
    }
    out->sampling.biases = out->biases;
    out->sampling.bias_count = count;
    return true;
}

/* --- log-probabilities --- */

/* A number of most likely tokens: null or false are none, `out` then stays. */
static bool read_count(const json_t *body, const char *field, uint32_t *out, struct error *err)
{
    const json_t *given = json_object_get(body, field);
    int64_t count;

    if (!given || json_is_null(given) || json_is_false(given)) {
        return true;
    }
    if (!json_get_i64_or(body, field, 0, &count, err)) {
        return false;
    }
    if (count < 0 || count > OPENAI_LOGPROBS_MAX) {
        return error_set(err, ERROR_USAGE, "%s must be between 0 and %d, got %lld", field,
                         OPENAI_LOGPROBS_MAX, (long long)count);
    }
    *out = 1 + (uint32_t)count;
    return true;
}

static bool read_logprobs(const struct api_config *config, const json_t *body,
                          struct openai_params *out, struct error *err)
{
    bool wanted;

    (void)config;
    if (out->kind == OPENAI_COMPLETION) {
        return read_count(body, "logprobs", &out->logprobs, err);
    }
    if (!json_get_bool_or(body, "logprobs", false, &wanted, err)) {
        return false;
    }
    out->logprobs = wanted;
    return true;
}

static bool read_top_logprobs(const struct api_config *config, const json_t *body,
                              struct openai_params *out, struct error *err)
{
    uint32_t wanted = 0;

    (void)config;
    if (!read_count(body, "top_logprobs", &wanted, err)) {
        return false;
    }
    if (wanted > 1 && out->kind == OPENAI_COMPLETION) {
        return error_set(err, ERROR_USAGE,
                         "top_logprobs belongs to chat completions; here logprobs is the number");
    }
    if (wanted > 1 && out->logprobs == 0) {
        return error_set(err, ERROR_USAGE, "top_logprobs needs \"logprobs\": true");
    }
    if (out->logprobs > 0 && wanted > 0) {
        out->logprobs = out->kind == OPENAI_CHAT ? wanted : out->logprobs;
    }
    return true;
}

static bool read_prompt_logprobs(const struct api_config *config, const json_t *body,
                                 struct openai_params *out, struct error *err)
{
    (void)config;
    if (!read_count(body, "prompt_logprobs", &out->prompt_logprobs, err)) {
        return false;
    }
    if (out->prompt_logprobs > 0 && out->stream) {
        return error_set(err, ERROR_USAGE, "prompt_logprobs cannot be streamed");
    }
    return true;
}

static bool read_echo(const struct api_config *config, const json_t *body,
                      struct openai_params *out, struct error *err)
{
    (void)config;
    if (!json_get_bool_or(body, "echo", false, &out->echo, err)) {
        return false;
    }
    if (out->echo && out->kind == OPENAI_CHAT) {
        return error_set(err, ERROR_USAGE, "echo belongs to text completions");
    }
    return true;
}

const struct openai_field openai_sampling_fields[] = {
    {"temperature", read_temperature},
    {"top_p", read_top_p},
    {"min_p", read_min_p},
    {"top_k", read_top_k},
    {"seed", read_seed},
    {"repetition_penalty", read_repetition_penalty},
    {"presence_penalty", read_presence_penalty},
    {"frequency_penalty", read_frequency_penalty},
    {"logit_bias", read_logit_bias},
    {"logprobs", read_logprobs},
    {"top_logprobs", read_top_logprobs}, /* after logprobs */
    {"prompt_logprobs", read_prompt_logprobs},
    {"echo", read_echo},
    {NULL, NULL},
};
