/* template_qwen.c - the chat templates of Qwen2.5 and Qwen3.
 *
 *   <|im_start|>user\nquestion<|im_end|>\n<|im_start|>assistant\nanswer<|im_end|>\n…
 *
 * The tools on offer stand in the system message, one JSON object a line; outputs of tools are
 * grouped in one user's turn. Qwen2.5 invents a system message if there is none. Qwen3 prints what
 * an answer was thought with only after the last question: while a model works through several tool
 * calls it sees its thinking, and forgets it with the next question.
 */
#include "common/text/chat_family.h"

#include "common/base/json.h"

#include <string.h>

struct rendering;

struct qwen_style {
    const char *default_system; /* NULL: none */
    bool (*render_assistant)(struct rendering *rendering, const struct chat_message *message,
                             struct error *err);
    enum { NULL_REFUSED, NULL_IS_EMPTY } null_content; /* the first system message's aside */
    const char *no_thinking; /* after the generation prompt if enable_thinking is false; or NULL */
};

struct rendering {
    const struct qwen_style *style;
    const struct chat_request *request;
    struct chat_builder *out;
    const struct chat_message *messages;
    size_t count;
    size_t last_query; /* the last message with a question; the last of all if there is none */
};

/* A part of a message's text. */
struct slice {
    const char *begin;
    const char *end;
};

static const char turn_end[] = "<|im_end|>\n";
static const char think_begin[] = "<think>";
static const char think_end[] = "</think>";

static void begin_turn(struct chat_builder *out, const char *role)
{
    chat_add_markup(out, "<|im_start|>");
    chat_add_markup(out, role);
    chat_add_markup(out, "\n");
}

static void add_slice(struct chat_builder *out, struct slice slice)
{
    chat_add_text(out, slice.begin, (size_t)(slice.end - slice.begin));
}

static bool render_plain(struct rendering *rendering, const struct chat_message *message,
                         const char *role, struct error *err)
{
    if (!chat_content_require(message, err)) {
        return false;
    }
    begin_turn(rendering->out, role);
    chat_add_content(rendering->out, message);
    chat_add_markup(rendering->out, turn_end);
    return true;
}

static void add_tools(struct chat_builder *out, const json_t *tools)
{
    chat_add_markup(out,
                    "# Tools\n\nYou may call one or more functions to assist with the user "
                    "query.\n\nYou are provided with function signatures within <tools></tools> "
                    "XML tags:\n<tools>");
    for (size_t i = 0; i < json_array_size(tools); i++) {
        chat_add_markup(out, "\n");
        chat_add_json(out, json_array_get(tools, i), 0);
    }
    chat_add_markup(out,
                    "\n</tools>\n\nFor each function call, return a json object with function name "
                    "and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n"
                    "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>");
}

static bool render_system(struct rendering *rendering, struct error *err)
{
    struct chat_builder *out = rendering->out;
    const struct chat_message *first = &rendering->messages[0];
    const char *default_system = rendering->style->default_system;
    bool is_given = first->role == CHAT_SYSTEM;
    bool has_tools = json_array_size(rendering->request->tools) > 0;

    if (is_given && !chat_content_require(first, err)) {
        return false;
    }
    if (!is_given && default_system == NULL && !has_tools) {
        return true;
    }
    begin_turn(out, "system");
    if (is_given) {
        chat_add_content(out, first);
    } else if (default_system != NULL) {
        chat_add_markup(out, default_system);
    }
    if (has_tools) {
        chat_add_markup(out, is_given || default_system != NULL ? "\n\n" : "");
        add_tools(out, rendering->request->tools);
    }
    chat_add_markup(out, turn_end);
    return true;
}

static bool is_tool_at(const struct rendering *rendering, size_t index)
{
    return index < rendering->count && rendering->messages[index].role == CHAT_TOOL;
}

static bool render_output(struct rendering *rendering, const struct chat_message *message,
                          struct error *err)
{
    struct chat_builder *out = rendering->out;

    if (!chat_content_require(message, err)) {
        return false;
    }
    if (message->index == 0 || !is_tool_at(rendering, message->index - 1)) {
        chat_add_markup(out, "<|im_start|>user");
    }
    chat_add_markup(out, "\n<tool_response>\n");
    chat_add_content(out, message);
    chat_add_markup(out, "\n</tool_response>");
    if (!is_tool_at(rendering, message->index + 1)) {
        chat_add_markup(out, turn_end);
    }
    return true;
}

static bool begin_call(struct rendering *rendering, const struct chat_message *message,
                       size_t index, struct chat_call *call, struct error *err)
{
    if (!chat_call_read(message, index, call, err)) {
        return false;
    }
    chat_add_markup(rendering->out, "<tool_call>\n{\"name\": \"");
    chat_add_text(rendering->out, call->name, strlen(call->name));
    chat_add_markup(rendering->out, "\", \"arguments\": ");
    return true;
}

static bool render_assistant_25(struct rendering *rendering, const struct chat_message *message,
                                struct error *err)
{
    struct chat_builder *out = rendering->out;

    if (message->tool_calls == NULL) {
        return render_plain(rendering, message, "assistant", err);
    }
    chat_add_markup(out, "<|im_start|>assistant");
    if (message->content_length > 0) {
        chat_add_markup(out, "\n");
        chat_add_content(out, message);
    }
    for (size_t i = 0; i < json_array_size(message->tool_calls); i++) {
        struct chat_call call;

        chat_add_markup(out, "\n");
        if (!begin_call(rendering, message, i, &call, err)) {
            return false;
        }
        chat_add_arguments(out, call.arguments, rendering->request->arguments);
        chat_add_markup(out, "}\n</tool_call>");
    }
    chat_add_markup(out, turn_end);
    return true;
}

static struct slice without_newlines_before(struct slice slice)
{
    while (slice.begin < slice.end && slice.begin[0] == '\n') {
        slice.begin++;
    }
    return slice;
}

static struct slice without_newlines_after(struct slice slice)
{
    while (slice.begin < slice.end && slice.end[-1] == '\n') {
        slice.end--;
    }
    return slice;
}

/* NULL if `word` is not in the slice. */
static const char *find_first(struct slice slice, const char *word)
{
    return memmem(slice.begin, (size_t)(slice.end - slice.begin), word, strlen(word));
}

/* What follows the last `word`; all if there is none. */
static struct slice after_last(struct slice slice, const char *word)
{
    const char *found;

    while ((found = find_first(slice, word)) != NULL) {
        slice.begin = found + strlen(word);
    }
    return slice;
}

/* Cuts an answer into thinking and content: by its field reasoning_content, or else by its tags. */
static bool split_thinking(const struct chat_message *message, struct slice *thinking,
                           struct slice *content, struct error *err)
{
    const json_t *field = json_object_get(message->source, "reasoning_content");
    struct slice all = {message->content, message->content + message->content_length};
    const char *found = find_first(all, think_end);

    *thinking = (struct slice){all.begin, all.begin};
    *content = all;
    if (field != NULL && !json_is_null(field)) {
        const char *text = json_string_value(field);

        if (text == NULL) {
            return error_set(err, ERROR_USAGE,
                             "messages[%zu]: reasoning_content must be a string, got %s",
                             message->index, json_type_word(field));
        }
        *thinking = (struct slice){text, text + json_string_length(field)};
    } else if (found != NULL) {
        struct slice before = without_newlines_after((struct slice){all.begin, found});

        *thinking = without_newlines_before(after_last(before, think_begin));
        *content = without_newlines_before(after_last(all, think_end));
    }
    return true;
}

static bool add_calls_3(struct rendering *rendering, const struct chat_message *message,
                        bool *needs_newline, struct error *err)
{
    struct chat_builder *out = rendering->out;

    for (size_t i = 0; i < json_array_size(message->tool_calls); i++) {
        struct chat_call call;

        chat_add_markup(out, *needs_newline ? "\n" : "");
        *needs_newline = true;
        if (!begin_call(rendering, message, i, &call, err)) {
            return false;
        }
        if (json_is_string(call.arguments)) { /* JSON already */
            chat_add_text(out, json_string_value(call.arguments),
                          json_string_length(call.arguments));
        } else {
            chat_add_json(out, call.arguments, 0);
        }
        chat_add_markup(out, "}\n</tool_call>");
    }
    return true;
}

static bool render_assistant_3(struct rendering *rendering, const struct chat_message *message,
                               struct error *err)
{
    struct chat_builder *out = rendering->out;
    struct slice thinking, content;

    if (!chat_content_require(message, err) || !split_thinking(message, &thinking, &content, err)) {
        return false;
    }
    bool is_last = message->index + 1 == rendering->count;
    bool needs_newline = content.begin < content.end;
    begin_turn(out, "assistant");
    if (message->index > rendering->last_query && (is_last || thinking.begin < thinking.end)) {
        chat_add_markup(out, "<think>\n");
        add_slice(out, without_newlines_after(without_newlines_before(thinking)));
        chat_add_markup(out, "\n</think>\n\n");
        content = without_newlines_before(content);
    }
    add_slice(out, content);
    if (!add_calls_3(rendering, message, &needs_newline, err)) {
        return false;
    }
    chat_add_markup(out, turn_end);
    return true;
}

/* A user's message that is no tool's output in disguise. */
static bool is_query(const struct chat_message *message)
{
    static const char begin[] = "<tool_response>";
    static const char end[] = "</tool_response>";
    size_t length = message->content_length;

    return message->role == CHAT_USER && message->content != NULL &&
           !(length >= strlen(begin) && length >= strlen(end) &&
             memcmp(message->content, begin, strlen(begin)) == 0 &&
             memcmp(message->content + length - strlen(end), end, strlen(end)) == 0);
}

static size_t find_last_query(const struct chat_message *messages, size_t count)
{
    for (size_t i = count; i-- > 0;) {
        if (is_query(&messages[i])) {
            return i;
        }
    }
    return count - 1;
}

static void fill_null_contents(struct chat_message *messages, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (messages[i].content == NULL && !(i == 0 && messages[i].role == CHAT_SYSTEM)) {
            messages[i].content = "";
        }
    }
}

static bool render_message(struct rendering *rendering, const struct chat_message *message,
                           struct error *err)
{
    switch (message->role) {
    case CHAT_SYSTEM:
        return message->index == 0 || render_plain(rendering, message, "system", err);
    case CHAT_USER:
        return render_plain(rendering, message, "user", err);
    case CHAT_ASSISTANT:
        return rendering->style->render_assistant(rendering, message, err);
    case CHAT_TOOL:
        return render_output(rendering, message, err);
    }
    return true;
}

static void add_generation(struct rendering *rendering)
{
    const char *no_thinking = rendering->style->no_thinking;

    begin_turn(rendering->out, "assistant");
    if (no_thinking != NULL && json_is_false(chat_kwarg(rendering->request, "enable_thinking"))) {
        chat_add_markup(rendering->out, no_thinking);
    }
}

const struct qwen_style qwen25_style = {
    .default_system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    .render_assistant = render_assistant_25,
};

const struct qwen_style qwen3_style = {
    .render_assistant = render_assistant_3,
    .no_thinking = "<think>\n\n</think>\n\n",
};

const struct qwen_style qwen3_v2_style = {
    .render_assistant = render_assistant_3,
    .null_content = NULL_IS_EMPTY,
    .no_thinking = "<think>\n\n</think>\n\n",
};

bool template_qwen_render(const void *style, const struct chat_request *request,
                          struct chat_builder *builder, bool *opens_thinking, struct error *err)
{
    struct rendering rendering = {.style = style, .request = request, .out = builder};
    struct chat_message *messages = NULL;

    (void)opens_thinking; /* the model opens it itself */
    if (!chat_messages_read(request, builder->arena, &messages, &rendering.count, err) ||
        !chat_messages_require(rendering.count, err)) {
        return false;
    }
    rendering.messages = messages;
    rendering.last_query = find_last_query(messages, rendering.count);
    if (rendering.style->null_content == NULL_IS_EMPTY) {
        fill_null_contents(messages, rendering.count);
    }
    if (!render_system(&rendering, err)) {
        return false;
    }
    for (size_t i = 0; i < rendering.count; i++) {
        if (!render_message(&rendering, &messages[i], err)) {
            return false;
        }
    }
    if (request->add_generation_prompt) {
        add_generation(&rendering);
    }
    return true;
}
