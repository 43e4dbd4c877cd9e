/* mesh_probe.c - how far and how wide each link is.
 *
 * Ten round trips of an empty frame give the latency (median), three of up to 1 MiB the bandwidth
 * (best). One link at a time, beginning behind our own id, so that the workers of a large cluster
 * do not all measure the same one. Both ends measure; a last probe without an answer tells the peer
 * that we are done with it, and only when all are done with each other is the mesh ready: MPI may
 * then rest until a step opens.
 */
#include "common/net/mesh_internal.h"

#include <stdlib.h>
#include <string.h>

#define LARGE_BYTES_MAX ((size_t)1 << 20)
#define SMALL_BYTES     ((size_t)64)
#define SMALL_PER_LINK  4u /* HELLO, a probe, the last one, and one to spare */
#define LARGE_COUNT     2u
#define LAYER_LAST      UINT32_MAX /* in a PROBE: I have measured */

static size_t large_bytes(const struct mesh *mesh)
{
    size_t bytes = mesh->epoch.frame_bytes_max;

    return bytes < LARGE_BYTES_MAX ? bytes : LARGE_BYTES_MAX;
}

bool mesh_probe_create(struct mesh *mesh, struct error *err)
{
    uint32_t small_count = mesh->epoch.peer_count * SMALL_PER_LINK + 1;

    memset(&mesh->probe, 0, sizeof(mesh->probe));
    mesh->probe.link = MESH_NO_LINK;
    mesh->small = frame_pool_create(small_count, SMALL_BYTES, err);
    mesh->large = frame_pool_create(LARGE_COUNT, large_bytes(mesh), err);
    return mesh->small != NULL && mesh->large != NULL;
}

/* The first link behind our own id that is open and not measured. */
static uint32_t link_to_measure(const struct mesh *mesh)
{
    uint32_t count = mesh->epoch.peer_count;
    uint32_t begin = 0;

    while (begin < count && mesh->links[begin].address.worker < mesh->epoch.self) {
        begin++;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t index = (begin + i) % count;

        if (mesh->links[index].state == MESH_LINK_OPEN && !mesh->links[index].is_measured) {
            return index;
        }
    }
    return MESH_NO_LINK;
}

static struct frame *probe_frame(struct mesh *mesh, bool large)
{
    struct frame *frame = frame_pool_take(large ? mesh->large : mesh->small);

    if (frame != NULL) {
        frame->header =
            (struct frame_header){.kind = FRAME_PROBE,
                                  .dtype = FRAME_RAW,
                                  .step = mesh->probe.round,
                                  .payload_bytes = large ? (uint32_t)large_bytes(mesh) : 0};
    }
    return frame;
}

static int order_ns(const void *a, const void *b)
{
    const int64_t *x = a;
    const int64_t *y = b;

    return (*x > *y) - (*x < *y);
}

/* A large frame takes latency plus transfer each way. */
static void report_write(struct mesh *mesh, uint32_t index)
{
    int64_t *small = mesh->probe.round_trips_ns;
    int64_t *large = small + PROBE_ROUNDS_SMALL;
    struct link_report *report = &mesh->reports[index];
    int64_t transfer_ns;

    qsort(small, PROBE_ROUNDS_SMALL, sizeof(*small), order_ns);
    qsort(large, PROBE_ROUNDS_LARGE, sizeof(*large), order_ns);
    report->peer = mesh->links[index].address.worker;
    report->kind = mesh->links[index].link->ops->kind;
    report->latency_ns = small[PROBE_ROUNDS_SMALL / 2] / 2;
    transfer_ns = large[0] / 2 - report->latency_ns;
    if (transfer_ns < large[0] / 8) {
        transfer_ns = large[0] / 8; /* noise of the same size as the transfer */
    }
    report->bytes_per_s =
        (double)large_bytes(mesh) * (double)NS_PER_S / (double)(transfer_ns > 0 ? transfer_ns : 1);
}

/* True: the peer was told that we are done with it. */
static bool last_send(struct mesh *mesh, struct mesh_link *link)
{
    struct frame *frame = probe_frame(mesh, false);

    if (frame == NULL) {
        return false;
    }
    frame->header.layer = LAYER_LAST;
    mesh_link_queue(mesh, link, frame);
    return true;
}

void mesh_probe_poll(struct mesh *mesh)
{
    struct mesh_probe *probe = &mesh->probe;
    struct frame *frame;

    if (probe->link == MESH_NO_LINK) {
        probe->link = link_to_measure(mesh);
        probe->round = 0;
        probe->is_out = false;
    }
    if (probe->link == MESH_NO_LINK || probe->is_out) {
        return;
    }
    if (probe->round == PROBE_ROUNDS) {
        if (last_send(mesh, &mesh->links[probe->link])) {
            report_write(mesh, probe->link);
            mesh->links[probe->link].is_measured = true;
            probe->link = MESH_NO_LINK;
            mesh->moved = true;
        }
        return;
    }
    frame = probe_frame(mesh, probe->round >= PROBE_ROUNDS_SMALL);
    if (frame != NULL) {
        probe->is_out = true;
        probe->sent_ns = clock_monotonic_ns();
        mesh_link_queue(mesh, &mesh->links[probe->link], frame);
    }
}

/* The bytes go back as they came: a received frame has room for a header in front of its payload.
 */
static void probe_answer(struct mesh *mesh, struct mesh_link *link, struct frame *frame)
{
    frame->header.kind = FRAME_PROBE_ECHO;
    mesh_link_queue(mesh, link, frame);
}

void mesh_probe_receive(struct mesh *mesh, struct mesh_link *link, struct frame *frame)
{
    struct mesh_probe *probe = &mesh->probe;

    if (frame->header.kind == FRAME_PROBE && frame->header.layer != LAYER_LAST) {
        probe_answer(mesh, link, frame);
        return;
    }
    if (frame->header.kind == FRAME_PROBE) {
        link->peer_has_measured = true;
    } else if (probe->link != MESH_NO_LINK && &mesh->links[probe->link] == link && probe->is_out &&
               frame->header.step == probe->round) {
        probe->round_trips_ns[probe->round] = clock_monotonic_ns() - probe->sent_ns;
        probe->round++;
        probe->is_out = false;
    }
    frame_release(frame);
}

void mesh_probe_forget(struct mesh *mesh, struct mesh_link *link)
{
    link->is_measured = false;
    link->peer_has_measured = false;
    if (mesh->probe.link != MESH_NO_LINK && &mesh->links[mesh->probe.link] == link) {
        mesh->probe.link = MESH_NO_LINK;
    }
}

bool mesh_probe_is_done(const struct mesh *mesh)
{
    for (uint32_t i = 0; i < mesh->epoch.peer_count; i++) {
        const struct mesh_link *link = &mesh->links[i];

        if (link->state != MESH_LINK_OPEN || !link->is_measured || !link->peer_has_measured ||
            link->outgoing.count > 0) {
            return false;
        }
    }
    return true;
}
