#ifndef SHOAL_API_HTTP_H
#define SHOAL_API_HTTP_H

/* A thin layer over libmicrohttpd: one struct per request with its body, answers, suspension that
 * can't lose a wake-up, and streams. Private to coordinator/api.
 */
#include "common/base/buffer.h"
#include "common/base/json.h"
#include "common/base/ring.h"
#include "coordinator/api/api.h"
#include "coordinator/api/histogram.h"

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define HTTP_BODY_BYTES_MAX (64u << 20)

struct http_request;
struct http_writer;

enum http_stream_state { HTTP_STREAM_OPEN, HTTP_STREAM_CLOSED };

/* What an endpoint may be doing for a request beyond one call; embedded first in its own struct. */
struct http_task {
    /* Called on the request's thread whenever it was woken, until it gives an answer. */
    enum MHD_Result (*advance)(struct http_request *request, struct http_task *task);
    /* Streams: appends what is new of the body; CLOSED: nothing follows. One thread at a time. */
    enum http_stream_state (*produce)(struct http_task *task, struct buffer *out);
    /* Streams: what was produced is with the kernel (or, at their beginning, with the library). */
    void (*written)(struct http_task *task);
    /* The connection is over (answered or lost). Frees the task. */
    void (*destroy)(struct http_task *task);
};

struct http_request {
    struct api *api;
    struct MHD_Connection *connection;
    const char *method;
    char *path;
    struct buffer body;
    bool body_too_large;
    struct http_task *task; /* NULL until an endpoint takes the request over */
    int socket;
    bool chunked; /* HTTP/1.1: a stream's body may come in chunks */

    /* Waiting, http_wait.c. `wanted` is a wake-up that came while running. */
    pthread_mutex_t lock; /* guards the four below */
    bool suspended;       /* as the library sees it */
    bool wanted;
    bool queued;      /* a writer has it, or will */
    bool client_gone; /* or the server stops; never suspended again */

    /* Streams, http_stream.c. Whoever runs the request, library or writer. */
    struct http_writer *writer; /* NULL: the library writes; read by wakers while suspended */
    struct mpsc_node node;      /* in the writer's list */
    struct buffer out;          /* produced, not yet taken by the library */
    struct buffer rest;         /* framed, not yet taken by the kernel */
    bool closed;                /* all is produced */
    bool armed;                 /* known to the writer's epoll */

    struct http_request *next, *previous; /* api->requests */
};

struct api {
    struct api_config config;
    struct MHD_Daemon *daemon;
    uint16_t port;
    atomic_bool draining;
    atomic_uint active;            /* requests with a task */
    _Atomic uint64_t served;       /* answered requests */
    _Atomic uint64_t refused;      /* answered with 4xx or 5xx */
    struct histogram delivery;     /* from a worker's message to a stream's socket */
    pthread_mutex_t requests_lock; /* guards requests and stopping */
    struct http_request *requests;
    bool stopping;
    pthread_cond_t watch_wake;
    pthread_t watcher;
    bool watching;
    struct http_writer *writers; /* [HTTP_WRITERS] */
    atomic_uint writer_next;
    int64_t start_unix_s;
};

/* --- http_wait.c --- */
/* Sleeps until http_wake; false: a wake-up is already there, or the client has gone: go on. */
bool http_suspend(struct http_request *request);
void http_wake(struct http_request *request); /* any thread */
bool http_client_gone(struct http_request *request);
/* The writer has done what there was: true if it may let go; false: once more. */
bool http_writer_release(struct http_request *request);
/* Gives a suspended request back to the library; it may be gone when this returns. */
void http_resume(struct http_request *request);
/* No other thread looks at the request any more when this returns. */
void http_wait_end(struct http_request *request);
bool http_wait_start(struct api *api, struct error *err) MUST_CHECK;
/* Nothing is suspended from here on, but for what writers have. */
void http_wait_stop(struct api *api);

/* --- http_stream.c --- */
/* Answers 200 with a body that the request's task produces. */
enum MHD_Result http_stream_answer(struct http_request *request, const char *content_type);
void http_stream_push(struct http_request *request); /* for http_wake */
bool http_stream_start(struct api *api, struct error *err) MUST_CHECK;
void http_stream_stop(struct api *api); /* gives back all requests; after http_wait_stop */

/* Answers; each returns what the MHD handler returns. */
enum MHD_Result http_answer(struct http_request *request, unsigned status, const char *content_type,
                            const char *text, size_t length);
/* Takes the reference. */
enum MHD_Result http_answer_json(struct http_request *request, unsigned status, json_t *body);
/* {"error": {"message", "type", "param", "code"}}, as OpenAI's API; param and code may be NULL. */
struct http_problem {
    unsigned status;
    const char *type; /* "invalid_request_error", "server_error", … */
    const char *param;
    const char *code;
    const char *message;
};
enum MHD_Result http_answer_problem(struct http_request *request,
                                    const struct http_problem *problem);
json_t *http_problem_json(const struct http_problem *problem);
/* USAGE and INPUT → 400, LIMIT → 429 with Retry-After as the cluster estimates it, PEER → 503,
 * SYSTEM → 500. */
enum MHD_Result http_answer_error(struct http_request *request, const struct error *err,
                                  const char *param);

/* The endpoints (openai.c, status.c). */
enum MHD_Result endpoint_chat_completions(struct http_request *request);
enum MHD_Result endpoint_completions(struct http_request *request);
enum MHD_Result endpoint_models(struct http_request *request);
enum MHD_Result endpoint_model(struct http_request *request);
enum MHD_Result endpoint_health(struct http_request *request);
enum MHD_Result endpoint_metrics(struct http_request *request);
enum MHD_Result endpoint_status(struct http_request *request);
enum MHD_Result endpoint_version(struct http_request *request);

#endif
