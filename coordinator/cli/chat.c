/* chat.c - `shoal chat`: talks to a running server over its OpenAI-compatible API.
 *
 * Shows the thinking (dimmed on a terminal) and the answer as they stream. Without -p it is a
 * conversation; earlier answers go back without their thinking.
 */
#include "common/base/json.h"
#include "common/base/mem.h"
#include "coordinator/cli/cli.h"
#include "coordinator/cli/http_client.h"
#include "coordinator/cli/options.h"
#include "coordinator/cli/options_sampling.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct chat_options {
    const char *url;
    const char *prompt;
    const char *system;
    json_t *body; /* what every request says */
    struct sampling_options sampling;
    bool hide_thinking;
};

enum {
    KEY_URL = 0x2000,
    KEY_SYSTEM,
    KEY_HIDE_THINKING,
};

static const struct argp_option options[] = {
    {"url", KEY_URL, "URL", 0, "Server (" HTTP_CLIENT_URL ")", 0},
    {"prompt", 'p', "TEXT", 0, "Ask once and end; without it: a conversation", 0},
    {"system", KEY_SYSTEM, "TEXT", 0, "System prompt", 0},
    {"max-tokens", 'n', "MAX", 0, "At most so many tokens an answer", 0},
    {"hide-thinking", KEY_HIDE_THINKING, NULL, 0, "Print the answer only", 0},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct chat_options *own = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &own->sampling;
        options_from_environment(options, parse_option, state);
        return 0;
    case KEY_URL:
        own->url = arg;
        return 0;
    case 'p':
        own->prompt = arg;
        return 0;
    case KEY_SYSTEM:
        own->system = arg;
        return 0;
    case 'n':
        json_object_set_new(own->body, "max_tokens",
                            json_integer(option_u32(arg, "-n", 1, UINT32_MAX, state)));
        return 0;
    case KEY_HIDE_THINKING:
        own->hide_thinking = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument \"%s\" (-p TEXT asks a question)", arg);
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* --- the stream --- */

struct stream {
    const struct chat_options *options;
    struct buffer line; /* what has arrived of the next event */
    struct buffer answer;
    bool thinking; /* dimmed text is open */
    bool color;
    struct error error; /* that the server sent in the stream */
};

static void end_thinking(struct stream *stream)
{
    if (stream->thinking) {
        fputs(stream->color ? "\033[0m\n\n" : "\n\n", stdout);
        stream->thinking = false;
    }
}

static void show_thinking(struct stream *stream, const char *text)
{
    if (stream->options->hide_thinking) {
        return;
    }
    if (!stream->thinking) {
        fputs(stream->color ? "\033[2m" : "", stdout);
        stream->thinking = true;
    }
    fputs(text, stdout);
}

static void take_delta(struct stream *stream, const json_t *delta)
{
    const char *thinking = json_string_value(json_object_get(delta, "reasoning_content"));
    const char *text = json_string_value(json_object_get(delta, "content"));

    if (thinking) {
        show_thinking(stream, thinking);
    }
    if (text && *text) {
        end_thinking(stream);
        fputs(text, stdout);
        buffer_append_text(&stream->answer, text);
    }
    if (fflush(stdout) != 0 && stream->error.code == ERROR_NONE) {
        error_set_errno(&stream->error, "standard output");
    }
}

static void take_event(struct stream *stream, const char *text, size_t length)
{
    struct error ignored = {0};
    json_t *event = json_parse(text, length, "event", &ignored);
    const json_t *choice = json_array_get(json_object_get(event, "choices"), 0);
    const char *problem =
        json_string_value(json_object_get(json_object_get(event, "error"), "message"));

    if (problem) {
        error_set(&stream->error, ERROR_PEER, "%.400s", problem);
    }
    take_delta(stream, json_object_get(choice, "delta"));
    json_decref(event);
}

static void take_line(struct stream *stream, const char *line, size_t length)
{
    static const char mark[] = "data: ";
    size_t skip = sizeof(mark) - 1;

    if (length > skip && strncmp(line, mark, skip) == 0 &&
        strncmp(line + skip, "[DONE]", strlen("[DONE]")) != 0) {
        take_event(stream, line + skip, length - skip);
    }
}

static bool receive(void *context, const char *bytes, size_t length)
{
    struct stream *stream = context;
    const char *newline;

    buffer_append(&stream->line, bytes, length);
    while ((newline = memchr(buffer_text(&stream->line), '\n', stream->line.length))) {
        size_t line_length = (size_t)(newline - stream->line.data);

        take_line(stream, stream->line.data, line_length);
        buffer_consume(&stream->line, line_length + 1);
    }
    return stream->error.code == ERROR_NONE; /* else the transfer ends here */
}

/* JSON is UTF-8: other bytes are refused here, with a message that says so. */
static bool add_message(json_t *messages, const char *role, const char *text, struct error *err)
{
    json_t *message = json_pack("{s:s, s:s}", "role", role, "content", text);

    if (!message) {
        return error_set(err, ERROR_USAGE, "the %s's text is not valid UTF-8", role);
    }
    json_array_append_new(messages, message);
    return true;
}

/* Asks with the conversation so far; the answer is added to it. */
static bool ask(const struct chat_options *own, json_t *messages, struct error *err)
{
    struct stream stream = {.options = own, .color = cli_stdout_is_terminal()};
    json_t *body = json_copy(own->body);

    json_object_set(body, "messages", messages);
    json_object_set_new(body, "stream", json_true());
    char *text = json_dumps(body, JSON_COMPACT);
    const struct http_client_request request = {.base_url = own->url,
                                                .path = "/v1/chat/completions",
                                                .body = text,
                                                .receive = receive,
                                                .context = &stream};
    bool fine = http_client_send(&request, err);

    end_thinking(&stream);
    if (stream.error.code != ERROR_NONE) {
        *err = stream.error;
        fine = false;
    }
    if (!fine && *cli_stop_count() > 0) {
        fputs(stream.color ? "\n" : "", stdout);
    }
    if (fine) {
        putchar('\n');
        fine = add_message(messages, "assistant", buffer_text(&stream.answer), err);
    }
    buffer_deinit(&stream.line);
    buffer_deinit(&stream.answer);
    free(text);
    json_decref(body);
    return fine;
}

/* --- the conversation --- */

/* Appends what standard input has; false: its end, or a signal, which the wait must not outlast. */
static bool read_more(struct buffer *input)
{
    struct pollfd items[2] = {{.fd = STDIN_FILENO, .events = POLLIN},
                              {.fd = cli_stop_fd(), .events = POLLIN}};
    char bytes[4096];
    ssize_t length;

    (void)poll(items, 2, -1);
    if (*cli_stop_count() > 0) {
        return false;
    }
    if (items[0].revents == 0) {
        return true;
    }
    length = read(STDIN_FILENO, bytes, sizeof(bytes));
    if (length > 0) {
        buffer_append(input, bytes, (size_t)length);
    }
    return length > 0 || (length < 0 && errno == EINTR);
}

/* The next line without its end; what follows stays in `input`. False: there is none. */
static bool read_line(struct buffer *input, struct buffer *line)
{
    const char *newline;

    buffer_clear(line);
    while (!(newline = memchr(buffer_text(input), '\n', input->length))) {
        if (!read_more(input)) {
            break;
        }
    }
    if (*cli_stop_count() > 0 || (!newline && input->length == 0)) {
        return false;
    }
    size_t length = newline ? (size_t)(newline - input->data) : input->length;

    buffer_append(line, input->data, length);
    buffer_consume(input, newline ? length + 1 : length);
    return true;
}

static bool say(const struct chat_options *own, json_t *messages, const char *text,
                struct error *err)
{
    if (!add_message(messages, "user", text, err)) {
        return false;
    }
    return ask(own, messages, err);
}

static bool converse(const struct chat_options *own, json_t *messages, struct error *err)
{
    bool prompts = cli_stdout_is_terminal() && isatty(STDIN_FILENO) == 1;
    struct buffer input, line;
    bool fine = true;

    buffer_init(&input);
    buffer_init(&line);
    while (fine) {
        fputs(prompts ? "> " : "", stdout);
        fflush(stdout);
        if (!read_line(&input, &line)) {
            fputs(prompts ? "\n" : "", stdout);
            break;
        }
        if (line.length > 0) {
            fine = say(own, messages, buffer_text(&line), err);
        }
    }
    buffer_deinit(&line);
    buffer_deinit(&input);
    return fine;
}

static bool chat(const struct chat_options *own, struct error *err)
{
    json_t *messages = json_array();
    bool fine = !own->system || add_message(messages, "system", own->system, err);

    if (fine) {
        fine = own->prompt ? say(own, messages, own->prompt, err) : converse(own, messages, err);
    }
    json_decref(messages);
    return fine;
}

int command_chat(int argc, char **argv)
{
    static const struct argp_child children[] = {{&sampling_options_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        options,
        parse_option,
        NULL,
        "Talks to a running `shoal serve`.\v"
        "  shoal chat -p 'What is 4738 + 956?'\n"
        "  shoal chat --url http://gpu-7:8080          a conversation; Ctrl-D ends it",
        children,
        NULL,
        NULL};
    struct chat_options own = {.url = HTTP_CLIENT_URL, .body = json_object()};
    struct error err = {0};

    sampling_options_init(&own.sampling);
    argp_parse(&argp, argc, argv, 0, NULL, &own);
    sampling_options_request(&own.sampling, own.body);
    cli_signals_install();
    bool fine = chat(&own, &err);

    json_decref(own.body);
    return fine ? CLI_OK : cli_fail(argv[0], &err);
}
