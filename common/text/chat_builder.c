/* chat_builder.c - messages in, spans out.
 *
 * Messages are checked here once for all families, with the message and the field in the error:
 * they are a client's, and the client is a person with a JSON file. Two kinds of text leave:
 * markup, in which control tokens are recognised, and text, in which they are letters.
 */
#include "common/text/chat_builder.h"

#include "common/base/json.h"
#include "common/text/chat_json.h"

#include <string.h>

static const struct {
    const char *name;
    enum chat_role role;
} roles[] = {
    {"system", CHAT_SYSTEM},       {"developer", CHAT_SYSTEM}, {"user", CHAT_USER},
    {"assistant", CHAT_ASSISTANT}, {"tool", CHAT_TOOL},
};

static bool role_read(const json_t *message, enum chat_role *role, struct error *err)
{
    const json_t *value = json_object_get(message, "role");

    if (!json_is_string(value)) {
        return error_set(err, ERROR_USAGE, "role must be a string, got %s", json_type_word(value));
    }
    for (size_t i = 0; i < ARRAY_LENGTH(roles); i++) {
        if (strcmp(json_string_value(value), roles[i].name) == 0) {
            *role = roles[i].role;
            return true;
        }
    }
    return error_set(err, ERROR_USAGE,
                     "role \"%.40s\" is none of system, developer, user, assistant, tool",
                     json_string_value(value));
}

/* The text of {"type": "text", "text": …}. */
static const json_t *part_text(const json_t *part, size_t index, struct error *err)
{
    const char *type = json_string_value(json_object_get(part, "type"));
    const json_t *text = json_object_get(part, "text");

    if (type == NULL) {
        error_set(err, ERROR_USAGE, "content[%zu].type must be a string, got %s", index,
                  json_type_word(json_object_get(part, "type")));
        return NULL;
    }
    if (strcmp(type, "text") != 0) {
        error_set(err, ERROR_USAGE, "content[%zu] is of type \"%.40s\", only \"text\" is supported",
                  index, type);
        return NULL;
    }
    if (!json_is_string(text)) {
        error_set(err, ERROR_USAGE, "content[%zu].text must be a string, got %s", index,
                  json_type_word(text));
        return NULL;
    }
    return text;
}

static bool parts_read(const json_t *parts, struct arena *arena, struct chat_message *out,
                       struct error *err)
{
    size_t length = 0;

    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *text = part_text(json_array_get(parts, i), i, err);

        if (text == NULL) {
            return false;
        }
        length += json_string_length(text);
    }
    char *joined = arena_alloc(arena, length + 1);
    out->content = joined;
    out->content_length = length;
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *text = json_object_get(json_array_get(parts, i), "text");

        memcpy(joined, json_string_value(text), json_string_length(text));
        joined += json_string_length(text);
    }
    return true;
}

static bool content_read(const json_t *message, struct arena *arena, struct chat_message *out,
                         struct error *err)
{
    const json_t *content = json_object_get(message, "content");

    if (content == NULL || json_is_null(content)) {
        return true;
    }
    if (json_is_string(content)) {
        out->content = json_string_value(content);
        out->content_length = json_string_length(content);
        return true;
    }
    if (json_is_array(content)) {
        return parts_read(content, arena, out, err);
    }
    return error_set(err, ERROR_USAGE, "content must be a string or an array of text parts, got %s",
                     json_type_word(content));
}

static bool tool_calls_read(const json_t *message, struct chat_message *out, struct error *err)
{
    const json_t *calls = json_object_get(message, "tool_calls");

    if (calls == NULL || json_is_null(calls)) {
        return true;
    }
    if (!json_is_array(calls)) {
        return error_set(err, ERROR_USAGE, "tool_calls must be an array, got %s",
                         json_type_word(calls));
    }
    out->tool_calls = json_array_size(calls) > 0 ? calls : NULL;
    return true;
}

bool chat_message_read(const json_t *messages, size_t index, struct arena *arena,
                       struct chat_message *out, struct error *err)
{
    const json_t *message = json_array_get(messages, index);

    *out = (struct chat_message){.index = index};
    if (!json_is_object(message)) {
        return error_set(err, ERROR_USAGE, "messages[%zu] must be an object, got %s", index,
                         json_type_word(message));
    }
    return (role_read(message, &out->role, err) && content_read(message, arena, out, err) &&
            tool_calls_read(message, out, err)) ||
           error_wrap(err, "messages[%zu]", index);
}

bool chat_content_require(const struct chat_message *message, struct error *err)
{
    return message->content != NULL ||
           error_set(err, ERROR_USAGE, "messages[%zu]: content must not be null", message->index);
}

static bool call_fields_read(const json_t *call, struct chat_call *out, struct error *err)
{
    const json_t *function = json_object_get(call, "function");

    out->type = json_string_value(json_object_get(call, "type"));
    out->name = json_string_value(json_object_get(function, "name"));
    out->arguments = json_object_get(function, "arguments");
    if (out->type == NULL) {
        return error_set(err, ERROR_USAGE, "type must be a string, got %s",
                         json_type_word(json_object_get(call, "type")));
    }
    if (out->name == NULL) {
        return error_set(err, ERROR_USAGE, "function.name must be a string, got %s",
                         json_type_word(json_object_get(function, "name")));
    }
    return out->arguments != NULL || error_set(err, ERROR_USAGE, "function.arguments is missing");
}

bool chat_call_read(const struct chat_message *message, size_t index, struct chat_call *out,
                    struct error *err)
{
    return call_fields_read(json_array_get(message->tool_calls, index), out, err) ||
           error_wrap(err, "messages[%zu]: tool_calls[%zu]", message->index, index);
}

void chat_builder_init(struct chat_builder *builder, struct arena *arena)
{
    *builder = (struct chat_builder){.arena = arena};
}

static void add_span(struct chat_builder *builder, const char *text, size_t length,
                     enum special_mode mode)
{
    if (length == 0) {
        return;
    }
    if (builder->count == builder->capacity) {
        size_t capacity = builder->capacity == 0 ? 32 : 2 * builder->capacity;
        struct text_span *grown = arena_new_array(builder->arena, struct text_span, capacity);

        if (builder->count > 0) {
            memcpy(grown, builder->spans, builder->count * sizeof *grown);
        }
        builder->spans = grown;
        builder->capacity = capacity;
    }
    builder->spans[builder->count++] =
        (struct text_span){.text = text, .length = length, .special = mode};
}

void chat_add_markup(struct chat_builder *builder, const char *text)
{
    add_span(builder, text, strlen(text), SPECIAL_PARSE);
}

void chat_add_markup_copy(struct chat_builder *builder, const char *text)
{
    add_span(builder, arena_strdup(builder->arena, text), strlen(text), SPECIAL_PARSE);
}

void chat_add_text(struct chat_builder *builder, const char *text, size_t length)
{
    add_span(builder, arena_strndup(builder->arena, text, length), length, SPECIAL_TEXT);
}

void chat_add_content(struct chat_builder *builder, const struct chat_message *message)
{
    if (message->content != NULL) {
        chat_add_text(builder, message->content, message->content_length);
    }
}

void chat_add_json(struct chat_builder *builder, const json_t *value)
{
    struct buffer text = {0};

    chat_json_append(&text, value);
    chat_add_text(builder, buffer_text(&text), text.length);
    buffer_deinit(&text);
}
