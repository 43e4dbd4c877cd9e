/* openai_stream.c - chunks of completion answers, as server-sent events.
 *
 * A chunk goes out for nearly every token of every open stream, so it is written as text: a head
 * made once for the request, then what is new. Only log-probabilities take the way over jansson.
 */
#include "coordinator/api/openai_json.h"

#include "common/base/json_write.h"
#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

static void write_text(struct buffer *out, const char *text)
{
    buffer_append(out, text, strlen(text));
}

/* Takes the reference. */
static void write_json(struct buffer *out, json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);

    ASSERT(text != NULL);
    write_text(out, text);
    free(text); /* jansson's */
    json_decref(value);
}

static void write_field(struct buffer *out, const char *name, const struct buffer *text)
{
    json_write_string(out, name, strlen(name));
    buffer_append_char(out, ':');
    json_write_string(out, buffer_text(text), text->length);
}

void openai_stream_event(json_t *body, struct buffer *out)
{
    write_text(out, "data: ");
    write_json(out, body);
    write_text(out, "\n\n");
}

/* --- a chunk: begin, its delta or text, end --- */

static void write_begin(const struct openai_answer *answer, struct openai_choice *choice,
                        const char *finish, struct buffer *out)
{
    buffer_append(out, answer->chunk_head.data, answer->chunk_head.length);
    buffer_printf(out, "{\"index\":%u,\"logprobs\":", choice->index);
    if (answer->params->logprobs > 0) {
        write_json(out, openai_json_logprobs(answer, choice));
    } else {
        write_text(out, "null");
    }
    write_text(out, ",\"finish_reason\":");
    write_text(out, finish ? "\"" : "null");
    write_text(out, finish ? finish : "");
    write_text(out, finish ? "\"," : ",");
}

/* The ids of what the chunk tells of; of the prompt in a choice's first chunk. */
static void write_ids(const struct openai_answer *answer, const struct openai_choice *choice,
                      struct buffer *out)
{
    size_t count;
    const uint32_t *tokens = generation_tokens(choice->generation, &count);

    write_text(out, ",\"token_ids\":");
    write_json(out,
               openai_json_ids(tokens + choice->tokens_written, count - choice->tokens_written));
    if (answer->params->kind == OPENAI_COMPLETION && choice->tokens_written == 0) {
        write_text(out, ",\"prompt_token_ids\":");
        write_json(out, openai_json_ids(choice->prompt->ids, choice->prompt->count));
    }
}

static void write_end(const struct openai_answer *answer, struct openai_choice *choice,
                      struct buffer *out)
{
    const struct openai_params *params = answer->params;

    if (params->return_token_ids) {
        write_ids(answer, choice, out);
    }
    if (params->return_token_ids || params->logprobs > 0) {
        (void)generation_tokens(choice->generation, &choice->tokens_written);
    }
    write_text(out, "}]}\n\n");
}

static void write_delta(struct openai_choice *choice, struct buffer *out)
{
    write_text(out, "\"delta\":{");
    if (choice->thinking.length > 0) {
        write_field(out, "reasoning_content", &choice->thinking);
        buffer_append_char(out, ',');
        write_field(out, "reasoning", &choice->thinking);
    }
    if (choice->text.length > 0) {
        write_text(out, choice->thinking.length > 0 ? "," : "");
        write_field(out, "content", &choice->text);
    }
    buffer_append_char(out, '}');
}

static void write_echo(const struct openai_answer *answer, struct openai_choice *choice,
                       struct buffer *out)
{
    struct buffer text = {0};

    openai_echo_text(answer, choice, &text);
    buffer_append(&text, buffer_text(&choice->text), choice->text.length);
    write_field(out, "text", &text);
    buffer_deinit(&text);
}

/* --- the events --- */

void openai_stream_open(const struct openai_answer *answer, struct openai_choice *choice,
                        struct buffer *out)
{
    buffer_append(out, answer->chunk_head.data, answer->chunk_head.length);
    buffer_printf(out,
                  "{\"index\":%u,\"logprobs\":null,\"finish_reason\":null,"
                  "\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]",
                  choice->index);
    if (answer->params->return_token_ids) {
        write_text(out, ",\"prompt_token_ids\":");
        write_json(out, openai_json_ids(choice->prompt->ids, choice->prompt->count));
    }
    write_text(out, "}\n\n");
}

void openai_stream_delta(const struct openai_answer *answer, struct openai_choice *choice,
                         struct buffer *out)
{
    write_begin(answer, choice, NULL, out);
    if (answer->params->kind == OPENAI_CHAT) {
        write_delta(choice, out);
    } else if (answer->params->echo && !choice->echo_written) {
        write_echo(answer, choice, out);
        choice->echo_written = true;
    } else {
        write_field(out, "text", &choice->text);
    }
    write_end(answer, choice, out);
}

void openai_stream_finish(const struct openai_answer *answer, struct openai_choice *choice,
                          struct buffer *out)
{
    write_begin(answer, choice, openai_reason_word(choice->summary.reason), out);
    write_text(out, answer->params->kind == OPENAI_CHAT ? "\"delta\":{}" : "\"text\":\"\"");
    write_end(answer, choice, out);
    choice->finish_written = true;
}

void openai_stream_usage(const struct openai_answer *answer, struct buffer *out)
{
    buffer_append(out, answer->chunk_head.data, answer->chunk_head.length);
    write_text(out, "],\"usage\":");
    write_json(out, openai_json_usage(answer));
    write_text(out, "}\n\n");
}
