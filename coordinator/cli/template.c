/* template.c - `shoal template`: conversations rendered as a model was trained on, one JSON line
 * each. A conversation that the template refuses gives {"error": …} and the next line goes on. */
#include "common/base/json.h"
#include "common/text/chat_template.h"
#include "common/text/tokenizer.h"
#include "coordinator/cli/cli.h"
#include "coordinator/cli/jsonl.h"
#include "coordinator/cli/options.h"

struct template_command {
    const char *model, *name;
};

enum { KEY_MODEL = 0x2000, KEY_CHAT_TEMPLATE };

static const struct argp_option options[] = {
    {"model", KEY_MODEL, "DIR|FILE.gguf", 0, "Use the template of this model", 0},
    {"chat-template", KEY_CHAT_TEMPLATE, "NAME|FILE.jinja", 0,
     "Use this family (deepseek-v3, llama-3.3, qwen3, ...), or the one that the file belongs to",
     0},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct template_command *own = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        options_from_environment(options, parse_option, state);
        return 0;
    case KEY_MODEL:
        own->model = arg;
        return 0;
    case KEY_CHAT_TEMPLATE:
        own->name = arg;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument \"%s\" (lines come on standard input)", arg);
        return 0;
    case ARGP_KEY_END:
        if (own->model == NULL && own->name == NULL) {
            argp_error(state, "--model DIR|FILE.gguf or --chat-template NAME is needed");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static bool request_read(const json_t *object, const struct tokenizer *tokenizer,
                         struct chat_request *out, struct error *err)
{
    json_t *messages, *tools, *kwargs;
    const char *bos = tokenizer == NULL ? "" : tokenizer_bos_text(tokenizer);
    const char *eos = tokenizer == NULL ? "" : tokenizer_eos_text(tokenizer);

    *out = (struct chat_request){.add_generation_prompt = false};
    if (!json_get_array_or_null(object, "messages", &messages, err) ||
        !json_get_array_or_null(object, "tools", &tools, err) ||
        !json_get_object_or_null(object, "chat_template_kwargs", &kwargs, err) ||
        !json_get_bool_or(object, "add_generation_prompt", false, &out->add_generation_prompt,
                          err) ||
        !json_get_string_or(object, "bos_token", bos, &out->bos_text, err) ||
        !json_get_string_or(object, "eos_token", eos, &out->eos_text, err) ||
        !json_get_string_or(object, "date_string", NULL, &out->date_text, err)) {
        return false;
    }
    if (messages == NULL) {
        return error_set(err, ERROR_INPUT, "field \"messages\" is missing");
    }
    out->messages = messages;
    out->tools = tools;
    out->kwargs = kwargs;
    return true;
}

static json_t *render(const struct chat_template *family, const struct chat_request *request)
{
    struct chat_rendering rendering;
    struct arena arena;
    struct buffer text;
    struct error refusal;
    json_t *answer;

    arena_init(&arena, 4096);
    buffer_init(&text);
    if (chat_template_render(family, request, &arena, &rendering, &refusal)) {
        chat_rendering_text(&rendering, &text);
        answer = json_pack("{s:s%}", "text", buffer_text(&text), text.length);
    } else {
        answer = json_pack("{s:s}", "error", refusal.message);
    }
    ASSERT(answer != NULL);
    buffer_deinit(&text);
    arena_deinit(&arena);
    return answer;
}

static bool lines_render(const struct chat_template *family, const struct tokenizer *tokenizer,
                         struct jsonl_reader *reader, struct error *err)
{
    for (;;) {
        struct chat_request request;
        json_t *object, *answer;

        switch (jsonl_next(reader, &object, err)) {
        case JSONL_END:
            return true;
        case JSONL_BAD:
            return false;
        case JSONL_OBJECT:
            break;
        }
        if (!request_read(object, tokenizer, &request, err)) {
            json_decref(object);
            return jsonl_wrap(reader, err);
        }
        answer = render(family, &request);
        json_decref(object);
        if (!jsonl_write(stdout, answer, err)) {
            return false;
        }
    }
}

int command_template(int argc, char **argv)
{
    static const struct argp argp = {
        options,
        parse_option,
        NULL,
        "Renders {\"messages\": [...]} lines to {\"text\": ...} or {\"error\": ...} lines.\v"
        "Also read: \"tools\", \"add_generation_prompt\", \"bos_token\", \"eos_token\", "
        "\"date_string\", \"chat_template_kwargs\".\n"
        "  echo '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}' | \\\n"
        "    shoal template --chat-template deepseek-r1",
        NULL,
        NULL,
        NULL};
    struct template_command own = {0};
    struct tokenizer *tokenizer = NULL;
    const struct chat_template *family = NULL;
    struct jsonl_reader reader;
    struct error err = {0};
    bool fine = true;

    argp_parse(&argp, argc, argv, 0, NULL, &own);
    if (own.model != NULL) {
        tokenizer = tokenizer_open(own.model, &err);
        fine = tokenizer != NULL;
    }
    if (fine) {
        family = chat_template_choose(own.name, tokenizer, &err);
        fine = family != NULL;
    }
    if (fine) {
        jsonl_open_stdin(&reader);
        fine = lines_render(family, tokenizer, &reader, &err);
        jsonl_close(&reader);
    }
    tokenizer_close(tokenizer);
    return fine ? CLI_OK : cli_fail(argv[0], &err);
}
