/* template_deepseek_0324.c - the chat templates of DeepSeek-V3-0324 and R1-0528.
 *
 *   <bos>system<｜User｜>question<｜Assistant｜>answer<eos><｜User｜>…<｜Assistant｜>
 *
 * <｜Assistant｜> follows a user's message at once, asked for or not, so the generation prompt adds
 * nothing after a question; after an answer it begins another. Every message opens its own lists of
 * calls and outputs. After tool outputs there is no generation prompt. R1-0528 cuts thinking out of
 * earlier answers, and opens none itself: the model does.
 */
#include "common/text/chat_deepseek.h"
#include "common/text/chat_family.h"

struct deepseek_0324_style {
    enum { ANSWER_WHOLE, ANSWER_WITHOUT_THINKING } answer;
};

const struct deepseek_0324_style deepseek_v3_0324_style = {.answer = ANSWER_WHOLE};
const struct deepseek_0324_style deepseek_r1_0528_style = {.answer = ANSWER_WITHOUT_THINKING};

struct rendering {
    const struct deepseek_0324_style *style;
    struct chat_builder *out;
    bool after_user;    /* a user's message waits for its answer */
    bool in_outputs;    /* the last message was a tool's output */
    bool outputs_begun; /* since the last calls */
};

static const char calls_begin[] = "<｜tool▁calls▁begin｜>";
static const char calls_end[] = "<｜tool▁calls▁end｜>";
static const char outputs_begin[] = "<｜tool▁outputs▁begin｜>";
static const char outputs_end[] = "<｜tool▁outputs▁end｜>";
static const char sentence_end[] = "<｜end▁of▁sentence｜>";

static void add_answer(struct rendering *rendering, const struct chat_message *message)
{
    if (rendering->style->answer == ANSWER_WHOLE) {
        chat_add_content(rendering->out, message);
    } else {
        deepseek_add_answer(rendering->out, message);
    }
}

static bool render_calls(struct rendering *rendering, const struct chat_message *message,
                         struct error *err)
{
    struct chat_builder *out = rendering->out;

    add_answer(rendering, message);
    chat_add_markup(out, calls_begin);
    for (size_t i = 0; i < json_array_size(message->tool_calls); i++) {
        chat_add_markup(out, i == 0 ? "" : "\n");
        if (!deepseek_add_call(out, message, i, DEEPSEEK_ARGUMENTS_TEXT, err)) {
            return false;
        }
    }
    chat_add_markup(out, calls_end);
    rendering->outputs_begun = false;
    return true;
}

static bool render_assistant(struct rendering *rendering, const struct chat_message *message,
                             struct error *err)
{
    bool may_be_null =
        message->tool_calls != NULL && rendering->style->answer != ANSWER_WITHOUT_THINKING;

    if (!may_be_null && !chat_content_require(message, err)) {
        return false;
    }
    if (rendering->in_outputs) {
        chat_add_markup(rendering->out, outputs_end);
    }
    rendering->after_user = false;
    rendering->in_outputs = false;
    if (message->tool_calls == NULL) {
        add_answer(rendering, message);
    } else if (!render_calls(rendering, message, err)) {
        return false;
    }
    chat_add_markup(rendering->out, sentence_end);
    return true;
}

static void render_output(struct rendering *rendering, const struct chat_message *message)
{
    struct chat_builder *out = rendering->out;

    chat_add_markup(out, rendering->outputs_begun ? "\n" : outputs_begin);
    chat_add_markup(out, "<｜tool▁output▁begin｜>");
    chat_add_content(out, message);
    chat_add_markup(out, "<｜tool▁output▁end｜>");
    rendering->after_user = false;
    rendering->in_outputs = true;
    rendering->outputs_begun = true;
}

static bool render_message(struct rendering *rendering, const struct chat_message *message,
                           struct error *err)
{
    switch (message->role) {
    case CHAT_SYSTEM:
        return true; /* at the front already */
    case CHAT_ASSISTANT:
        return render_assistant(rendering, message, err);
    case CHAT_USER:
        chat_add_markup(rendering->out, "<｜User｜>");
        chat_add_content(rendering->out, message);
        chat_add_markup(rendering->out, "<｜Assistant｜>");
        rendering->after_user = true;
        rendering->in_outputs = false;
        break;
    case CHAT_TOOL:
        render_output(rendering, message);
        break;
    }
    return chat_content_require(message, err);
}

bool template_deepseek_0324_render(const void *style, const struct chat_request *request,
                                   struct chat_builder *builder, bool *opens_thinking,
                                   struct error *err)
{
    struct rendering rendering = {.style = style, .out = builder};
    struct chat_message *messages = NULL;
    size_t count = 0;

    (void)opens_thinking;
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
    if (rendering.in_outputs) {
        chat_add_markup(builder, outputs_end);
    } else if (request->add_generation_prompt && !rendering.after_user) {
        chat_add_markup(builder, "<｜Assistant｜>");
    }
    return true;
}
