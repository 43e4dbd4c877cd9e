/* models.c - /v1/models, /v1/models/<name>, /version. */
#include "coordinator/api/http.h"

#include <string.h>

static json_t *model_json(const struct api *api)
{
    struct cluster_status *status = cluster_status(api->config.cluster);
    json_t *json = json_pack("{s:s, s:s, s:I, s:s, s:I}", "id", api->config.model_name, "object",
                             "model", "created", (json_int_t)api->start_unix_s, "owned_by", "shoal",
                             "max_model_len", (json_int_t)status->context_tokens_max);

    cluster_status_destroy(status);
    return json;
}

enum MHD_Result endpoint_models(struct http_request *request)
{
    return http_answer_json(
        request, MHD_HTTP_OK,
        json_pack("{s:s, s:[o]}", "object", "list", "data", model_json(request->api)));
}

enum MHD_Result endpoint_model(struct http_request *request)
{
    const char *name = request->path + strlen("/v1/models/");

    if (strcmp(name, request->api->config.model_name) != 0) {
        return http_answer_problem(
            request, &(struct http_problem){.status = MHD_HTTP_NOT_FOUND,
                                            .type = "invalid_request_error",
                                            .param = "model",
                                            .code = "model_not_found",
                                            .message = "this server does not have that model"});
    }
    return http_answer_json(request, MHD_HTTP_OK, model_json(request->api));
}

enum MHD_Result endpoint_version(struct http_request *request)
{
    return http_answer_json(request, MHD_HTTP_OK, json_pack("{s:s}", "version", SHOAL_VERSION));
}
