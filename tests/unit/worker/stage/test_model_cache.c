/* test_model_cache.c - a model's description in the cache, and who leaves when it is full. */
#include "worker/stage/model_cache.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "tests/support/scratch.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define HASH       "0123456789abcdef"
#define FILE_BYTES ((uint64_t)3 << 20)

static const struct cluster_key no_key = {.present = false};

/* A model of two files, served; and a folder for the cache. */
struct fixture {
    struct scratch scratch;
    char *directory;
    char *paths[2];
    struct fetch_file files[2];
    struct fetch_server *server;
    char endpoint[64];
};

static int setup(void **state)
{
    struct fixture *fixture = mem_new(struct fixture);
    char *bytes = mem_new_array(char, FILE_BYTES);
    struct error err = {0};

    scratch_open(&fixture->scratch);
    fixture->directory = mem_strdup(scratch_path(&fixture->scratch, "a/b/cache"));
    fixture->paths[0] = mem_strdup(scratch_path(&fixture->scratch, "config.json"));
    fixture->paths[1] = mem_strdup(scratch_path(&fixture->scratch, "w.safetensors"));
    for (uint64_t i = 0; i < FILE_BYTES; i++) {
        bytes[i] = (char)(i * i >> 7);
    }
    assert_true(file_write(fixture->paths[0], "{\"a\": 1}", 8, 0600, &err));
    assert_true(file_write(fixture->paths[1], bytes, FILE_BYTES, 0600, &err));
    mem_free(bytes);
    fixture->files[0] = (struct fetch_file){"config.json", 8, 8, 0, 0};
    fixture->files[1] = (struct fetch_file){"w.safetensors", FILE_BYTES, 5000, 1 << 20, 64};
    fixture->server = fetch_server_start(
        &(struct fetch_server_config){"tcp://127.0.0.1:0", &no_key, HASH, 2, fixture->files,
                                      (const char *const *)fixture->paths},
        &err);
    assert_string_equal(err.message, "");
    snprintf(fixture->endpoint, sizeof(fixture->endpoint), "tcp://127.0.0.1:%u",
             fetch_server_port(fixture->server));
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    fetch_server_stop(fixture->server);
    scratch_close(&fixture->scratch);
    mem_free(fixture->directory);
    mem_free(fixture->paths[0]);
    mem_free(fixture->paths[1]);
    mem_free(fixture);
    return 0;
}

static struct model_cache *cache_open(const struct fixture *fixture, const char *hash,
                                      uint64_t bytes_max)
{
    struct model_cache_config config = {fixture->directory, bytes_max, hash};
    struct error err = {0};
    struct model_cache *cache = model_cache_open(&config, &err);

    assert_string_equal(err.message, "");
    assert_non_null(cache);
    return cache;
}

/* Returns how many bytes came over the network. */
static uint64_t describe(const struct fixture *fixture, struct model_cache *cache, char **path)
{
    struct error err = {0};
    struct fetch_client *client = fetch_client_open(
        &(struct fetch_client_config){fixture->endpoint, &no_key, HASH, NULL, 0}, &err);
    uint64_t bytes;

    if (!model_cache_describe(cache, client, path, &err)) {
        fail_msg("%s", err.message);
    }
    bytes = fetch_client_counters(client).received_bytes;
    fetch_client_close(client);
    return bytes;
}

static void expect_same(const char *path, const char *original, uint64_t offset, size_t length)
{
    struct error err;
    char *got, *wanted;
    size_t got_bytes, wanted_bytes;

    assert_true(file_read(path, 1 << 24, &got, &got_bytes, &err));
    assert_true(file_read(original, 1 << 24, &wanted, &wanted_bytes, &err));
    assert_int_equal(got_bytes, wanted_bytes);
    assert_memory_equal(got + offset, wanted + offset, length);
    mem_free(got);
    mem_free(wanted);
}

static void a_description_is_fetched_once(void **state)
{
    const struct fixture *fixture = *state;
    struct model_cache *cache = cache_open(fixture, HASH, 0);
    char *path, *again, *config, *weights;
    struct stat facts;

    assert_int_equal(describe(fixture, cache, &path), 8 + 5000 + 64);
    config = mem_printf("%s/config.json", path);
    weights = mem_printf("%s/w.safetensors", path);
    expect_same(config, fixture->paths[0], 0, 8);
    expect_same(weights, fixture->paths[1], 0, 5000);
    expect_same(weights, fixture->paths[1], 1 << 20, 64);
    assert_int_equal(stat(weights, &facts), 0);
    assert_true((uint64_t)facts.st_blocks * 512 < FILE_BYTES / 2); /* holes */
    model_cache_close(cache);

    cache = cache_open(fixture, HASH, 0);
    assert_int_equal(describe(fixture, cache, &again), 0);
    assert_string_equal(again, path);
    model_cache_close(cache);
    mem_free(path);
    mem_free(again);
    mem_free(config);
    mem_free(weights);
}

static void a_damaged_description_is_fetched_again(void **state)
{
    const struct fixture *fixture = *state;
    struct model_cache *cache = cache_open(fixture, HASH, 0);
    char *path, *weights;
    FILE *file;

    describe(fixture, cache, &path);
    model_cache_close(cache);
    weights = mem_printf("%s/w.safetensors", path);
    file = fopen(weights, "r+");
    assert_non_null(file);
    assert_int_equal(fseek(file, 4000, SEEK_SET), 0);
    assert_int_equal(fputc('x', file), 'x');
    assert_int_equal(fclose(file), 0);
    mem_free(path);
    cache = cache_open(fixture, HASH, 0);
    assert_int_equal(describe(fixture, cache, &path), 5000);
    expect_same(weights, fixture->paths[1], 0, 5000);
    model_cache_close(cache);
    mem_free(path);
    mem_free(weights);
}

/* A model of so many bytes, used so many seconds ago. */
static void model_make(const struct fixture *fixture, const char *hash, size_t bytes,
                       time_t seconds_ago)
{
    struct model_cache *cache = cache_open(fixture, hash, 0);
    char *lock = model_cache_path(cache, "lock"), *data = model_cache_path(cache, "files/data");
    char *content = mem_new_array(char, bytes);
    struct timespec times[2] = {{time(NULL) - seconds_ago, 0}, {time(NULL) - seconds_ago, 0}};
    struct error err;

    memset(content, 'x', bytes);
    assert_true(file_write(data, content, bytes, 0600, &err));
    model_cache_close(cache);
    assert_int_equal(utimensat(AT_FDCWD, lock, times, 0), 0);
    mem_free(content);
    mem_free(lock);
    mem_free(data);
}

static bool is_there(const struct fixture *fixture, const char *hash)
{
    char *path = mem_printf("%s/%s/files/data", fixture->directory, hash);
    bool there = file_exists(path);

    mem_free(path);
    return there;
}

static void the_longest_unused_leaves_first(void **state)
{
    const struct fixture *fixture = *state;
    struct model_cache *cache;
    struct error err;

    model_make(fixture, "aaaaaaaaaaaaaaaa", 1 << 20, 100);
    model_make(fixture, "bbbbbbbbbbbbbbbb", 1 << 20, 300);
    model_make(fixture, "cccccccccccccccc", 1 << 20, 200);
    cache = cache_open(fixture, HASH, 4 << 20);
    assert_true(model_cache_make_room(cache, 900000, &err));
    assert_true(is_there(fixture, "bbbbbbbbbbbbbbbb"));
    assert_true(model_cache_make_room(cache, 1900000, &err));
    assert_false(is_there(fixture, "bbbbbbbbbbbbbbbb"));
    assert_true(is_there(fixture, "aaaaaaaaaaaaaaaa"));
    assert_true(is_there(fixture, "cccccccccccccccc"));
    assert_true(model_cache_make_room(cache, 4000000, &err));
    assert_false(is_there(fixture, "aaaaaaaaaaaaaaaa"));
    assert_false(is_there(fixture, "cccccccccccccccc"));
    model_cache_close(cache);
}

static void a_model_in_use_stays(void **state)
{
    const struct fixture *fixture = *state;
    struct model_cache *cache, *other;
    struct error err;

    model_make(fixture, "aaaaaaaaaaaaaaaa", 1 << 20, 100);
    other = cache_open(fixture, "aaaaaaaaaaaaaaaa", 0);
    cache = cache_open(fixture, HASH, 2 << 20);
    assert_false(model_cache_make_room(cache, 1900000, &err));
    assert_int_equal(err.code, ERROR_LIMIT);
    assert_non_null(strstr(err.message, "--cache-size"));
    assert_true(is_there(fixture, "aaaaaaaaaaaaaaaa"));
    model_cache_close(other);
    assert_true(model_cache_make_room(cache, 1900000, &err));
    assert_false(is_there(fixture, "aaaaaaaaaaaaaaaa"));
    model_cache_close(cache);
}

static void what_is_not_ours_stays(void **state)
{
    const struct fixture *fixture = *state;
    char *folder = mem_printf("%s/photos", fixture->directory);
    struct model_cache *cache = cache_open(fixture, HASH, 1 << 20);
    char *file = mem_printf("%s/lock", folder);
    struct error err;

    assert_int_equal(mkdir(folder, 0700), 0);
    assert_true(file_write(file, "x", 1, 0600, &err));
    assert_false(model_cache_make_room(cache, 2 << 20, &err));
    assert_true(file_exists(file));
    model_cache_close(cache);
    mem_free(folder);
    mem_free(file);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_description_is_fetched_once),   CASE(a_damaged_description_is_fetched_again),
        CASE(the_longest_unused_leaves_first), CASE(a_model_in_use_stays),
        CASE(what_is_not_ours_stays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
