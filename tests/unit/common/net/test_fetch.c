/* test_fetch.c - files over the network: listing, ranges, refusals, and connections that break. */
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "common/net/fetch_wire.h"
#include "tests/support/cut_relay.h"
#include "tests/support/scratch.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define HASH       "0123456789abcdef"
#define DATA_BYTES ((uint64_t)21 * 1000 * 1000 + 7)

static const struct cluster_key no_key = {.present = false};

/* A server with a small file and a large one. */
struct service {
    struct scratch scratch;
    char *data;
    char *paths[2];
    struct fetch_file files[2];
    struct fetch_server *server;
};

static void service_open(struct service *service, const struct cluster_key *key)
{
    struct error err = {0};

    scratch_open(&service->scratch);
    service->data = mem_new_array(char, DATA_BYTES);
    for (uint64_t i = 0; i < DATA_BYTES; i += 8) {
        uint64_t bits = hash_counter(1, i, 0, 0);

        memcpy(service->data + i, &bits, DATA_BYTES - i < 8 ? DATA_BYTES - i : 8);
    }
    service->paths[0] = mem_strdup(scratch_path(&service->scratch, "config.json"));
    service->paths[1] = mem_strdup(scratch_path(&service->scratch, "weights"));
    assert_true(file_write(service->paths[0], "{}", 2, 0600, &err));
    assert_true(file_write(service->paths[1], service->data, DATA_BYTES, 0600, &err));
    service->files[0] = (struct fetch_file){"config.json", 2, 2, 0, 0};
    service->files[1] = (struct fetch_file){"weights", DATA_BYTES, 100, 7000, 32};
    service->server = fetch_server_start(
        &(struct fetch_server_config){.endpoint = "tcp://127.0.0.1:0",
                                      .key = key,
                                      .model_hash = HASH,
                                      .file_count = 2,
                                      .files = service->files,
                                      .paths = (const char *const *)service->paths},
        &err);
    assert_string_equal(err.message, "");
    assert_non_null(service->server);
}

static void service_close(struct service *service)
{
    fetch_server_stop(service->server);
    mem_free(service->data);
    mem_free(service->paths[0]);
    mem_free(service->paths[1]);
    scratch_close(&service->scratch);
}

static struct fetch_client *client_of(uint16_t port, const char *hash, int64_t patience_ns)
{
    static char endpoint[64]; /* one client at a time */
    struct fetch_client_config config = {
        .endpoint = endpoint, .key = &no_key, .model_hash = hash, .patience_ns = patience_ns};
    struct fetch_client *client;
    struct error err = {0};

    snprintf(endpoint, sizeof(endpoint), "tcp://127.0.0.1:%u", port);
    client = fetch_client_open(&config, &err);
    assert_string_equal(err.message, "");
    return client;
}

/* Compares what comes with what should. */
struct expected {
    const char *data;
    uint64_t next;
    uint64_t fail_at; /* then the sink fails */
};

static bool compare(void *context, uint64_t offset, const void *bytes, size_t length,
                    struct error *err)
{
    struct expected *expected = context;

    assert_int_equal(offset, expected->next);
    assert_true(length > 0 && length <= FETCH_CHUNK_BYTES);
    assert_memory_equal(bytes, expected->data + offset, length);
    expected->next += length;
    return expected->next < expected->fail_at || error_set(err, ERROR_LIMIT, "the sink is full");
}

static void read_all(struct fetch_client *client, const struct service *service, uint64_t offset,
                     uint64_t bytes)
{
    struct expected expected = {service->data, offset, UINT64_MAX};
    struct fetch_range range = {1, offset, bytes};
    struct error err = {0};

    if (!fetch_client_read(client, &range, compare, &expected, &err)) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(expected.next, offset + bytes);
}

static void files_are_listed_with_their_sizes(void **state)
{
    struct service service;
    struct fetch_client *client;
    struct fetch_listing listing;
    struct error err;

    (void)state;
    service_open(&service, &no_key);
    client = client_of(fetch_server_port(service.server), HASH, 0);
    assert_true(fetch_client_list(client, &listing, &err));
    assert_int_equal(listing.file_count, 2);
    assert_string_equal(listing.files[0].name, "config.json");
    assert_string_equal(listing.files[1].name, "weights");
    assert_int_equal(listing.files[1].bytes, DATA_BYTES);
    assert_int_equal(listing.files[1].header_bytes, 100);
    assert_int_equal(listing.files[1].extra_offset, 7000);
    assert_int_equal(listing.files[1].extra_bytes, 32);
    fetch_listing_deinit(&listing);
    assert_int_equal(fetch_server_sent_bytes(service.server), 33 + 11 + 33 + 7); /* once */
    read_all(client, &service, 5, 6);
    fetch_client_close(client);
    service_close(&service);
}

static void any_range_arrives_as_it_is(void **state)
{
    static const uint64_t ranges[][2] = {{0, 1},
                                         {DATA_BYTES - 1, 1},
                                         {3, 0},
                                         {0, DATA_BYTES},
                                         {FETCH_CHUNK_BYTES - 1, FETCH_CHUNK_BYTES + 2},
                                         {12345, 3 * (uint64_t)FETCH_CHUNK_BYTES}};
    struct service service;
    struct fetch_client *client;
    uint64_t total = 0;

    (void)state;
    service_open(&service, &no_key);
    client = client_of(fetch_server_port(service.server), HASH, 0);
    for (size_t i = 0; i < ARRAY_LENGTH(ranges); i++) {
        read_all(client, &service, ranges[i][0], ranges[i][1]);
        total += ranges[i][1];
    }
    assert_int_equal(fetch_client_counters(client).received_bytes, total);
    assert_int_equal(fetch_client_counters(client).resent_bytes, 0);
    assert_int_equal(fetch_server_sent_bytes(service.server), total);
    fetch_client_close(client);
    service_close(&service);
}

/* Two chunks a cut are asked for again at most, wherever it comes. */
static void a_cut_costs_two_chunks_at_most(void **state)
{
    static const uint64_t cuts[] = {1000, 5 * 1000 * 1000, 4194304 + 400, 2 * 4194304 + 3};
    struct service service;
    struct cut_relay *relay;
    struct fetch_client *client;
    struct fetch_counters counters;

    (void)state;
    service_open(&service, &no_key);
    relay = cut_relay_start(fetch_server_port(service.server), cuts, ARRAY_LENGTH(cuts));
    client = client_of(cut_relay_port(relay), HASH, 0);
    read_all(client, &service, 0, DATA_BYTES);
    counters = fetch_client_counters(client);
    assert_int_equal(counters.received_bytes, DATA_BYTES);
    assert_int_equal(cut_relay_connections(relay), ARRAY_LENGTH(cuts) + 1);
    assert_int_equal(counters.reconnects, ARRAY_LENGTH(cuts));
    assert_true(counters.resent_bytes > 0);
    assert_true(counters.resent_bytes <= ARRAY_LENGTH(cuts) * 2 * (uint64_t)FETCH_CHUNK_BYTES);
    fetch_client_close(client);
    cut_relay_stop(relay);
    service_close(&service);
}

static void expect_refusal(const struct service *service, const char *hash, uint32_t file,
                           uint64_t offset, const char *word)
{
    struct fetch_client *client = client_of(fetch_server_port(service->server), hash, 0);
    struct expected expected = {service->data, offset, UINT64_MAX};
    struct fetch_range range = {file, offset, 10};
    struct error err;

    assert_false(fetch_client_read(client, &range, compare, &expected, &err));
    assert_int_equal(err.code, ERROR_PEER);
    if (strstr(err.message, word) == NULL) {
        fail_msg("%s", err.message);
    }
    fetch_client_close(client);
}

static void what_is_not_on_offer_is_refused(void **state)
{
    struct service service;

    (void)state;
    service_open(&service, &no_key);
    expect_refusal(&service, "fedcba9876543210", 0, 0, "model " HASH " is served");
    expect_refusal(&service, HASH, 2, 0, "file 2 of 2");
    expect_refusal(&service, HASH, 1, DATA_BYTES - 9, "weights: bytes");
    expect_refusal(&service, HASH, 1, UINT64_MAX - 20, "weights: bytes");
    service_close(&service);
}

/* A file that has shrunk since it was listed. */
static void a_file_that_cannot_be_read_is_named(void **state)
{
    struct service service;
    struct error err;

    (void)state;
    service_open(&service, &no_key);
    assert_true(file_write(service.paths[1], "short", 5, 0600, &err));
    expect_refusal(&service, HASH, 1, 100, "weights");
    service_close(&service);
}

static void a_failing_sink_ends_the_call_and_the_client_goes_on(void **state)
{
    struct service service;
    struct fetch_client *client;
    struct expected expected;
    struct fetch_range range = {1, 0, DATA_BYTES};
    struct error err;

    (void)state;
    service_open(&service, &no_key);
    client = client_of(fetch_server_port(service.server), HASH, 0);
    expected = (struct expected){service.data, 0, 2 * (uint64_t)FETCH_CHUNK_BYTES};
    assert_false(fetch_client_read(client, &range, compare, &expected, &err));
    assert_string_equal(err.message, "the sink is full");
    read_all(client, &service, 77, 5000000);
    fetch_client_close(client);
    service_close(&service);
}

static void nobody_there_is_said_when_patience_ends(void **state)
{
    struct fetch_client *client = client_of(9, HASH, 300 * NS_PER_MS);
    struct fetch_listing listing;
    struct error err;

    (void)state;
    assert_false(fetch_client_list(client, &listing, &err));
    assert_int_equal(err.code, ERROR_PEER);
    assert_non_null(strstr(err.message, "nobody answers"));
    fetch_client_close(client);
}

static void strangers_without_the_key_get_nothing(void **state)
{
    struct service service;
    struct scratch scratch;
    struct cluster_key key;
    struct fetch_client *client;
    struct fetch_listing listing;
    struct error err;

    (void)state;
    scratch_open(&scratch);
    assert_true(keys_generate(scratch_path(&scratch, "key"), &err));
    assert_true(keys_read(scratch_path(&scratch, "key"), &key, &err));
    service_open(&service, &key);
    client = client_of(fetch_server_port(service.server), HASH, 500 * NS_PER_MS);
    assert_false(fetch_client_list(client, &listing, &err));
    fetch_client_close(client);
    service_close(&service);
    scratch_close(&scratch);
}

struct parallel {
    const struct service *service;
    uint32_t number;
};

static void *read_part(void *context)
{
    const struct parallel *parallel = context;
    char endpoint[64];
    struct fetch_client_config config = {.endpoint = endpoint, .key = &no_key, .model_hash = HASH};
    struct fetch_client *client;
    struct error err;

    snprintf(endpoint, sizeof(endpoint), "tcp://127.0.0.1:%u",
             fetch_server_port(parallel->service->server));
    client = fetch_client_open(&config, &err);
    assert_non_null(client);
    read_all(client, parallel->service, parallel->number * 1000003, 13000000);
    fetch_client_close(client);
    return NULL;
}

static void several_clients_read_at_once(void **state)
{
    struct service service;
    struct parallel parts[4];
    pthread_t threads[4];

    (void)state;
    service_open(&service, &no_key);
    for (uint32_t i = 0; i < 4; i++) {
        parts[i] = (struct parallel){&service, i};
        assert_int_equal(pthread_create(&threads[i], NULL, read_part, &parts[i]), 0);
    }
    for (uint32_t i = 0; i < 4; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    service_close(&service);
}

/* --- the bytes --- */

static void requests_come_back_as_they_were(void **state)
{
    struct fetch_request request = {FETCH_READ, 77, HASH, 3, FETCH_CHUNK_BYTES, UINT64_MAX - 5};
    uint8_t packed[FETCH_REQUEST_BYTES];
    struct fetch_request got;
    struct error err;

    (void)state;
    fetch_request_encode(&request, packed);
    assert_true(fetch_request_decode(packed, sizeof(packed), &got, &err));
    assert_int_equal(got.kind, FETCH_READ);
    assert_int_equal(got.tag, 77);
    assert_string_equal(got.model_hash, HASH);
    assert_int_equal(got.file, 3);
    assert_int_equal(got.bytes, FETCH_CHUNK_BYTES);
    assert_true(got.offset == UINT64_MAX - 5);
    for (size_t i = 0; i < sizeof(packed); i++) {
        packed[i] ^= 0x10;
        assert_false(fetch_request_decode(packed, sizeof(packed), &got, &err));
        packed[i] ^= 0x10;
        assert_false(fetch_request_decode(packed, i, &got, &err));
    }
    request.bytes = FETCH_CHUNK_BYTES + 1;
    fetch_request_encode(&request, packed);
    assert_false(fetch_request_decode(packed, sizeof(packed), &got, &err));
}

static bool listing_of(const char *name, uint64_t bytes, uint64_t header_bytes, struct error *err)
{
    struct fetch_file files[] = {{"a", 5, 0, 0, 0}, {name, bytes, header_bytes, 0, 0}};
    struct fetch_listing listing;
    struct buffer packed = {0};
    bool decoded;

    fetch_listing_encode(files, 2, &packed);
    decoded = fetch_listing_decode(packed.data, packed.length, &listing, err);
    if (decoded) {
        assert_string_equal(listing.files[1].name, name);
        fetch_listing_deinit(&listing);
    }
    buffer_deinit(&packed);
    return decoded;
}

static void names_that_leave_the_folder_are_refused(void **state)
{
    static const char *const bad[] = {"..", "b/../c", "/etc/passwd", ".b", "b\nc", "b\\c", "a"};
    struct error err = {0};

    (void)state;
    assert_true(listing_of("model-00001-of-00002.safetensors", 9, 9, &err));
    assert_true(listing_of("모델.gguf", 9, 0, &err));
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        assert_false(listing_of(bad[i], 9, 0, &err));
        assert_int_equal(err.code, ERROR_INPUT);
    }
    assert_false(listing_of("b", 9, 10, &err));
    assert_false(listing_of("b", UINT64_MAX, 10, &err));
}

static void cut_listings_are_refused(void **state)
{
    struct fetch_file files[] = {{"a", 5, 0, 0, 0}, {"bcd", 6, 1, 2, 3}};
    struct fetch_listing listing;
    struct buffer packed = {0};
    struct error err;

    (void)state;
    fetch_listing_encode(files, 2, &packed);
    for (size_t length = 1; length < packed.length; length++) {
        if (length == 34) {
            continue; /* one whole file */
        }
        assert_false(fetch_listing_decode(packed.data, length, &listing, &err));
    }
    buffer_deinit(&packed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_listed_with_their_sizes),
        cmocka_unit_test(any_range_arrives_as_it_is),
        cmocka_unit_test(a_cut_costs_two_chunks_at_most),
        cmocka_unit_test(what_is_not_on_offer_is_refused),
        cmocka_unit_test(a_file_that_cannot_be_read_is_named),
        cmocka_unit_test(a_failing_sink_ends_the_call_and_the_client_goes_on),
        cmocka_unit_test(nobody_there_is_said_when_patience_ends),
        cmocka_unit_test(strangers_without_the_key_get_nothing),
        cmocka_unit_test(several_clients_read_at_once),
        cmocka_unit_test(requests_come_back_as_they_were),
        cmocka_unit_test(names_that_leave_the_folder_are_refused),
        cmocka_unit_test(cut_listings_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
