/* openai_params.c - reads and checks the body of a completion request.
 *
 * A table of fields, each read by a function of its own; those of sampling are in
 * openai_sampling.c, prompts in openai_prompt.c. Generation starts in openai.c.
 */
#include "coordinator/api/openai_params.h"

#include "common/base/json.h"
#include "common/base/mem.h"
#include "coordinator/api/openai_fields.h"

#include <string.h>

/* --- fields --- */

static bool read_model(const struct api_config *config, const json_t *body,
                       struct openai_params *out, struct error *err)
{
    const char *name;

    (void)out;
    if (!json_get_string_or(body, "model", config->model_name, &name, err)) {
        return false;
    }
    if (strcmp(name, config->model_name) != 0) {
        return error_set(err, ERROR_USAGE,
                         "the model \"%.100s\" does not exist; this server has \"%s\"", name,
                         config->model_name);
    }
    return true;
}

static bool read_limit(const json_t *body, const char *field, struct openai_params *out,
                       struct error *err)
{
    const json_t *given = json_object_get(body, field);
    /* Nothing is generated where only the prompt is looked at. */
    int least = out->kind == OPENAI_COMPLETION && (out->echo || out->prompt_logprobs > 0) ? 0 : 1;
    int64_t value;

    if (!given || json_is_null(given)) {
        return true;
    }
    if (!json_get_i64_or(body, field, 0, &value, err)) {
        return false;
    }
    if (value < least) {
        return error_set(err, ERROR_USAGE, "%s must be at least %d, got %lld", field, least,
                         (long long)value);
    }
    out->tokens_max = value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
    return true;
}

static bool read_max_tokens(const struct api_config *config, const json_t *body,
                            struct openai_params *out, struct error *err)
{
    (void)config;
    if (out->kind == OPENAI_COMPLETION) {
        out->tokens_max = 16; /* the API's default for text completions */
    }
    return read_limit(body, "max_tokens", out, err);
}

static bool read_max_completion_tokens(const struct api_config *config, const json_t *body,
                                       struct openai_params *out, struct error *err)
{
    (void)config;
    return read_limit(body, "max_completion_tokens", out, err);
}

static bool read_n(const struct api_config *config, const json_t *body, struct openai_params *out,
                   struct error *err)
{
    (void)config;
    if (!json_get_u32_or(body, "n", 1, &out->n, err)) {
        return false;
    }
    if (out->n < 1 || out->n > OPENAI_CHOICES_MAX) {
        return error_set(err, ERROR_USAGE, "n must be between 1 and %d, got %u", OPENAI_CHOICES_MAX,
                         out->n);
    }
    return true;
}

static bool add_stop(struct openai_params *out, const json_t *text, struct error *err)
{
    if (!json_is_string(text)) {
        return error_set(err, ERROR_USAGE, "stop must be a string or an array of strings, got %s",
                         json_type_word(text));
    }
    if (json_string_length(text) == 0) {
        return error_set(err, ERROR_USAGE, "stop must not hold an empty string");
    }
    if (out->stop_count == OPENAI_STOP_MAX) {
        return error_set(err, ERROR_USAGE, "stop holds more than %d strings", OPENAI_STOP_MAX);
    }
    out->stop[out->stop_count++] = json_string_value(text);
    return true;
}

static bool read_stop(const struct api_config *config, const json_t *body,
                      struct openai_params *out, struct error *err)
{
    const json_t *stop = json_object_get(body, "stop");

    (void)config;
    if (!stop || json_is_null(stop)) {
        return true;
    }
    if (!json_is_array(stop)) {
        return add_stop(out, stop, err);
    }
    for (size_t i = 0; i < json_array_size(stop); i++) {
        if (!add_stop(out, json_array_get(stop, i), err)) {
            return false;
        }
    }
    return true;
}

static bool read_stream(const struct api_config *config, const json_t *body,
                        struct openai_params *out, struct error *err)
{
    (void)config;
    return json_get_bool_or(body, "stream", false, &out->stream, err);
}

static bool read_stream_options(const struct api_config *config, const json_t *body,
                                struct openai_params *out, struct error *err)
{
    json_t *options;

    (void)config;
    if (!json_get_object_or_null(body, "stream_options", &options, err)) {
        return false;
    }
    return !options || json_get_bool_or(options, "include_usage", false, &out->include_usage, err);
}

static bool read_ignore_eos(const struct api_config *config, const json_t *body,
                            struct openai_params *out, struct error *err)
{
    (void)config;
    return json_get_bool_or(body, "ignore_eos", false, &out->ignore_eos, err);
}

static bool read_return_token_ids(const struct api_config *config, const json_t *body,
                                  struct openai_params *out, struct error *err)
{
    (void)config;
    return json_get_bool_or(body, "return_token_ids", false, &out->return_token_ids, err);
}

/* vLLM's: smaller numbers come first, 0 is usual. */
static bool read_priority(const struct api_config *config, const json_t *body,
                          struct openai_params *out, struct error *err)
{
    int64_t priority;

    (void)config;
    if (!json_get_i64_or(body, "priority", 0, &priority, err)) {
        return false;
    }
    out->request_class = priority > 0 ? REQUEST_BATCH : REQUEST_INTERACTIVE;
    return true;
}

/* OpenAI's: "flex" is cheaper and waits for others. */
static bool read_service_tier(const struct api_config *config, const json_t *body,
                              struct openai_params *out, struct error *err)
{
    static const char *const interactive[] = {"auto", "default", "priority", "scale"};
    const char *tier;

    (void)config;
    if (!json_get_string_or(body, "service_tier", NULL, &tier, err)) {
        return false;
    }
    if (!tier) {
        return true;
    }
    out->tier_named = true;
    if (strcmp(tier, "flex") == 0) {
        out->request_class = REQUEST_BATCH;
        return true;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(interactive); i++) {
        if (strcmp(tier, interactive[i]) == 0) {
            return true;
        }
    }
    return error_set(err, ERROR_USAGE,
                     "service_tier must be auto, default, priority, scale or flex, not \"%.40s\"",
                     tier);
}

/* --- what this server cannot do --- */

/* Values that ask for nothing are fine. */
static bool asks_for_nothing(const json_t *value)
{
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_number(value) && json_number_value(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_string(value) && (strcmp(json_string_value(value), "none") == 0 ||
                                      strcmp(json_string_value(value), "auto") == 0));
}

static bool refuse_unless_nothing(const json_t *body, const char *field, struct error *err)
{
    if (!asks_for_nothing(json_object_get(body, field))) {
        return error_set(err, ERROR_USAGE, "%s is not supported by this server", field);
    }
    return true;
}

/* More than n would be generated, and the best of them chosen. */
static bool read_best_of(const struct api_config *config, const json_t *body,
                         struct openai_params *out, struct error *err)
{
    uint32_t count;

    (void)config;
    if (!json_get_u32_or(body, "best_of", out->n, &count, err)) {
        return false;
    }
    return count == out->n ||
           error_set(err, ERROR_USAGE, "best_of other than n is not supported by this server");
}

static bool read_response_format(const struct api_config *config, const json_t *body,
                                 struct openai_params *out, struct error *err)
{
    json_t *format;
    const char *type;

    (void)config;
    (void)out;
    if (!json_get_object_or_null(body, "response_format", &format, err)) {
        return false;
    }
    if (!format) {
        return true;
    }
    if (!json_get_string_or(format, "type", "text", &type, err)) {
        return false;
    }
    if (strcmp(type, "text") != 0) {
        return error_set(err, ERROR_USAGE,
                         "response_format \"%.40s\" is not supported by this server: only \"text\"",
                         type);
    }
    return true;
}

/* --- all together --- */

/* Read in this order: later ones may look at earlier ones. */
static const struct openai_field common_fields[] = {
    {"model", read_model},
    {"n", read_n},
    {"best_of", read_best_of},
    {"stop", read_stop},
    {"stream", read_stream},
    {"stream_options", read_stream_options},
    {"ignore_eos", read_ignore_eos},
    {"return_token_ids", read_return_token_ids},
    {"priority", read_priority},
    {"service_tier", read_service_tier},
    {"response_format", read_response_format},
    {"tool_choice", NULL},
    {"functions", NULL},
    {"min_tokens", NULL},
    {"stop_token_ids", NULL},
    {"bad_words", NULL},
    {"allowed_token_ids", NULL},
    {"use_beam_search", NULL},
    {"truncate_prompt_tokens", NULL},
    {"include_stop_str_in_output", NULL},
    {"structured_outputs", NULL},
    {"guided_json", NULL},
    {"guided_regex", NULL},
    {"guided_choice", NULL},
    {"guided_grammar", NULL},
    {"suffix", NULL},
    {NULL, NULL},
};
static const struct openai_field limit_fields[] = {
    {"max_tokens", read_max_tokens},
    {"max_completion_tokens", read_max_completion_tokens},
    {NULL, NULL},
};
static const struct openai_field chat_fields[] = {{"messages", openai_read_messages}, {NULL, NULL}};
static const struct openai_field text_fields[] = {{"prompt", openai_read_prompt}, {NULL, NULL}};

static bool read_fields(const struct api_config *config, const struct openai_field *fields,
                        struct openai_params *out, struct openai_fault *fault)
{
    for (const struct openai_field *field = fields; field->name; field++) {
        bool fine = field->read ? field->read(config, out->body, out, &fault->error)
                                : refuse_unless_nothing(out->body, field->name, &fault->error);
        if (!fine) {
            fault->param = field->name;
            fault->model_unknown = field->read == read_model && fault->error.code == ERROR_USAGE;
            return false;
        }
    }
    return true;
}

static bool read_all(const struct api_config *config, struct openai_params *out,
                     struct openai_fault *fault)
{
    return read_fields(config, common_fields, out, fault) &&
           read_fields(config, openai_sampling_fields, out, fault) &&
           read_fields(config, limit_fields, out, fault) &&
           read_fields(config, out->kind == OPENAI_CHAT ? chat_fields : text_fields, out, fault);
}

/* What the cluster is asked for: as much as any part of the answer shows. */
static void logprobs_join(struct openai_params *out)
{
    uint32_t echoed = out->echo ? out->logprobs : 0;

    out->sampling.logprobs = out->logprobs;
    out->sampling.prompt_logprobs = echoed > out->prompt_logprobs ? echoed : out->prompt_logprobs;
}

bool openai_params_parse(const struct api_config *config, const struct buffer *body,
                         struct openai_params *out, struct openai_fault *fault)
{
    out->sampling = config->sampling;
    out->tokens_max = GENERATION_TOKENS_ALL;
    out->body = json_parse(buffer_text(body), body->length, "request body", &fault->error);
    if (!out->body) {
        return false;
    }
    if (!json_is_object(out->body)) {
        error_set(&fault->error, ERROR_INPUT, "the request body must be an object, got %s",
                  json_type_word(out->body));
        openai_params_deinit(out);
        return false;
    }
    if (!read_all(config, out, fault)) {
        openai_params_deinit(out);
        return false;
    }
    logprobs_join(out);
    return true;
}

void openai_params_release(struct openai_params *params)
{
    json_decref(params->body);
    params->body = NULL;
    params->stop_count = 0;
    mem_free(params->biases);
    params->biases = NULL;
    params->sampling.biases = NULL;
    params->sampling.bias_count = 0;
    if (params->echo || params->prompt_logprobs > 0 || params->return_token_ids) {
        return; /* the answer shows the prompt */
    }
    for (size_t i = 0; i < params->prompt_count; i++) {
        token_list_deinit(&params->prompts[i]);
    }
}

void openai_params_deinit(struct openai_params *params)
{
    openai_params_release(params);
    for (size_t i = 0; i < params->prompt_count; i++) {
        token_list_deinit(&params->prompts[i]);
    }
    mem_free(params->prompts);
    params->prompts = NULL;
    params->prompt_count = 0;
}
