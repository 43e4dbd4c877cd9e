/* openai.c - /v1/chat/completions and /v1/completions: a request's choices on their way to the
 * client, whole or streamed as server-sent events.
 *
 * Each choice is one generation. A wake-up from the cluster resumes the request; everything else
 * happens on the thread that runs it then: new text is taken from the generations and put into
 * JSON; http_stream.c sends it. The shapes of the answers are in openai_json.c and openai_stream.c.
 */
#include "coordinator/api/openai_json.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "coordinator/api/http.h"

#include <string.h>

struct openai_task {
    struct http_task task;
    struct http_request *request;
    struct openai_answer answer; /* what the JSON builders need */
    struct openai_params params;
    uint32_t running;                /* choices not done */
    struct generation **generations; /* [choice_count] */

    /* Streaming. */
    bool opened; /* the first chunks are out */
    bool closed; /* so is [DONE] */
};

static void destroy(struct http_task *task)
{
    struct openai_task *own = (struct openai_task *)task;

    for (uint32_t i = 0; i < own->answer.choice_count; i++) {
        generation_destroy(own->generations[i]);
    }
    openai_answer_deinit(&own->answer);
    openai_params_deinit(&own->params);
    mem_free(own->generations);
    mem_free(own);
}

static void wake(void *context)
{
    http_wake(context);
}

/* Takes new text of all choices; true if anything is new. */
static bool poll_choices(struct openai_task *own)
{
    bool news = false;

    for (uint32_t i = 0; i < own->answer.choice_count; i++) {
        struct openai_choice *choice = &own->answer.choices[i];
        size_t before = choice->thinking.length + choice->text.length;

        if (choice->done) {
            continue;
        }
        if (generation_poll(own->generations[i], &choice->thinking, &choice->text) ==
            GENERATION_DONE) {
            generation_summary(own->generations[i], &choice->summary);
            choice->done = true;
            own->running--;
            news = true;
        }
        news |= choice->thinking.length + choice->text.length > before;
    }
    return news;
}

static const char *failure(const struct openai_task *own)
{
    for (uint32_t i = 0; i < own->answer.choice_count; i++) {
        const struct openai_choice *choice = &own->answer.choices[i];

        if (choice->done && choice->summary.reason == FINISH_FAILED) {
            return choice->summary.problem ? choice->summary.problem : "the computation failed";
        }
    }
    return NULL;
}

static struct http_problem failure_problem(const char *message)
{
    return (struct http_problem){.status = MHD_HTTP_SERVICE_UNAVAILABLE,
                                 .type = "server_error",
                                 .code = "worker_lost",
                                 .message = message};
}

/* --- whole answers --- */

static enum MHD_Result advance_whole(struct http_request *request, struct http_task *task)
{
    struct openai_task *own = (struct openai_task *)task;

    for (;;) {
        if (http_client_gone(request)) {
            return MHD_NO;
        }
        poll_choices(own);
        if (own->running == 0) {
            break;
        }
        if (http_suspend(request)) {
            return MHD_YES;
        }
    }
    const char *problem = failure(own);

    if (problem) {
        const struct http_problem body = failure_problem(problem);

        return http_answer_problem(request, &body);
    }
    return http_answer_json(request, MHD_HTTP_OK, openai_json_whole(&own->answer));
}

/* --- streams --- */

static void write_choice(struct openai_task *own, struct openai_choice *choice, struct buffer *out)
{
    bool echo = own->params.echo && !choice->echo_written && choice->done;

    if (choice->thinking.length > 0 || choice->text.length > 0 || echo) {
        openai_stream_delta(&own->answer, choice, out);
        buffer_clear(&choice->thinking);
        buffer_clear(&choice->text);
    }
    if (choice->done && !choice->finish_written && choice->summary.reason != FINISH_FAILED) {
        openai_stream_finish(&own->answer, choice, out);
    }
}

static void write_close(struct openai_task *own, struct buffer *out)
{
    const char *problem = failure(own);

    if (problem) {
        const struct http_problem body = failure_problem(problem);

        openai_stream_event(http_problem_json(&body), out);
    } else if (own->params.include_usage) {
        openai_stream_usage(&own->answer, out);
    }
    buffer_append_text(out, "data: [DONE]\n\n");
    own->closed = true;
}

static void write_news(struct openai_task *own, struct buffer *out)
{
    for (uint32_t i = 0; !own->opened && i < own->answer.choice_count; i++) {
        if (own->params.kind == OPENAI_CHAT) {
            openai_stream_open(&own->answer, &own->answer.choices[i], out);
        }
    }
    own->opened = true;
    for (uint32_t i = 0; i < own->answer.choice_count; i++) {
        write_choice(own, &own->answer.choices[i], out);
    }
    if (own->running == 0 && !own->closed) {
        write_close(own, out);
    }
}

static enum http_stream_state produce(struct http_task *task, struct buffer *out)
{
    struct openai_task *own = (struct openai_task *)task;

    if (poll_choices(own) || !own->opened) {
        write_news(own, out);
    }
    return own->closed ? HTTP_STREAM_CLOSED : HTTP_STREAM_OPEN;
}

/* How long the tokens were under way that are with the kernel now. */
static void written(struct http_task *task)
{
    struct openai_task *own = (struct openai_task *)task;
    int64_t now_ns = clock_monotonic_ns();

    for (uint32_t i = 0; i < own->answer.choice_count; i++) {
        int64_t since_ns = generation_polled_since(own->generations[i]);

        if (since_ns > 0) {
            histogram_observe(&own->request->api->delivery, now_ns - since_ns);
        }
    }
}

static enum MHD_Result advance_stream(struct http_request *request, struct http_task *task)
{
    (void)task;
    return http_stream_answer(request, "text/event-stream");
}

/* --- the endpoints --- */

static bool start_choice(struct openai_task *own, uint32_t index, struct error *err)
{
    const struct api *api = own->request->api;
    const struct openai_params *params = &own->params;
    const struct token_list *prompt = &params->prompts[index / params->n];
    struct generation_config config = {
        .cluster = api->config.cluster,
        .tokenizer = api->config.tokenizer,
        .prompt = prompt->ids,
        .prompt_count = (uint32_t)prompt->count,
        .tokens_max = params->tokens_max,
        .ignore_eos = params->ignore_eos,
        .sampling = params->sampling,
        .request_class = params->request_class,
        .stop = params->stop,
        .stop_count = params->stop_count,
        .reasoning = params->reasoning,
        .special = SPECIAL_SKIP,
        .wake = wake,
        .wake_context = own->request,
    };

    config.sampling.choice = index % params->n;
    own->generations[index] = generation_start(&config, err);
    own->answer.choices[index].generation = own->generations[index];
    return own->generations[index] != NULL;
}

static bool start(struct openai_task *own, struct error *err)
{
    uint32_t count = (uint32_t)own->params.prompt_count * own->params.n;

    openai_answer_init(&own->answer, &own->request->api->config, &own->params, count);
    own->generations = mem_new_array(struct generation *, count);
    own->running = count;
    for (uint32_t i = 0; i < count; i++) {
        if (!start_choice(own, i, err)) {
            return false;
        }
    }
    return true;
}

static enum MHD_Result refuse(struct http_request *request, const struct openai_fault *fault)
{
    if (fault->model_unknown) {
        return http_answer_problem(request,
                                   &(struct http_problem){.status = MHD_HTTP_NOT_FOUND,
                                                          .type = "invalid_request_error",
                                                          .param = "model",
                                                          .code = "model_not_found",
                                                          .message = fault->error.message});
    }
    if (fault->too_long) {
        return http_answer_problem(request,
                                   &(struct http_problem){.status = MHD_HTTP_BAD_REQUEST,
                                                          .type = "invalid_request_error",
                                                          .param = fault->param,
                                                          .code = "context_length_exceeded",
                                                          .message = fault->error.message});
    }
    return http_answer_error(request, &fault->error, fault->param);
}

static enum MHD_Result endpoint(struct http_request *request, enum openai_kind kind)
{
    struct openai_fault fault = {0};
    struct openai_task *own = mem_new(struct openai_task);

    own->task.destroy = destroy;
    own->task.produce = produce;
    own->task.written = written;
    own->request = request;
    own->params.kind = kind;
    if (atomic_load(&request->api->draining)) {
        error_set(&fault.error, ERROR_PEER, "the server is shutting down");
        destroy(&own->task);
        return refuse(request, &fault);
    }
    if (!openai_params_parse(&request->api->config, &request->body, &own->params, &fault)) {
        destroy(&own->task);
        return refuse(request, &fault);
    }
    if (!start(own, &fault.error)) {
        fault.too_long = fault.error.code == ERROR_USAGE; /* all else was checked before */
        fault.param = fault.too_long ? (kind == OPENAI_CHAT ? "messages" : "prompt") : NULL;
        destroy(&own->task);
        return refuse(request, &fault);
    }
    buffer_deinit(&request->body);
    openai_params_release(&own->params); /* the generations have their own copies */
    own->task.advance = own->params.stream ? advance_stream : advance_whole;
    request->task = &own->task;
    return MHD_YES;
}

enum MHD_Result endpoint_chat_completions(struct http_request *request)
{
    return endpoint(request, OPENAI_CHAT);
}

enum MHD_Result endpoint_completions(struct http_request *request)
{
    return endpoint(request, OPENAI_COMPLETION);
}
