/* openai_json.c - the bodies of completion answers. */
#include "coordinator/api/openai_json.h"

#include "common/base/clock.h"
#include "common/base/mem.h"

#include <inttypes.h>

static const char *reason_word(enum finish_reason reason)
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

void openai_answer_init(struct openai_answer *answer, const struct api_config *config,
                        const struct openai_params *params, uint32_t choice_count)
{
    struct cluster_status *status = cluster_status(config->cluster);

    answer->kind = params->kind;
    snprintf(answer->id, sizeof(answer->id), "%s-%014" PRIx64,
             params->kind == OPENAI_CHAT ? "chatcmpl" : "cmpl", generation_random_seed());
    answer->created = clock_unix_s();
    answer->model = config->model_name;
    snprintf(answer->fingerprint, sizeof(answer->fingerprint), "shoal-" SHOAL_VERSION "-%s",
             status->numerics_id);
    answer->seed = params->sampling.seed;
    answer->n = params->n;
    answer->choice_count = choice_count;
    answer->choices = mem_new_array(struct openai_choice, choice_count);
    for (uint32_t i = 0; i < choice_count; i++) {
        answer->choices[i].index = i;
    }
    cluster_status_destroy(status);
}

void openai_answer_deinit(struct openai_answer *answer)
{
    for (uint32_t i = 0; i < answer->choice_count; i++) {
        buffer_deinit(&answer->choices[i].thinking);
        buffer_deinit(&answer->choices[i].text);
    }
    mem_free(answer->choices);
}

static json_t *text_json(const struct buffer *text)
{
    json_t *json = json_stringn(buffer_text(text), text->length);

    return json ? json : json_string("");
}

static json_t *envelope(const struct openai_answer *answer, const char *object, json_t *choices)
{
    return json_pack("{s:s, s:s, s:I, s:s, s:s, s:I, s:o}", "id", answer->id, "object", object,
                     "created", (json_int_t)answer->created, "model", answer->model,
                     "system_fingerprint", answer->fingerprint, "seed", (json_int_t)answer->seed,
                     "choices", choices);
}

static json_t *usage(const struct openai_answer *answer)
{
    json_int_t prompt = 0;
    json_int_t completion = 0;

    for (uint32_t i = 0; i < answer->choice_count; i++) {
        const struct generation_summary *summary = &answer->choices[i].summary;

        prompt += i % answer->n == 0 ? summary->prompt_tokens : 0; /* a prompt counts once */
        completion += summary->completion_tokens;
    }
    return json_pack("{s:I, s:I, s:I}", "prompt_tokens", prompt, "completion_tokens", completion,
                     "total_tokens", prompt + completion);
}

/* --- whole --- */

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

static json_t *whole_choice(const struct openai_answer *answer, const struct openai_choice *choice)
{
    json_t *json = json_pack("{s:I, s:n, s:s}", "index", (json_int_t)choice->index, "logprobs",
                             "finish_reason", reason_word(choice->summary.reason));

    if (answer->kind == OPENAI_CHAT) {
        json_object_set_new(json, "message", whole_message(choice));
    } else {
        json_object_set_new(json, "text", text_json(&choice->text));
    }
    return json;
}

json_t *openai_json_whole(const struct openai_answer *answer)
{
    json_t *choices = json_array();

    for (uint32_t i = 0; i < answer->choice_count; i++) {
        json_array_append_new(choices, whole_choice(answer, &answer->choices[i]));
    }
    json_t *body = envelope(
        answer, answer->kind == OPENAI_CHAT ? "chat.completion" : "text_completion", choices);

    json_object_set_new(body, "usage", usage(answer));
    return body;
}

/* --- chunks --- */

/* `fields` (delta or text) becomes the one choice of a chunk; takes it. */
static json_t *chunk(const struct openai_answer *answer, const struct openai_choice *choice,
                     json_t *fields, const char *finish)
{
    json_t *json = json_pack("{s:I, s:n, s:s?}", "index", (json_int_t)choice->index, "logprobs",
                             "finish_reason", finish);
    const char *object = "text_completion";

    if (answer->kind == OPENAI_CHAT) {
        object = "chat.completion.chunk";
        json_object_set_new(json, "delta", fields);
    } else {
        json_object_set_new(json, "text", fields);
    }
    return envelope(answer, object, json_pack("[o]", json));
}

json_t *openai_json_open(const struct openai_answer *answer, const struct openai_choice *choice)
{
    return chunk(answer, choice, json_pack("{s:s, s:s}", "role", "assistant", "content", ""), NULL);
}

json_t *openai_json_delta(const struct openai_answer *answer, const struct openai_choice *choice)
{
    if (answer->kind == OPENAI_COMPLETION) {
        return chunk(answer, choice, text_json(&choice->text), NULL);
    }
    json_t *delta = json_object();

    if (choice->thinking.length > 0) {
        json_object_set_new(delta, "reasoning_content", text_json(&choice->thinking));
        json_object_set_new(delta, "reasoning", text_json(&choice->thinking));
    }
    if (choice->text.length > 0) {
        json_object_set_new(delta, "content", text_json(&choice->text));
    }
    return chunk(answer, choice, delta, NULL);
}

json_t *openai_json_finish(const struct openai_answer *answer, const struct openai_choice *choice)
{
    json_t *fields = answer->kind == OPENAI_CHAT ? json_object() : json_string("");

    return chunk(answer, choice, fields, reason_word(choice->summary.reason));
}

json_t *openai_json_usage_chunk(const struct openai_answer *answer)
{
    json_t *body =
        envelope(answer, answer->kind == OPENAI_CHAT ? "chat.completion.chunk" : "text_completion",
                 json_array());

    json_object_set_new(body, "usage", usage(answer));
    return body;
}
