/* template_deepseek_v2.c - DeepSeek-V2's chat template, V2-Lite's and V2.5's early one.
 *
 *   <bos>system\n\nUser: question\n\nAssistant: answer<eos>User: …\n\nAssistant:
 *
 * The roles are plain words, so a user can write them: nothing in this format tells a forged turn
 * from a real one, save <eos>. Tools, their calls and their outputs are not printed at all.
 */
#include "common/text/chat_family.h"

static void render_message(struct chat_builder *out, const struct chat_message *message,
                           const char *eos_text)
{
    switch (message->role) {
    case CHAT_SYSTEM:
        chat_add_content(out, message);
        chat_add_markup(out, "\n\n");
        break;
    case CHAT_USER:
        chat_add_markup(out, "User: ");
        chat_add_content(out, message);
        chat_add_markup(out, "\n\n");
        break;
    case CHAT_ASSISTANT:
        chat_add_markup(out, "Assistant: ");
        chat_add_content(out, message);
        chat_add_markup_copy(out, eos_text);
        break;
    case CHAT_TOOL:
        break;
    }
}

bool template_deepseek_v2_render(const void *style, const struct chat_request *request,
                                 struct chat_builder *builder, bool *opens_thinking,
                                 struct error *err)
{
    struct chat_message *messages = NULL;
    size_t count = 0;

    (void)style;
    (void)opens_thinking;
    if (!chat_messages_read(request, builder->arena, &messages, &count, err)) {
        return false;
    }
    chat_add_markup_copy(builder, request->bos_text);
    for (size_t i = 0; i < count; i++) {
        if (messages[i].role != CHAT_TOOL && !chat_content_require(&messages[i], err)) {
            return false;
        }
        render_message(builder, &messages[i], request->eos_text);
    }
    if (request->add_generation_prompt) {
        chat_add_markup(builder, "Assistant:");
    }
    return true;
}
