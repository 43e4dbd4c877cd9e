#ifndef SHOAL_TEXT_CHAT_DEEPSEEK_H
#define SHOAL_TEXT_CHAT_DEEPSEEK_H

/* What the templates of several DeepSeek models share. */
#include "common/text/chat_builder.h"

enum deepseek_arguments {
    DEEPSEEK_ARGUMENTS_TEXT,   /* a string, as it came; others are refused */
    DEEPSEEK_ARGUMENTS_JSON,   /* as JSON, a string quoted */
    DEEPSEEK_ARGUMENTS_PARSED, /* as JSON, a string that is a JSON object counts as that object */
};

/* All system messages, a blank line between. */
bool deepseek_add_system(struct chat_builder *builder, const struct chat_message *messages,
                         size_t count, struct error *err) MUST_CHECK;
/* A call's arguments as a string, as they came. ERROR_USAGE if they are not a string. */
bool deepseek_add_arguments_text(struct chat_builder *builder, const struct chat_message *message,
                                 const struct chat_call *call, struct error *err) MUST_CHECK;
/* type, name and arguments in a ```json block, between the marks of a call. */
bool deepseek_add_call(struct chat_builder *builder, const struct chat_message *message,
                       size_t index, enum deepseek_arguments arguments,
                       struct error *err) MUST_CHECK;
/* The content after its last </think>; all if there is none. */
void deepseek_add_answer(struct chat_builder *builder, const struct chat_message *message);

#endif
