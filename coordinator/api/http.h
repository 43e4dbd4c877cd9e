#ifndef SHOAL_API_HTTP_H
#define SHOAL_API_HTTP_H

/* A thin layer over libmicrohttpd: one struct per request with its body, answers, and suspension
 * that can't lose a wake-up. Private to coordinator/api.
 */
#include "common/base/buffer.h"
#include "common/base/json.h"
#include "coordinator/api/api.h"

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define HTTP_BODY_BYTES_MAX (64u << 20)

struct http_request;

/* What an endpoint may be doing for a request beyond one call; embedded first in its own struct. */
struct http_task {
    /* Called on the request's thread whenever it was woken, until it gives an answer. */
    enum MHD_Result (*advance)(struct http_request *request, struct http_task *task);
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

    /* Suspension: `wanted` is a wake-up that came while running. */
    pthread_mutex_t lock; /* guards the three below */
    bool suspended;
    bool wanted;
    bool client_gone; /* or the server stops; never suspended again */

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
    pthread_mutex_t requests_lock; /* guards requests and stopping */
    struct http_request *requests;
    bool stopping;
    pthread_cond_t watch_wake;
    pthread_t watcher;
    int64_t start_unix_s;
};

/* Sleeps until http_wake; false: a wake-up is already there, or the client has gone: go on. */
bool http_suspend(struct http_request *request);
void http_wake(struct http_request *request); /* any thread */
bool http_client_gone(struct http_request *request);

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
