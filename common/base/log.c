/* log.c - lines for people.
 *
 * A line is put together on the stack and leaves in one write(), so that lines of several threads
 * and processes on one terminal never mix. Control characters become spaces: what a peer sent can
 * not forge a line.
 */
#include "common/base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES_MAX 2048
#define WHO_BYTES_MAX  64

static const char *const level_names[] = {"error", "warn", "info", "debug", "trace"};

static atomic_int level_max = LOG_INFO;
static pthread_mutex_t who_mutex = PTHREAD_MUTEX_INITIALIZER; /* guards who_name */
static char who_name[WHO_BYTES_MAX] = "shoal";

/* The index of the level called `name`, or -1. */
static int level_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LENGTH(level_names); i++) {
        if (strcmp(name, level_names[i]) == 0) {
            return (int)i;
        }
    }
    return -1;
}

void log_init(const char *who, enum log_level level_default)
{
    const char *wish = getenv("SHOAL_LOG");
    int level = (int)level_default;
    bool understood = true;

    if (wish != NULL && wish[0] != '\0') {
        understood = level_find(wish) >= 0;
        level = understood ? level_find(wish) : level;
    }
    log_set_who(who);
    atomic_store(&level_max, level);
    if (!understood) {
        log_warn("SHOAL_LOG is not understood: value=%s known=error,warn,info,debug,trace", wish);
    }
}

void log_set_who(const char *who)
{
    pthread_mutex_lock(&who_mutex);
    (void)snprintf(who_name, sizeof(who_name), "%s", who);
    pthread_mutex_unlock(&who_mutex);
}

bool log_enabled(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&level_max, memory_order_relaxed);
}

/* "2026-11-21T22:43:17.123Z info  worker 3: "; returns its length. */
static size_t head_format(char *line, size_t line_bytes, enum log_level level)
{
    struct timespec now;
    struct tm date;
    size_t length;
    int more;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &date);
    length = strftime(line, line_bytes, "%Y-%m-%dT%H:%M:%S", &date);
    pthread_mutex_lock(&who_mutex);
    more = snprintf(line + length, line_bytes - length, ".%03ldZ %-5s %s: ", now.tv_nsec / 1000000,
                    level_names[level], who_name);
    pthread_mutex_unlock(&who_mutex);
    return length + (more > 0 ? (size_t)more : 0);
}

static void line_write(const char *line, size_t length)
{
    while (length > 0) {
        ssize_t written = write(STDERR_FILENO, line, length);

        if (written < 0 && errno != EINTR) {
            return; /* nobody reads standard error: there is no one to tell */
        }
        if (written > 0) {
            line += written;
            length -= (size_t)written;
        }
    }
}

void log_write(enum log_level level, const char *format, ...)
{
    int saved = errno;
    char line[LINE_BYTES_MAX];
    size_t length;
    va_list args;
    int more;

    if (!log_enabled(level)) {
        return;
    }
    length = head_format(line, sizeof(line) - 1, level);
    errno = saved; /* for %m */
    va_start(args, format);
    more = vsnprintf(line + length, sizeof(line) - 1 - length, format, args);
    va_end(args);
    length += more > 0 ? (size_t)more : 0;
    if (length > sizeof(line) - 2) {
        length = sizeof(line) - 2; /* cut; one byte is kept for the newline */
    }
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7F) {
            line[i] = ' ';
        }
    }
    line[length] = '\n';
    line_write(line, length + 1);
    errno = saved;
}
