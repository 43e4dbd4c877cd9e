/* worker_open.c - what a worker has from its start to its end: addresses, keys, the mesh, the team.
 *
 * All that can be wrong with the command line or the machine is found here, before the coordinator
 * is looked for.
 */
#include "worker/stage/worker.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ARENA_BYTES (64 << 10)

static bool interface_address(const char *name, char *out, size_t out_bytes, struct error *err)
{
    struct ifaddrs *all = NULL;
    bool found = false;

    if (getifaddrs(&all) != 0) {
        return error_set_errno(err, "network interfaces");
    }
    for (int family = AF_INET; !found; family = AF_INET6) {
        for (struct ifaddrs *at = all; at != NULL && !found; at = at->ifa_next) {
            socklen_t bytes =
                family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);

            found = at->ifa_addr != NULL && at->ifa_addr->sa_family == family &&
                    strcmp(at->ifa_name, name) == 0 &&
                    getnameinfo(at->ifa_addr, bytes, out, (socklen_t)out_bytes, NULL, 0,
                                NI_NUMERICHOST) == 0;
        }
        if (family == AF_INET6) {
            break;
        }
    }
    freeifaddrs(all);
    if (!found) {
        return error_set(err, ERROR_USAGE, "--iface %s: no such interface, or it has no address",
                         name);
    }
    return true;
}

static bool find_bind_host(struct worker *worker, struct error *err)
{
    const struct worker_options *options = &worker->options;

    if (options->bind_host != NULL) {
        (void)snprintf(worker->bind_host, sizeof(worker->bind_host), "%s", options->bind_host);
        return true;
    }
    if (options->interface != NULL) {
        return interface_address(options->interface, worker->bind_host, sizeof(worker->bind_host),
                                 err);
    }
    return control_local_address(options->coordinator, worker->bind_host, sizeof(worker->bind_host),
                                 err);
}

static bool check_keys(struct worker *worker, struct error *err)
{
    const struct worker_options *options = &worker->options;
    enum keys_policy policy = options->insecure ? KEYS_INSECURE_ALLOWED : KEYS_REQUIRED;
    bool is_v6 = strchr(worker->bind_host, ':') != NULL;
    char endpoint[sizeof(worker->bind_host) + 16];

    (void)snprintf(endpoint, sizeof(endpoint), "tcp://%s%s%s:0", is_v6 ? "[" : "",
                   worker->bind_host, is_v6 ? "]" : "");
    return keys_check_endpoint(options->coordinator, &worker->key, policy, err) &&
           keys_check_endpoint(endpoint, &worker->key, policy, err);
}

static bool open_mesh(struct worker *worker, struct error *err)
{
    struct mesh_config config = {
        .bind_host = worker->bind_host,
        .port_begin = worker->options.port_begin,
        .port_end = worker->options.port_end,
        .advertise = worker->options.advertise,
        .world = worker->world,
        .poller = worker->poller,
    };

    if (worker->options.key != NULL && !keys_read(worker->options.key, &worker->key, err)) {
        return false;
    }
    if (!find_bind_host(worker, err) || !check_keys(worker, err)) {
        return false;
    }
    config.key = worker->key;
    worker->mesh = mesh_create(&config, err);
    return worker->mesh != NULL;
}

bool worker_open(struct worker *worker, const struct worker_options *options, struct error *err)
{
    struct team_config team = {.thread_count = options->threads, .spin_ns = -1};

    worker->options = *options;
    worker->parent = (int)getppid();
    arena_init(&worker->arena, ARENA_BYTES);
    arena_init(&worker->assignment_arena, ARENA_BYTES);
    arena_init(&worker->step_arena, ARENA_BYTES);
    if (!cpu_level_choose(&worker->cpu_level, err)) {
        return false;
    }
    worker->poller = poller_create();
    poller_add_fd(worker->poller, worker->waker.fd);
    if (!open_mesh(worker, err)) {
        return false;
    }
    worker->team = team_create(&team, err);
    if (worker->team == NULL) {
        return false;
    }
    facts_collect(options->memory_bytes, worker->team, &worker->facts);
    return true;
}

void worker_close(struct worker *worker)
{
    worker_epoch_destroy(worker);
    team_destroy(worker->team);
    mesh_destroy(worker->mesh);
    control_client_destroy(worker->control);
    poller_destroy(worker->poller);
    arena_deinit(&worker->arena);
    arena_deinit(&worker->assignment_arena);
    arena_deinit(&worker->step_arena);
}
