/* model_service.c - the coordinator's copy of the model, for workers that have none. */
#include "coordinator/cluster/model_service.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/model/model_files.h"
#include "common/net/endpoint.h"
#include "common/net/fetch.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SAMPLE_BYTES 4096
#define SAMPLE_COUNT 2 /* of each file's data */

struct model_service {
    struct arena arena; /* of all names and paths */
    char id[FETCH_MODEL_HASH_BYTES + 1];
    struct fetch_server *server;
};

/* Adds what a file is to a hash: its header, and bytes from places that the size decides. */
static bool content_hash(const struct model_file *file, int descriptor, uint64_t *hash,
                         struct error *err)
{
    uint8_t bytes[SAMPLE_BYTES];
    uint64_t begin = file->header_bytes < file->bytes ? file->header_bytes : 0;

    for (uint64_t i = 0; i < SAMPLE_COUNT && file->bytes > 0; i++) {
        uint64_t left = file->bytes - begin;
        uint64_t length = left < sizeof(bytes) ? left : sizeof(bytes);
        uint64_t offset = begin + hash_counter(left, i, 0, 0) % (left - length + 1);

        if (!file_pread(descriptor, bytes, length, offset, file->path, err)) {
            return false;
        }
        *hash = hash_counter(*hash, hash_bytes(bytes, length), offset, length);
    }
    return true;
}

static bool file_hash(const struct model_file *file, uint64_t *hash, struct error *err)
{
    int descriptor = open(file->path, O_RDONLY | O_CLOEXEC);
    struct stat facts;
    bool hashed;

    if (descriptor < 0) {
        return error_set_errno(err, "%s", file->path);
    }
    hashed = fstat(descriptor, &facts) == 0 || error_set_errno(err, "%s", file->path);
    if (hashed) {
        *hash = hash_counter(*hash, hash_bytes(file->name, strlen(file->name)), file->bytes,
                             (uint64_t)facts.st_mtim.tv_sec * NS_PER_S +
                                 (uint64_t)facts.st_mtim.tv_nsec);
        hashed = content_hash(file, descriptor, hash, err);
    }
    (void)close(descriptor);
    return hashed;
}

static bool id_make(struct model_service *service, const char *model_hash,
                    const struct model_files *files, struct error *err)
{
    uint64_t hash = hash_bytes(model_hash, strlen(model_hash));

    for (uint32_t i = 0; i < files->count; i++) {
        if (!file_hash(&files->files[i], &hash, err)) {
            return false;
        }
    }
    (void)snprintf(service->id, sizeof(service->id), "%016" PRIx64, hash);
    return true;
}

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
    struct fetch_server_config server = {.key = config->key, .model_hash = service->id};
    struct endpoint control;
    struct endpoint_text text;
    struct model_files files;

    if (!endpoint_parse(config->control_endpoint, &control, err) ||
        !model_files_find(config->catalog, &service->arena, &files, err) ||
        !id_make(service, config->model_hash, &files, err)) {
        return false;
    }
    files_offer(&files, &service->arena, &server);
    server.endpoint =
        arena_strdup(&service->arena, endpoint_format(&text, control.host, config->port));
    service->server = fetch_server_start(&server, err);
    if (service->server == NULL) {
        return error_wrap(err, "model files");
    }
    log_info("model files are served: port=%u files=%u id=%s", fetch_server_port(service->server),
             files.count, service->id);
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

const char *model_service_id(const struct model_service *service)
{
    return service->id;
}

uint64_t model_service_sent_bytes(const struct model_service *service)
{
    return fetch_server_sent_bytes(service->server);
}
