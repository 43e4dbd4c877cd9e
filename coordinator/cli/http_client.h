#ifndef SHOAL_CLI_HTTP_CLIENT_H
#define SHOAL_CLI_HTTP_CLIENT_H

/* Requests of the commands to a running `shoal serve`. Main thread. */
#include "common/base/buffer.h"
#include "common/base/error.h"

#include <stddef.h>

#define HTTP_CLIENT_URL "http://127.0.0.1:8080"

/* Called with each piece of a 200 answer as it arrives; false ends the transfer. */
typedef bool (*http_client_fn)(void *context, const char *bytes, size_t length);

struct http_client_request {
    const char *base_url; /* "http://127.0.0.1:8080" */
    const char *path;     /* "/v1/chat/completions" */
    const char *body;     /* POST of JSON; NULL: GET */
    http_client_fn receive;
    void *context;
};
/* ERROR_PEER: nobody answers there (the URL is named), or the answer is not 200: the server's own
 * message. ERROR_USAGE: no such URL. A stop signal (cli_stop_count) ends it as "interrupted". */
bool http_client_send(const struct http_client_request *request, struct error *err) MUST_CHECK;
/* Collects the whole answer. */
bool http_client_get(const char *base_url, const char *path, struct buffer *out,
                     struct error *err) MUST_CHECK;

#endif
