/* mesh_connect.c - from addresses to open links, and what moves them along.
 *
 * Both ends of a pair greet: the lower id sends HELLO, the other answers with its own, so that each
 * knows that both directions work. While connecting, a broken zmq connection begins again until the
 * deadline, since the peer may only just have started or restarted its attempt. Once the mesh is
 * ready, a link that breaks stays lost until a further attempt of the epoch begins; then both ends
 * open it anew, with the attempt's number in the greeting, so that neither takes the other's old
 * connection for the new one.
 */
#include "common/net/mesh_internal.h"

#include "common/base/log.h"
#include "common/net/endpoint.h"

#include <inttypes.h>
#include <string.h>

static void link_end(struct mesh_link *link)
{
    if (link->link != NULL) {
        link_counters_add(&link->past, &link->link->counters);
        link_close(link->link);
        link_destroy(link->link);
        link->link = NULL;
    }
}

void mesh_link_drop(struct mesh_link *link, struct frame *frame)
{
    link->past.frames_dropped++;
    frame_release(frame);
}

/* All that waits, but for the greeting of a link that is being opened and shall be. */
static void outgoing_drop(struct mesh_link *link, enum link_fate fate)
{
    struct frame *hello = NULL;
    struct frame *frame;

    while ((frame = frame_queue_pop(&link->outgoing)) != NULL) {
        if (fate == LINK_STAYS && frame->header.kind == FRAME_HELLO) {
            hello = frame;
        } else {
            mesh_link_drop(link, frame);
        }
    }
    if (hello != NULL) {
        frame_queue_push(&link->outgoing, hello);
    }
}

void mesh_epoch_end(struct mesh *mesh)
{
    uint32_t unread = frame_queue_clear(&mesh->inbox);

    if (unread > 0) {
        log_debug("%u frames dropped: their epoch is over: epoch=%" PRIu64, unread,
                  mesh->epoch.epoch);
    }
    for (uint32_t i = 0; i < mesh->epoch.peer_count; i++) {
        link_end(&mesh->links[i]);
        (void)frame_queue_clear(&mesh->links[i].outgoing);
    }
    frame_pool_destroy(mesh->small);
    frame_pool_destroy(mesh->large);
    mesh->small = NULL;
    mesh->large = NULL;
    mesh->links = NULL;
    mesh->reports = NULL;
    mesh->epoch = (struct mesh_epoch){0};
    mesh->attempt = 0;
    mesh->state = MESH_IDLE;
    arena_reset(&mesh->arena);
}

/* --- beginning --- */

static bool address_check(const struct mesh *mesh, const struct peer_address *address,
                          struct error *err)
{
    struct endpoint endpoint;
    bool same_world = mesh->mpi_port != NULL && address->world_id == mesh->config.world.id;

    if (same_world && (address->world_rank >= mesh->config.world.size ||
                       address->world_rank == mesh->config.world.rank)) {
        return error_set(err, ERROR_INPUT, "worker %u: rank %u in our world of %u", address->worker,
                         address->world_rank, mesh->config.world.size);
    }
    return same_world || endpoint_parse(address->data_endpoint, &endpoint, err) ||
           error_wrap(err, "worker %u", address->worker);
}

static void link_init(struct mesh *mesh, struct mesh_link *link, const struct peer_address *address)
{
    link->address = *address;
    link->address.data_endpoint = arena_strdup(&mesh->arena, address->data_endpoint);
    link->is_mpi = mesh->mpi_port != NULL && address->world_id == mesh->config.world.id;
    link->dials = mesh->epoch.self < address->worker;
}

bool mesh_connect(struct mesh *mesh, const struct mesh_epoch *epoch, struct error *err)
{
    int64_t limit_ns = mesh->config.connect_ns_max;

    for (uint32_t i = 0; i < epoch->peer_count; i++) {
        ASSERT(epoch->peers[i].worker != epoch->self);
        if (!address_check(mesh, &epoch->peers[i], err)) {
            return false;
        }
    }
    mesh_epoch_end(mesh);
    mesh->epoch = *epoch;
    mesh->epoch.peers = NULL;
    mesh->links = arena_new_array(&mesh->arena, struct mesh_link, epoch->peer_count);
    mesh->reports = arena_new_array(&mesh->arena, struct link_report, epoch->peer_count);
    for (uint32_t i = 0; i < epoch->peer_count; i++) {
        link_init(mesh, &mesh->links[i], &epoch->peers[i]);
    }
    if (!mesh_probe_create(mesh, err)) {
        mesh_epoch_end(mesh);
        return false;
    }
    data_port_poll(mesh->data_port);
    data_port_forget(mesh->data_port, epoch->epoch);
    mesh->deadline_ns = clock_monotonic_ns() + (limit_ns > 0 ? limit_ns : MESH_CONNECT_NS);
    mesh->backoff = 0;
    mesh->state = MESH_CONNECTING;
    return true;
}

/* --- greeting --- */

static struct link_greeting greeting_to(const struct mesh *mesh, const struct mesh_link *link)
{
    return (struct link_greeting){.epoch = mesh->epoch.epoch,
                                  .attempt = link->attempt,
                                  .source = mesh->epoch.self,
                                  .target = link->address.worker};
}

static struct link_greeting greeting_from(const struct mesh *mesh, const struct mesh_link *link)
{
    return (struct link_greeting){.epoch = mesh->epoch.epoch,
                                  .attempt = link->attempt,
                                  .source = link->address.worker,
                                  .target = mesh->epoch.self};
}

/* In front of what waits. False: no frame is free now. */
static bool hello_send(struct mesh *mesh, struct mesh_link *link)
{
    struct link_greeting greeting = greeting_to(mesh, link);
    struct frame *frame = frame_pool_take(mesh->small);

    if (frame == NULL) {
        return false;
    }
    link_greeting_write(&greeting, frame);
    frame_queue_push_front(&link->outgoing, frame);
    return true;
}

static struct link *link_make(struct mesh *mesh, struct mesh_link *link, struct error *err)
{
    struct link_greeting expected = greeting_from(mesh, link);
    struct mpi_link_options options = {.epoch = mesh->epoch.epoch,
                                       .attempt = link->attempt,
                                       .peer = link->address.worker,
                                       .rank = link->address.world_rank,
                                       .sends_max = mesh->epoch.frames_per_link_max + 8};

    if (link->is_mpi) {
        return link_mpi_create(mesh->mpi_port, &options);
    }
    if (link->dials) {
        return link_zmq_dial(link->address.data_endpoint, link->address.worker, &mesh->config.key,
                             mesh->config.poller, err);
    }
    return link_zmq_accept(mesh->data_port, &expected);
}

static void link_try(struct mesh *mesh, struct mesh_link *link, int64_t now_ns)
{
    struct error err = {0};

    if (link->dials && now_ns < link->redial_ns) {
        return;
    }
    link->redial_ns = now_ns + MESH_REDIAL_NS;
    link->link = link_make(mesh, link, &err);
    if (link->link == NULL) {
        if (err.code != ERROR_NONE) {
            link->trouble = err;
        }
        return;
    }
    if (link->dials && !hello_send(mesh, link)) {
        link_end(link);
        return;
    }
    link->state = MESH_LINK_GREETING;
    link->greet_ns = now_ns;
    mesh->moved = true;
}

/* The connection failed; the next one follows. Frames wait on, but for a greeting and, of a link
 * that stood, what belongs to it. */
static void link_retry(struct mesh *mesh, struct mesh_link *link, const struct error *err)
{
    link_end(link);
    while (link->outgoing.first != NULL &&
           (link->state == MESH_LINK_OPEN || link->outgoing.first->header.kind == FRAME_HELLO)) {
        frame_release(frame_queue_pop(&link->outgoing));
    }
    link->trouble = *err;
    link->state = MESH_LINK_WAITING;
    mesh_probe_forget(mesh, link);
}

static void link_lose(struct mesh_link *link, const struct error *err)
{
    link_end(link);
    outgoing_drop(link, LINK_OPENS_ANEW);
    link->trouble = *err;
    link->state = MESH_LINK_LOST;
    link->is_told = false;
}

void mesh_link_attempt(struct mesh *mesh, struct mesh_link *link, enum link_fate fate)
{
    int64_t limit_ns = mesh->config.reopen_ns_max > 0 ? mesh->config.reopen_ns_max : MESH_REOPEN_NS;

    outgoing_drop(link, fate);
    if (fate == LINK_STAYS) {
        return;
    }
    link_end(link);
    link->attempt = mesh->attempt;
    link->trouble = (struct error){0};
    link->redial_ns = 0;
    link->deadline_ns = clock_monotonic_ns() + limit_ns;
    link->state = MESH_LINK_WAITING;
}

bool mesh_is_reopening(const struct mesh *mesh)
{
    for (uint32_t i = 0; mesh->state == MESH_READY && i < mesh->epoch.peer_count; i++) {
        if (mesh->links[i].state == MESH_LINK_WAITING ||
            mesh->links[i].state == MESH_LINK_GREETING) {
            return true;
        }
    }
    return false;
}

/* --- what took too long --- */

static void explain_zmq(const struct mesh *mesh, const struct mesh_link *link, double seconds,
                        struct error *err)
{
    struct endpoint peer = {.host = "?"};
    struct error ignored;
    bool parsed = endpoint_parse(link->address.data_endpoint, &peer, &ignored);

    ASSERT(parsed); /* mesh_connect has checked it */
    error_set(err, ERROR_PEER,
              "no data connection from worker %u (%s) to worker %u at %s after %.3g s: firewall? "
              "(--data-ports, --advertise)%s%s",
              link->dials ? mesh->epoch.self : link->address.worker,
              link->dials ? mesh->advertise : peer.host,
              link->dials ? link->address.worker : mesh->epoch.self,
              link->dials ? link->address.data_endpoint : mesh->endpoint, seconds,
              link->trouble.code != ERROR_NONE ? "; last: " : "",
              link->trouble.code != ERROR_NONE ? link->trouble.message : "");
}

static void explain(const struct mesh *mesh, const struct mesh_link *link, int64_t limit_ns,
                    struct error *err)
{
    double seconds = (double)limit_ns / (double)NS_PER_S;

    if (!link->is_mpi) {
        explain_zmq(mesh, link, seconds, err);
        return;
    }
    error_set(err, ERROR_PEER,
              "no answer over MPI from worker %u (rank %u) to worker %u (rank %u) after "
              "%.3g s",
              link->address.worker, link->address.world_rank, mesh->epoch.self,
              mesh->config.world.rank, seconds);
}

void mesh_explain_timeout(const struct mesh *mesh, struct error *err)
{
    int64_t limit_ns = mesh->config.connect_ns_max;

    limit_ns = limit_ns > 0 ? limit_ns : MESH_CONNECT_NS;
    for (uint32_t i = 0; i < mesh->epoch.peer_count; i++) {
        if (mesh->links[i].state != MESH_LINK_OPEN) {
            explain(mesh, &mesh->links[i], limit_ns, err);
            return;
        }
    }
    error_set(err, ERROR_PEER, "the links of worker %u were not measured within %.3g s",
              mesh->epoch.self, (double)limit_ns / (double)NS_PER_S);
}

/* --- frames --- */

void mesh_link_queue(struct mesh *mesh, struct mesh_link *link, struct frame *frame)
{
    frame->header.epoch = mesh->epoch.epoch;
    frame->header.source = mesh->epoch.self;
    frame_queue_push(&link->outgoing, frame);
}

static enum link_result outgoing_flush(struct mesh *mesh, struct mesh_link *link, struct error *err)
{
    enum link_result result = LINK_DONE;

    while (result == LINK_DONE && link->outgoing.first != NULL &&
           (link->state == MESH_LINK_OPEN || link->outgoing.first->header.kind == FRAME_HELLO)) {
        struct frame *frame = frame_queue_pop(&link->outgoing);

        result = link_send(link->link, frame, err);
        if (result == LINK_DONE) {
            mesh->moved = true;
        } else {
            frame_queue_push_front(&link->outgoing, frame);
        }
    }
    return result;
}

/* The first frame of a link, which must be the peer's HELLO (takes it). */
static enum link_result greeting_receive(struct mesh *mesh, struct mesh_link *link,
                                         struct frame *frame, struct error *err)
{
    struct link_greeting expected = greeting_from(mesh, link);
    bool matches = link_greeting_matches(&expected, frame);

    frame_release(frame);
    if (!matches) {
        error_set(err, ERROR_PEER, "worker %u began with a wrong greeting", link->address.worker);
        return LINK_LOST;
    }
    if (!link->dials && !hello_send(mesh, link)) {
        error_set(err, ERROR_LIMIT, "no frame to greet worker %u", link->address.worker);
        return LINK_LOST;
    }
    link->state = MESH_LINK_OPEN;
    return LINK_DONE;
}

static enum link_result data_receive(struct mesh *mesh, struct mesh_link *link, struct frame *frame,
                                     struct error *err)
{
    const struct frame_header *header = &frame->header;

    if (header->epoch != mesh->epoch.epoch || header->attempt < mesh->attempt) {
        mesh_link_drop(link, frame);
        return LINK_DONE;
    }
    if (header->source != link->address.worker || header->kind == FRAME_HELLO ||
        header->payload_bytes > mesh->epoch.frame_bytes_max ||
        link->inbox_count >= mesh->epoch.frames_unread_max) {
        error_set(err, ERROR_PEER,
                  "worker %u broke the protocol: frame kind %u of worker %u with %u bytes, %u "
                  "frames unread",
                  link->address.worker, header->kind, header->source, header->payload_bytes,
                  link->inbox_count);
        frame_release(frame);
        return LINK_LOST;
    }
    link->inbox_count++;
    frame_queue_push(&mesh->inbox, frame);
    return LINK_DONE;
}

static enum link_result frame_handle(struct mesh *mesh, struct mesh_link *link, struct frame *frame,
                                     struct error *err)
{
    if (link->state == MESH_LINK_GREETING) {
        return greeting_receive(mesh, link, frame, err);
    }
    if (frame->header.kind == FRAME_PROBE || frame->header.kind == FRAME_PROBE_ECHO) {
        mesh_probe_receive(mesh, link, frame);
        return LINK_DONE;
    }
    return data_receive(mesh, link, frame, err);
}

static enum link_result incoming_drain(struct mesh *mesh, struct mesh_link *link, struct error *err)
{
    enum link_result result = LINK_DONE;

    while (result == LINK_DONE) {
        struct frame *frame;

        result = link_receive(link->link, &frame, err);
        if (result == LINK_DONE) {
            mesh->moved = true;
            result = frame_handle(mesh, link, frame, err);
        }
    }
    return result;
}

/* Also of a link that is opened anew: its limit, and a greeting that nobody answers, since the
 * frame was damaged perhaps. */
static bool opening_check(struct mesh *mesh, struct mesh_link *link, int64_t now_ns,
                          struct error *err)
{
    int64_t limit_ns = mesh->config.reopen_ns_max > 0 ? mesh->config.reopen_ns_max : MESH_REOPEN_NS;

    if (mesh->state != MESH_READY ||
        (link->state != MESH_LINK_WAITING && link->state != MESH_LINK_GREETING)) {
        return true;
    }
    if (now_ns > link->deadline_ns) {
        explain(mesh, link, limit_ns, err);
        return false;
    }
    if (link->state == MESH_LINK_GREETING && !link->is_mpi &&
        now_ns - link->greet_ns > MESH_GREET_NS) {
        error_set(err, ERROR_PEER, "no answer to the greeting");
        link_retry(mesh, link, err);
    }
    return true;
}

bool mesh_link_poll(struct mesh *mesh, struct mesh_link *link, int64_t now_ns, struct error *err)
{
    if (link->state == MESH_LINK_WAITING) {
        link_try(mesh, link, now_ns);
    }
    if (link->state == MESH_LINK_LOST) {
        return true;
    }
    if (link->link != NULL && (incoming_drain(mesh, link, err) == LINK_LOST ||
                               outgoing_flush(mesh, link, err) == LINK_LOST)) {
        if (link->is_mpi && mesh->state == MESH_CONNECTING) {
            link_lose(link, err);
            return false;
        }
        if (mesh->state != MESH_CONNECTING && (link->state == MESH_LINK_OPEN || link->is_mpi)) {
            link_lose(link, err);
        } else {
            link_retry(mesh, link, err);
        }
    }
    return opening_check(mesh, link, now_ns, err);
}
