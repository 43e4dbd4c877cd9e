#ifndef SHOAL_TEXT_CHAT_TEMPLATE_H
#define SHOAL_TEXT_CHAT_TEMPLATE_H

/* Conversations rendered as their model was trained on: our own code for each family, checked byte
 * for byte against the published Jinja. The family is recognised by the template's text, or named
 * by --chat-template.
 *
 * The result is a list of spans: the template's own text (control tokens recognised) and what
 * users, tools and earlier answers wrote (plain text), so a message can't forge a control token.
 */
#include "common/base/arena.h"
#include "common/base/error.h"
#include "common/text/tokenizer.h"

#include <jansson.h>

struct chat_template; /* static data of a family */

/* What to do with tool-call arguments that came as a JSON string, in families that print them as
 * JSON. API clients send strings, which such a template would quote a second time. */
enum chat_arguments {
    CHAT_ARGUMENTS_AS_GIVEN, /* what the Jinja template does */
    CHAT_ARGUMENTS_PARSE,    /* a string that is a JSON object counts as that object */
};

/* Messages are as the OpenAI API has them: `content` a string, a list of {"type": "text"} parts
 * (joined), or null where the template takes it; a missing one is null. The role "developer" counts
 * as "system". Empty or null `tool_calls` count as none. Thinking in fields of its own
 * (reasoning_content, reasoning) is no part of the history, save where the template prints
 * reasoning_content (qwen3). Null content is refused where Jinja would print "None". */
struct chat_request {
    const json_t *messages; /* array of {"role", "content", …}; borrowed */
    const json_t *tools;    /* array or NULL */
    bool add_generation_prompt;
    enum chat_arguments arguments;
    const char *bos_text;
    const char *eos_text;
    /* "26 Jul 2024", for templates that print it; NULL: the family's default */
    const char *date_text;
    /* The client's chat_template_kwargs, variables of the template: enable_thinking (qwen3,
     * deepseek-v3.1, deepseek-r1-distill-qwen), thinking (deepseek-v3.1), tools_in_user_message
     * and date_string (llama). Others are ignored, as Jinja does. An object, or NULL. */
    const json_t *kwargs;
};

struct chat_rendering {
    struct text_span *spans; /* lent by the arena given */
    size_t span_count;
    /* The generation prompt opened the thinking and didn't end it: output starts inside. */
    bool opens_thinking;
};

/* By text of a Jinja template, as models carry it. NULL: unknown; err names --chat-template. */
const struct chat_template *chat_template_recognise(const char *jinja,
                                                    struct error *err) MUST_CHECK;
/* By family name: "deepseek-r1", "deepseek-v3", … (the table in chat_template.c). */
const struct chat_template *chat_template_by_name(const char *name, struct error *err) MUST_CHECK;
/* --chat-template NAME|FILE.jinja, or NULL for the model's own. */
const struct chat_template *chat_template_choose(const char *option,
                                                 const struct tokenizer *tokenizer,
                                                 struct error *err) MUST_CHECK;
const char *chat_template_name(const struct chat_template *family);

/* ERROR_USAGE when the template refuses the conversation (a client error), naming the message. */
bool chat_template_render(const struct chat_template *family, const struct chat_request *request,
                          struct arena *arena, struct chat_rendering *out,
                          struct error *err) MUST_CHECK;
/* Appends the text of the spans: the rendering as one string. */
void chat_rendering_text(const struct chat_rendering *rendering, struct buffer *out);

#endif
