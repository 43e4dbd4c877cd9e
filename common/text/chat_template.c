/* chat_template.c - the families of chat templates we know, and how one is chosen.
 *
 * Templates are programs in Jinja; we don't run them. Each family is C code that was compared with
 * its Jinja text byte for byte, and a text counts as of a family only when all the fragments that
 * the code stands for are in it. A template that is nearly one of ours would give a prompt that is
 * nearly right, which nobody would notice: it is unknown, and the user says which family to use.
 */
#include "common/text/chat_template.h"

#include "common/base/buffer.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/text/chat_family.h"

#include <string.h>

#define TEMPLATE_BYTES_MAX (1u << 20)

static const struct chat_template families[] = {
    {
        .name = "deepseek-r1",
        .fragments = {"ns.system_prompt + '\\n\\n' + message['content']", "'tool_calls' in message",
                      "'tool_calls' not in message", "message['content'] + '<｜tool▁calls▁begin｜>",
                      "tool['function']['arguments'] + '", "content.split('</think>')[-1]",
                      "{{'<｜tool▁output▁begin｜>' + message['content']",
                      "not ns.is_tool %}{{'<｜Assistant｜><think>\\n'}}{% endif %}"},
        .foreign = {"tojson", "is_last_user", "enable_thinking", "raise_exception"},
        .style = &deepseek_r1_style,
        .render = template_deepseek_r1_render,
    },
    {
        .name = "deepseek-v3",
        .fragments = {"ns.system_prompt + '\\n\\n' + message['content']", "'tool_calls' in message",
                      "'tool_calls' not in message", "message['content'] + '<｜tool▁calls▁begin｜>",
                      "tool['function']['arguments'] + '", "content.split('</think>')[-1]",
                      "{{'<｜tool▁output▁begin｜>' + message['content']",
                      "not ns.is_tool %}{{'<｜Assistant｜>'}}{% endif %}"},
        .foreign = {"tojson", "is_last_user", "enable_thinking", "raise_exception"},
        .style = &deepseek_v3_style,
        .render = template_deepseek_r1_render,
    },
    {
        .name = "deepseek-r1-tojson",
        .fragments = {"ns.system_prompt = message['content']",
                      "message['role'] == 'assistant' and message['tool_calls']",
                      "{{'<｜Assistant｜><｜tool▁calls▁begin｜>",
                      "tool['function']['arguments'] | tojson + '",
                      "message['content'] is not none", "content.split('</think>')[-1]",
                      "{{'\\n<｜tool▁output▁begin｜>' + message['content']",
                      "not ns.is_tool -%}{{'<｜Assistant｜><think>\\n'}}\n{%- endif %}"},
        .foreign = {"is_first_sp", "is_last_user", "enable_thinking", "raise_exception",
                    "message['content'] is none"},
        .style = &deepseek_r1_tojson_style,
        .render = template_deepseek_r1_render,
    },
    {
        .name = "deepseek-r1-distill-llama",
        .fragments = {"ns.system_prompt = message['content']",
                      "message['role'] == 'assistant' and message['content'] is none",
                      "{{'<｜Assistant｜><｜tool▁calls▁begin｜>",
                      "tool['function']['arguments'] + '",
                      "'<｜tool▁call▁end｜>'}}{{'<｜tool▁calls▁end｜>",
                      "message['content'] is not none", "content.split('</think>')[-1]",
                      "{{'\\n<｜tool▁output▁begin｜>' + message['content']",
                      "not ns.is_tool -%}{{'<｜Assistant｜><think>\\n'}}\n{%- endif %}"},
        .foreign = {"is_first_sp", "is_last_user", "enable_thinking", "raise_exception", "tojson"},
        .style = &deepseek_r1_distill_llama_style,
        .render = template_deepseek_r1_render,
    },
};

/* "deepseek-r1, deepseek-v3, …" */
static char *family_names(void)
{
    struct buffer names = {0};

    for (size_t i = 0; i < ARRAY_LENGTH(families); i++) {
        buffer_printf(&names, "%s%s", i == 0 ? "" : ", ", families[i].name);
    }
    return buffer_take(&names);
}

static void set_unknown(struct error *err, const char *what)
{
    char *names = family_names();

    error_set(err, ERROR_USAGE, "%s: choose one with --chat-template (known: %s)", what, names);
    mem_free(names);
}

static bool is_of_family(const char *jinja, const struct chat_template *family)
{
    for (size_t i = 0; i < CHAT_FRAGMENTS_MAX && family->fragments[i] != NULL; i++) {
        if (strstr(jinja, family->fragments[i]) == NULL) {
            return false;
        }
    }
    for (size_t i = 0; i < CHAT_FRAGMENTS_MAX && family->foreign[i] != NULL; i++) {
        if (strstr(jinja, family->foreign[i]) != NULL) {
            return false;
        }
    }
    return true;
}

const struct chat_template *chat_template_recognise(const char *jinja, struct error *err)
{
    for (size_t i = 0; i < ARRAY_LENGTH(families); i++) {
        if (is_of_family(jinja, &families[i])) {
            return &families[i];
        }
    }
    set_unknown(err, "the chat template is of no family known here");
    return NULL;
}

static const struct chat_template *find_by_name(const char *name)
{
    for (size_t i = 0; i < ARRAY_LENGTH(families); i++) {
        if (strcmp(families[i].name, name) == 0) {
            return &families[i];
        }
    }
    return NULL;
}

const struct chat_template *chat_template_by_name(const char *name, struct error *err)
{
    const struct chat_template *family = find_by_name(name);

    if (family == NULL) {
        char *what = mem_printf("chat template \"%.60s\" is unknown", name);

        set_unknown(err, what);
        mem_free(what);
    }
    return family;
}

static const struct chat_template *recognise_file(const char *path, struct error *err)
{
    const struct chat_template *family = NULL;
    char *text = NULL;
    size_t length = 0;

    if (!file_read(path, TEMPLATE_BYTES_MAX, &text, &length, err)) {
        return NULL;
    }
    family = chat_template_recognise(text, err);
    if (family == NULL) {
        error_wrap(err, "%s", path);
    }
    mem_free(text);
    return family;
}

static bool looks_like_file(const char *option)
{
    size_t length = strlen(option);

    return (length > 6 && strcmp(option + length - 6, ".jinja") == 0) || file_exists(option);
}

const struct chat_template *chat_template_choose(const char *option,
                                                 const struct tokenizer *tokenizer,
                                                 struct error *err)
{
    if (option != NULL) {
        const struct chat_template *family = find_by_name(option);

        if (family == NULL && looks_like_file(option)) {
            return recognise_file(option, err);
        }
        return chat_template_by_name(option, err);
    }
    if (tokenizer == NULL || tokenizer_chat_template(tokenizer) == NULL) {
        set_unknown(err, "the model has no chat template");
        return NULL;
    }
    return chat_template_recognise(tokenizer_chat_template(tokenizer), err);
}

const char *chat_template_name(const struct chat_template *family)
{
    return family->name;
}

bool chat_template_render(const struct chat_template *family, const struct chat_request *request,
                          struct arena *arena, struct chat_rendering *out, struct error *err)
{
    struct chat_builder builder;
    bool opens_thinking = false;

    if (!json_is_array(request->messages)) {
        return error_set(err, ERROR_USAGE, "messages must be an array, got %s",
                         json_type_word(request->messages));
    }
    chat_builder_init(&builder, arena);
    if (!family->render(family->style, request, &builder, &opens_thinking, err)) {
        return false;
    }
    *out = (struct chat_rendering){
        .spans = builder.spans, .span_count = builder.count, .opens_thinking = opens_thinking};
    return true;
}

void chat_rendering_text(const struct chat_rendering *rendering, struct buffer *out)
{
    for (size_t i = 0; i < rendering->span_count; i++) {
        buffer_append(out, rendering->spans[i].text, rendering->spans[i].length);
    }
}
