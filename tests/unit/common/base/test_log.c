/* test_log.c - the lines on standard error, read back. */
#include "common/base/log.h"

#include "tests/support/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Standard error, sent to a file for the time of a test. */
struct capture {
    struct scratch scratch;
    int saved;
    char text[1 << 17];
};

static struct capture capture;

static void capture_begin(void)
{
    int fd;

    fflush(stderr);
    scratch_open(&capture.scratch);
    capture.saved = dup(STDERR_FILENO);
    fd = open(scratch_path(&capture.scratch, "log"), O_RDWR | O_CREAT | O_APPEND, 0600);
    assert_true(fd >= 0 && dup2(fd, STDERR_FILENO) >= 0);
    close(fd);
}

/* What was written since capture_begin. */
static const char *capture_end(void)
{
    ssize_t length;

    fflush(stderr);
    length = pread(STDERR_FILENO, capture.text, sizeof(capture.text) - 1, 0);
    assert_true(length >= 0);
    capture.text[length] = '\0';
    dup2(capture.saved, STDERR_FILENO);
    close(capture.saved);
    scratch_close(&capture.scratch);
    return capture.text;
}

static bool matches(const char *text, const char *pattern)
{
    regex_t regex;
    int result;

    assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    result = regexec(&regex, text, 0, NULL, 0);
    regfree(&regex);
    return result == 0;
}

#define TIME_PATTERN "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z "

static void a_line_has_time_level_who_and_sentence(void **state)
{
    (void)state;
    const char *text;

    unsetenv("SHOAL_LOG");
    log_init("worker 3", LOG_INFO);
    capture_begin();
    log_info("worker %d joined: host=%s", 3, "a");
    text = capture_end();
    assert_true(matches(text, TIME_PATTERN "info  worker 3: worker 3 joined: host=a\n$"));
}

static void lines_below_the_level_are_not_written(void **state)
{
    (void)state;
    const char *text;

    unsetenv("SHOAL_LOG");
    log_init("a", LOG_WARN);
    capture_begin();
    log_error("one");
    log_warn("two");
    log_info("three");
    log_debug("four");
    log_trace("five");
    text = capture_end();
    assert_true(matches(text, TIME_PATTERN "error a: one\n[^\n]* warn  a: two\n$"));
    assert_true(log_enabled(LOG_WARN));
    assert_false(log_enabled(LOG_INFO));
}

static void the_environment_decides_the_level(void **state)
{
    (void)state;
    setenv("SHOAL_LOG", "trace", 1);
    log_init("a", LOG_ERROR);
    assert_true(log_enabled(LOG_TRACE));
    setenv("SHOAL_LOG", "", 1);
    log_init("a", LOG_DEBUG);
    assert_true(log_enabled(LOG_DEBUG));
    assert_false(log_enabled(LOG_TRACE));
}

static void a_level_that_does_not_exist_is_reported(void **state)
{
    (void)state;
    const char *text;

    setenv("SHOAL_LOG", "loud", 1);
    capture_begin();
    log_init("a", LOG_INFO);
    text = capture_end();
    assert_true(matches(text, "warn  a: SHOAL_LOG is not understood: value=loud"));
    assert_true(log_enabled(LOG_INFO));
    assert_false(log_enabled(LOG_DEBUG));
    unsetenv("SHOAL_LOG");
}

static void a_peer_cannot_forge_a_line(void **state)
{
    (void)state;
    const char *text;

    log_init("a", LOG_INFO);
    capture_begin();
    log_info("host=%s", "x\n2026 error a: lies\r\x1b[2J");
    text = capture_end();
    assert_true(matches(text, "host=x 2026 error a: lies  \\[2J\n$"));
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
}

static void a_long_line_is_cut_and_still_ends(void **state)
{
    (void)state;
    const char *text;

    log_init("a", LOG_INFO);
    capture_begin();
    errno = ENOENT;
    log_info("%05000d", 1);
    assert_int_equal(errno, ENOENT);
    text = capture_end();
    assert_true(strlen(text) > 1000 && strlen(text) < 5000);
    assert_int_equal(text[strlen(text) - 1], '\n');
}

static void *lines_write(void *context)
{
    for (int i = 0; i < 100; i++) {
        log_info("from %s", (const char *)context);
        log_set_who("changed");
    }
    return NULL;
}

static void lines_of_several_threads_stay_whole(void **state)
{
    (void)state;
    static char names[3][8] = {"one", "two", "three"};
    pthread_t threads[3];
    size_t lines = 0;
    char *text;

    log_init("start", LOG_INFO);
    capture_begin();
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, lines_write, names[i]), 0);
    }
    for (size_t i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
    text = (char *)capture_end();
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        assert_true(matches(line, TIME_PATTERN "info  (start|changed): from (one|two|three)$"));
        lines++;
    }
    assert_int_equal(lines, 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_has_time_level_who_and_sentence),
        cmocka_unit_test(lines_below_the_level_are_not_written),
        cmocka_unit_test(the_environment_decides_the_level),
        cmocka_unit_test(a_level_that_does_not_exist_is_reported),
        cmocka_unit_test(a_peer_cannot_forge_a_line),
        cmocka_unit_test(a_long_line_is_cut_and_still_ends),
        cmocka_unit_test(lines_of_several_threads_stay_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
