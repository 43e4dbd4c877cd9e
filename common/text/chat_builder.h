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
};

struct chat_call {
    const char *type; /* "function" */
    const char *name;
    const json_t *arguments; /* of any type, never NULL */
};

/* ERROR_USAGE, naming message and field. Lends from the JSON and the arena. */
bool chat_message_read(const json_t *messages, size_t index, struct arena *arena,
                       struct chat_message *out, struct error *err) MUST_CHECK;
bool chat_call_read(const struct chat_message *message, size_t index, struct chat_call *out,
                    struct error *err) MUST_CHECK;
/* ERROR_USAGE if the content is null. */
bool chat_content_require(const struct chat_message *message, struct error *err) MUST_CHECK;

struct chat_builder {
    struct arena *arena;
    struct text_span *spans;
    size_t count;
    size_t capacity;
};

void chat_builder_init(struct chat_builder *builder, struct arena *arena);
/* The template's own text, of static lifetime. */
void chat_add_markup(struct chat_builder *builder, const char *text);
/* The same, copied. */
void chat_add_markup_copy(struct chat_builder *builder, const char *text);
/* What somebody wrote. */
void chat_add_text(struct chat_builder *builder, const char *text, size_t length);
void chat_add_content(struct chat_builder *builder, const struct chat_message *message);
/* A JSON value as Jinja's tojson writes it for templates: UTF-8, ", " and ": ", keys in order. */
void chat_add_json(struct chat_builder *builder, const json_t *value);

#endif
