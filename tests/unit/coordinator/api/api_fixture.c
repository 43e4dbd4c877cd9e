/* api_fixture.c - a cluster without a model behind HTTP, and its client. */
#include "api_fixture.h"

#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL SHOAL_SOURCE_DIR "/deploy/demo-model"

struct api_fixture fixture;

static void open_cluster(bool without_logprobs)
{
    struct error err = {0};
    struct cluster_config config = {.model = MODEL,
                                    .control_endpoint = "tcp://127.0.0.1:0",
                                    .stage_count = 1,
                                    .group_size = 1,
                                    .remote_count = 1,
                                    .queue_max = API_QUEUE,
                                    .slot_count = API_SLOTS,
                                    .kv_type = KV_F32,
                                    .catalog = fixture.catalog};

    fixture.cluster = cluster_start(&config, &err);
    assert_non_null(fixture.cluster);
    struct fake_options options = {.endpoint = cluster_control_endpoint(fixture.cluster),
                                   .host = "fakehost",
                                   .without_logprobs = without_logprobs};

    fixture.worker = fake_worker_start(&options);
    assert_true(cluster_wait(fixture.cluster, NULL, NULL, NULL, &err));
    struct api_config api = {
        .host = "127.0.0.1",
        .model_name = "demo",
        .cluster = fixture.cluster,
        .tokenizer = fixture.tokenizer,
        .chat_template = chat_template_choose(NULL, fixture.tokenizer, &err),
        .sampling = {.temperature = 1, .top_p = 1, .repetition_penalty = 1},
        .vocab = fixture.catalog->arch.vocab,
    };

    fixture.api = api_start(&api, &err);
    assert_non_null(fixture.api);
}

int api_close(void **state)
{
    (void)state;
    fake_worker_release(fixture.worker);
    api_stop(fixture.api);
    cluster_stop(fixture.cluster);
    fake_worker_kill(fixture.worker);
    return 0;
}

int api_model_open(void **state)
{
    struct error err = {0};

    (void)state;
    log_init("test", LOG_ERROR);
    fixture.catalog = catalog_open(MODEL, &err);
    fixture.tokenizer = tokenizer_open(MODEL, &err);
    return fixture.catalog && fixture.tokenizer ? 0 : -1;
}

int api_model_close(void **state)
{
    (void)state;
    tokenizer_close(fixture.tokenizer);
    catalog_close(fixture.catalog);
    return 0;
}

int api_open(void **state)
{
    (void)state;
    open_cluster(false);
    return 0;
}

void api_open_without_logprobs(void)
{
    open_cluster(true);
}

/* --- a client --- */

int api_send(const struct api_question *question)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(api_port(fixture.api)),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    size_t length = strlen(question->body);
    char head[256];

    if (question->receive_bytes > 0) {
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &question->receive_bytes,
                                    sizeof(question->receive_bytes)),
                         0);
    }
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    snprintf(head, sizeof(head),
             "%s %s %s\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n",
             question->get ? "GET" : "POST", question->path, question->version, length);
    assert_int_equal(write(fd, head, strlen(head)), (ssize_t)strlen(head));
    assert_int_equal(write(fd, question->body, length), (ssize_t)length);
    return fd;
}

char *api_read(int fd)
{
    struct buffer answer = {0};
    char bytes[4096];
    ssize_t length;

    while ((length = read(fd, bytes, sizeof(bytes))) > 0) {
        buffer_append(&answer, bytes, (size_t)length);
    }
    close(fd);
    return buffer_take(&answer);
}

char *api_ask_raw(const char *path, const char *body)
{
    return api_read(api_send(&(struct api_question){"HTTP/1.1", path, body, 0, false}));
}

json_t *api_body(const char *answer)
{
    const char *body = strstr(answer, "\r\n\r\n");
    struct error err = {0};
    json_t *json;

    assert_non_null(body);
    json = json_parse(body + 4, strlen(body + 4), "answer", &err);
    assert_non_null(json);
    return json;
}

json_t *api_ask(const char *path, const char *body)
{
    char *answer = api_ask_raw(path, body);
    json_t *json;

    if (strncmp(answer, "HTTP/1.1 200", 12) != 0) {
        fail_msg("%s", answer);
    }
    json = api_body(answer);
    mem_free(answer);
    return json;
}

/* Chunks out of their framing: a chunk may end inside a line. */
static void dechunk(const char *body, struct buffer *out)
{
    char *end;
    size_t length;

    while ((length = strtoul(body, &end, 16)) > 0) {
        assert_memory_equal(end, "\r\n", 2);
        assert_true(strnlen(end + 2, length + 2) == length + 2); /* it is all there */
        buffer_append(out, end + 2, length);
        body = end + 2 + length + 2;
    }
}

json_t *api_events(const char *answer)
{
    const char *body = strstr(answer, "\r\n\r\n");
    struct buffer text = {0};
    json_t *events = json_array();
    char *rest, *line;

    assert_non_null(body);
    if (strcasestr(answer, "\r\nTransfer-Encoding: chunked\r\n")) {
        dechunk(body + 4, &text);
    } else {
        buffer_append_text(&text, body + 4);
    }
    assert_non_null(strstr(buffer_text(&text), "data: [DONE]"));
    rest = text.data;
    while ((line = strsep(&rest, "\n"))) {
        json_error_t problem;

        if (strncmp(line, "data: {", 7) == 0) {
            /* A token may be a NUL. */
            json_t *event = json_loads(line + 6, JSON_ALLOW_NUL, &problem);

            if (!event) {
                fail_msg("%s: %.300s", problem.text, line);
            }
            json_array_append_new(events, event);
        }
    }
    buffer_deinit(&text);
    return events;
}
