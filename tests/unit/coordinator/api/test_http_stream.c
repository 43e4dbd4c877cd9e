/* test_http_stream.c - streams whose clients are slow, old, or leave. */
#include "api_fixture.h"
#include "common/base/clock.h"
#include "common/base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define CHOICES (API_SLOTS + API_QUEUE)
#define TOKENS  2000

/* More than socket buffers hold, however few chunks it comes in: 6 choices of 2000 tokens with
 * about 700 bytes each. */
static const char long_body[] = "{\"prompt\":[42],\"max_tokens\":2000,\"n\":6,\"stream\":true,"
                                "\"ignore_eos\":true,\"return_token_ids\":true,\"logprobs\":20}";
static const char short_body[] = "{\"prompt\":[42],\"max_tokens\":40,\"stream\":true,"
                                 "\"ignore_eos\":true,\"return_token_ids\":true}";

static void wait_for_active(uint32_t count)
{
    int64_t end_ns = clock_monotonic_ns() + 60 * NS_PER_S;

    while (api_active_requests(fixture.api) != count) {
        struct timespec pause = {.tv_nsec = 1000000};

        assert_true(clock_monotonic_ns() < end_ns);
        nanosleep(&pause, NULL);
    }
}

/* All tokens that the cluster will generate have been. */
static void wait_for_idle_cluster(uint64_t finished)
{
    int64_t end_ns = clock_monotonic_ns() + 120 * NS_PER_S;
    bool idle = false;

    while (!idle) {
        struct cluster_status *status = cluster_status(fixture.cluster);
        struct timespec pause = {.tv_nsec = 1000000};

        idle = status->scheduler.finished == finished;
        cluster_status_destroy(status);
        assert_true(clock_monotonic_ns() < end_ns);
        nanosleep(&pause, NULL);
    }
}

static void expect_tokens(const json_t *events, uint32_t choice_count, uint32_t token_count)
{
    uint32_t next[CHOICES] = {0};

    for (size_t i = 0; i < json_array_size(events); i++) {
        const json_t *choice =
            json_array_get(json_object_get(json_array_get(events, i), "choices"), 0);
        const json_t *ids = json_object_get(choice, "token_ids");
        size_t index = (size_t)json_integer_value(json_object_get(choice, "index"));

        assert_true(index < choice_count);
        for (size_t t = 0; t < json_array_size(ids); t++) {
            assert_int_equal(json_integer_value(json_array_get(ids, t)),
                             fake_token(1 + next[index]));
            next[index]++;
        }
    }
    for (uint32_t i = 0; i < choice_count; i++) {
        assert_int_equal(next[i], token_count);
    }
}

static void read_and_expect(int fd, uint32_t choice_count, uint32_t token_count)
{
    char *answer = api_read(fd);
    json_t *events = api_events(answer);

    expect_tokens(events, choice_count, token_count);
    json_decref(events);
    mem_free(answer);
}

/* It begins to read when everything has been generated. */
static void a_slow_reader_misses_nothing(void **state)
{
    (void)state;
    int fd =
        api_send(&(struct api_question){"HTTP/1.1", "/v1/completions", long_body, 4096, false});

    wait_for_idle_cluster(CHOICES);
    assert_int_equal(api_active_requests(fixture.api), 1);
    read_and_expect(fd, CHOICES, TOKENS);
    wait_for_active(0);
}

static void a_reader_that_leaves_is_noticed_while_it_is_waited_for(void **state)
{
    (void)state;
    int fd =
        api_send(&(struct api_question){"HTTP/1.1", "/v1/completions", long_body, 4096, false});

    wait_for_idle_cluster(CHOICES);
    assert_int_equal(api_active_requests(fixture.api), 1);
    close(fd);
    wait_for_active(0);
}

static void a_reader_that_leaves_is_noticed_while_nothing_comes(void **state)
{
    (void)state;
    fake_worker_hold(fixture.worker);
    int fd = api_send(&(struct api_question){"HTTP/1.1", "/v1/completions", short_body, 0, false});

    wait_for_active(1);
    close(fd);
    wait_for_active(0);
}

static void stopping_ends_streams_that_wait_for_room(void **state)
{
    int fd =
        api_send(&(struct api_question){"HTTP/1.1", "/v1/completions", long_body, 4096, false});

    wait_for_idle_cluster(CHOICES);
    api_close(state);
    close(fd);
    api_open(state);
}

static void older_clients_get_the_same_without_chunks(void **state)
{
    int fd = api_send(&(struct api_question){"HTTP/1.0", "/v1/completions", short_body, 0, false});

    (void)state;
    read_and_expect(fd, 1, 40);
    fd = api_send(&(struct api_question){"HTTP/1.1", "/v1/completions", short_body, 0, false});
    read_and_expect(fd, 1, 40);
}

static void deliveries_are_counted(void **state)
{
    char *metrics;
    const char *count;

    (void)state;
    read_and_expect(
        api_send(&(struct api_question){"HTTP/1.1", "/v1/completions", short_body, 0, false}), 1,
        40);
    metrics = api_read(api_send(&(struct api_question){"HTTP/1.1", "/metrics", "", 0, true}));
    count = strstr(metrics, "\nshoal_token_delivery_seconds_count ");
    assert_non_null(count);
    assert_in_range(strtoul(count + strlen("\nshoal_token_delivery_seconds_count "), NULL, 10), 1,
                    40);
    assert_non_null(strstr(metrics, "\nshoal_token_delivery_seconds_bucket{le=\"0.0002\"} "));
    assert_non_null(strstr(metrics, "\nshoal_prefix_cache_hits_total "));
    mem_free(metrics);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, api_open, api_close)
    const struct CMUnitTest tests[] = {
        CASE(a_slow_reader_misses_nothing),
        CASE(a_reader_that_leaves_is_noticed_while_it_is_waited_for),
        CASE(a_reader_that_leaves_is_noticed_while_nothing_comes),
        CASE(stopping_ends_streams_that_wait_for_room),
        CASE(older_clients_get_the_same_without_chunks),
        CASE(deliveries_are_counted),
    };

    return cmocka_run_group_tests(tests, api_model_open, api_model_close);
}
