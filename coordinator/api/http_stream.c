/* http_stream.c - bodies that grow while they are read.
 *
 * The library opens a stream: it sends the head and what there is at first. Then the connection is
 * suspended, and since the library does not touch a suspended connection's socket, a writer of ours
 * frames and sends each further piece as a chunk itself. Resuming a connection for every token
 * would cost the library a walk over all suspended ones and several system calls; here it is one
 * sendmsg, and one wake-up of the writer for all that came meanwhile. When the body is complete, or
 * the client has gone, the connection goes back to the library, which ends it. Where the client
 * speaks HTTP/1.0 there are no chunks, and the library writes everything.
 *
 * Every stream belongs to one writer. What the kernel does not take at once waits for EPOLLOUT;
 * until then nothing more of that stream is produced.
 */
#include "common/base/mem.h"
#include "coordinator/api/http.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define HTTP_WRITERS       2
#define STREAM_BLOCK_BYTES 4096
#define EVENTS_MAX         64

struct http_writer {
    pthread_t thread;
    bool started;
    struct mpsc_list woken;
    struct waker waker;
    int epoll;
    atomic_bool stop;
    struct buffer body; /* scratch: what a stream has produced */
};

static struct http_request *request_of(struct mpsc_node *node)
{
    return (struct http_request *)((char *)node - offsetof(struct http_request, node));
}

void http_stream_push(struct http_request *request)
{
    if (mpsc_push(&request->writer->woken, &request->node)) {
        waker_wake(&request->writer->waker);
    }
}

/* --- the library's side --- */

static ssize_t hand_over(struct http_request *request, char *out, size_t max)
{
    size_t length = request->out.length < max ? request->out.length : max;

    memcpy(out, request->out.data, length);
    buffer_consume(&request->out, length);
    if (request->out.length == 0) {
        request->task->written(request->task);
    }
    return (ssize_t)length;
}

/* All that was produced has left: from here on a writer sends. */
static void take_from_library(struct http_request *request)
{
    struct api *api = request->api;
    int on = 1;

    if (!request->writer && request->chunked && request->socket >= 0) {
        (void)setsockopt(request->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        request->writer = &api->writers[atomic_fetch_add(&api->writer_next, 1) % HTTP_WRITERS];
    }
}

/* The library wants more bytes of the stream. */
static ssize_t read_stream(void *context, uint64_t position, char *out, size_t max)
{
    struct http_request *request = context;

    (void)position;
    for (;;) {
        if (http_client_gone(request)) {
            return MHD_CONTENT_READER_END_WITH_ERROR;
        }
        if (request->out.length > 0) {
            return hand_over(request, out, max);
        }
        if (request->closed) {
            return MHD_CONTENT_READER_END_OF_STREAM;
        }
        request->closed =
            request->task->produce(request->task, &request->out) == HTTP_STREAM_CLOSED;
        if (request->out.length == 0 && !request->closed) {
            take_from_library(request);
            if (http_suspend(request)) {
                return 0;
            }
        }
    }
}

enum MHD_Result http_stream_answer(struct http_request *request, const char *content_type)
{
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES, read_stream, request, NULL);

    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache");
    enum MHD_Result result = MHD_queue_response(request->connection, MHD_HTTP_OK, response);

    MHD_destroy_response(response);
    atomic_fetch_add(&request->api->served, 1);
    return result;
}

/* --- the writer --- */

static bool would_block(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

/* Sends what is left of a chunk; false: the connection is lost. */
static bool send_rest(struct http_request *request)
{
    ssize_t sent = send(request->socket, request->rest.data, request->rest.length,
                        MSG_DONTWAIT | MSG_NOSIGNAL);

    if (sent > 0) {
        buffer_consume(&request->rest, (size_t)sent);
    }
    return sent >= 0 || would_block();
}

/* What the kernel did not take of the parts is kept. */
static void keep_rest(struct http_request *request, const struct iovec *parts, size_t count,
                      size_t sent)
{
    for (size_t i = 0; i < count; i++) {
        size_t skip = sent < parts[i].iov_len ? sent : parts[i].iov_len;

        buffer_append(&request->rest, (const char *)parts[i].iov_base + skip,
                      parts[i].iov_len - skip);
        sent -= skip;
    }
}

/* One chunk; false: the connection is lost. */
static bool send_chunk(struct http_request *request, const struct buffer *body)
{
    char head[24];
    int head_length = snprintf(head, sizeof(head), "%zx\r\n", body->length);
    struct iovec parts[] = {
        {head, (size_t)head_length}, {body->data, body->length}, {(char *)(uintptr_t) "\r\n", 2}};
    const struct msghdr message = {.msg_iov = parts, .msg_iovlen = ARRAY_LENGTH(parts)};
    ssize_t sent = sendmsg(request->socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (sent < 0 && !would_block()) {
        return false;
    }
    keep_rest(request, parts, ARRAY_LENGTH(parts), sent > 0 ? (size_t)sent : 0);
    return true;
}

static void give_back(struct http_writer *writer, struct http_request *request)
{
    if (request->armed) {
        (void)epoll_ctl(writer->epoll, EPOLL_CTL_DEL, request->socket, NULL);
        request->armed = false;
    }
    http_resume(request);
}

static void give_back_lost(struct http_writer *writer, struct http_request *request)
{
    pthread_mutex_lock(&request->lock);
    request->client_gone = true;
    pthread_mutex_unlock(&request->lock);
    give_back(writer, request);
}

static void wait_for_room(struct http_writer *writer, struct http_request *request)
{
    struct epoll_event event = {.events = EPOLLOUT | EPOLLRDHUP | EPOLLONESHOT,
                                .data.ptr = request};

    (void)epoll_ctl(writer->epoll, request->armed ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, request->socket,
                    &event);
    request->armed = true;
}

/* Produces and sends; false: the connection is lost. */
static bool step(struct http_writer *writer, struct http_request *request)
{
    if (request->rest.length > 0) {
        return send_rest(request);
    }
    buffer_clear(&writer->body);
    request->closed = request->task->produce(request->task, &writer->body) == HTTP_STREAM_CLOSED;
    if (writer->body.length > 0 && !send_chunk(request, &writer->body)) {
        return false;
    }
    request->task->written(request->task);
    return true;
}

/* Until there is nothing to do for the stream, or no room. */
static void serve(struct http_writer *writer, struct http_request *request)
{
    for (;;) {
        if (http_client_gone(request)) {
            give_back(writer, request);
            return;
        }
        if (!step(writer, request)) {
            give_back_lost(writer, request);
            return;
        }
        if (request->rest.length > 0) {
            wait_for_room(writer, request);
            return;
        }
        if (request->closed) {
            give_back(writer, request);
            return;
        }
        if (http_writer_release(request)) {
            return; /* whoever wakes it next may already have */
        }
    }
}

static void serve_woken(struct http_writer *writer)
{
    struct mpsc_node *node;

    waker_clear(&writer->waker);
    node = mpsc_take_all(&writer->woken);
    while (node) {
        struct http_request *request = request_of(node);

        node = node->next;
        serve(writer, request);
    }
}

static void *write_streams(void *context)
{
    struct http_writer *writer = context;
    struct epoll_event events[EVENTS_MAX];

    while (!atomic_load(&writer->stop)) {
        int count = epoll_wait(writer->epoll, events, EVENTS_MAX, -1);

        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr) {
                serve(writer, events[i].data.ptr);
            }
        }
        serve_woken(writer);
    }
    return NULL;
}

/* --- life --- */

static bool writer_start(struct http_writer *writer, struct error *err)
{
    struct epoll_event event = {.events = EPOLLIN};

    writer->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (writer->epoll < 0 || !waker_open(&writer->waker) ||
        epoll_ctl(writer->epoll, EPOLL_CTL_ADD, writer->waker.fd, &event) != 0) {
        return error_set_errno(err, "a writer of streams");
    }
    if (pthread_create(&writer->thread, NULL, write_streams, writer) != 0) {
        return error_set(err, ERROR_SYSTEM, "no thread for a writer of streams");
    }
    writer->started = true;
    return true;
}

bool http_stream_start(struct api *api, struct error *err)
{
    api->writers = mem_new_array(struct http_writer, HTTP_WRITERS);
    for (size_t i = 0; i < HTTP_WRITERS; i++) {
        api->writers[i].epoll = -1;
        api->writers[i].waker.fd = -1;
    }
    for (size_t i = 0; i < HTTP_WRITERS; i++) {
        if (!writer_start(&api->writers[i], err)) {
            return false;
        }
    }
    return true;
}

/* What the writers had; no thread looks at their lists any more. */
static void give_back_all(struct api *api)
{
    pthread_mutex_lock(&api->requests_lock);
    for (struct http_request *request = api->requests; request; request = request->next) {
        bool suspended;

        pthread_mutex_lock(&request->lock);
        suspended = request->suspended;
        pthread_mutex_unlock(&request->lock);
        if (suspended) {
            http_resume(request);
        }
    }
    pthread_mutex_unlock(&api->requests_lock);
}

void http_stream_stop(struct api *api)
{
    if (!api->writers) {
        return;
    }
    for (size_t i = 0; i < HTTP_WRITERS; i++) {
        struct http_writer *writer = &api->writers[i];

        if (writer->started) {
            atomic_store(&writer->stop, true);
            waker_wake(&writer->waker);
            pthread_join(writer->thread, NULL);
        }
        if (writer->epoll >= 0) {
            close(writer->epoll);
        }
        waker_close(&writer->waker);
        buffer_deinit(&writer->body);
    }
    give_back_all(api);
    mem_free(api->writers);
    api->writers = NULL;
}
