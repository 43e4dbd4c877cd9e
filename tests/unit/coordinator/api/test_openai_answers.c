/* test_openai_answers.c - what clients read: log-probabilities in their shapes, echo, ids, usage.
 *
 * A cluster whose worker has no model answers over real HTTP, so that every expected number is
 * known (fake_worker.h).
 */
#include "api_fixture.h"
#include "common/base/clock.h"
#include "common/base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* json_at(value, "choices.0.logprobs") */
static const json_t *at(const json_t *json, const char *path)
{
    char copy[128];
    char *rest = copy;
    char *step;

    snprintf(copy, sizeof(copy), "%s", path);
    while ((step = strsep(&rest, "."))) {
        json = json_is_array(json) ? json_array_get(json, strtoul(step, NULL, 10))
                                   : json_object_get(json, step);
    }
    return json;
}

static json_t *ask_stream(const char *path, const char *body)
{
    char *answer = api_ask_raw(path, body);
    json_t *events = api_events(answer);

    mem_free(answer);
    return events;
}

static void expect_logprob(const json_t *value, uint32_t position)
{
    assert_true(json_is_real(value));
    assert_true((float)json_real_value(value) == fake_logprob(position));
}

static double largest(const json_t *dictionary)
{
    const char *key;
    json_t *value;
    double most = -1e9;

    json_object_foreach((json_t *)(uintptr_t)dictionary, key, value)
    {
        most = json_real_value(value) > most ? json_real_value(value) : most;
    }
    return most;
}

static void expect_token_text(const json_t *text, uint32_t token)
{
    size_t length;
    const char *bytes = tokenizer_bytes(fixture.tokenizer, token, &length);

    if (strncmp(json_string_value(text), "bytes:", 6) == 0) {
        assert_int_equal(json_string_length(text), 6 + 4 * length);
        return;
    }
    assert_int_equal(json_string_length(text), length);
    assert_memory_equal(json_string_value(text), bytes, length);
}

/* --- cases --- */

/* What lm-eval does with the answer: greedy iff the token's value equals the dictionary's largest.
 */
static void check_scored(const json_t *choice, const uint32_t *prompt, uint32_t prompt_count,
                         uint32_t generated)
{
    const json_t *logprobs = json_object_get(choice, "logprobs");
    const json_t *values = json_object_get(logprobs, "token_logprobs");
    const json_t *tops = json_object_get(logprobs, "top_logprobs");
    const json_t *texts = json_object_get(logprobs, "tokens");
    const json_t *offsets = json_object_get(logprobs, "text_offset");
    size_t count = prompt_count + generated;

    assert_int_equal(json_array_size(values), count);
    assert_int_equal(json_array_size(tops), count);
    assert_int_equal(json_array_size(texts), count);
    assert_int_equal(json_array_size(offsets), count);
    assert_true(json_is_null(json_array_get(values, 0)));
    assert_true(json_is_null(json_array_get(tops, 0)));
    for (uint32_t i = 0; i < count; i++) {
        uint32_t token = i < prompt_count ? prompt[i] : fake_token(i);

        expect_token_text(json_array_get(texts, i), token);
        if (i > 0) {
            double value = json_real_value(json_array_get(values, i));

            expect_logprob(json_array_get(values, i), i);
            assert_true((value >= largest(json_array_get(tops, i))) == (fake_rank(i) == 1));
            assert_true(json_integer_value(json_array_get(offsets, i)) >=
                        json_integer_value(json_array_get(offsets, i - 1)));
        }
    }
}

static void prompts_are_scored_as_lm_eval_asks(void **state)
{
    static const uint32_t first[] = {42, 375, 81, 300};
    static const uint32_t second[] = {25, 26};

    (void)state;
    json_t *answer = api_ask("/v1/completions",
                             "{\"model\":\"demo\",\"prompt\":[[42,375,81,300],[25,26]],"
                             "\"temperature\":0,\"max_tokens\":1,\"logprobs\":1,\"seed\":1234,"
                             "\"echo\":true}");

    assert_int_equal(json_array_size(at(answer, "choices")), 2);
    assert_int_equal(json_integer_value(at(answer, "choices.1.index")), 1);
    check_scored(at(answer, "choices.0"), first, 4, 1);
    check_scored(at(answer, "choices.1"), second, 2, 1);
    assert_int_equal(json_integer_value(at(answer, "usage.prompt_tokens")), 6);
    assert_int_equal(json_integer_value(at(answer, "usage.completion_tokens")), 2);
    json_decref(answer);
}

static void nothing_need_be_generated(void **state)
{
    static const uint32_t prompt[] = {42, 375, 81};

    (void)state;
    json_t *answer =
        api_ask("/v1/completions", "{\"prompt\":[42,375,81],\"max_tokens\":0,"
                                   "\"logprobs\":3,\"echo\":true,\"prompt_logprobs\":0}");

    check_scored(at(answer, "choices.0"), prompt, 3, 0);
    assert_string_equal(json_string_value(at(answer, "choices.0.text")), "Hello");
    assert_string_equal(json_string_value(at(answer, "choices.0.finish_reason")), "length");
    assert_int_equal(json_integer_value(at(answer, "usage.completion_tokens")), 0);
    /* vLLM's own, which asked for no others. */
    assert_true(json_is_null(at(answer, "choices.0.prompt_logprobs.0")));
    assert_int_equal(json_object_size(at(answer, "choices.0.prompt_logprobs.1")), 1);
    expect_logprob(at(answer, "choices.0.prompt_logprobs.1.375.logprob"), 1);
    assert_int_equal(json_integer_value(at(answer, "choices.0.prompt_logprobs.1.375.rank")), 1);
    json_decref(answer);
}

static void choices_are_counted_prompt_by_prompt(void **state)
{
    (void)state;
    json_t *answer =
        api_ask("/v1/completions", "{\"prompt\":[[42,375,81],[42]],\"n\":2,\"max_tokens\":2,"
                                   "\"return_token_ids\":true}");

    assert_int_equal(json_array_size(at(answer, "choices")), 4);
    for (uint32_t i = 0; i < 4; i++) {
        const json_t *choice = json_array_get(at(answer, "choices"), i);
        uint32_t prompt_count = i < 2 ? 3 : 1;

        assert_int_equal(json_integer_value(at(choice, "index")), i);
        assert_int_equal(json_array_size(at(choice, "prompt_token_ids")), prompt_count);
        assert_int_equal(json_array_size(at(choice, "token_ids")), 2);
        assert_int_equal(json_integer_value(at(choice, "token_ids.1")),
                         fake_token(prompt_count + 1));
    }
    assert_int_equal(json_integer_value(at(answer, "usage.prompt_tokens")), 4);
    assert_int_equal(json_integer_value(at(answer, "usage.prompt_tokens_details.cached_tokens")),
                     0);
    json_decref(answer);
}

static void check_chat_entry(const json_t *entry, uint32_t position)
{
    uint32_t token = fake_token(position);

    expect_token_text(at(entry, "token"), token);
    expect_logprob(at(entry, "logprob"), position);
    assert_true(json_is_array(at(entry, "bytes")));
    assert_int_equal(json_array_size(at(entry, "top_logprobs")), 2);
    expect_token_text(
        at(entry, fake_rank(position) == 1 ? "top_logprobs.0.token" : "top_logprobs.1.token"),
        token);
    expect_token_text(
        at(entry, fake_rank(position) == 1 ? "top_logprobs.1.token" : "top_logprobs.0.token"),
        fake_other(token, 0));
}

static const char chat_body[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],"
                                "\"logprobs\":true,\"top_logprobs\":2,\"max_tokens\":6,"
                                "\"stream\":%s,\"stream_options\":{\"include_usage\":true}}";

static void chats_show_each_tokens_likely_ones(void **state)
{
    char body[256];

    (void)state;
    snprintf(body, sizeof(body), chat_body, "false");
    json_t *answer = api_ask("/v1/chat/completions", body);
    uint32_t prompt_count = (uint32_t)json_integer_value(at(answer, "usage.prompt_tokens"));
    const json_t *content = at(answer, "choices.0.logprobs.content");

    assert_int_equal(json_array_size(content), 6);
    for (uint32_t i = 0; i < 6; i++) {
        check_chat_entry(json_array_get(content, i), prompt_count + i);
    }
    json_decref(answer);
}

static void streams_bring_each_tokens_likely_ones_once(void **state)
{
    uint32_t seen = 0;
    char body[256];

    (void)state;
    snprintf(body, sizeof(body), chat_body, "true");
    json_t *events = ask_stream("/v1/chat/completions", body);
    const json_t *last = json_array_get(events, json_array_size(events) - 1);
    uint32_t prompt_count = (uint32_t)json_integer_value(at(last, "usage.prompt_tokens"));

    for (size_t i = 0; i < json_array_size(events); i++) {
        const json_t *content = at(json_array_get(events, i), "choices.0.logprobs.content");

        for (size_t t = 0; t < json_array_size(content); t++) {
            check_chat_entry(json_array_get(content, t), prompt_count + seen++);
        }
    }
    assert_int_equal(seen, 6);
    json_decref(events);
}

static void an_echo_is_streamed_first(void **state)
{
    struct buffer text = {0};
    size_t values = 0;
    size_t ids = 0;

    (void)state;
    json_t *events =
        ask_stream("/v1/completions", "{\"prompt\":[42,375,81],\"max_tokens\":5,\"echo\":true,"
                                      "\"logprobs\":1,\"stream\":true,\"return_token_ids\":true}");
    json_t *whole = api_ask("/v1/completions", "{\"prompt\":[42,375,81],\"max_tokens\":5,"
                                               "\"echo\":true}");

    for (size_t i = 0; i < json_array_size(events); i++) {
        const json_t *choice = at(json_array_get(events, i), "choices.0");
        const json_t *column = at(choice, "logprobs.token_logprobs");

        for (size_t t = 0; t < json_array_size(column); t++, values++) {
            if (values > 0) {
                expect_logprob(json_array_get(column, t), (uint32_t)values);
            }
        }
        ids += json_array_size(at(choice, "token_ids"));
        buffer_append_text(&text, json_string_value(at(choice, "text")));
    }
    assert_int_equal(values, 8);
    assert_int_equal(ids, 5);
    assert_string_equal(buffer_text(&text), json_string_value(at(whole, "choices.0.text")));
    assert_memory_equal(buffer_text(&text), "Hello", 5);
    buffer_deinit(&text);
    json_decref(whole);
    json_decref(events);
}

/* Four are admitted, two wait, the seventh comes again later. */
static void a_full_queue_says_when_to_come_again(void **state)
{
    int fds[API_SLOTS + API_QUEUE];
    char *answer;
    json_t *body;

    (void)state;
    fake_worker_hold(fixture.worker);
    for (size_t i = 0; i < ARRAY_LENGTH(fds); i++) {
        int64_t end_ns = clock_monotonic_ns() + 20 * NS_PER_S;
        struct cluster_status *status;
        bool taken = false;

        fds[i] = api_send(&(struct api_question){"HTTP/1.1", "/v1/completions",
                                                 "{\"prompt\":[42],\"max_tokens\":1}", 0, false});
        while (!taken) {
            status = cluster_status(fixture.cluster);
            taken = status->scheduler.running + status->scheduler.waiting == i + 1;
            cluster_status_destroy(status);
            assert_true(clock_monotonic_ns() < end_ns);
        }
    }
    answer = api_ask_raw("/v1/completions", "{\"prompt\":[42],\"max_tokens\":1}");
    assert_int_equal(strncmp(answer, "HTTP/1.1 429", 12), 0);
    assert_non_null(strcasestr(answer, "\r\nRetry-After: "));
    assert_true(atoi(strcasestr(answer, "\r\nRetry-After: ") + 15) >= 1);
    body = api_body(answer);
    assert_string_equal(json_string_value(at(body, "error.type")), "rate_limit_error");
    assert_string_equal(json_string_value(at(body, "error.code")), "queue_full");
    json_decref(body);
    mem_free(answer);
    fake_worker_release(fixture.worker);
    for (size_t i = 0; i < ARRAY_LENGTH(fds); i++) {
        answer = api_read(fds[i]);
        assert_int_equal(strncmp(answer, "HTTP/1.1 200", 12), 0);
        mem_free(answer);
    }
}

static void what_workers_leave_out_is_no_answer(void **state)
{
    char *answer;

    (void)state;
    api_open_without_logprobs();
    answer = api_ask_raw("/v1/completions", "{\"prompt\":[42],\"max_tokens\":1,\"logprobs\":1}");
    assert_int_equal(strncmp(answer, "HTTP/1.1 503", 12), 0);
    assert_non_null(strstr(answer, "log-probabilities"));
    mem_free(answer);
    answer = api_ask_raw("/v1/completions", "{\"prompt\":[42,43],\"max_tokens\":1,"
                                            "\"prompt_logprobs\":1}");
    assert_int_equal(strncmp(answer, "HTTP/1.1 503", 12), 0);
    mem_free(answer);
    api_close(state);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, api_open, api_close)
    const struct CMUnitTest tests[] = {
        CASE(prompts_are_scored_as_lm_eval_asks),
        CASE(nothing_need_be_generated),
        CASE(choices_are_counted_prompt_by_prompt),
        CASE(chats_show_each_tokens_likely_ones),
        CASE(streams_bring_each_tokens_likely_ones_once),
        CASE(an_echo_is_streamed_first),
        CASE(a_full_queue_says_when_to_come_again),
        cmocka_unit_test(what_workers_leave_out_is_no_answer),
    };

    return cmocka_run_group_tests(tests, api_model_open, api_model_close);
}
