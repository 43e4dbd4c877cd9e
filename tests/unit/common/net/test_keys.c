/* The key file: made once, read only by its owner, and checked as a pair. */
#include "common/net/keys.h"

#include "common/base/file.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static struct scratch scratch;

static int scratch_setup(void **state)
{
    (void)state;
    scratch_open(&scratch);
    return 0;
}

static int scratch_teardown(void **state)
{
    (void)state;
    scratch_close(&scratch);
    return 0;
}

static void a_new_key_is_private_and_can_be_read(void **state)
{
    const char *path = scratch_path(&scratch, "key");
    struct cluster_key key;
    struct stat status;
    struct error err;

    (void)state;
    assert_true(keys_generate(path, &err));
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_true(keys_read(path, &key, &err));
    assert_true(key.present);
    assert_int_equal(strlen(key.public_text), 40);
    assert_int_equal(strlen(key.secret_text), 40);
}

static void a_key_is_never_overwritten(void **state)
{
    const char *path = scratch_path(&scratch, "key");
    struct error err;

    (void)state;
    assert_true(keys_generate(path, &err));
    assert_false(keys_generate(path, &err));
    assert_int_equal(err.code, ERROR_USAGE);
    assert_non_null(strstr(err.message, path));
}

static void a_file_that_others_may_use_is_refused(void **state)
{
    static const unsigned modes[] = {0640, 0604, 0620, 0602, 0610, 0644, 0666};
    const char *path = scratch_path(&scratch, "key");
    struct cluster_key key;
    struct error err;

    (void)state;
    assert_true(keys_generate(path, &err));
    for (size_t i = 0; i < ARRAY_LENGTH(modes); i++) {
        assert_int_equal(chmod(path, modes[i]), 0);
        assert_false(keys_read(path, &key, &err));
        assert_non_null(strstr(err.message, "chmod 600"));
    }
    assert_int_equal(chmod(path, 0400), 0);
    assert_true(keys_read(path, &key, &err));
}

static void text_is_refused(const char *text, const char *why)
{
    const char *path = scratch_path(&scratch, "bad");
    struct cluster_key key;
    struct error err;

    assert_true(file_write(path, text, strlen(text), 0600, &err));
    assert_false(keys_read(path, &key, &err));
    if (strstr(err.message, why) == NULL || strstr(err.message, path) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", err.message, why);
    }
}

static void malformed_files_are_refused_with_the_reason(void **state)
{
    struct cluster_key a;
    struct cluster_key b;
    struct error err;
    char text[200];

    (void)state;
    assert_true(keys_generate(scratch_path(&scratch, "a"), &err));
    assert_true(keys_generate(scratch_path(&scratch, "b"), &err));
    assert_true(keys_read(scratch_path(&scratch, "a"), &a, &err));
    assert_true(keys_read(scratch_path(&scratch, "b"), &b, &err));
    text_is_refused("", "public key is missing");
    (void)snprintf(text, sizeof(text), "public %s\n", a.public_text);
    text_is_refused(text, "secret key is missing");
    (void)snprintf(text, sizeof(text), "public %s\nsecret %s\n", a.public_text, b.secret_text);
    text_is_refused(text, "do not belong together");
    (void)snprintf(text, sizeof(text), "public %s\nsecret %.39s\n", a.public_text, a.secret_text);
    text_is_refused(text, "39 characters instead of 40");
    (void)snprintf(text, sizeof(text), "public %s\nsecret \"%.39s\n", a.public_text, a.secret_text);
    text_is_refused(text, "key file");
    text_is_refused("hello\n", "neither");
}

static void comments_and_line_ends_of_other_systems_are_read(void **state)
{
    const char *path = scratch_path(&scratch, "crlf");
    struct cluster_key key;
    struct cluster_key again;
    struct error err;
    char text[300];

    (void)state;
    assert_true(keys_generate(scratch_path(&scratch, "a"), &err));
    assert_true(keys_read(scratch_path(&scratch, "a"), &key, &err));
    path = scratch_path(&scratch, "crlf");
    (void)snprintf(text, sizeof(text), "# a\r\n\r\nsecret %s\r\npublic %s", key.secret_text,
                   key.public_text);
    assert_true(file_write(path, text, strlen(text), 0600, &err));
    assert_true(keys_read(path, &again, &err));
    assert_string_equal(again.secret_text, key.secret_text);
}

static void a_missing_file_is_named(void **state)
{
    struct cluster_key key;
    struct error err;

    (void)state;
    assert_false(keys_read("/nonexistent/key", &key, &err));
    assert_non_null(strstr(err.message, "/nonexistent/key"));
}

static void only_loopback_needs_no_key(void **state)
{
    static const char *const loopback[] = {"tcp://127.0.0.1:5555", "tcp://127.9.9.9:1",
                                           "tcp://[::1]:5555", "tcp://localhost:*",
                                           "tcp://[::ffff:127.0.0.1]:1"};
    static const char *const open[] = {"tcp://0.0.0.0:5555", "tcp://*:5555", "tcp://[::]:1",
                                       "tcp://192.168.1.7:1", "tcp://host:1"};
    const struct cluster_key none = {0};
    const struct cluster_key key = {.present = true};
    struct error err;

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(loopback); i++) {
        assert_true(keys_check_endpoint(loopback[i], &none, KEYS_REQUIRED, &err));
        assert_false(keys_check_endpoint(open[i], &none, KEYS_REQUIRED, &err));
        assert_int_equal(err.code, ERROR_USAGE);
        assert_non_null(strstr(err.message, "--insecure"));
        assert_true(keys_check_endpoint(open[i], &key, KEYS_REQUIRED, &err));
        assert_true(keys_check_endpoint(open[i], &none, KEYS_INSECURE_ALLOWED, &err));
    }
}

static void an_endpoint_that_is_none_is_refused(void **state)
{
    static const char *const bad[] = {"",          "127.0.0.1:5", "tcp://",        "tcp://a",
                                      "tcp://:5",  "tcp://a:",    "tcp://a:65536", "tcp://a:5x",
                                      "udp://a:5", "tcp://a:-1",  "ipc:///tmp/x",  "tcp://[]:1"};
    const struct cluster_key none = {0};
    struct error err;

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        assert_false(keys_check_endpoint(bad[i], &none, KEYS_INSECURE_ALLOWED, &err));
        assert_int_equal(err.code, ERROR_USAGE);
    }
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_new_key_is_private_and_can_be_read),
        CASE(a_key_is_never_overwritten),
        CASE(a_file_that_others_may_use_is_refused),
        CASE(malformed_files_are_refused_with_the_reason),
        CASE(comments_and_line_ends_of_other_systems_are_read),
        CASE(a_missing_file_is_named),
        CASE(only_loopback_needs_no_key),
        CASE(an_endpoint_that_is_none_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
