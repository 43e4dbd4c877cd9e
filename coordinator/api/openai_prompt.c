/* openai_prompt.c - messages or a prompt become token ids.
 *
 * A conversation is rendered by the model's template and encoded in spans, so that what users wrote
 * can't become a control token.
 */
#include "common/base/arena.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "coordinator/api/openai_fields.h"

#include <string.h>

#define RENDER_CHUNK_BYTES (64 * 1024)

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

bool openai_read_messages(const struct api_config *config, const json_t *body,
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

bool openai_read_prompt(const struct api_config *config, const json_t *body,
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
