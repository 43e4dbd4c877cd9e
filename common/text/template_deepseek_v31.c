/* template_deepseek_v31.c - DeepSeek-V3.1's chat template.
 *
 *   <bos>system<｜User｜>question<｜Assistant｜><think></think>answer<eos>…<｜Assistant｜><think>
 *
 * Every answer to a user starts with <think>, or without thinking with <think></think> (in the text
 * of llama.cpp's collection) or </think> (in the model's own). Whether to think is the template's
 * variable `thinking`, or else `enable_thinking`. In earlier answers all up to the
 * first </think> is cut. There is a generation prompt after a user's message only: not after tool
 * outputs, as published. Tools on offer are not printed.
 */
#include "common/text/chat_deepseek.h"
#include "common/text/chat_family.h"

#include <string.h>

struct deepseek_v31_style {
    const char *think_nothing; /* how an answer without thinking begins */
    enum deepseek_arguments arguments;
    const char *switch_name; /* the variable that counts if `thinking` is not defined; or NULL */
};

const struct deepseek_v31_style deepseek_v31_style = {
    .think_nothing = "<think></think>",
    .arguments = DEEPSEEK_ARGUMENTS_JSON,
    .switch_name = "enable_thinking",
};

const struct deepseek_v31_style deepseek_v31_2508_style = {
    .think_nothing = "</think>",
    .arguments = DEEPSEEK_ARGUMENTS_TEXT,
};

static const char sentence_end[] = "<｜end▁of▁sentence｜>";
static const char assistant_begin[] = "<｜Assistant｜>";
static const char think_begin[] = "<think>";
static const char think_end[] = "</think>";

struct rendering {
    const struct deepseek_v31_style *style;
    const struct chat_request *request;
    struct chat_builder *out;
    bool thinking;
    bool after_user;   /* a user's message waits for its answer */
    bool after_output; /* the last message was a tool's output */
};

static bool wants_thinking(const struct deepseek_v31_style *style,
                           const struct chat_request *request)
{
    const json_t *thinking = chat_kwarg(request, "thinking");

    if (thinking == NULL && style->switch_name != NULL) {
        thinking = chat_kwarg(request, style->switch_name);
    }
    return chat_is_true(thinking);
}

static bool render_calls(struct rendering *rendering, const struct chat_message *message,
                         struct error *err)
{
    struct chat_builder *out = rendering->out;

    if (rendering->after_user) {
        chat_add_markup(out, assistant_begin);
        chat_add_markup(out, rendering->style->think_nothing);
    }
    rendering->after_user = false;
    rendering->after_output = false;
    chat_add_content(out, message);
    chat_add_markup(out, "<｜tool▁calls▁begin｜>");
    for (size_t i = 0; i < json_array_size(message->tool_calls); i++) {
        struct chat_call call;

        if (!chat_call_read(message, i, &call, err)) {
            return false;
        }
        chat_add_markup(out, "<｜tool▁call▁begin｜>");
        chat_add_text(out, call.name, strlen(call.name));
        chat_add_markup(out, "<｜tool▁sep｜>");
        if (rendering->style->arguments == DEEPSEEK_ARGUMENTS_JSON) {
            chat_add_arguments(out, call.arguments, rendering->request->arguments);
        } else if (!deepseek_add_arguments_text(out, message, &call, err)) {
            return false;
        }
        chat_add_markup(out, "<｜tool▁call▁end｜>");
    }
    chat_add_markup(out, "<｜tool▁calls▁end｜>");
    chat_add_markup(out, sentence_end);
    return true;
}

/* The answer without what was thought before it: up to the first </think>. */
static void add_answer(struct chat_builder *out, const struct chat_message *message)
{
    const char *end = message->content + message->content_length;
    const char *found =
        memmem(message->content, message->content_length, think_end, strlen(think_end));
    const char *begin = found == NULL ? message->content : found + strlen(think_end);

    chat_add_text(out, begin, (size_t)(end - begin));
}

static bool render_answer(struct rendering *rendering, const struct chat_message *message,
                          struct error *err)
{
    struct chat_builder *out = rendering->out;

    if (!chat_content_require(message, err)) {
        return false;
    }
    if (rendering->after_user) {
        bool is_prefix = chat_is_true(json_object_get(message->source, "prefix"));

        chat_add_markup(out, assistant_begin);
        chat_add_markup(out, is_prefix && rendering->thinking ? think_begin
                                                              : rendering->style->think_nothing);
    }
    rendering->after_user = false;
    if (rendering->after_output) { /* the answer to tool outputs is not searched for thinking */
        chat_add_content(out, message);
    } else {
        add_answer(out, message);
    }
    rendering->after_output = false;
    chat_add_markup(out, sentence_end);
    return true;
}

static bool render_message(struct rendering *rendering, const struct chat_message *message,
                           struct error *err)
{
    struct chat_builder *out = rendering->out;

    switch (message->role) {
    case CHAT_SYSTEM:
        return true; /* at the front already */
    case CHAT_ASSISTANT:
        return message->tool_calls != NULL ? render_calls(rendering, message, err)
                                           : render_answer(rendering, message, err);
    case CHAT_USER:
        chat_add_markup(out, "<｜User｜>");
        chat_add_content(out, message);
        rendering->after_user = true;
        rendering->after_output = false;
        break;
    case CHAT_TOOL:
        chat_add_markup(out, "<｜tool▁output▁begin｜>");
        chat_add_content(out, message);
        chat_add_markup(out, "<｜tool▁output▁end｜>");
        rendering->after_user = false;
        rendering->after_output = true;
        break;
    }
    return chat_content_require(message, err);
}

bool template_deepseek_v31_render(const void *style, const struct chat_request *request,
                                  struct chat_builder *builder, bool *opens_thinking,
                                  struct error *err)
{
    struct rendering rendering = {.style = style,
                                  .request = request,
                                  .out = builder,
                                  .thinking = wants_thinking(style, request)};
    struct chat_message *messages = NULL;
    size_t count = 0;

    if (!chat_messages_read(request, builder->arena, &messages, &count, err)) {
        return false;
    }
    chat_add_markup_copy(builder, request->bos_text);
    if (!deepseek_add_system(builder, messages, count, err)) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (!render_message(&rendering, &messages[i], err)) {
            return false;
        }
    }
    if (request->add_generation_prompt && rendering.after_user && !rendering.after_output) {
        chat_add_markup(builder, assistant_begin);
        chat_add_markup(builder, rendering.thinking ? think_begin : rendering.style->think_nothing);
        *opens_thinking = rendering.thinking;
    }
    return true;
}
