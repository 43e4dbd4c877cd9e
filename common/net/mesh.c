/* mesh.c - the data plane of one worker: its life, and the frames through it.
 *
 * Sending and receiving never wait: what a transport does not take stays in the link's queue, what
 * arrives goes to one inbox in the order of arrival. ZeroMQ wakes the poller; MPI has to be asked,
 * which costs a core if done all the time, so it is done only while a step is open here, while
 * requests are under way or links are being measured, and less often the longer nothing moves;
 * least often while the step computes and waits for nothing.
 */
#include "common/net/mesh.h"

#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/net/endpoint.h"
#include "common/net/mesh_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ARENA_CHUNK_BYTES ((size_t)16 << 10)
#define SEND_RETRY_NS     NS_PER_MS

static bool port_bind(struct mesh *mesh, struct error *err)
{
    const struct mesh_config *config = &mesh->config;
    uint32_t port = config->port_begin;
    struct endpoint_text text;

    do {
        mesh->data_port = data_port_open(endpoint_format(&text, config->bind_host, (uint16_t)port),
                                         &config->key, config->poller, err);
        port++;
    } while (mesh->data_port == NULL && port <= config->port_end && config->port_begin != 0);
    if (mesh->data_port == NULL && config->port_begin != config->port_end) {
        return error_wrap(err, "data ports %u-%u: none is free, the last", config->port_begin,
                          config->port_end);
    }
    return mesh->data_port != NULL || error_wrap(err, "data endpoint");
}

static bool endpoint_name(struct mesh *mesh, struct error *err)
{
    struct endpoint_text text;
    struct endpoint bound;

    if (!endpoint_parse(data_port_endpoint(mesh->data_port), &bound, err)) {
        return false;
    }
    (void)snprintf(mesh->endpoint, sizeof(mesh->endpoint), "%s",
                   endpoint_format(&text, mesh->advertise, bound.port));
    return true;
}

struct mesh *mesh_create(const struct mesh_config *config, struct error *err)
{
    struct mesh *mesh = mem_new(struct mesh);

    ASSERT(config->port_begin <= config->port_end);
    mesh->config = *config;
    (void)snprintf(mesh->advertise, sizeof(mesh->advertise), "%s",
                   config->advertise != NULL ? config->advertise : config->bind_host);
    arena_init(&mesh->arena, ARENA_CHUNK_BYTES);
    if (!port_bind(mesh, err) || !endpoint_name(mesh, err)) {
        mesh_destroy(mesh);
        return NULL;
    }
    if (config->world.id != 0) {
        mesh->mpi_port = mpi_port_open(&config->world);
    }
    mesh->config.bind_host = NULL; /* borrowed for this call only */
    mesh->config.advertise = NULL;
    return mesh;
}

void mesh_destroy(struct mesh *mesh)
{
    if (mesh == NULL) {
        return;
    }
    mesh_epoch_end(mesh);
    data_port_close(mesh->data_port);
    mpi_port_close(mesh->mpi_port);
    arena_deinit(&mesh->arena);
    explicit_bzero(&mesh->config.key, sizeof(mesh->config.key));
    mem_free(mesh);
}

const char *mesh_endpoint(const struct mesh *mesh)
{
    return mesh->endpoint;
}

/* --- progress --- */

static bool has_mpi_links(const struct mesh *mesh)
{
    for (uint32_t i = 0; i < mesh->epoch.peer_count; i++) {
        if (mesh->links[i].is_mpi) {
            return true;
        }
    }
    return false;
}

static bool mpi_needs_tests(const struct mesh *mesh)
{
    if (mesh->mpi_port == NULL) {
        return false;
    }
    return mpi_port_is_busy(mesh->mpi_port) ||
           (has_mpi_links(mesh) && (mesh->state == MESH_CONNECTING ||
                                    mesh->activity != MESH_QUIET || mesh_is_reopening(mesh)));
}

bool mesh_needs_tests(const struct mesh *mesh)
{
    return mesh->mpi_port != NULL && has_mpi_links(mesh);
}

/* Where nobody waits, nothing is lost by a frame that is found a little later; what is under way
 * may keep a peer waiting. */
static int64_t longest_pause_us(const struct mesh *mesh)
{
    if (mesh->activity != MESH_STEP_COMPUTING || mesh->state == MESH_CONNECTING) {
        return 100;
    }
    return mpi_port_is_busy(mesh->mpi_port) ? 500 : 5000;
}

static int64_t test_pause_ns(struct mesh *mesh)
{
    static const int64_t pauses_us[] = {0, 1, 5, 20, 50, 100, 200, 500, 1000, 2000, 5000};
    int64_t longest_us = longest_pause_us(mesh);

    while (pauses_us[mesh->backoff] > longest_us) {
        mesh->backoff--;
    }
    if (pauses_us[mesh->backoff] < longest_us) {
        return pauses_us[mesh->backoff++] * NS_PER_US;
    }
    return longest_us * NS_PER_US;
}

static enum mesh_state mesh_fail(struct mesh *mesh, struct error *err)
{
    mesh->failure = *err;
    mesh->state = MESH_FAILED;
    return MESH_FAILED;
}

static bool links_poll(struct mesh *mesh, int64_t now_ns, struct error *err)
{
    for (uint32_t i = 0; i < mesh->epoch.peer_count; i++) {
        if (!mesh_link_poll(mesh, &mesh->links[i], now_ns, err)) {
            return false;
        }
    }
    return true;
}

static void ready_enter(struct mesh *mesh)
{
    frame_pool_destroy(mesh->large);
    mesh->large = NULL;
    mesh->state = MESH_READY;
    for (uint32_t i = 0; i < mesh->epoch.peer_count; i++) {
        const struct link_report *report = &mesh->reports[i];

        /* What was measured is no traffic of steps; both ends are done with it. */
        mesh->links[i].link->counters = (struct link_counters){0};
        mesh->links[i].past = (struct link_counters){0};

        log_debug("link to worker %u: kind=%s latency_us=%.1f bytes_per_s=%.3g", report->peer,
                  report->kind, (double)report->latency_ns / 1e3, report->bytes_per_s);
    }
}

/* Links may move each other along (an answer was queued), so until nothing moves. */
static bool connecting_poll(struct mesh *mesh, int64_t now_ns, struct error *err)
{
    if (!links_poll(mesh, now_ns, err)) {
        return false;
    }
    if (mesh->state != MESH_CONNECTING) {
        return true;
    }
    mesh_probe_poll(mesh);
    if (!links_poll(mesh, now_ns, err)) {
        return false;
    }
    if (mesh_probe_is_done(mesh)) {
        ready_enter(mesh);
    } else if (now_ns > mesh->deadline_ns) {
        mesh_explain_timeout(mesh, err);
        return false;
    }
    return true;
}

/* The other links live on until the next epoch: their peers are not to blame us, and what arrives
 * must be read, or the poller would not sleep. */
static void failed_poll(struct mesh *mesh, int64_t now_ns)
{
    for (uint32_t i = 0; i < mesh->epoch.peer_count; i++) {
        struct error also;

        (void)mesh_link_poll(mesh, &mesh->links[i], now_ns, &also);
    }
}

enum mesh_state mesh_poll(struct mesh *mesh, struct error *err)
{
    mesh->moved = false;
    data_port_poll(mesh->data_port);
    if (mpi_needs_tests(mesh) && mpi_port_poll(mesh->mpi_port)) {
        mesh->moved = true;
    }
    if (mesh->state == MESH_FAILED) {
        failed_poll(mesh, clock_monotonic_ns());
        *err = mesh->failure;
    } else if (mesh->state != MESH_IDLE && !connecting_poll(mesh, clock_monotonic_ns(), err)) {
        return mesh_fail(mesh, err);
    }
    if (mesh->moved) {
        mesh->backoff = 0;
    }
    return mesh->state;
}

int64_t mesh_wait_ns(struct mesh *mesh, enum mesh_activity activity)
{
    if (activity == MESH_STEP_OPEN && mesh->activity != activity) {
        mesh->backoff = 0;
    }
    mesh->activity = activity;
    if (mpi_needs_tests(mesh)) {
        return test_pause_ns(mesh);
    }
    if (mesh->state == MESH_CONNECTING || mesh_is_reopening(mesh)) {
        return MESH_CONNECT_TICK_NS;
    }
    for (uint32_t i = 0; i < mesh->epoch.peer_count; i++) {
        if (mesh->links[i].outgoing.count > 0) {
            return SEND_RETRY_NS;
        }
    }
    return -1;
}

const struct link_report *mesh_reports(const struct mesh *mesh, uint32_t *count)
{
    *count = mesh->state == MESH_READY ? mesh->epoch.peer_count : 0;
    return mesh->reports;
}

/* --- frames --- */

static struct mesh_link *link_to(const struct mesh *mesh, uint32_t peer)
{
    for (uint32_t i = 0; i < mesh->epoch.peer_count; i++) {
        if (mesh->links[i].address.worker == peer) {
            return &mesh->links[i];
        }
    }
    return NULL;
}

static bool send_check(const struct mesh *mesh, const struct mesh_link *link, struct error *err)
{
    if (mesh->state == MESH_FAILED) {
        *err = mesh->failure;
        return false;
    }
    if (mesh->state != MESH_READY) {
        return error_set(err, ERROR_PEER, "no link to worker %u", link->address.worker);
    }
    if (link->outgoing.count >= mesh->epoch.frames_per_link_max) {
        return error_set(err, ERROR_LIMIT,
                         "%u frames wait for worker %u: more than the steps in "
                         "flight make",
                         link->outgoing.count, link->address.worker);
    }
    return true;
}

bool mesh_send(struct mesh *mesh, uint32_t peer, struct frame *frame, struct error *err)
{
    struct mesh_link *link = link_to(mesh, peer);

    ASSERT(link != NULL && frame->header.payload_bytes <= mesh->epoch.frame_bytes_max);
    if (!send_check(mesh, link, err)) {
        frame_release(frame);
        return false;
    }
    if (link->state == MESH_LINK_LOST || frame->header.attempt < mesh->attempt) {
        mesh_link_drop(link, frame);
        return true;
    }
    mesh_link_queue(mesh, link, frame);
    if (!mesh_link_poll(mesh, link, clock_monotonic_ns(), err)) {
        (void)mesh_fail(mesh, err);
        return false;
    }
    return true;
}

bool mesh_lost(struct mesh *mesh, struct mesh_loss *out)
{
    for (uint32_t i = 0; i < mesh->epoch.peer_count; i++) {
        struct mesh_link *link = &mesh->links[i];

        if (link->state == MESH_LINK_LOST && !link->is_told) {
            link->is_told = true;
            *out = (struct mesh_loss){
                .peer = link->address.worker, .attempt = link->attempt, .why = link->trouble};
            return true;
        }
    }
    return false;
}

/* What arrived of earlier attempts and nobody has read. */
static void inbox_purge(struct mesh *mesh)
{
    struct frame_queue kept = {0};
    struct frame *frame;

    while ((frame = frame_queue_pop(&mesh->inbox)) != NULL) {
        struct mesh_link *link = link_to(mesh, frame->header.source);

        if (frame->header.attempt < mesh->attempt) {
            link->inbox_count--;
            mesh_link_drop(link, frame);
        } else {
            frame_queue_push(&kept, frame);
        }
    }
    mesh->inbox = kept;
}

void mesh_attempt(struct mesh *mesh, uint32_t attempt, const uint32_t *peers, uint32_t peer_count)
{
    if (mesh->state != MESH_READY || attempt <= mesh->attempt) {
        return;
    }
    mesh->attempt = attempt;
    inbox_purge(mesh);
    for (uint32_t i = 0; i < mesh->epoch.peer_count; i++) {
        struct mesh_link *link = &mesh->links[i];
        enum link_fate fate = LINK_STAYS;

        for (uint32_t k = 0; k < peer_count; k++) {
            fate = peers[k] == link->address.worker ? LINK_OPENS_ANEW : fate;
        }
        mesh_link_attempt(mesh, link, fate);
    }
    mesh->backoff = 0;
}

struct frame *mesh_receive(struct mesh *mesh)
{
    struct frame *frame = frame_queue_pop(&mesh->inbox);

    if (frame != NULL) {
        link_to(mesh, frame->header.source)->inbox_count--;
    }
    return frame;
}

uint32_t mesh_usage(const struct mesh *mesh, struct link_usage *out, uint32_t capacity)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < mesh->epoch.peer_count && count < capacity; i++) {
        const struct mesh_link *link = &mesh->links[i];
        struct link_counters sum = link->past;

        if (mesh->state == MESH_CONNECTING && link->link == NULL) {
            continue;
        }
        if (link->link != NULL) {
            link_counters_add(&sum, &link->link->counters);
        }
        out[count++] = (struct link_usage){.peer = link->address.worker,
                                           .kind = link->is_mpi ? "mpi" : "zmq",
                                           .frames_sent = sum.frames_sent,
                                           .frames_received = sum.frames_received,
                                           .bytes_sent = sum.bytes_sent,
                                           .bytes_received = sum.bytes_received,
                                           .crc_errors = sum.crc_errors,
                                           .frames_dropped = sum.frames_dropped};
    }
    return count;
}
