/* openai_json.c - whole bodies of completion answers, and what their chunks share with them. */
#include "coordinator/api/openai_json.h"

#include "common/base/clock.h"
#include "common/base/mem.h"

#include <inttypes.h>
#include <string.h>

const char *openai_reason_word(enum finish_reason reason)
{
    switch (reason) {
    case FINISH_STOP:
        return "stop";
    case FINISH_LENGTH:
        return "length";
    case FINISH_CANCELLED:
    case FINISH_FAILED:
        break;
    }
    return "error";
}

/* The envelope up to where the choices begin, so that a chunk need not build it anew. */
static void head_write(struct openai_answer *answer)
{
    static const char tail[] = "]}";
    json_t *envelope = openai_json_envelope(
        answer, answer->params->kind == OPENAI_CHAT ? "chat.completion.chunk" : "text_completion");
    char *text;

    json_object_set_new(envelope, "choices", json_array());
    text = json_dumps(envelope, JSON_COMPACT);
    ASSERT(text != NULL);
    buffer_append_text(&answer->chunk_head, "data: ");
    buffer_append(&answer->chunk_head, text, strlen(text) - strlen(tail));
    free(text); /* jansson's */
    json_decref(envelope);
}

void openai_answer_init(struct openai_answer *answer, const struct api_config *config,
                        const struct openai_params *params, uint32_t choice_count)
{
    struct cluster_status *status = cluster_status(config->cluster);

    answer->params = params;
    answer->tokenizer = config->tokenizer;
    snprintf(answer->id, sizeof(answer->id), "%s-%014" PRIx64,
             params->kind == OPENAI_CHAT ? "chatcmpl" : "cmpl", generation_random_seed());
    answer->created = clock_unix_s();
    answer->model = config->model_name;
    snprintf(answer->fingerprint, sizeof(answer->fingerprint), "shoal-" SHOAL_VERSION "-%s",
             status->numerics_id);
    answer->choice_count = choice_count;
    answer->choices = mem_new_array(struct openai_choice, choice_count);
    for (uint32_t i = 0; i < choice_count; i++) {
        answer->choices[i].index = i;
        answer->choices[i].prompt = &params->prompts[i / params->n];
    }
    cluster_status_destroy(status);
    if (params->stream) {
        head_write(answer);
    }
}

void openai_answer_deinit(struct openai_answer *answer)
{
    for (uint32_t i = 0; i < answer->choice_count; i++) {
        buffer_deinit(&answer->choices[i].thinking);
        buffer_deinit(&answer->choices[i].text);
    }
    mem_free(answer->choices);
    buffer_deinit(&answer->chunk_head);
}

static json_t *text_json(const struct buffer *text)
{
    json_t *json = json_stringn(buffer_text(text), text->length);

    return json ? json : json_string("");
}

json_t *openai_json_envelope(const struct openai_answer *answer, const char *object)
{
    const struct openai_params *params = answer->params;
    json_t *json =
        json_pack("{s:s, s:s, s:I, s:s, s:s, s:I}", "id", answer->id, "object", object, "created",
                  (json_int_t)answer->created, "model", answer->model, "system_fingerprint",
                  answer->fingerprint, "seed", (json_int_t)params->sampling.seed);

    if (params->tier_named) {
        json_object_set_new(
            json, "service_tier",
            json_string(params->request_class == REQUEST_BATCH ? "flex" : "default"));
    }
    return json;
}

json_t *openai_json_usage(const struct openai_answer *answer)
{
    json_int_t prompt = 0;
    json_int_t cached = 0;
    json_int_t completion = 0;
    json_int_t reasoning = 0;

    for (uint32_t i = 0; i < answer->choice_count; i++) {
        const struct generation_summary *summary = &answer->choices[i].summary;

        if (i % answer->params->n == 0) { /* a prompt counts once */
            prompt += summary->prompt_tokens;
            cached += summary->cached_tokens;
        }
        completion += summary->completion_tokens;
        reasoning += summary->reasoning_tokens;
    }
    return json_pack("{s:I, s:I, s:I, s:{s:I}, s:{s:I}}", "prompt_tokens", prompt,
                     "completion_tokens", completion, "total_tokens", prompt + completion,
                     "prompt_tokens_details", "cached_tokens", cached, "completion_tokens_details",
                     "reasoning_tokens", reasoning);
}

static json_t *whole_message(const struct openai_choice *choice)
{
    json_t *message =
        json_pack("{s:s, s:o}", "role", "assistant", "content", text_json(&choice->text));

    if (choice->thinking.length > 0) {
        json_object_set_new(message, "reasoning_content", text_json(&choice->thinking));
        json_object_set_new(message, "reasoning", text_json(&choice->thinking));
    }
    return message;
}

static json_t *whole_text(const struct openai_answer *answer, const struct openai_choice *choice)
{
    struct buffer text = {0};
    json_t *json;

    if (answer->params->echo) {
        openai_echo_text(answer, choice, &text);
    }
    buffer_append(&text, buffer_text(&choice->text), choice->text.length);
    json = text_json(&text);
    buffer_deinit(&text);
    return json;
}

/* vLLM's extra fields; those of a chat's prompt stand beside its choices. */
static void add_extras(const struct openai_answer *answer, const struct openai_choice *choice,
                       json_t *own, json_t *prompt)
{
    const struct openai_params *params = answer->params;
    const uint32_t *tokens;
    size_t count;

    if (params->prompt_logprobs > 0) {
        json_object_set_new(prompt, "prompt_logprobs", openai_json_prompt_logprobs(answer, choice));
    }
    if (params->return_token_ids) {
        tokens = generation_tokens(choice->generation, &count);
        json_object_set_new(own, "token_ids", openai_json_ids(tokens, count));
        json_object_set_new(prompt, "prompt_token_ids",
                            openai_json_ids(choice->prompt->ids, choice->prompt->count));
    }
}

static json_t *whole_choice(const struct openai_answer *answer, struct openai_choice *choice,
                            json_t *body)
{
    json_t *json = json_pack("{s:I, s:o, s:s}", "index", (json_int_t)choice->index, "logprobs",
                             openai_json_logprobs(answer, choice), "finish_reason",
                             openai_reason_word(choice->summary.reason));

    if (answer->params->kind == OPENAI_CHAT) {
        json_object_set_new(json, "message", whole_message(choice));
        add_extras(answer, choice, json, body);
    } else {
        json_object_set_new(json, "text", whole_text(answer, choice));
        add_extras(answer, choice, json, json);
    }
    return json;
}

json_t *openai_json_whole(struct openai_answer *answer)
{
    json_t *choices = json_array();
    json_t *body = openai_json_envelope(
        answer, answer->params->kind == OPENAI_CHAT ? "chat.completion" : "text_completion");

    for (uint32_t i = 0; i < answer->choice_count; i++) {
        json_array_append_new(choices, whole_choice(answer, &answer->choices[i], body));
    }
    json_object_set_new(body, "choices", choices);
    json_object_set_new(body, "usage", openai_json_usage(answer));
    return body;
}
