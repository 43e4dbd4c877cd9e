/* run.c - `shoal run`: one prompt through a cluster made for it.
 *
 * Text goes to standard output as it comes, thinking dimmed on a terminal, and a summary to
 * standard error; --json prints one object in the end instead.
 */
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/ring.h"
#include "common/text/chat_template.h"
#include "coordinator/api/generation.h"
#include "coordinator/cli/cli.h"
#include "coordinator/cli/jsonl.h"
#include "coordinator/cli/local_cluster.h"
#include "coordinator/cli/options_sampling.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

struct run_command {
    struct cluster_options cluster;
    const char *text, *chat, *tokens, *chat_template;
    uint32_t tokens_max;
    bool ignore_eos, json;
    enum special_mode special_in;
    enum special_output special_out;
    struct sampling_options sampling;
    uint32_t logprobs; /* as sampling_params has it */

    struct token_list prompt;
    enum reasoning_mode reasoning;
    struct waker waker;
    bool dimmed;
};

enum {
    KEY_CHAT = 0x2000,
    KEY_TOKENS,
    KEY_IGNORE_EOS,
    KEY_JSON,
    KEY_LOGPROBS,
    KEY_CHAT_TEMPLATE,
    KEY_PARSE_SPECIAL,
    KEY_SHOW_SPECIAL,
};

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "Prompt (one of these):", 1},
    {"prompt", 'p', "TEXT", 0, "Continue this text (with the begin token if the model wants one)",
     1},
    {"chat", KEY_CHAT, "TEXT", 0, "Answer this message, through the model's chat template", 1},
    {"tokens", KEY_TOKENS, "[1,2,3]", 0, "Continue these token ids, exactly", 1},
    {NULL, 0, NULL, 0, "Answer:", 2},
    {"max-tokens", 'n', "MAX", 0,
     "At most so many tokens (until the end token or the context's "
     "end)",
     2},
    {"ignore-eos", KEY_IGNORE_EOS, NULL, 0, "Go on after end tokens", 2},
    {"json", KEY_JSON, NULL, 0, "Print one JSON object with tokens, text and timings", 2},
    {"logprobs", KEY_LOGPROBS, "N", 0,
     "With --json: each token's log-probability, and the N likeliest tokens with theirs (0 to 100)",
     2},
    {"chat-template", KEY_CHAT_TEMPLATE, "NAME|FILE", 0, "Instead of the model's own", 2},
    {"parse-special", KEY_PARSE_SPECIAL, NULL, 0,
     "Take control tokens in the prompt's text for what they are, instead of as text", 2},
    {"show-special", KEY_SHOW_SPECIAL, NULL, 0, "Show control tokens in the answer's text", 2},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct run_command *own = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &own->cluster;
        state->child_inputs[1] = &own->sampling;
        options_from_environment(options, parse_option, state);
        return 0;
    case 'p':
        own->text = arg;
        return 0;
    case KEY_CHAT:
        own->chat = arg;
        return 0;
    case KEY_TOKENS:
        own->tokens = arg;
        return 0;
    case 'n':
        own->tokens_max = option_u32(arg, "-n", 1, UINT32_MAX, state);
        return 0;
    case KEY_IGNORE_EOS:
        own->ignore_eos = true;
        return 0;
    case KEY_JSON:
        own->json = true;
        return 0;
    case KEY_LOGPROBS:
        own->logprobs = 1 + option_u32(arg, "--logprobs", 0, 100, state);
        return 0;
    case KEY_CHAT_TEMPLATE:
        own->chat_template = arg;
        return 0;
    case KEY_PARSE_SPECIAL:
        own->special_in = SPECIAL_PARSE;
        return 0;
    case KEY_SHOW_SPECIAL:
        own->special_out = SPECIAL_SHOW;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument \"%s\" (a prompt goes behind -p)", arg);
        return 0;
    case ARGP_KEY_END:
        if ((own->text != NULL) + (own->chat != NULL) + (own->tokens != NULL) != 1) {
            argp_error(state, "one of -p TEXT, --chat TEXT and --tokens '[...]' is needed");
        }
        if (own->logprobs > 0 && !own->json) {
            argp_error(state, "--logprobs are part of --json");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* --- the prompt --- */

static bool prompt_of_text(struct run_command *own, const struct tokenizer *tokenizer,
                           struct error *err)
{
    struct text_span span = {own->text, strlen(own->text), own->special_in};

    if (tokenizer_adds_bos(tokenizer)) {
        token_list_append(&own->prompt, tokenizer_bos(tokenizer));
    }
    return tokenizer_encode(tokenizer, &span, 1, &own->prompt, err);
}

static bool prompt_of_chat(struct run_command *own, const struct tokenizer *tokenizer,
                           struct error *err)
{
    const struct chat_template *family = chat_template_choose(own->chat_template, tokenizer, err);
    struct chat_request request = {.add_generation_prompt = true};
    struct chat_rendering rendering;
    struct arena arena;
    json_t *messages;
    bool good;

    if (family == NULL) {
        return false;
    }
    messages = json_pack("[{s:s,s:s}]", "role", "user", "content", own->chat);
    if (messages == NULL) {
        return error_set(err, ERROR_USAGE, "--chat: the text is not valid UTF-8");
    }
    arena_init(&arena, 4096);
    request.messages = messages;
    request.bos_text = tokenizer_bos_text(tokenizer);
    request.eos_text = tokenizer_eos_text(tokenizer);
    good = chat_template_render(family, &request, &arena, &rendering, err) &&
           tokenizer_encode(tokenizer, rendering.spans, rendering.span_count, &own->prompt, err);
    if (good) {
        own->reasoning = rendering.opens_thinking ? REASONING_SPLIT_OPEN : REASONING_SPLIT;
    }
    arena_deinit(&arena);
    json_decref(messages);
    return good;
}

static bool prompt_of_tokens(struct run_command *own, struct error *err)
{
    json_t *array = json_parse(own->tokens, strlen(own->tokens), "--tokens", err);
    uint32_t *ids;
    size_t count;
    bool good;

    if (array == NULL) {
        err->code = ERROR_USAGE;
        return false;
    }
    good = jsonl_ids(array, "tokens", &ids, &count, err);
    json_decref(array);
    if (!good) {
        err->code = ERROR_USAGE;
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        token_list_append(&own->prompt, ids[i]);
    }
    mem_free(ids);
    return true;
}

static bool prompt_make(struct run_command *own, const struct local_cluster *local,
                        struct error *err)
{
    bool good = own->text != NULL   ? prompt_of_text(own, local->tokenizer, err)
                : own->chat != NULL ? prompt_of_chat(own, local->tokenizer, err)
                                    : prompt_of_tokens(own, err);

    if (good && own->prompt.count == 0) {
        return error_set(err, ERROR_USAGE, "the prompt has no tokens");
    }
    return good;
}

/* --- the answer --- */

/* On the cluster's thread. */
static void wake(void *context)
{
    waker_wake(&((struct run_command *)context)->waker);
}

static void dim_set(struct run_command *own, bool dimmed)
{
    if (own->dimmed != dimmed && cli_stdout_is_terminal()) {
        (void)fputs(dimmed ? "\033[2m" : "\033[0m", stdout);
    }
    own->dimmed = dimmed;
}

/* What is new in the two buffers, from where it was shown up to. False: it cannot be written. */
static bool stream(struct run_command *own, struct buffer *thinking, struct buffer *answer)
{
    if (thinking->length > 0) {
        dim_set(own, true);
        (void)fwrite(thinking->data, 1, thinking->length, stdout);
        buffer_clear(thinking);
    }
    if (answer->length > 0) {
        if (own->dimmed) {
            dim_set(own, false);
            (void)fputs("\n\n", stdout); /* the blank lines between them were dropped */
        }
        (void)fwrite(answer->data, 1, answer->length, stdout);
        buffer_clear(answer);
    }
    return fflush(stdout) == 0;
}

/* False: interrupted, or nobody takes the text any more. */
static bool answer_wait(struct run_command *own, struct generation *generation,
                        struct buffer *thinking, struct buffer *answer, struct error *err)
{
    struct pollfd fds[2] = {{.fd = own->waker.fd, .events = POLLIN},
                            {.fd = cli_stop_fd(), .events = POLLIN}};

    for (;;) {
        enum generation_state state;

        waker_clear(&own->waker);
        state = generation_poll(generation, thinking, answer);
        if (!own->json && !stream(own, thinking, answer)) {
            return error_set_errno(err, "standard output");
        }
        if (state == GENERATION_DONE) {
            dim_set(own, false);
            return true;
        }
        if (*cli_stop_count() > 0) {
            dim_set(own, false);
            (void)fputs(cli_stdout_is_terminal() ? "\n" : "", stdout);
            return error_set(err, ERROR_PEER, "interrupted");
        }
        (void)poll(fds, 2, -1);
    }
}

struct rates {
    double prompt_tokens_per_s, tokens_per_s;
};

static struct rates rates_of(const struct generation_summary *summary)
{
    int64_t decode_ns = summary->total_ns - summary->first_token_ns;
    struct rates rates = {0, 0};

    if (summary->first_token_ns > 0) {
        rates.prompt_tokens_per_s = summary->prompt_tokens * 1e9 / (double)summary->first_token_ns;
    }
    if (summary->completion_tokens > 1 && decode_ns > 0) {
        rates.tokens_per_s = (summary->completion_tokens - 1) * 1e9 / (double)decode_ns;
    }
    return rates;
}

static json_t *ids_json(const uint32_t *ids, size_t count)
{
    json_t *array = json_array();

    for (size_t i = 0; i < count; i++) {
        json_array_append_new(array, json_integer(ids[i]));
    }
    return array;
}

static json_t *token_json(uint32_t token, float logprob)
{
    return json_pack("{s:I,s:f}", "token", (json_int_t)token, "logprob", (double)logprob);
}

/* [{"token", "logprob", "rank", "top": [{"token", "logprob"}]}], by generated token */
static json_t *logprobs_json(const struct generation *generation, size_t count)
{
    json_t *array = json_array();

    for (size_t i = 0; i < count; i++) {
        const struct token_logprobs *logprobs = generation_logprobs(generation, i);
        json_t *entry = token_json(logprobs->token, logprobs->logprob);
        json_t *top = json_array();

        for (uint32_t t = 0; t < logprobs->top_count; t++) {
            json_array_append_new(top,
                                  token_json(logprobs->top_tokens[t], logprobs->top_logprobs[t]));
        }
        json_object_set_new(entry, "rank", json_integer(logprobs->rank));
        json_object_set_new(entry, "top", top);
        json_array_append_new(array, entry);
    }
    return array;
}

static bool json_print(const struct run_command *own, const struct generation *generation,
                       struct cluster *cluster, const struct buffer *thinking,
                       const struct buffer *answer, struct error *err)
{
    struct cluster_status *status = cluster_status(cluster);
    struct generation_summary summary;
    struct rates rates;
    size_t count;
    const uint32_t *tokens = generation_tokens(generation, &count);
    json_t *object;

    generation_summary(generation, &summary);
    rates = rates_of(&summary);
    object = json_pack(
        "{s:o,s:o,s:s%,s:s%,s:s,s:I,s:s,s:{s:f,s:f}}", "prompt_tokens",
        ids_json(own->prompt.ids, own->prompt.count), "tokens", ids_json(tokens, count), "text",
        buffer_text(answer), answer->length, "reasoning", buffer_text(thinking), thinking->length,
        "finish_reason", summary.reason == FINISH_LENGTH ? "length" : "stop", "seed",
        (json_int_t)summary.seed, "numerics_id", status->numerics_id, "timings",
        "prompt_tokens_per_s", rates.prompt_tokens_per_s, "tokens_per_s", rates.tokens_per_s);
    cluster_status_destroy(status);
    ASSERT(object != NULL);
    if (own->logprobs > 0) {
        json_object_set_new(object, "logprobs", logprobs_json(generation, count));
    }
    return jsonl_write(stdout, object, err);
}

static void summary_print(const struct generation *generation)
{
    struct generation_summary summary;
    struct rates rates;

    generation_summary(generation, &summary);
    rates = rates_of(&summary);
    (void)fprintf(
        stderr, "\n[%u prompt tokens at %.1f/s, %u generated at %.1f/s, ended by %s, seed %llu]\n",
        summary.prompt_tokens, rates.prompt_tokens_per_s, summary.completion_tokens,
        rates.tokens_per_s, summary.reason == FINISH_LENGTH ? "length" : "end token",
        (unsigned long long)summary.seed);
}

static bool answer_report(struct run_command *own, const struct generation *generation,
                          struct cluster *cluster, const struct buffer *thinking,
                          const struct buffer *answer, struct error *err)
{
    struct generation_summary summary;

    generation_summary(generation, &summary);
    if (summary.reason == FINISH_FAILED) {
        return error_set(err, ERROR_PEER, "%s", summary.problem);
    }
    if (own->json) {
        return json_print(own, generation, cluster, thinking, answer, err);
    }
    (void)fputc('\n', stdout);
    if (fflush(stdout) != 0) {
        return error_set_errno(err, "standard output");
    }
    summary_print(generation);
    return true;
}

static bool answer(struct run_command *own, const struct local_cluster *local, struct error *err)
{
    struct generation_config config = {.cluster = local->cluster,
                                       .tokenizer = local->tokenizer,
                                       .prompt = own->prompt.ids,
                                       .prompt_count = (uint32_t)own->prompt.count,
                                       .tokens_max = own->tokens_max,
                                       .ignore_eos = own->ignore_eos,
                                       .stop = own->sampling.stop,
                                       .stop_count = own->sampling.stop_count,
                                       .reasoning = own->reasoning,
                                       .special = own->special_out,
                                       .wake = wake,
                                       .wake_context = own};
    struct generation *generation;
    struct buffer thinking, text;
    bool good;

    if (!sampling_options_apply(&own->sampling, own->cluster.model, &config.sampling, err)) {
        return false;
    }
    config.sampling.logprobs = own->logprobs;
    generation = generation_start(&config, err);
    if (generation == NULL) {
        return false;
    }
    buffer_init(&thinking);
    buffer_init(&text);
    good = answer_wait(own, generation, &thinking, &text, err) &&
           answer_report(own, generation, local->cluster, &thinking, &text, err);
    buffer_deinit(&thinking);
    buffer_deinit(&text);
    generation_destroy(generation);
    return good;
}

int command_run(int argc, char **argv)
{
    static const struct argp_child children[] = {
        {&cluster_options_argp, 0, NULL, 0}, {&sampling_options_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        options,
        parse_option,
        NULL,
        "Answers one prompt with a cluster made for it.\v"
        "  shoal run --model DIR --chat \"What is 17 + 25?\"\n"
        "  shoal run --model DIR -p \"Once upon a time\" -n 64 --layout 3x1\n"
        "  shoal run --model DIR --tokens '[0, 73, 186]' --temperature 0 --json",
        children,
        NULL,
        NULL};
    struct run_command own = {.tokens_max = GENERATION_TOKENS_ALL, .reasoning = REASONING_WHOLE};
    struct local_cluster local;
    enum local_cluster_tokenizer tokenizer;
    struct error err = {0};
    bool fine;

    cluster_options_init(&own.cluster, OPTIONS_PRIVATE);
    sampling_options_init(&own.sampling);
    argp_parse(&argp, argc, argv, 0, NULL, &own);
    log_init("shoal", LOG_WARN);
    cli_signals_install();
    cli_limits_raise();
    ASSERT(waker_open(&own.waker));
    tokenizer = own.tokens != NULL && own.cluster.weights.source == WEIGHTS_DUMMY
                    ? LOCAL_CLUSTER_NO_TOKENIZER /* its text would mean nothing */
                    : LOCAL_CLUSTER_TOKENIZER;
    fine = local_cluster_start(&local, &own.cluster, tokenizer, &err);
    if (fine) {
        fine = prompt_make(&own, &local, &err) && local_cluster_wait(&local, &err) &&
               answer(&own, &local, &err) && local_cluster_profile(&local, &err);
        local_cluster_stop(&local);
    }
    token_list_deinit(&own.prompt);
    waker_close(&own.waker);
    return fine ? CLI_OK : cli_fail(argv[0], &err);
}
