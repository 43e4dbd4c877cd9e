/* http.c - the HTTP daemon: requests in, answers out.
 *
 * libmicrohttpd runs the connections on a small pool of threads. A request that waits for tokens is
 * suspended (http_wait.c); the body of a stream is written by threads of ours (http_stream.c).
 */
#include "coordinator/api/http.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>

#define HTTP_THREADS        2
#define HTTP_IDLE_TIMEOUT_S 75

/* --- answers --- */

/* When to come again, in whole seconds; the snapshot may be a moment older than the refusal. */
static void add_retry_after(const struct api *api, struct MHD_Response *response)
{
    struct cluster_status *status = cluster_status(api->config.cluster);
    int64_t seconds = (status->retry_after_ns + NS_PER_S - 1) / NS_PER_S;
    char text[24];

    snprintf(text, sizeof(text), "%lld", (long long)(seconds > 1 ? seconds : 1));
    MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, text);
    cluster_status_destroy(status);
}

static enum MHD_Result queue(struct http_request *request, unsigned status,
                             struct MHD_Response *response, const char *content_type)
{
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    if (status == MHD_HTTP_TOO_MANY_REQUESTS) {
        add_retry_after(request->api, response);
    }
    enum MHD_Result result = MHD_queue_response(request->connection, status, response);

    MHD_destroy_response(response);
    atomic_fetch_add(&request->api->served, 1);
    if (status >= 400) {
        atomic_fetch_add(&request->api->refused, 1);
    }
    return result;
}

enum MHD_Result http_answer(struct http_request *request, unsigned status, const char *content_type,
                            const char *text, size_t length)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(length, (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);

    return queue(request, status, response, content_type);
}

enum MHD_Result http_answer_json(struct http_request *request, unsigned status, json_t *body)
{
    char *text = json_dumps(body, JSON_COMPACT);
    enum MHD_Result result = http_answer(request, status, "application/json", text ? text : "{}",
                                         text ? strlen(text) : 2);

    free(text);
    json_decref(body);
    return result;
}

json_t *http_problem_json(const struct http_problem *problem)
{
    return json_pack("{s:{s:s#, s:s, s:s?, s:s?}}", "error", "message", problem->message,
                     (int)strlen(problem->message), "type", problem->type, "param", problem->param,
                     "code", problem->code);
}

enum MHD_Result http_answer_problem(struct http_request *request,
                                    const struct http_problem *problem)
{
    json_t *body = http_problem_json(problem);

    if (!body) { /* the message holds bytes that are no UTF-8: foreign text */
        struct http_problem plain = *problem;

        plain.message = "the request holds text that is not UTF-8";
        body = http_problem_json(&plain);
    }
    return http_answer_json(request, problem->status, body);
}

static struct http_problem problem_of(const struct error *err)
{
    struct http_problem problem = {.message = err->message};

    switch (err->code) {
    case ERROR_NONE:
    case ERROR_USAGE:
    case ERROR_INPUT:
        problem.status = MHD_HTTP_BAD_REQUEST;
        problem.type = "invalid_request_error";
        break;
    case ERROR_LIMIT:
        problem.status = MHD_HTTP_TOO_MANY_REQUESTS;
        problem.type = "rate_limit_error";
        problem.code = "queue_full";
        break;
    case ERROR_PEER:
        problem.status = MHD_HTTP_SERVICE_UNAVAILABLE;
        problem.type = "unavailable_error";
        problem.code = "cluster_unavailable";
        break;
    case ERROR_SYSTEM:
        problem.status = MHD_HTTP_INTERNAL_SERVER_ERROR;
        problem.type = "server_error";
        break;
    }
    return problem;
}

enum MHD_Result http_answer_error(struct http_request *request, const struct error *err,
                                  const char *param)
{
    struct http_problem problem = problem_of(err);

    problem.param = param;
    return http_answer_problem(request, &problem);
}

/* --- routes --- */

static const struct route {
    const char *method;
    const char *path; /* ends in '*': any rest */
    enum MHD_Result (*endpoint)(struct http_request *request);
} routes[] = {
    {"POST", "/v1/chat/completions", endpoint_chat_completions},
    {"POST", "/v1/completions", endpoint_completions},
    {"GET", "/v1/models", endpoint_models},
    {"GET", "/v1/models/*", endpoint_model},
    {"GET", "/health", endpoint_health},
    {"GET", "/v1/health", endpoint_health},
    {"GET", "/metrics", endpoint_metrics},
    {"GET", "/shoal/status", endpoint_status},
    {"GET", "/version", endpoint_version},
};

static bool path_matches(const char *pattern, const char *path)
{
    size_t length = strlen(pattern);

    if (pattern[length - 1] == '*') {
        return strncmp(pattern, path, length - 1) == 0 && path[length - 1] != '\0';
    }
    return strcmp(pattern, path) == 0;
}

static enum MHD_Result answer_no_route(struct http_request *request, bool path_known)
{
    char text[256];

    snprintf(text, sizeof(text), "%s: %s %.120s",
             path_known ? "this path takes another method" : "no such path", request->method,
             request->path);
    return http_answer_problem(
        request, &(struct http_problem){.status = path_known ? MHD_HTTP_METHOD_NOT_ALLOWED
                                                             : MHD_HTTP_NOT_FOUND,
                                        .type = "invalid_request_error",
                                        .code = path_known ? "method_not_allowed" : "unknown_url",
                                        .message = text});
}

static enum MHD_Result dispatch(struct http_request *request)
{
    bool path_known = false;

    if (request->body_too_large) {
        char text[96];

        snprintf(text, sizeof(text), "the request body is larger than %u MiB",
                 HTTP_BODY_BYTES_MAX >> 20);
        return http_answer_problem(request, &(struct http_problem){.status = 413,
                                                                   .type = "invalid_request_error",
                                                                   .message = text});
    }
    for (size_t i = 0; i < ARRAY_LENGTH(routes); i++) {
        if (!path_matches(routes[i].path, request->path)) {
            continue;
        }
        path_known = true;
        if (strcmp(routes[i].method, request->method) == 0 ||
            (strcmp(routes[i].method, "GET") == 0 && strcmp(request->method, "HEAD") == 0)) {
            return routes[i].endpoint(request);
        }
    }
    return answer_no_route(request, path_known);
}

/* --- life of a request --- */

static struct http_request *request_begin(struct api *api, struct MHD_Connection *connection,
                                          const char *method, const char *path)
{
    struct http_request *request = mem_new(struct http_request);
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);

    request->api = api;
    request->connection = connection;
    request->method = method;
    request->path = mem_strdup(path);
    request->socket = info ? info->connect_fd : -1;
    pthread_mutex_init(&request->lock, NULL);
    pthread_mutex_lock(&api->requests_lock);
    request->client_gone = api->stopping; /* from there on nothing may be suspended */
    request->next = api->requests;
    if (api->requests) {
        api->requests->previous = request;
    }
    api->requests = request;
    pthread_mutex_unlock(&api->requests_lock);
    return request;
}

static void request_end(struct http_request *request)
{
    struct api *api = request->api;

    pthread_mutex_lock(&api->requests_lock);
    if (request->previous) {
        request->previous->next = request->next;
    } else {
        api->requests = request->next;
    }
    if (request->next) {
        request->next->previous = request->previous;
    }
    pthread_mutex_unlock(&api->requests_lock);
    http_wait_end(request);
    if (request->task) {
        request->task->destroy(request->task);
        atomic_fetch_sub(&api->active, 1);
    }
    buffer_deinit(&request->body);
    buffer_deinit(&request->out);
    buffer_deinit(&request->rest);
    pthread_mutex_destroy(&request->lock);
    mem_free(request->path);
    mem_free(request);
}

static void take_body(struct http_request *request, const char *data, size_t length)
{
    if (request->body.length + length > HTTP_BODY_BYTES_MAX) {
        request->body_too_large = true;
    } else if (!request->body_too_large) {
        buffer_append(&request->body, data, length);
    }
}

static enum MHD_Result handle(void *context, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_bytes, void **state)
{
    struct http_request *request = *state;

    if (!request) {
        request = request_begin(context, connection, method, url);
        request->chunked = strcmp(version, MHD_HTTP_VERSION_1_1) == 0;
        *state = request;
        return MHD_YES;
    }
    if (*upload_bytes > 0) {
        take_body(request, upload, *upload_bytes);
        *upload_bytes = 0;
        return MHD_YES;
    }
    if (request->task) {
        return request->task->advance(request, request->task);
    }
    enum MHD_Result result = dispatch(request);

    if (request->task) {
        atomic_fetch_add(&request->api->active, 1);
        return request->task->advance(request, request->task);
    }
    return result;
}

static void completed(void *context, struct MHD_Connection *connection, void **state,
                      enum MHD_RequestTerminationCode code)
{
    (void)context;
    (void)connection;
    (void)code;
    if (*state) {
        request_end(*state);
        *state = NULL;
    }
}

/* --- the daemon --- */

FORMAT_PRINTF(2, 0)
static void log_library(void *context, const char *format, va_list args)
{
    char text[512];

    (void)context;
    vsnprintf(text, sizeof(text), format, args);
    text[strcspn(text, "\n")] = '\0';
    log_debug("http: %s", text);
}

static bool resolve(const struct api_config *config, struct addrinfo **out, struct error *err)
{
    char port[8];
    const struct addrinfo hints = {.ai_family = AF_UNSPEC,
                                   .ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICSERV};

    snprintf(port, sizeof(port), "%u", config->port);
    int code = getaddrinfo(config->host, port, &hints, out);

    if (code != 0) {
        return error_set(err, ERROR_USAGE, "--host %s: %s", config->host, gai_strerror(code));
    }
    return true;
}

static bool open_daemon(struct api *api, struct error *err)
{
    struct addrinfo *address;

    if (!resolve(&api->config, &address, err)) {
        return false;
    }
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG |
                     (address->ai_family == AF_INET6 ? MHD_USE_IPv6 : 0u);

    errno = 0;
    api->daemon = MHD_start_daemon(
        flags, api->config.port, NULL, NULL, handle, api, MHD_OPTION_EXTERNAL_LOGGER, log_library,
        NULL, MHD_OPTION_SOCK_ADDR, address->ai_addr, MHD_OPTION_NOTIFY_COMPLETED, completed, api,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)HTTP_IDLE_TIMEOUT_S, MHD_OPTION_THREAD_POOL_SIZE,
        (unsigned)HTTP_THREADS, MHD_OPTION_CONNECTION_LIMIT, 65000u, MHD_OPTION_END);
    int reason = errno;

    freeaddrinfo(address);
    if (!api->daemon) {
        return error_set(err, ERROR_SYSTEM, "cannot listen on %s port %u: %s", api->config.host,
                         api->config.port, reason ? strerror(reason) : "refused");
    }
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(api->daemon, MHD_DAEMON_INFO_BIND_PORT);

    api->port = info ? info->port : api->config.port;
    return true;
}

/* Takes a half-started one. */
static void api_free(struct api *api)
{
    http_wait_stop(api);
    http_stream_stop(api);
    if (api->daemon) {
        MHD_stop_daemon(api->daemon);
    }
    pthread_cond_destroy(&api->watch_wake);
    pthread_mutex_destroy(&api->requests_lock);
    mem_free(api);
}

struct api *api_start(const struct api_config *config, struct error *err)
{
    struct api *api = mem_new(struct api);

    api->config = *config;
    api->start_unix_s = clock_unix_s();
    pthread_mutex_init(&api->requests_lock, NULL);
    pthread_cond_init(&api->watch_wake, NULL);
    if (!http_wait_start(api, err) || !http_stream_start(api, err) || !open_daemon(api, err)) {
        api_free(api);
        return NULL;
    }
    return api;
}

uint16_t api_port(const struct api *api)
{
    return api->port;
}

void api_drain(struct api *api)
{
    atomic_store(&api->draining, true);
}

uint32_t api_active_requests(const struct api *api)
{
    return atomic_load(&api->active);
}

void api_stop(struct api *api)
{
    if (!api) {
        return;
    }
    MHD_socket listener = MHD_quiesce_daemon(api->daemon);

    api_free(api);
    if (listener != MHD_INVALID_SOCKET) {
        close(listener);
    }
}
