/* tokenize.c - `shoal tokenize`: text to ids and back, one JSON line each. */
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/text/tokenizer.h"
#include "coordinator/cli/cli.h"
#include "coordinator/cli/jsonl.h"
#include "coordinator/cli/options.h"

#include <string.h>

struct tokenize_command {
    const char *model;
    bool decode;
};

enum { KEY_MODEL = 0x2000, KEY_DECODE };

static const struct argp_option options[] = {
    {"model", KEY_MODEL, "DIR|FILE.gguf", 0,
     "Model; tokenizer.json or a vocabulary-only GGUF is enough", 0},
    {"decode", KEY_DECODE, NULL, 0, "{\"ids\": [...]} to {\"text\": ..., \"bytes_hex\": ...}", 0},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct tokenize_command *own = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        options_from_environment(options, parse_option, state);
        return 0;
    case KEY_MODEL:
        own->model = arg;
        return 0;
    case KEY_DECODE:
        own->decode = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument \"%s\" (lines come on standard input)", arg);
        return 0;
    case ARGP_KEY_END:
        if (own->model == NULL) {
            argp_error(state, "--model DIR|FILE.gguf is missing");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static json_t *encode(const struct tokenizer *tokenizer, const json_t *object, struct error *err)
{
    const json_t *text = json_object_get(object, "text");
    struct text_span span = {json_string_value(text), json_string_length(text), SPECIAL_PARSE};
    struct token_list list = {0};
    json_t *ids, *answer = NULL;

    if (!json_is_string(text)) {
        error_set(err, ERROR_INPUT, "field \"text\" must be a string, got %s",
                  json_type_word(text));
        return NULL;
    }
    if (tokenizer_encode(tokenizer, &span, 1, &list, err)) {
        ids = json_array();
        for (size_t i = 0; i < list.count; i++) {
            json_array_append_new(ids, json_integer(list.ids[i]));
        }
        answer = json_pack("{s:o}", "ids", ids);
    }
    token_list_deinit(&list);
    return answer;
}

static json_t *decode(const struct tokenizer *tokenizer, const json_t *object, struct error *err)
{
    struct buffer bytes, text, hex;
    uint32_t *ids;
    size_t count;
    json_t *answer;

    if (!jsonl_ids(json_object_get(object, "ids"), "ids", &ids, &count, err)) {
        return NULL;
    }
    buffer_init(&bytes);
    buffer_init(&text);
    buffer_init(&hex);
    for (size_t i = 0; i < count; i++) {
        size_t length = 0;
        const char *token = ids[i] < tokenizer_token_count(tokenizer)
                                ? tokenizer_bytes(tokenizer, ids[i], &length)
                                : NULL;

        buffer_append(&bytes, token, length);
    }
    utf8_append_lossy(&text, buffer_text(&bytes), bytes.length);
    for (size_t i = 0; i < bytes.length; i++) {
        buffer_printf(&hex, "%02x", (unsigned char)bytes.data[i]);
    }
    answer = json_pack("{s:s%,s:s}", "text", buffer_text(&text), text.length, "bytes_hex",
                       buffer_text(&hex));
    ASSERT(answer != NULL);
    buffer_deinit(&bytes);
    buffer_deinit(&text);
    buffer_deinit(&hex);
    mem_free(ids);
    return answer;
}

static bool lines_convert(const struct tokenize_command *own, const struct tokenizer *tokenizer,
                          struct jsonl_reader *reader, struct error *err)
{
    for (;;) {
        json_t *object, *answer;

        switch (jsonl_next(reader, &object, err)) {
        case JSONL_END:
            return true;
        case JSONL_BAD:
            return false;
        case JSONL_OBJECT:
            break;
        }
        answer = own->decode ? decode(tokenizer, object, err) : encode(tokenizer, object, err);
        json_decref(object);
        if (answer == NULL) {
            return jsonl_wrap(reader, err);
        }
        if (!jsonl_write(stdout, answer, err)) {
            return false;
        }
    }
}

int command_tokenize(int argc, char **argv)
{
    static const struct argp argp = {
        options,
        parse_option,
        NULL,
        "Reads {\"text\": ...} lines and writes {\"ids\": [...]} lines.\v"
        "No begin token is added; control tokens in the text are recognised.\n"
        "  echo '{\"text\": \"Hello\"}' | shoal tokenize --model DIR|FILE.gguf",
        NULL,
        NULL,
        NULL};
    struct tokenize_command own = {0};
    struct jsonl_reader reader;
    struct tokenizer *tokenizer;
    struct error err = {0};
    bool fine;

    argp_parse(&argp, argc, argv, 0, NULL, &own);
    tokenizer = tokenizer_open(own.model, &err);
    if (tokenizer == NULL) {
        return cli_fail(argv[0], &err);
    }
    jsonl_open_stdin(&reader);
    fine = lines_convert(&own, tokenizer, &reader, &err);
    jsonl_close(&reader);
    tokenizer_close(tokenizer);
    return fine ? CLI_OK : cli_fail(argv[0], &err);
}
