/* bench_streams.c - opens many concurrent streams; the client of bench_streams.py.
 *
 * Usage: bench.streams PORT STREAMS SECONDS, with one request body a line on standard input. Each
 * of STREAMS slots posts the next body (the first again after the last) to /v1/chat/completions,
 * reads the stream to its end and begins anew, until SECONDS have passed; what runs then is read to
 * its end. One thread and epoll: about 3 us for a chunk, so that it is not what limits. For each
 * stream a JSON line: number of the body, HTTP status, whether [DONE] came, chunks, milliseconds to
 * the first text and to the end, and the text and thinking as they came. Strings are copied as
 * escaped.
 */
#include "common/base/buffer.h"
#include "common/base/clock.h"
#include "common/base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_MAX 256
#define PATIENCE_S 600

struct stream {
    int fd;
    size_t body;
    int64_t begin_ns, first_ns;
    uint32_t chunks;
    bool done;
    struct buffer input; /* not yet taken apart */
    struct buffer lines; /* body of the answer behind the chunks' framing */
    struct buffer text, thinking;
    int status; /* 0: the head has not come */
    size_t chunk_left;
    bool ended; /* the last chunk has come */
};

static char **bodies;
static size_t body_count, body_next;
static uint16_t port;
static int poll_fd;
static uint64_t begun, ended;

static void read_bodies(void)
{
    char *line = NULL;
    size_t bytes = 0;
    ssize_t length;

    while ((length = getline(&line, &bytes, stdin)) > 0) {
        line[strcspn(line, "\n")] = '\0';
        bodies = mem_resize(bodies, body_count + 1, sizeof(*bodies));
        bodies[body_count++] = mem_strdup(line);
    }
    free(line); /* libc's */
}

/* --- one stream --- */

static void stream_begin(struct stream *stream)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = stream};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    char head[160];
    int on = 1;

    stream->body = body_next++ % body_count;
    stream->fd = fd;
    stream->begin_ns = clock_monotonic_ns();
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        perror("connect");
        exit(1);
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    int length = snprintf(head, sizeof(head),
                          "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                          "Content-Length: %zu\r\n\r\n",
                          strlen(bodies[stream->body]));
    if (send(fd, head, (size_t)length, MSG_MORE) != length ||
        write(fd, bodies[stream->body], strlen(bodies[stream->body])) < 0) {
        perror("send");
        exit(1);
    }
    (void)fcntl(fd, F_SETFL, O_NONBLOCK);
    (void)epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event);
    begun++;
}

static double ms(int64_t from_ns, int64_t to_ns)
{
    return to_ns > from_ns ? (double)(to_ns - from_ns) / 1e6 : 0;
}

static void stream_end(struct stream *stream)
{
    printf("{\"body\":%zu,\"status\":%d,\"done\":%s,\"chunks\":%u,\"first_ms\":%.3f,\"ms\":%.3f,"
           "\"text\":\"%s\",\"thinking\":\"%s\"}\n",
           stream->body, stream->status, stream->done ? "true" : "false", stream->chunks,
           ms(stream->begin_ns, stream->first_ns), ms(stream->begin_ns, clock_monotonic_ns()),
           buffer_text(&stream->text), buffer_text(&stream->thinking));
    close(stream->fd);
    buffer_deinit(&stream->input);
    buffer_deinit(&stream->lines);
    buffer_deinit(&stream->text);
    buffer_deinit(&stream->thinking);
    *stream = (struct stream){.fd = -1};
    ended++;
}

/* The string behind `mark`, as escaped. */
static void take_string(const char *line, const char *mark, struct buffer *out)
{
    const char *begin = strstr(line, mark);
    const char *end;

    if (begin) {
        begin += strlen(mark);
        for (end = begin; *end != '"' && *end != '\0'; end += end[0] == '\\' ? 2 : 1) {
        }
        buffer_append(out, begin, (size_t)(end - begin));
    }
}

static void take_lines(struct stream *stream)
{
    char *newline;

    while ((newline = memchr(buffer_text(&stream->lines), '\n', stream->lines.length))) {
        size_t before = stream->text.length + stream->thinking.length;
        const char *line = stream->lines.data;

        *newline = '\0';
        stream->chunks += strncmp(line, "data: {", 7) == 0;
        stream->done |= strcmp(line, "data: [DONE]") == 0;
        take_string(line, "\"reasoning_content\":\"", &stream->thinking);
        take_string(line, "\"content\":\"", &stream->text);
        if (stream->first_ns == 0 && stream->text.length + stream->thinking.length > before) {
            stream->first_ns = clock_monotonic_ns();
        }
        buffer_consume(&stream->lines, (size_t)(newline + 1 - stream->lines.data));
    }
}

static bool take_head(struct stream *stream)
{
    const char *end = strstr(buffer_text(&stream->input), "\r\n\r\n");

    if (!end || sscanf(stream->input.data, "HTTP/1.1 %d", &stream->status) != 1) {
        return false;
    }
    buffer_consume(&stream->input, (size_t)(end + 4 - stream->input.data));
    return true;
}

/* One piece of a chunk, or a chunk's head; false: more bytes must come. */
static bool take_chunk(struct stream *stream)
{
    const char *newline;
    size_t length;

    if (stream->chunk_left > 2) { /* the chunk and the two bytes behind it */
        length = stream->chunk_left - 2;
        length = length < stream->input.length ? length : stream->input.length;
        buffer_append(&stream->lines, stream->input.data, length);
        buffer_consume(&stream->input, length);
        stream->chunk_left -= length;
        return length > 0;
    }
    if (stream->input.length < stream->chunk_left) {
        return false;
    }
    newline = memchr(buffer_text(&stream->input) + stream->chunk_left, '\n',
                     stream->input.length - stream->chunk_left);
    if (!newline) {
        return false;
    }
    length = strtoul(stream->input.data + stream->chunk_left, NULL, 16);
    buffer_consume(&stream->input, (size_t)(newline + 1 - stream->input.data));
    stream->chunk_left = length + 2;
    stream->ended = length == 0;
    return !stream->ended;
}

/* False: it is over. */
static bool stream_read(struct stream *stream)
{
    char bytes[16384];
    ssize_t length = read(stream->fd, bytes, sizeof(bytes));

    if (length < 0 && errno == EAGAIN) {
        return true;
    }
    if (length <= 0) {
        return false;
    }
    buffer_append(&stream->input, bytes, (size_t)length);
    if (stream->status == 0 && !take_head(stream)) {
        return true;
    }
    if (stream->status != 200) {
        return false;
    }
    while (take_chunk(stream)) {
    }
    take_lines(stream);
    return !stream->ended;
}

/* --- all --- */

static void run(struct stream *streams, size_t count, int64_t end_ns)
{
    struct epoll_event events[EVENTS_MAX];

    for (size_t i = 0; i < count; i++) {
        stream_begin(&streams[i]);
    }
    while (begun > ended && clock_monotonic_ns() < end_ns + PATIENCE_S * NS_PER_S) {
        int ready = epoll_wait(poll_fd, events, EVENTS_MAX, 1000);

        for (int i = 0; i < ready; i++) {
            struct stream *stream = events[i].data.ptr;

            if (stream_read(stream)) {
                continue;
            }
            stream_end(stream);
            if (clock_monotonic_ns() < end_ns) {
                stream_begin(stream);
            }
        }
    }
}

int main(int argc, char **argv)
{
    struct rlimit limit;

    if (argc != 4) {
        fprintf(stderr, "usage: %s PORT STREAMS SECONDS < BODIES\n", argv[0]);
        return 2;
    }
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    read_bodies();
    port = (uint16_t)strtoul(argv[1], NULL, 10);
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    size_t count = strtoul(argv[2], NULL, 10);
    struct stream *streams = mem_new_array(struct stream, count);

    if (body_count == 0) {
        fputs("no request bodies\n", stderr);
        return 2;
    }
    run(streams, count, clock_monotonic_ns() + strtol(argv[3], NULL, 10) * NS_PER_S);
    fprintf(stderr, "%" PRIu64 " streams begun, %" PRIu64 " ended\n", begun, ended);
    return begun == ended ? 0 : 1;
}
