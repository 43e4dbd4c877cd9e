/* openai_logprobs.c - log-probabilities in the three shapes that clients know.
 *
 * Chat completions have a list of objects, text completions four arrays side by side (with the
 * prompt in front when it is echoed), vLLM's prompt_logprobs objects by token id. A token that is
 * no text of its own, being part of a character, is shown as "bytes:\xNN", so that two of them stay
 * apart; so is a NUL, which many readers refuse as a key. A token's value is the same number
 * wherever it stands, so that clients may compare it with the largest of a dictionary.
 */
#include "common/base/mem.h"
#include "common/text/utf8.h"
#include "coordinator/api/openai_json.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define LEAST_LOGPROB (-9999.0) /* JSON has no infinity; OpenAI and vLLM write this */

/* --- pieces --- */

static json_t *value_json(float logprob)
{
    return json_real(isfinite(logprob) ? (double)logprob : LEAST_LOGPROB);
}

static void token_text(const struct tokenizer *tokenizer, uint32_t token, struct buffer *out)
{
    size_t length = 0;
    const char *bytes = tokenizer_bytes(tokenizer, token, &length);

    buffer_clear(out);
    if (utf8_valid_length(bytes, length) == length &&
        (length == 0 || !memchr(bytes, '\0', length))) {
        buffer_append(out, bytes, length);
        return;
    }
    buffer_append_text(out, "bytes:");
    for (size_t i = 0; i < length; i++) {
        buffer_printf(out, "\\x%02x", (unsigned char)bytes[i]);
    }
}

static json_t *token_json(const struct openai_answer *answer, uint32_t token)
{
    struct buffer text = {0};
    json_t *json;

    token_text(answer->tokenizer, token, &text);
    json = json_stringn(buffer_text(&text), text.length);
    buffer_deinit(&text);
    return json;
}

static json_t *bytes_json(const struct openai_answer *answer, uint32_t token)
{
    size_t length = 0;
    const char *bytes = tokenizer_bytes(answer->tokenizer, token, &length);
    json_t *json = json_array();

    for (size_t i = 0; i < length; i++) {
        json_array_append_new(json, json_integer((unsigned char)bytes[i]));
    }
    return json;
}

/* How many of the likely tokens to show: perhaps more are known than this part asked for. */
static uint32_t shown_count(const struct token_logprobs *logprobs, uint32_t wanted)
{
    uint32_t count = wanted - 1; /* 1 + n */

    return count < logprobs->top_count ? count : logprobs->top_count;
}

void openai_echo_text(const struct openai_answer *answer, const struct openai_choice *choice,
                      struct buffer *out)
{
    struct detokenizer decoder = {.held_count = 0};

    for (size_t i = 0; i < choice->prompt->count; i++) {
        detokenizer_push(&decoder, answer->tokenizer, choice->prompt->ids[i], SPECIAL_SKIP, out);
    }
    detokenizer_finish(&decoder, out);
}

json_t *openai_json_ids(const uint32_t *ids, size_t count)
{
    json_t *json = json_array();

    for (size_t i = 0; i < count; i++) {
        json_array_append_new(json, json_integer(ids[i]));
    }
    return json;
}

/* --- chat --- */

static json_t *chat_token(const struct openai_answer *answer, uint32_t token, float logprob)
{
    return json_pack("{s:o, s:o, s:o}", "token", token_json(answer, token), "logprob",
                     value_json(logprob), "bytes", bytes_json(answer, token));
}

static json_t *chat_entry(const struct openai_answer *answer, const struct token_logprobs *logprobs)
{
    json_t *entry = chat_token(answer, logprobs->token, logprobs->logprob);
    json_t *tops = json_array();
    uint32_t count = shown_count(logprobs, answer->params->logprobs);

    for (uint32_t i = 0; i < count; i++) {
        json_array_append_new(
            tops, chat_token(answer, logprobs->top_tokens[i], logprobs->top_logprobs[i]));
    }
    json_object_set_new(entry, "top_logprobs", tops);
    return entry;
}

static json_t *chat_logprobs(const struct openai_answer *answer, const struct openai_choice *choice)
{
    json_t *content = json_array();
    size_t count;

    (void)generation_tokens(choice->generation, &count);
    for (size_t i = choice->tokens_written; i < count; i++) {
        const struct token_logprobs *logprobs = generation_logprobs(choice->generation, i);

        if (logprobs) { /* else the answer ends as failed */
            json_array_append_new(content, chat_entry(answer, logprobs));
        }
    }
    return json_pack("{s:o, s:n}", "content", content, "refusal");
}

/* --- text completions --- */

struct columns {
    json_t *tokens, *token_logprobs, *top_logprobs, *text_offset;
};

/* Two tokens may have the same text: the likelier one stays. */
static void dictionary_add(const struct openai_answer *answer, json_t *dictionary, uint32_t token,
                           float logprob, struct buffer *text)
{
    json_t *value = value_json(logprob);
    const json_t *before;

    token_text(answer->tokenizer, token, text);
    before = json_object_getn(dictionary, buffer_text(text), text->length);
    if (before && json_real_value(before) >= json_real_value(value)) {
        json_decref(value);
        return;
    }
    json_object_setn_new(dictionary, buffer_text(text), text->length, value);
}

static json_t *dictionary(const struct openai_answer *answer, const struct token_logprobs *logprobs)
{
    json_t *json = json_object();
    struct buffer text = {0};
    uint32_t count = shown_count(logprobs, answer->params->logprobs);

    for (uint32_t i = 0; i < count; i++) {
        if (logprobs->top_tokens[i] != logprobs->token) {
            dictionary_add(answer, json, logprobs->top_tokens[i], logprobs->top_logprobs[i], &text);
        }
    }
    dictionary_add(answer, json, logprobs->token, logprobs->logprob, &text);
    buffer_deinit(&text);
    return json;
}

static uint32_t character_count(const struct buffer *text)
{
    uint32_t count = 0;

    for (size_t i = 0; i < text->length; i++) {
        count += ((unsigned char)text->data[i] & 0xC0) != 0x80;
    }
    return count;
}

/* logprobs NULL: the prompt's first token, which nothing predicts. */
static void column_add(const struct openai_answer *answer, struct openai_choice *choice,
                       struct columns *columns, uint32_t token,
                       const struct token_logprobs *logprobs)
{
    struct buffer text = {0};

    json_array_append_new(columns->tokens, token_json(answer, token));
    json_array_append_new(columns->token_logprobs,
                          logprobs ? value_json(logprobs->logprob) : json_null());
    json_array_append_new(columns->top_logprobs,
                          logprobs ? dictionary(answer, logprobs) : json_null());
    json_array_append_new(columns->text_offset, json_integer(choice->offset));
    detokenizer_push(&choice->decoder, answer->tokenizer, token, SPECIAL_SKIP, &text);
    choice->offset += character_count(&text);
    buffer_deinit(&text);
}

static void columns_add_prompt(const struct openai_answer *answer, struct openai_choice *choice,
                               struct columns *columns)
{
    const struct token_logprobs *const *prompt = generation_prompt_logprobs(choice->generation);
    struct buffer rest = {0};

    for (size_t i = 0; i < choice->prompt->count; i++) {
        column_add(answer, choice, columns, choice->prompt->ids[i], prompt ? prompt[i] : NULL);
    }
    detokenizer_finish(&choice->decoder, &rest);
    choice->offset += character_count(&rest);
    buffer_deinit(&rest);
}

static json_t *text_logprobs(const struct openai_answer *answer, struct openai_choice *choice)
{
    struct columns columns = {json_array(), json_array(), json_array(), json_array()};
    size_t count;
    const uint32_t *tokens = generation_tokens(choice->generation, &count);

    if (answer->params->echo && !choice->echo_written) {
        columns_add_prompt(answer, choice, &columns);
    }
    for (size_t i = choice->tokens_written; i < count; i++) {
        column_add(answer, choice, &columns, tokens[i], generation_logprobs(choice->generation, i));
    }
    return json_pack("{s:o, s:o, s:o, s:o}", "tokens", columns.tokens, "token_logprobs",
                     columns.token_logprobs, "top_logprobs", columns.top_logprobs, "text_offset",
                     columns.text_offset);
}

json_t *openai_json_logprobs(const struct openai_answer *answer, struct openai_choice *choice)
{
    if (answer->params->logprobs == 0) {
        return json_null();
    }
    return answer->params->kind == OPENAI_CHAT ? chat_logprobs(answer, choice)
                                               : text_logprobs(answer, choice);
}

/* --- vLLM's --- */

static void numbered_add(const struct openai_answer *answer, json_t *entry, uint32_t token,
                         float logprob, uint32_t rank)
{
    char key[16];

    snprintf(key, sizeof(key), "%" PRIu32, token);
    json_object_set_new(entry, key,
                        json_pack("{s:o, s:I, s:o}", "logprob", value_json(logprob), "rank",
                                  (json_int_t)rank, "decoded_token", token_json(answer, token)));
}

json_t *openai_json_prompt_logprobs(const struct openai_answer *answer,
                                    const struct openai_choice *choice)
{
    const struct token_logprobs *const *prompt = generation_prompt_logprobs(choice->generation);
    json_t *json = json_array();

    for (size_t i = 0; i < choice->prompt->count; i++) {
        const struct token_logprobs *logprobs = prompt ? prompt[i] : NULL;
        json_t *entry = logprobs ? json_object() : json_null();

        if (logprobs) {
            uint32_t count = shown_count(logprobs, answer->params->prompt_logprobs);

            numbered_add(answer, entry, logprobs->token, logprobs->logprob, logprobs->rank);
            for (uint32_t t = 0; t < count; t++) {
                if (logprobs->top_tokens[t] != logprobs->token) {
                    numbered_add(answer, entry, logprobs->top_tokens[t], logprobs->top_logprobs[t],
                                 t + 1);
                }
            }
        }
        json_array_append_new(json, entry);
    }
    return json;
}
