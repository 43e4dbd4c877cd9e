/* template_deepseek_r1.c - DeepSeek-R1's chat template and its relatives.
 *
 *   <bos>system<｜User｜>question<｜Assistant｜>answer<eos><｜User｜>…<｜Assistant｜><think>\n
 *
 * What the published text does is done here, its oddities included, because the model saw them: all
 * system messages move to the front; thinking is cut out of earlier answers up to the last
 * </think>, the blank lines after it stay; only the first tool call of a whole conversation opens
 * the list of calls, and only the first output the list of outputs; after outputs there is no
 * generation prompt. Tools on offer are not printed at all.
 */
#include "common/text/chat_deepseek.h"
#include "common/text/chat_family.h"

#include <string.h>

enum system_rule {
    SYSTEM_JOINED, /* all of them, a blank line between */
    SYSTEM_LAST,   /* the last one counts */
};

enum call_rule {
    CALL_WITH_CONTENT, /* content stands before the list of calls; without calls it must be there */
    CALL_THEN_CONTENT, /* the calls, then content as an answer of its own, if there is any */
    CALL_OR_CONTENT,   /* calls count only where content is null, and every call but the very first
                        * ends the list */
};

enum answer_rule { ANSWER_WITHOUT_THINKING, ANSWER_WHOLE };

struct deepseek_r1_style {
    enum system_rule system;
    enum call_rule call;
    enum deepseek_arguments arguments; /* text or JSON */
    enum answer_rule answer;
    const char *next_output; /* before the second and later tool outputs */
    const char *generation;
    /* printed instead unless enable_thinking is set; NULL: the same */
    const char *generation_without_thinking;
};

const struct deepseek_r1_style deepseek_r1_style = {
    .system = SYSTEM_JOINED,
    .call = CALL_WITH_CONTENT,
    .arguments = DEEPSEEK_ARGUMENTS_TEXT,
    .next_output = "<｜tool▁output▁begin｜>",
    .generation = "<｜Assistant｜><think>\n",
};

const struct deepseek_r1_style deepseek_v3_style = {
    .system = SYSTEM_JOINED,
    .call = CALL_WITH_CONTENT,
    .arguments = DEEPSEEK_ARGUMENTS_TEXT,
    .next_output = "<｜tool▁output▁begin｜>",
    .generation = "<｜Assistant｜>",
};

const struct deepseek_r1_style deepseek_r1_tojson_style = {
    .system = SYSTEM_LAST,
    .call = CALL_THEN_CONTENT,
    .arguments = DEEPSEEK_ARGUMENTS_JSON,
    .next_output = "\n<｜tool▁output▁begin｜>",
    .generation = "<｜Assistant｜><think>\n",
};

const struct deepseek_r1_style deepseek_r1_distill_qwen_style = {
    .system = SYSTEM_LAST,
    .call = CALL_THEN_CONTENT,
    .arguments = DEEPSEEK_ARGUMENTS_JSON,
    .next_output = "\n<｜tool▁output▁begin｜>",
    .generation = "<｜Assistant｜><think>\n",
    .generation_without_thinking = "<｜Assistant｜><think>\n</think>",
};

const struct deepseek_r1_style deepseek_r1_distill_llama_style = {
    .system = SYSTEM_LAST,
    .call = CALL_OR_CONTENT,
    .arguments = DEEPSEEK_ARGUMENTS_TEXT,
    .next_output = "\n<｜tool▁output▁begin｜>",
    .generation = "<｜Assistant｜><think>\n",
};

const struct deepseek_r1_style deepseek_r1_2501_style = {
    .system = SYSTEM_LAST,
    .call = CALL_OR_CONTENT,
    .arguments = DEEPSEEK_ARGUMENTS_TEXT,
    .next_output = "\n<｜tool▁output▁begin｜>",
    .generation = "<｜Assistant｜>",
};

const struct deepseek_r1_style deepseek_v3_2412_style = {
    .system = SYSTEM_LAST,
    .call = CALL_OR_CONTENT,
    .arguments = DEEPSEEK_ARGUMENTS_TEXT,
    .answer = ANSWER_WHOLE,
    .next_output = "\n<｜tool▁output▁begin｜>",
    .generation = "<｜Assistant｜>",
};

static const char user_begin[] = "<｜User｜>";
static const char assistant_begin[] = "<｜Assistant｜>";
static const char calls_begin[] = "<｜tool▁calls▁begin｜>";
static const char calls_end[] = "<｜tool▁calls▁end｜>";
static const char outputs_begin[] = "<｜tool▁outputs▁begin｜>";
static const char outputs_end[] = "<｜tool▁outputs▁end｜>";
static const char output_begin[] = "<｜tool▁output▁begin｜>";
static const char output_end[] = "<｜tool▁output▁end｜>";
static const char sentence_end[] = "<｜end▁of▁sentence｜>";

struct rendering {
    const struct deepseek_r1_style *style;
    const struct chat_request *request;
    struct chat_builder *out;
    bool calls_begun;   /* never reset */
    bool outputs_begun; /* never reset */
    bool in_outputs;    /* the last message was a tool's output */
};

static bool render_system(struct rendering *rendering, struct error *err)
{
    const json_t *messages = rendering->request->messages;
    size_t begin_count = rendering->out->count;
    bool is_first = true;

    for (size_t i = 0; i < json_array_size(messages); i++) {
        struct chat_message message;

        if (!chat_message_read(messages, i, rendering->out->arena, &message, err)) {
            return false;
        }
        if (message.role != CHAT_SYSTEM) {
            continue;
        }
        if (!chat_content_require(&message, err)) {
            return false;
        }
        if (rendering->style->system == SYSTEM_LAST) {
            rendering->out->count = begin_count;
        } else if (!is_first) {
            chat_add_markup(rendering->out, "\n\n");
        }
        is_first = false;
        chat_add_content(rendering->out, &message);
    }
    return true;
}

static void add_calls_end(struct rendering *rendering)
{
    chat_add_markup(rendering->out, calls_end);
    chat_add_markup(rendering->out, sentence_end);
}

static enum deepseek_arguments arguments_rule(const struct rendering *rendering)
{
    bool is_parsed = rendering->style->arguments == DEEPSEEK_ARGUMENTS_JSON &&
                     rendering->request->arguments == CHAT_ARGUMENTS_PARSE;

    return is_parsed ? DEEPSEEK_ARGUMENTS_PARSED : rendering->style->arguments;
}

static bool render_call(struct rendering *rendering, const struct chat_message *message,
                        size_t index, struct error *err)
{
    struct chat_builder *out = rendering->out;
    bool ends_list = rendering->style->call == CALL_OR_CONTENT && rendering->calls_begun;

    if (rendering->calls_begun) {
        chat_add_markup(out, "\n");
    } else {
        chat_add_markup(out, assistant_begin);
        if (rendering->style->call == CALL_WITH_CONTENT) {
            chat_add_content(out, message);
        }
        chat_add_markup(out, calls_begin);
        rendering->calls_begun = true;
    }
    if (!deepseek_add_call(out, message, index, arguments_rule(rendering), err)) {
        return false;
    }
    if (ends_list) {
        add_calls_end(rendering);
    }
    return true;
}

static bool render_calls(struct rendering *rendering, const struct chat_message *message,
                         struct error *err)
{
    rendering->in_outputs = false;
    for (size_t i = 0; i < json_array_size(message->tool_calls); i++) {
        if (!render_call(rendering, message, i, err)) {
            return false;
        }
    }
    if (rendering->style->call != CALL_OR_CONTENT) {
        add_calls_end(rendering);
    }
    return true;
}

static bool render_answer(struct rendering *rendering, const struct chat_message *message,
                          struct error *err)
{
    struct chat_builder *out = rendering->out;

    if (!chat_content_require(message, err)) {
        return false;
    }
    if (rendering->in_outputs) { /* the answer to tool outputs is not searched for thinking */
        chat_add_markup(out, outputs_end);
        chat_add_content(out, message);
        rendering->in_outputs = false;
    } else {
        chat_add_markup(out, assistant_begin);
        if (rendering->style->answer == ANSWER_WHOLE) {
            chat_add_content(out, message);
        } else {
            deepseek_add_answer(out, message);
        }
    }
    chat_add_markup(out, sentence_end);
    return true;
}

static bool render_assistant(struct rendering *rendering, const struct chat_message *message,
                             struct error *err)
{
    bool calls = message->tool_calls != NULL;

    switch (rendering->style->call) {
    case CALL_WITH_CONTENT:
        return calls ? render_calls(rendering, message, err)
                     : render_answer(rendering, message, err);
    case CALL_THEN_CONTENT:
        return (!calls || render_calls(rendering, message, err)) &&
               (message->content == NULL || render_answer(rendering, message, err));
    case CALL_OR_CONTENT:
        return message->content != NULL ? render_answer(rendering, message, err)
                                        : render_calls(rendering, message, err);
    }
    return true;
}

static bool render_output(struct rendering *rendering, const struct chat_message *message,
                          struct error *err)
{
    struct chat_builder *out = rendering->out;

    if (!chat_content_require(message, err)) {
        return false;
    }
    if (!rendering->outputs_begun) {
        chat_add_markup(out, outputs_begin);
        chat_add_markup(out, output_begin);
    } else {
        chat_add_markup(out, rendering->style->next_output);
    }
    rendering->outputs_begun = true;
    rendering->in_outputs = true;
    chat_add_content(out, message);
    chat_add_markup(out, output_end);
    return true;
}

static bool render_message(struct rendering *rendering, const struct chat_message *message,
                           struct error *err)
{
    switch (message->role) {
    case CHAT_SYSTEM:
        return true; /* at the front already */
    case CHAT_USER:
        if (!chat_content_require(message, err)) {
            return false;
        }
        rendering->in_outputs = false;
        chat_add_markup(rendering->out, user_begin);
        chat_add_content(rendering->out, message);
        return true;
    case CHAT_ASSISTANT:
        return render_assistant(rendering, message, err);
    case CHAT_TOOL:
        return render_output(rendering, message, err);
    }
    return true;
}

static void add_generation(struct rendering *rendering, bool *opens_thinking)
{
    const struct deepseek_r1_style *style = rendering->style;

    if (style->generation_without_thinking != NULL &&
        !chat_is_true(chat_kwarg(rendering->request, "enable_thinking"))) {
        chat_add_markup(rendering->out, style->generation_without_thinking);
        return;
    }
    chat_add_markup(rendering->out, style->generation);
    *opens_thinking = strstr(style->generation, "<think>") != NULL;
}

bool template_deepseek_r1_render(const void *style, const struct chat_request *request,
                                 struct chat_builder *builder, bool *opens_thinking,
                                 struct error *err)
{
    struct rendering rendering = {.style = style, .request = request, .out = builder};

    chat_add_markup_copy(builder, request->bos_text);
    if (!render_system(&rendering, err)) {
        return false;
    }
    for (size_t i = 0; i < json_array_size(request->messages); i++) {
        struct chat_message message;

        if (!chat_message_read(request->messages, i, builder->arena, &message, err) ||
            !render_message(&rendering, &message, err)) {
            return false;
        }
    }
    if (rendering.in_outputs) {
        chat_add_markup(builder, outputs_end);
    } else if (request->add_generation_prompt) {
        add_generation(&rendering, opens_thinking);
    }
    return true;
}
