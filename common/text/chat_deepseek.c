/* chat_deepseek.c - parts that the templates of several DeepSeek models have in common. */
#include "common/text/chat_deepseek.h"

#include "common/base/json.h"

#include <string.h>

bool deepseek_add_system(struct chat_builder *builder, const struct chat_message *messages,
                         size_t count, struct error *err)
{
    bool is_first = true;

    for (size_t i = 0; i < count; i++) {
        if (messages[i].role != CHAT_SYSTEM) {
            continue;
        }
        if (!chat_content_require(&messages[i], err)) {
            return false;
        }
        chat_add_markup(builder, is_first ? "" : "\n\n");
        chat_add_content(builder, &messages[i]);
        is_first = false;
    }
    return true;
}

bool deepseek_add_arguments_text(struct chat_builder *builder, const struct chat_message *message,
                                 const struct chat_call *call, struct error *err)
{
    if (!json_is_string(call->arguments)) {
        return error_set(err, ERROR_USAGE,
                         "messages[%zu]: function.arguments must be a string for this "
                         "template, got %s",
                         message->index, json_type_word(call->arguments));
    }
    chat_add_text(builder, json_string_value(call->arguments), json_string_length(call->arguments));
    return true;
}

bool deepseek_add_call(struct chat_builder *builder, const struct chat_message *message,
                       size_t index, enum deepseek_arguments arguments, struct error *err)
{
    struct chat_call call;

    if (!chat_call_read(message, index, &call, err) ||
        !chat_call_require_type(message, &call, err)) {
        return false;
    }
    chat_add_markup(builder, "<｜tool▁call▁begin｜>");
    chat_add_text(builder, call.type, strlen(call.type));
    chat_add_markup(builder, "<｜tool▁sep｜>");
    chat_add_text(builder, call.name, strlen(call.name));
    chat_add_markup(builder, "\n```json\n");
    if (arguments != DEEPSEEK_ARGUMENTS_TEXT) {
        chat_add_arguments(builder, call.arguments,
                           arguments == DEEPSEEK_ARGUMENTS_PARSED ? CHAT_ARGUMENTS_PARSE
                                                                  : CHAT_ARGUMENTS_AS_GIVEN);
    } else if (!deepseek_add_arguments_text(builder, message, &call, err)) {
        return false;
    }
    chat_add_markup(builder, "\n```");
    chat_add_markup(builder, "<｜tool▁call▁end｜>");
    return true;
}

void deepseek_add_answer(struct chat_builder *builder, const struct chat_message *message)
{
    static const char think_end[] = "</think>";
    const char *begin = message->content;
    const char *end = begin + message->content_length;
    const char *found;

    while ((found = memmem(begin, (size_t)(end - begin), think_end, strlen(think_end))) != NULL) {
        begin = found + strlen(think_end);
    }
    chat_add_text(builder, begin, (size_t)(end - begin));
}
