/* http_client.c - libcurl behind one function, with the server's own error messages. */
#include "coordinator/cli/http_client.h"

#include "common/base/json.h"
#include "common/base/mem.h"
#include "coordinator/cli/cli.h"

#include <curl/curl.h>
#include <string.h>

#define ERROR_BODY_BYTES_MAX (64 * 1024)

struct transfer {
    CURL *curl;
    const struct http_client_request *request;
    struct buffer error_body;
};

static size_t on_bytes(char *bytes, size_t size, size_t count, void *context)
{
    struct transfer *transfer = context;
    size_t length = size * count;
    long status = 0;

    curl_easy_getinfo(transfer->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200) {
        if (transfer->error_body.length + length <= ERROR_BODY_BYTES_MAX) {
            buffer_append(&transfer->error_body, bytes, length);
        }
        return length;
    }
    return transfer->request->receive(transfer->request->context, bytes, length) ? length : 0;
}

static int on_progress(void *context, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    (void)context;
    (void)a;
    (void)b;
    (void)c;
    (void)d;
    return *cli_stop_count() > 0; /* non-zero ends the transfer */
}

/* {"error": {"message": …}} → the message; anything else as it is. */
static bool fail_with_body(const struct transfer *transfer, long status, struct error *err)
{
    struct error ignored = {0};
    json_t *body = json_parse(buffer_text(&transfer->error_body), transfer->error_body.length,
                              "answer", &ignored);
    const char *message =
        json_string_value(json_object_get(json_object_get(body, "error"), "message"));

    error_set(err, ERROR_PEER, "%s answered %ld: %.300s", transfer->request->base_url, status,
              message ? message : buffer_text(&transfer->error_body));
    json_decref(body);
    return false;
}

static void set_options(struct transfer *transfer, const char *url, struct curl_slist *headers)
{
    CURL *curl = transfer->curl;

    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_NOPROXY, "*"); /* http_proxy is for the world outside */
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, 10L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, transfer);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    if (transfer->request->body) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, transfer->request->body);
    }
}

static bool check_result(const struct transfer *transfer, CURLcode code, struct error *err)
{
    long status = 0;

    if (*cli_stop_count() > 0) {
        return error_set(err, ERROR_PEER, "interrupted");
    }
    if (code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL) {
        return error_set(err, ERROR_USAGE, "\"%s\" is no URL like %s", transfer->request->base_url,
                         HTTP_CLIENT_URL);
    }
    if (code != CURLE_OK) {
        return error_set(err, ERROR_PEER, "%s: %s (is `shoal serve` running there?)",
                         transfer->request->base_url, curl_easy_strerror(code));
    }
    curl_easy_getinfo(transfer->curl, CURLINFO_RESPONSE_CODE, &status);
    return status == 200 || fail_with_body(transfer, status, err);
}

bool http_client_send(const struct http_client_request *request, struct error *err)
{
    struct transfer transfer = {.curl = curl_easy_init(), .request = request};
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    size_t base_length = strlen(request->base_url);
    char *url;

    while (base_length > 0 && request->base_url[base_length - 1] == '/') {
        base_length--;
    }
    url = mem_printf("%.*s%s", (int)base_length, request->base_url, request->path);
    ASSERT(transfer.curl);
    set_options(&transfer, url, headers);
    bool fine = check_result(&transfer, curl_easy_perform(transfer.curl), err);

    curl_slist_free_all(headers);
    curl_easy_cleanup(transfer.curl);
    buffer_deinit(&transfer.error_body);
    mem_free(url);
    return fine;
}

static bool collect(void *context, const char *bytes, size_t length)
{
    buffer_append(context, bytes, length);
    return true;
}

bool http_client_get(const char *base_url, const char *path, struct buffer *out, struct error *err)
{
    const struct http_client_request request = {
        .base_url = base_url, .path = path, .receive = collect, .context = out};

    return http_client_send(&request, err);
}
