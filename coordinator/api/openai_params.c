/* openai_params.c - reads and checks the body of a completion request.
 *
 * A conversation becomes tokens here: rendered by the model's template, encoded in spans so that
 * what users wrote can't become a control token. Generation starts in openai.c.
 */
#include "coordinator/api/openai_params.h"

#include "common/base/json.h"
#include "common/base/mem.h"
#include "coordinator/api/sampling_defaults.h"

#include <math.h>
#include <string.h>

#define RENDER_CHUNK_BYTES (64 * 1024)

typedef bool (*read_fn)(const struct api_config *config, const json_t *body,
                        struct openai_params *out, struct error *err);

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

static bool read_temperature(const struct api_config *config, const json_t *body,
                             struct openai_params *out, struct error *err)
{
    double value;

    if (!json_get_number_or(body, "temperature", (double)config->sampling.temperature, &value,
                            err)) {
        return false;
    }
    out->sampling.temperature = (float)value;
    return sampling_params_check(&out->sampling, err);
}

static bool read_top_p(const struct api_config *config, const json_t *body,
                       struct openai_params *out, struct error *err)
{
    double value;

    if (!json_get_number_or(body, "top_p", (double)config->sampling.top_p, &value, err)) {
        return false;
    }
    out->sampling.top_p = (float)value;
    return sampling_params_check(&out->sampling, err);
}

static bool read_min_p(const struct api_config *config, const json_t *body,
                       struct openai_params *out, struct error *err)
{
    double value;

    if (!json_get_number_or(body, "min_p", (double)config->sampling.min_p, &value, err)) {
        return false;
    }
    out->sampling.min_p = (float)value;
    return sampling_params_check(&out->sampling, err);
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

static bool read_limit(const json_t *body, const char *field, struct openai_params *out,
                       struct error *err)
{
    const json_t *given = json_object_get(body, field);
    int64_t value;

    if (!given || json_is_null(given)) {
        return true;
    }
    if (!json_get_i64_or(body, field, 0, &value, err)) {
        return false;
    }
    if (value < 1) {
        return error_set(err, ERROR_USAGE, "%s must be at least 1, got %lld", field,
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

static bool read_repetition_penalty(const struct api_config *config, const json_t *body,
                                    struct openai_params *out, struct error *err)
{
    double value;

    (void)config;
    (void)out;
    if (!json_get_number_or(body, "repetition_penalty", 1, &value, err)) {
        return false;
    }
    if (value < 1 || value > 1) {
        return error_set(err, ERROR_USAGE, "repetition_penalty is not supported by this server");
    }
    return true;
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

/* --- prompts --- */

static struct token_list *add_prompt(struct openai_params *out)
{
    out->prompts = mem_resize(out->prompts, out->prompt_count + 1, sizeof(*out->prompts));
    out->prompts[out->prompt_count] = (struct token_list){0};
    return &out->prompts[out->prompt_count++];
}

static bool encode_spans(const struct api_config *config, const struct text_span *spans,
                         size_t span_count, struct openai_params *out, struct error *err)
{
    struct token_list *prompt = add_prompt(out);

    if (!tokenizer_encode(config->tokenizer, spans, span_count, prompt, err)) {
        return false;
    }
    if (prompt->count == 0) {
        return error_set(err, ERROR_USAGE, "the prompt is empty");
    }
    return true;
}

static bool render_chat(const struct api_config *config, struct arena *arena, const json_t *body,
                        struct chat_rendering *rendering, struct error *err)
{
    json_t *messages;
    json_t *tools;
    json_t *kwargs;

    if (!json_get_array_or_null(body, "messages", &messages, err) ||
        !json_get_array_or_null(body, "tools", &tools, err) ||
        !json_get_object_or_null(body, "chat_template_kwargs", &kwargs, err)) {
        return false;
    }
    if (!messages || json_array_size(messages) == 0) {
        return error_set(err, ERROR_USAGE, "messages must be an array with at least one message");
    }
    if (!config->chat_template) {
        return error_set(err, ERROR_USAGE,
                         "this model has no known chat template; the server needs --chat-template");
    }
    const struct chat_request request = {
        .messages = messages,
        .tools = tools && json_array_size(tools) > 0 ? tools : NULL,
        .add_generation_prompt = true,
        .arguments = CHAT_ARGUMENTS_PARSE,
        .bos_text = tokenizer_bos_text(config->tokenizer),
        .eos_text = tokenizer_eos_text(config->tokenizer),
        .kwargs = kwargs,
    };
    return chat_template_render(config->chat_template, &request, arena, rendering, err);
}

static bool read_messages(const struct api_config *config, const json_t *body,
                          struct openai_params *out, struct error *err)
{
    struct chat_rendering rendering;
    struct arena arena;

    arena_init(&arena, RENDER_CHUNK_BYTES);
    bool fine = render_chat(config, &arena, body, &rendering, err);

    if (fine) {
        for (size_t i = 0; i < rendering.span_count; i++) {
            if (config->user_special == SPECIAL_PARSE) {
                rendering.spans[i].special = SPECIAL_PARSE;
            }
        }
        out->reasoning = rendering.opens_thinking ? REASONING_SPLIT_OPEN : REASONING_SPLIT;
        fine = encode_spans(config, rendering.spans, rendering.span_count, out, err);
    }
    arena_deinit(&arena);
    return fine;
}

static bool read_prompt_text(const struct api_config *config, const json_t *text,
                             struct openai_params *out, struct error *err)
{
    const char *bos =
        tokenizer_adds_bos(config->tokenizer) ? tokenizer_bos_text(config->tokenizer) : "";
    const struct text_span spans[] = {
        {.text = bos, .length = strlen(bos), .special = SPECIAL_PARSE},
        {.text = json_string_value(text),
         .length = json_string_length(text),
         .special = config->user_special},
    };

    return encode_spans(config, spans, ARRAY_LENGTH(spans), out, err);
}

static bool read_prompt_ids(const struct api_config *config, const json_t *ids,
                            struct openai_params *out, struct error *err)
{
    struct token_list *prompt = add_prompt(out);

    if (json_array_size(ids) == 0) {
        return error_set(err, ERROR_USAGE, "the prompt is empty");
    }
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        json_int_t value = json_integer_value(id);

        if (!json_is_integer(id)) {
            return error_set(err, ERROR_USAGE, "prompt[%zu] must be a token id, got %s", i,
                             json_type_word(id));
        }
        if (value < 0 || value >= config->vocab) {
            return error_set(err, ERROR_USAGE,
                             "prompt[%zu]: token id %lld is not below the vocabulary's %u", i,
                             (long long)value, config->vocab);
        }
        token_list_append(prompt, (uint32_t)value);
    }
    return true;
}

static bool read_one_prompt(const struct api_config *config, const json_t *prompt,
                            struct openai_params *out, struct error *err)
{
    if (json_is_string(prompt)) {
        return read_prompt_text(config, prompt, out, err);
    }
    if (json_is_array(prompt)) {
        return read_prompt_ids(config, prompt, out, err);
    }
    return error_set(err, ERROR_USAGE,
                     "prompt must be a string, token ids, or an array of these, got %s",
                     json_type_word(prompt));
}

static bool read_prompt(const struct api_config *config, const json_t *body,
                        struct openai_params *out, struct error *err)
{
    const json_t *prompt = json_object_get(body, "prompt");

    out->reasoning = REASONING_WHOLE;
    if (!json_is_array(prompt) || json_is_integer(json_array_get(prompt, 0)) ||
        json_array_size(prompt) == 0) {
        return read_one_prompt(config, prompt, out, err);
    }
    for (size_t i = 0; i < json_array_size(prompt); i++) {
        if (!read_one_prompt(config, json_array_get(prompt, i), out, err)) {
            return false;
        }
        if (out->prompt_count * out->n > OPENAI_CHOICES_MAX) {
            return error_set(err, ERROR_USAGE, "prompts times n is more than %d",
                             OPENAI_CHOICES_MAX);
        }
    }
    return true;
}

/* --- all together --- */

struct field {
    const char *name;
    read_fn read; /* NULL: refused unless it asks for nothing */
};
static const struct field common_fields[] = {
    {"model", read_model},
    {"temperature", read_temperature},
    {"top_p", read_top_p},
    {"min_p", read_min_p},
    {"top_k", read_top_k},
    {"seed", read_seed},
    {"max_tokens", read_max_tokens},
    {"max_completion_tokens", read_max_completion_tokens},
    {"n", read_n},
    {"best_of", read_best_of},
    {"stop", read_stop},
    {"stream", read_stream},
    {"stream_options", read_stream_options},
    {"ignore_eos", read_ignore_eos},
    {"response_format", read_response_format},
    {"repetition_penalty", read_repetition_penalty},
    {"frequency_penalty", NULL},
    {"presence_penalty", NULL},
    {"logit_bias", NULL},
    {"logprobs", NULL},
    {"top_logprobs", NULL},
    {"prompt_logprobs", NULL},
    {"tool_choice", NULL},
    {"functions", NULL},
    {"echo", NULL},
    {"min_tokens", NULL},
    {"stop_token_ids", NULL},
    {"structured_outputs", NULL},
    {"guided_json", NULL},
    {"guided_regex", NULL},
    {"guided_choice", NULL},
    {"guided_grammar", NULL},
    {"suffix", NULL},
};

static bool read_fields(const struct api_config *config, const struct field *fields, size_t count,
                        struct openai_params *out, struct openai_fault *fault)
{
    for (size_t i = 0; i < count; i++) {
        bool fine = fields[i].read
                        ? fields[i].read(config, out->body, out, &fault->error)
                        : refuse_unless_nothing(out->body, fields[i].name, &fault->error);
        if (!fine) {
            fault->param = fields[i].name;
            fault->model_unknown = fields[i].read == read_model && fault->error.code == ERROR_USAGE;
            return false;
        }
    }
    return true;
}

bool openai_params_parse(const struct api_config *config, const struct buffer *body,
                         struct openai_params *out, struct openai_fault *fault)
{
    static const struct field chat_prompt[] = {{"messages", read_messages}};
    static const struct field text_prompt[] = {{"prompt", read_prompt}};

    out->sampling = config->sampling;
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
    if (!read_fields(config, common_fields, ARRAY_LENGTH(common_fields), out, fault) ||
        !read_fields(config, out->kind == OPENAI_CHAT ? chat_prompt : text_prompt, 1, out, fault)) {
        openai_params_deinit(out);
        return false;
    }
    return true;
}

void openai_params_deinit(struct openai_params *params)
{
    for (size_t i = 0; i < params->prompt_count; i++) {
        token_list_deinit(&params->prompts[i]);
    }
    mem_free(params->prompts);
    params->prompts = NULL;
    params->prompt_count = 0;
    json_decref(params->body);
    params->body = NULL;
}
