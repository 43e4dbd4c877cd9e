#ifndef SHOAL_TEXT_CHAT_BUILDER_H
#define SHOAL_TEXT_CHAT_BUILDER_H

/* What every family's template needs: messages read with checks, and spans to write.
 * All text is copied into the arena, so a rendering outlives the request's JSON. */
#include "common/base/arena.h"
#include "common/base/error.h"
#include "common/text/chat_template.h"
#include "common/text/tokenizer.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

enum chat_role { CHAT_SYSTEM, CHAT_USER, CHAT_ASSISTANT, CHAT_TOOL };

struct chat_message {
    size_t index; /* for messages about it */
    enum chat_role role;
    const char *content; /* NULL: null */
    size_t content_length;
    const json_t *tool_calls; /* array, not empty; NULL: none */
    const json_t *source;     /* the whole object, for fields of one family only */
};

struct chat_call {
    const char *type; /* "function"; NULL: none, see chat_call_require_type */
    const char *name;
    const json_t *arguments; /* of any type, never NULL */
};

/* ERROR_USAGE, naming message and field. Lends from the JSON and the arena. */
bool chat_message_read(const json_t *messages, size_t index, struct arena *arena,
                       struct chat_message *out, struct error *err) MUST_CHECK;
bool chat_call_read(const struct chat_message *message, size_t index, struct chat_call *out,
                    struct error *err) MUST_CHECK;
/* All messages, in an array of the arena. ERROR_USAGE as above. */
bool chat_messages_read(const struct chat_request *request, struct arena *arena,
                        struct chat_message **out, size_t *count, struct error *err) MUST_CHECK;
/* For templates that look at the first message. ERROR_USAGE if there is none. */
bool chat_messages_require(size_t count, struct error *err) MUST_CHECK;
/* For templates that print the type. ERROR_USAGE if there is none. */
bool chat_call_require_type(const struct chat_message *message, const struct chat_call *call,
                            struct error *err) MUST_CHECK;
/* ERROR_USAGE if the content is null. */
bool chat_content_require(const struct chat_message *message, struct error *err) MUST_CHECK;

/* A variable of the template by chat_template_kwargs; NULL: not defined. */
const json_t *chat_kwarg(const struct chat_request *request, const char *name);
/* What Jinja's `if` makes of a value; NULL, as of an undefined variable, is false. */
bool chat_is_true(const json_t *value);

struct chat_builder {
    struct arena *arena;
    struct text_span *spans;
    size_t count;
    size_t capacity;
};

void chat_builder_init(struct chat_builder *builder, struct arena *arena);
/* The template's own text, of static lifetime. */
void chat_add_markup(struct chat_builder *builder, const char *text);
/* The same, copied; NULL adds nothing. */
void chat_add_markup_copy(struct chat_builder *builder, const char *text);
/* What somebody wrote. */
void chat_add_text(struct chat_builder *builder, const char *text, size_t length);
void chat_add_content(struct chat_builder *builder, const struct chat_message *message);
/* The content as Jinja's trim leaves it: without Unicode white space at both ends. */
void chat_add_content_trimmed(struct chat_builder *builder, const struct chat_message *message);
/* A JSON value as Jinja's tojson writes it for templates: UTF-8, ", " and ": ", keys in order;
 * `indent` spaces a level, 0: on one line. */
void chat_add_json(struct chat_builder *builder, const json_t *value, int indent);
/* A call's arguments as JSON; strings as `rule` says. */
void chat_add_arguments(struct chat_builder *builder, const json_t *arguments,
                        enum chat_arguments rule);

#endif
