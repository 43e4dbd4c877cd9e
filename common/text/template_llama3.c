/* template_llama3.c - the chat templates of Llama 3.1, 3.2 and 3.3.
 *
 *   <bos>HEADsystemEND\n\nCutting Knowledge Date…system<eot>HEADuserEND\n\nquestion<eot>…
 *
 * where HEAD and END are <|start_header_id|> and <|end_header_id|>. There always is a system
 * message, with dates. Tools go into the first message after it, with instructions, or into the
 * system message if the variable `tools_in_user_message` is false. Contents are trimmed, and tool
 * outputs are quoted as JSON. The three differ in built-in tools, which we don't have, and in the
 * date when none is given: 3.2 asks the clock.
 */
#include "common/text/chat_family.h"

#include "common/base/json.h"

#include <string.h>
#include <time.h>

struct llama3_style {
    const char *date; /* when none is given; NULL: today's */
};

const struct llama3_style llama31_style = {.date = "26 Jul 2024"};
const struct llama3_style llama32_style = {.date = NULL};

static const char format_hint[] =
    "Respond in the format {\"name\": function name, \"parameters\": dictionary of argument name "
    "and its value}.Do not use variables.\n\n";

struct rendering {
    const struct llama3_style *style;
    const struct chat_request *request;
    struct chat_builder *out;
    const json_t *tools; /* NULL: none; an empty array counts */
    const struct chat_message *messages;
    size_t count;
    size_t next; /* the first message that is not rendered yet */
};

static void begin_turn(struct chat_builder *out, const char *role)
{
    chat_add_markup(out, "<|start_header_id|>");
    chat_add_markup(out, role);
    chat_add_markup(out, "<|end_header_id|>\n\n");
}

static void end_turn(struct chat_builder *out)
{
    chat_add_markup(out, "<|eot_id|>");
}

static void add_today(struct chat_builder *out)
{
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t now = time(NULL);
    struct tm local;

    localtime_r(&now, &local);
    chat_add_markup_copy(out, arena_printf(out->arena, "%02d %s %d", local.tm_mday,
                                           months[local.tm_mon], local.tm_year + 1900));
}

static bool add_date(struct rendering *rendering, struct error *err)
{
    const json_t *variable = chat_kwarg(rendering->request, "date_string");
    const char *date = rendering->request->date_text;

    if (variable != NULL && !json_is_string(variable)) {
        return error_set(err, ERROR_USAGE,
                         "chat_template_kwargs.date_string must be a string, got %s",
                         json_type_word(variable));
    }
    if (variable != NULL) {
        chat_add_text(rendering->out, json_string_value(variable), json_string_length(variable));
    } else if (date != NULL) {
        chat_add_text(rendering->out, date, strlen(date));
    } else if (rendering->style->date != NULL) {
        chat_add_markup(rendering->out, rendering->style->date);
    } else {
        add_today(rendering->out);
    }
    return true;
}

static void add_tools(struct rendering *rendering)
{
    chat_add_markup(rendering->out, format_hint);
    for (size_t i = 0; i < json_array_size(rendering->tools); i++) {
        chat_add_json(rendering->out, json_array_get(rendering->tools, i), 4);
        chat_add_markup(rendering->out, "\n\n");
    }
}

static bool add_trimmed(struct rendering *rendering, const struct chat_message *message,
                        struct error *err)
{
    if (!chat_content_require(message, err)) {
        return false;
    }
    chat_add_content_trimmed(rendering->out, message);
    return true;
}

enum tools_place { TOOLS_IN_SYSTEM, TOOLS_IN_USER };

static bool render_system(struct rendering *rendering, enum tools_place place, struct error *err)
{
    struct chat_builder *out = rendering->out;

    begin_turn(out, "system");
    if (rendering->tools != NULL) {
        chat_add_markup(out, "Environment: ipython\n");
    }
    chat_add_markup(out, "Cutting Knowledge Date: December 2023\nToday Date: ");
    if (!add_date(rendering, err)) {
        return false;
    }
    chat_add_markup(out, "\n\n");
    if (rendering->tools != NULL && place == TOOLS_IN_SYSTEM) {
        chat_add_markup(out, "You have access to the following functions. To call a function, "
                             "please respond with JSON for a function call.");
        add_tools(rendering);
    }
    if (rendering->messages[0].role == CHAT_SYSTEM) {
        if (!add_trimmed(rendering, &rendering->messages[rendering->next++], err)) {
            return false;
        }
    }
    end_turn(out);
    return true;
}

/* The first message after the system's, whoever wrote it, becomes a user's with the tools. */
static bool render_tools(struct rendering *rendering, struct error *err)
{
    struct chat_builder *out = rendering->out;

    if (rendering->next == rendering->count) {
        return error_set(err, ERROR_USAGE,
                         "messages[%zu]: a user's message is needed to put the tools in",
                         rendering->next);
    }
    begin_turn(out, "user");
    chat_add_markup(out, "Given the following functions, please respond with a JSON for a "
                         "function call with its proper arguments that best answers the given "
                         "prompt.\n\n");
    add_tools(rendering);
    if (!add_trimmed(rendering, &rendering->messages[rendering->next++], err)) {
        return false;
    }
    end_turn(out);
    return true;
}

static bool render_call(struct rendering *rendering, const struct chat_message *message,
                        struct error *err)
{
    struct chat_builder *out = rendering->out;
    size_t count = json_array_size(message->tool_calls);
    struct chat_call call;

    if (count != 1) {
        return error_set(err, ERROR_USAGE,
                         "messages[%zu]: this model takes one tool call at a time, got %zu",
                         message->index, count);
    }
    if (!chat_call_read(message, 0, &call, err)) {
        return false;
    }
    begin_turn(out, "assistant");
    chat_add_markup(out, "{\"name\": \"");
    chat_add_text(out, call.name, strlen(call.name));
    chat_add_markup(out, "\", \"parameters\": ");
    chat_add_arguments(out, call.arguments, rendering->request->arguments);
    chat_add_markup(out, "}");
    end_turn(out);
    return true;
}

static bool render_message(struct rendering *rendering, const struct chat_message *message,
                           struct error *err)
{
    static const char *const names[] = {
        [CHAT_SYSTEM] = "system",
        [CHAT_USER] = "user",
        [CHAT_ASSISTANT] = "assistant",
        [CHAT_TOOL] = "ipython",
    };

    if (message->tool_calls != NULL) {
        return render_call(rendering, message, err);
    }
    if (!chat_content_require(message, err)) {
        return false;
    }
    begin_turn(rendering->out, names[message->role]);
    if (message->role == CHAT_TOOL) {
        json_t *content = json_stringn(message->content, message->content_length);

        chat_add_json(rendering->out, content, 0);
        json_decref(content);
    } else {
        chat_add_content_trimmed(rendering->out, message);
    }
    end_turn(rendering->out);
    return true;
}

/* Variables of the template that we don't have: ignoring them would give another prompt. */
static bool refuse_unknown_tools(const struct chat_request *request, struct error *err)
{
    static const char *const names[] = {"builtin_tools", "custom_tools"};

    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        if (chat_kwarg(request, names[i]) != NULL) {
            return error_set(err, ERROR_USAGE,
                             "chat_template_kwargs.%s is not supported: give tools in \"tools\"",
                             names[i]);
        }
    }
    return true;
}

static bool render_all(struct rendering *rendering, struct error *err)
{
    const json_t *in_user = chat_kwarg(rendering->request, "tools_in_user_message");
    enum tools_place place =
        in_user == NULL || chat_is_true(in_user) ? TOOLS_IN_USER : TOOLS_IN_SYSTEM;

    chat_add_markup_copy(rendering->out, rendering->request->bos_text);
    if (!render_system(rendering, place, err)) {
        return false;
    }
    if (rendering->tools != NULL && place == TOOLS_IN_USER && !render_tools(rendering, err)) {
        return false;
    }
    while (rendering->next < rendering->count) {
        if (!render_message(rendering, &rendering->messages[rendering->next++], err)) {
            return false;
        }
    }
    if (rendering->request->add_generation_prompt) {
        begin_turn(rendering->out, "assistant");
    }
    return true;
}

bool template_llama3_render(const void *style, const struct chat_request *request,
                            struct chat_builder *builder, bool *opens_thinking, struct error *err)
{
    struct rendering rendering = {
        .style = style, .request = request, .out = builder, .tools = request->tools};
    struct chat_message *messages = NULL;

    (void)opens_thinking;
    if (!refuse_unknown_tools(request, err) ||
        !chat_messages_read(request, builder->arena, &messages, &rendering.count, err) ||
        !chat_messages_require(rendering.count, err)) {
        return false;
    }
    if (json_is_null(rendering.tools)) {
        rendering.tools = NULL;
    }
    rendering.messages = messages;
    return render_all(&rendering, err);
}
