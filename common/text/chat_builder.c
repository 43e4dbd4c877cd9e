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

    *out = (struct chat_message){.index = index, .source = message};
    if (!json_is_object(message)) {
        return error_set(err, ERROR_USAGE, "messages[%zu] must be an object, got %s", index,
                         json_type_word(message));
    }
    return (role_read(message, &out->role, err) && content_read(message, arena, out, err) &&
            tool_calls_read(message, out, err)) ||
           error_wrap(err, "messages[%zu]", index);
}

bool chat_messages_read(const struct chat_request *request, struct arena *arena,
                        struct chat_message **out, size_t *count, struct error *err)
{
    size_t message_count = json_array_size(request->messages);
    struct chat_message *messages = arena_new_array(arena, struct chat_message, message_count + 1);

    for (size_t i = 0; i < message_count; i++) {
        if (!chat_message_read(request->messages, i, arena, &messages[i], err)) {
            return false;
        }
    }
    *out = messages;
    *count = message_count;
    return true;
}

bool chat_messages_require(size_t count, struct error *err)
{
    return count > 0 ||
           error_set(err, ERROR_USAGE, "messages[0] is missing: this template needs a message");
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

bool chat_call_require_type(const struct chat_message *message, const struct chat_call *call,
                            struct error *err)
{
    return call->type != NULL ||
           error_set(err, ERROR_USAGE, "messages[%zu]: type of a tool call must be a string",
                     message->index);
}

const json_t *chat_kwarg(const struct chat_request *request, const char *name)
{
    return json_object_get(request->kwargs, name); /* NULL of NULL */
}

bool chat_is_true(const json_t *value)
{
    switch (value == NULL ? JSON_NULL : json_typeof(value)) {
    case JSON_OBJECT:
        return json_object_size(value) > 0;
    case JSON_ARRAY:
        return json_array_size(value) > 0;
    case JSON_STRING:
        return json_string_length(value) > 0;
    case JSON_INTEGER:
        return json_integer_value(value) != 0;
    case JSON_REAL:
        return json_real_value(value) < 0 || json_real_value(value) > 0;
    case JSON_TRUE:
        return true;
    case JSON_FALSE:
    case JSON_NULL:
        break;
    }
    return false;
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
    if (text != NULL) {
        add_span(builder, arena_strdup(builder->arena, text), strlen(text), SPECIAL_PARSE);
    }
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

/* What Python's str.isspace takes, in UTF-8. */
static const char *const spaces[] = {
    " ",      "\n",     "\t",       "\r",       "\v",     "\f",     "\x1c",   "\x1d",
    "\x1e",   "\x1f",   "\xc2\x85", "\xc2\xa0", "\u1680", "\u2000", "\u2001", "\u2002",
    "\u2003", "\u2004", "\u2005",   "\u2006",   "\u2007", "\u2008", "\u2009", "\u200a",
    "\u2028", "\u2029", "\u202f",   "\u205f",   "\u3000",
};

/* Bytes of the space that the text begins with; 0: none. */
static size_t space_at_begin(const char *text, size_t length)
{
    for (size_t i = 0; i < ARRAY_LENGTH(spaces); i++) {
        size_t bytes = strlen(spaces[i]);

        if (bytes <= length && memcmp(text, spaces[i], bytes) == 0) {
            return bytes;
        }
    }
    return 0;
}

static size_t space_at_end(const char *text, size_t length)
{
    for (size_t i = 0; i < ARRAY_LENGTH(spaces); i++) {
        size_t bytes = strlen(spaces[i]);

        if (bytes <= length && memcmp(text + length - bytes, spaces[i], bytes) == 0) {
            return bytes;
        }
    }
    return 0;
}

void chat_add_content_trimmed(struct chat_builder *builder, const struct chat_message *message)
{
    const char *begin = message->content;
    const char *end = begin + message->content_length;
    size_t bytes;

    while ((bytes = space_at_begin(begin, (size_t)(end - begin))) > 0) {
        begin += bytes;
    }
    while ((bytes = space_at_end(begin, (size_t)(end - begin))) > 0) {
        end -= bytes;
    }
    chat_add_text(builder, begin, (size_t)(end - begin));
}

void chat_add_json(struct chat_builder *builder, const json_t *value, int indent)
{
    struct buffer text = {0};

    chat_json_append(&text, value, indent);
    chat_add_text(builder, buffer_text(&text), text.length);
    buffer_deinit(&text);
}

void chat_add_arguments(struct chat_builder *builder, const json_t *arguments,
                        enum chat_arguments rule)
{
    const char *text = json_string_value(arguments);
    json_t *parsed = NULL;

    if (text != NULL && rule == CHAT_ARGUMENTS_PARSE) {
        parsed = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    }
    chat_add_json(builder, parsed != NULL ? parsed : arguments, 0);
    json_decref(parsed);
}
