/* link_mpi.c - frames over MPI; the only file that knows it.
 *
 * A frame is one message of bytes, header and payload contiguous, in a communicator of our own.
 * Sends are MPI_Isend from the frame's wire bytes, which a list of requests keeps until they are
 * out. Receives are matched probes (MPI_Improbe), so that the buffer is as large as the message,
 * into a queue for each rank: MPI keeps the order of one sender, so a queue holds the rest of an
 * old epoch, then the current one, then the next. MPI polls; the mesh decides when that is worth
 * it. A rank's death ends its world (Open MPI 4.1 has no ULFM), so a link here is lost only by
 * malformed bytes or an error of the library.
 */
#include "common/net/link_mpi.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/net/frame_queue.h"
#include "common/net/inbound.h"

#include <mpi.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define FRAME_TAG           1
#define POLL_MESSAGES_MAX   64 /* of one poll: the caller has other sockets too */
#define SEND_WAIT_NS        (2 * NS_PER_S)
#define FINALIZE_WAIT_NS    (5 * NS_PER_S)
#define WAIT_STEP_NS        200000
#define SENDS_MAX_OF_A_PORT 65536u

/* --- the world --- */

static MPI_Comm frame_comm = MPI_COMM_NULL; /* ours alone; set once by mpi_world_init */

static bool launcher_is_there(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"};

    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        if (getenv(names[i]) != NULL) {
            return true;
        }
    }
    return false;
}

static bool mpi_failed(int code, const char *what, struct error *err)
{
    char text[MPI_MAX_ERROR_STRING] = "unknown error";
    int length;

    if (code == MPI_SUCCESS) {
        return false;
    }
    (void)MPI_Error_string(code, text, &length);
    error_set(err, ERROR_SYSTEM, "%s: %s", what, text);
    return true;
}

/* Rank 0 draws the number that tells this world from others. */
static bool world_identify(struct mpi_world *out, struct error *err)
{
    uint64_t id = 0;
    int rank;
    int size;

    if (mpi_failed(MPI_Comm_rank(frame_comm, &rank), "MPI_Comm_rank", err) ||
        mpi_failed(MPI_Comm_size(frame_comm, &size), "MPI_Comm_size", err)) {
        return false;
    }
    while (rank == 0 && id == 0) {
        if (getrandom(&id, sizeof(id), 0) != (ssize_t)sizeof(id)) {
            return error_set_errno(err, "getrandom");
        }
    }
    if (mpi_failed(MPI_Bcast(&id, 1, MPI_UINT64_T, 0, frame_comm), "MPI_Bcast", err)) {
        return false;
    }
    *out = (struct mpi_world){.id = id, .rank = (uint32_t)rank, .size = (uint32_t)size};
    return true;
}

bool mpi_world_init(struct mpi_world *out, struct error *err)
{
    int provided;

    memset(out, 0, sizeof(*out));
    if (!launcher_is_there()) {
        return true;
    }
    if (mpi_failed(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread",
                   err)) {
        return false;
    }
    if (provided < MPI_THREAD_FUNNELED) {
        return error_set(err, ERROR_SYSTEM, "this MPI has no MPI_THREAD_FUNNELED");
    }
    if (mpi_failed(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN),
                   "MPI_Comm_set_errhandler", err) ||
        mpi_failed(MPI_Comm_dup(MPI_COMM_WORLD, &frame_comm), "MPI_Comm_dup", err) ||
        mpi_failed(MPI_Comm_set_errhandler(frame_comm, MPI_ERRORS_RETURN),
                   "MPI_Comm_set_errhandler", err)) {
        return false;
    }
    return world_identify(out, err);
}

static void wait_step(void)
{
    (void)nanosleep(&(struct timespec){.tv_nsec = WAIT_STEP_NS}, NULL);
}

/* MPI_Finalize waits for every rank, so it is called only once all of them came this far. */
void mpi_world_finalize(const struct mpi_world *world)
{
    int64_t deadline_ns = clock_monotonic_ns() + FINALIZE_WAIT_NS;
    MPI_Request barrier;
    int done = 0;

    if (world->id == 0 || MPI_Ibarrier(frame_comm, &barrier) != MPI_SUCCESS) {
        return;
    }
    while (!done) {
        if (MPI_Test(&barrier, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS ||
            (!done && clock_monotonic_ns() > deadline_ns)) {
            log_warn("the other ranks of the MPI world did not end: leaving without them");
            return;
        }
        if (!done) {
            wait_step();
        }
    }
    (void)MPI_Comm_free(&frame_comm);
    (void)MPI_Finalize();
}

/* --- the port --- */

struct link_mpi {
    struct link link;
    struct mpi_port *port;
    uint64_t epoch;
    uint32_t attempt;
    uint32_t rank;
    uint32_t sends_max, sends_under_way;
    bool greeted; /* by the peer */
    bool closed;
};

/* Requests and what they belong to stand in two arrays, as MPI_Testsome wants. */
struct sends {
    MPI_Request *requests;
    struct frame **frames;
    struct link_mpi **links; /* NULL once the link was destroyed */
    int *completed;          /* scratch */
    uint32_t count, capacity;
};

struct mpi_port {
    uint32_t size;
    struct inbound_pool *inbound;
    struct frame_queue *arrived; /* [size], by source rank */
    struct sends sends;
    uint32_t receives_under_way;
    bool failed; /* the library gave up on us */
    struct error failure;
};

/* What an inbound frame carries until it is whole. */
struct arrival {
    MPI_Request request;
    int bytes;
    bool whole;   /* the request is complete */
    bool checked; /* frame_decode was happy */
};
_Static_assert(sizeof(struct arrival) <= sizeof(((struct inbound *)NULL)->transport),
               "an inbound frame has room for its request");

static struct arrival *arrival_of(struct frame *frame)
{
    return (struct arrival *)(void *)((struct inbound *)frame)->transport;
}

struct mpi_port *mpi_port_open(const struct mpi_world *world)
{
    struct mpi_port *port = mem_new(struct mpi_port);

    ASSERT(world->id != 0 && frame_comm != MPI_COMM_NULL);
    port->size = world->size;
    port->inbound = inbound_pool_create();
    port->arrived = mem_new_array(struct frame_queue, world->size);
    return port;
}

static void port_fail(struct mpi_port *port, const struct error *err)
{
    if (!port->failed) {
        port->failed = true;
        port->failure = *err;
    }
}

static void sends_grow(struct sends *sends)
{
    if (sends->count < sends->capacity) {
        return;
    }
    sends->capacity = sends->capacity == 0 ? 64 : sends->capacity * 2;
    sends->requests = mem_resize(sends->requests, sends->capacity, sizeof(*sends->requests));
    sends->frames = mem_resize(sends->frames, sends->capacity, sizeof(*sends->frames));
    sends->links = mem_resize(sends->links, sends->capacity, sizeof(*sends->links));
    sends->completed = mem_resize(sends->completed, sends->capacity, sizeof(*sends->completed));
}

static void send_finish(struct sends *sends, uint32_t index)
{
    frame_release(sends->frames[index]);
    sends->frames[index] = NULL;
    if (sends->links[index] != NULL) {
        sends->links[index]->sends_under_way--;
    }
}

/* Closes the holes, in order. */
static void sends_compact(struct sends *sends)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < sends->count; i++) {
        if (sends->frames[i] != NULL) {
            sends->requests[kept] = sends->requests[i];
            sends->frames[kept] = sends->frames[i];
            sends->links[kept] = sends->links[i];
            kept++;
        }
    }
    sends->count = kept;
}

static bool sends_poll(struct mpi_port *port)
{
    struct sends *sends = &port->sends;
    struct error err;
    int done = 0;

    if (sends->count == 0) {
        return false;
    }
    if (mpi_failed(MPI_Testsome((int)sends->count, sends->requests, &done, sends->completed,
                                MPI_STATUSES_IGNORE),
                   "MPI_Testsome", &err)) {
        port_fail(port, &err);
        return false;
    }
    if (done <= 0) { /* MPI_UNDEFINED is negative */
        return false;
    }
    for (int i = 0; i < done; i++) {
        send_finish(sends, (uint32_t)sends->completed[i]);
    }
    sends_compact(sends);
    return true;
}

/* Begins to receive one matched message of `bytes`. */
static bool receive_begin(struct mpi_port *port, MPI_Message *message, const MPI_Status *status,
                          struct error *err)
{
    struct inbound *inbound;
    struct arrival *arrival;
    int bytes;

    if (mpi_failed(MPI_Get_count(status, MPI_BYTE, &bytes), "MPI_Get_count", err)) {
        return false;
    }
    if (bytes < FRAME_HEADER_BYTES || (size_t)bytes > FRAME_BYTES_MAX) {
        return error_set(err, ERROR_PEER, "rank %d sent a message of %d bytes", status->MPI_SOURCE,
                         bytes);
    }
    inbound = inbound_take(port->inbound, (size_t)bytes, err);
    if (inbound == NULL) {
        return false;
    }
    arrival = arrival_of(&inbound->frame);
    *arrival = (struct arrival){.bytes = bytes};
    if (mpi_failed(MPI_Imrecv(inbound->buffer, bytes, MPI_BYTE, message, &arrival->request),
                   "MPI_Imrecv", err)) {
        frame_release(&inbound->frame);
        return false;
    }
    port->receives_under_way++;
    frame_queue_push(&port->arrived[status->MPI_SOURCE], &inbound->frame);
    return true;
}

static bool receives_poll(struct mpi_port *port)
{
    bool moved = false;

    for (int i = 0; i < POLL_MESSAGES_MAX; i++) {
        MPI_Message message;
        MPI_Status status;
        struct error err;
        int found = 0;

        if (mpi_failed(
                MPI_Improbe(MPI_ANY_SOURCE, FRAME_TAG, frame_comm, &found, &message, &status),
                "MPI_Improbe", &err) ||
            (found && !receive_begin(port, &message, &status, &err))) {
            port_fail(port, &err);
            return moved;
        }
        if (!found) {
            return moved;
        }
        moved = true;
    }
    return moved;
}

/* True: all bytes of the frame are here. */
static bool arrival_is_whole(struct mpi_port *port, struct frame *frame)
{
    struct arrival *arrival = arrival_of(frame);
    struct error err;
    int done = 0;

    if (arrival->whole) {
        return true;
    }
    if (mpi_failed(MPI_Test(&arrival->request, &done, MPI_STATUS_IGNORE), "MPI_Test", &err)) {
        port_fail(port, &err);
        return false;
    }
    if (done) {
        arrival->whole = true;
        port->receives_under_way--;
    }
    return done != 0;
}

/* Also what no link asks for: until it is whole, the port is busy and does not rest. */
static bool arrivals_poll(struct mpi_port *port)
{
    uint32_t before = port->receives_under_way;

    for (uint32_t rank = 0; rank < port->size && port->receives_under_way > 0; rank++) {
        struct frame *first = port->arrived[rank].first;

        for (struct mpsc_node *node = first != NULL ? &first->node : NULL; node != NULL;
             node = node->next) {
            (void)arrival_is_whole(
                port, (struct frame *)(void *)((char *)node - offsetof(struct frame, node)));
        }
    }
    return port->receives_under_way < before;
}

bool mpi_port_poll(struct mpi_port *port)
{
    bool moved;

    if (port->failed) {
        return false;
    }
    moved = sends_poll(port);
    moved = receives_poll(port) || moved;
    return arrivals_poll(port) || moved;
}

bool mpi_port_is_busy(const struct mpi_port *port)
{
    return port->sends.count > 0 || port->receives_under_way > 0;
}

/* Frames that still arrive are cancelled by MPI's end; their buffers must outlive them, so what is
 * not whole by then is left to the process. */
static void arrived_clear(struct mpi_port *port)
{
    for (uint32_t rank = 0; rank < port->size; rank++) {
        struct frame *frame;

        while ((frame = frame_queue_pop(&port->arrived[rank])) != NULL) {
            if (arrival_is_whole(port, frame)) {
                frame_release(frame);
            }
        }
    }
}

void mpi_port_close(struct mpi_port *port)
{
    int64_t deadline_ns = clock_monotonic_ns() + SEND_WAIT_NS;

    if (port == NULL) {
        return;
    }
    while (port->sends.count > 0 && !port->failed && clock_monotonic_ns() < deadline_ns) {
        if (!mpi_port_poll(port)) {
            wait_step();
        }
    }
    arrived_clear(port);
    inbound_pool_destroy(port->inbound);
    mem_free(port->arrived);
    mem_free(port->sends.requests);
    mem_free(port->sends.frames);
    mem_free(port->sends.links);
    mem_free(port->sends.completed);
    mem_free(port);
}

/* --- the link --- */

static enum link_result lost(const struct link_mpi *mpi, struct error *err)
{
    error_set(err, ERROR_PEER, "mpi link to worker %u (rank %u): %s", mpi->link.peer, mpi->rank,
              mpi->port->failed ? mpi->port->failure.message : "closed");
    return LINK_LOST;
}

static enum link_result mpi_send(struct link *link, struct frame *frame, struct error *err)
{
    struct link_mpi *mpi = (struct link_mpi *)link;
    struct sends *sends = &mpi->port->sends;
    int bytes = (int)(FRAME_HEADER_BYTES + frame->header.payload_bytes);

    if (mpi->closed || mpi->port->failed) {
        return lost(mpi, err);
    }
    if (mpi->sends_under_way >= mpi->sends_max || sends->count >= SENDS_MAX_OF_A_PORT) {
        return LINK_AGAIN;
    }
    ASSERT(frame->header.payload_bytes <= FRAME_BYTES_MAX - FRAME_HEADER_BYTES);
    sends_grow(sends);
    if (mpi_failed(MPI_Isend(frame->wire, bytes, MPI_BYTE, (int)mpi->rank, FRAME_TAG, frame_comm,
                             &sends->requests[sends->count]),
                   "MPI_Isend", err)) {
        port_fail(mpi->port, err);
        return LINK_LOST;
    }
    sends->frames[sends->count] = frame;
    sends->links[sends->count] = mpi;
    sends->count++;
    mpi->sends_under_way++;
    return LINK_DONE;
}

static bool arrival_check(struct link_mpi *mpi, struct frame *frame, struct error *err)
{
    struct inbound *inbound = (struct inbound *)frame;
    struct arrival *arrival = arrival_of(frame);
    struct frame_header header;

    if (arrival->checked) {
        return true;
    }
    if (!frame_decode(inbound->buffer, (size_t)arrival->bytes, &header, err)) {
        mpi->link.counters.crc_errors++;
        mpi->closed = true;
        return error_wrap(err, "mpi link to worker %u (rank %u)", mpi->link.peer, mpi->rank);
    }
    inbound_fill(inbound, inbound->buffer, &header);
    arrival->checked = true;
    return true;
}

/* Whether a frame is the link's own. */
enum frame_time { FRAME_PAST, FRAME_PRESENT, FRAME_FUTURE };

static enum frame_time frame_time_of(const struct link_mpi *mpi, const struct frame_header *header)
{
    bool greets = header->kind == FRAME_HELLO;

    if (header->epoch != mpi->epoch) {
        return header->epoch < mpi->epoch ? FRAME_PAST : FRAME_FUTURE;
    }
    if (mpi->greeted) {
        return greets ? FRAME_FUTURE : FRAME_PRESENT;
    }
    if (!greets || header->attempt < mpi->attempt) {
        return FRAME_PAST;
    }
    return header->attempt == mpi->attempt ? FRAME_PRESENT : FRAME_FUTURE;
}

static enum link_result mpi_receive(struct link *link, struct frame **frame, struct error *err)
{
    struct link_mpi *mpi = (struct link_mpi *)link;
    struct frame_queue *queue = &mpi->port->arrived[mpi->rank];

    if (mpi->closed || mpi->port->failed) {
        return lost(mpi, err);
    }
    while (queue->first != NULL && arrival_is_whole(mpi->port, queue->first)) {
        enum frame_time time;

        if (!arrival_check(mpi, queue->first, err)) {
            frame_release(frame_queue_pop(queue));
            return LINK_LOST;
        }
        time = frame_time_of(mpi, &queue->first->header);
        if (time == FRAME_FUTURE) {
            return LINK_AGAIN;
        }
        *frame = frame_queue_pop(queue);
        if (time == FRAME_PRESENT) {
            mpi->greeted = true;
            return LINK_DONE;
        }
        frame_release(*frame);
        link->counters.frames_dropped++;
    }
    return mpi->port->failed ? lost(mpi, err) : LINK_AGAIN;
}

static void mpi_close(struct link *link)
{
    ((struct link_mpi *)link)->closed = true;
}

/* Sends under way stay with the port. */
static void mpi_destroy(struct link *link)
{
    struct link_mpi *mpi = (struct link_mpi *)link;
    struct sends *sends = &mpi->port->sends;

    for (uint32_t i = 0; i < sends->count; i++) {
        if (sends->links[i] == mpi) {
            sends->links[i] = NULL;
        }
    }
    mem_free(mpi);
}

static const struct link_ops mpi_ops = {"mpi", mpi_send, mpi_receive, mpi_close, mpi_destroy};

struct link *link_mpi_create(struct mpi_port *port, const struct mpi_link_options *options)
{
    struct link_mpi *mpi = mem_new(struct link_mpi);

    ASSERT(options->rank < port->size && options->sends_max > 0);
    mpi->link.ops = &mpi_ops;
    mpi->link.peer = options->peer;
    mpi->port = port;
    mpi->epoch = options->epoch;
    mpi->attempt = options->attempt;
    mpi->rank = options->rank;
    mpi->sends_max = options->sends_max;
    return &mpi->link;
}
