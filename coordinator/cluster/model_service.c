/* model_service.c - the coordinator's copy of the model, for workers that have none. */
#include "coordinator/cluster/model_service.h"

#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/model/model_files.h"
#include "common/net/endpoint.h"
#include "common/net/fetch.h"

struct model_service {
    struct arena arena; /* of all names and paths */
    struct fetch_server *server;
};

static void files_offer(const struct model_files *files, struct arena *arena,
                        struct fetch_server_config *out)
{
    struct fetch_file *offered = arena_new_array(arena, struct fetch_file, files->count);
    const char **paths = arena_new_array(arena, const char *, files->count);

    for (uint32_t i = 0; i < files->count; i++) {
        const struct model_file *file = &files->files[i];

        offered[i] = (struct fetch_file){file->name, file->bytes, file->header_bytes,
                                         file->extra_offset, file->extra_bytes};
        paths[i] = file->path;
    }
    out->file_count = files->count;
    out->files = offered;
    out->paths = paths;
}

static bool service_open(struct model_service *service, const struct model_service_config *config,
                         struct error *err)
{
    struct fetch_server_config server = {.key = config->key, .model_hash = config->model_hash};
    struct endpoint control;
    struct endpoint_text text;
    struct model_files files;

    if (!endpoint_parse(config->control_endpoint, &control, err) ||
        !model_files_find(config->catalog, &service->arena, &files, err)) {
        return false;
    }
    files_offer(&files, &service->arena, &server);
    server.endpoint =
        arena_strdup(&service->arena, endpoint_format(&text, control.host, config->port));
    service->server = fetch_server_start(&server, err);
    if (service->server == NULL) {
        return error_wrap(err, "model files");
    }
    log_info("model files are served: port=%u files=%u", fetch_server_port(service->server),
             files.count);
    return true;
}

struct model_service *model_service_start(const struct model_service_config *config,
                                          struct error *err)
{
    struct model_service *service = mem_new(struct model_service);

    arena_init(&service->arena, 1 << 16);
    if (!service_open(service, config, err)) {
        model_service_stop(service);
        return NULL;
    }
    return service;
}

void model_service_stop(struct model_service *service)
{
    if (service == NULL) {
        return;
    }
    fetch_server_stop(service->server);
    arena_deinit(&service->arena);
    mem_free(service);
}

uint16_t model_service_port(const struct model_service *service)
{
    return fetch_server_port(service->server);
}

uint64_t model_service_sent_bytes(const struct model_service *service)
{
    return fetch_server_sent_bytes(service->server);
}
