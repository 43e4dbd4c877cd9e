#ifndef SHOAL_NET_MESH_H
#define SHOAL_NET_MESH_H

/* The data plane of one worker: its listening data socket, its MPI world, and a link to every peer
 * that the placement makes it talk to. Owner: the communication thread (the main thread: MPI wants
 * it). Nothing above knows which transport carries a frame.
 *
 * A pair of workers of one MPI world (same non-zero world id) uses mpi, every other pair zmq. For a
 * zmq pair the worker with the lower id dials the other's data endpoint. A connection is used once
 * (ZMQ_RECONNECT_IVL -1): an epoch begins with new ones, and what breaks in it is opened anew only
 * when the coordinator says so, as part of a further attempt of the steps in flight.
 */
#include "common/base/error.h"
#include "common/net/keys.h"
#include "common/net/link.h"
#include "common/net/message.h"
#include "common/net/poller.h"

/* --- the MPI world; only under a launcher --- */
struct mpi_world {
    uint64_t id; /* random, made by rank 0 and broadcast; 0: not started by an MPI launcher */
    uint32_t rank, size;
};
/* Calls MPI_Init_thread(FUNNELED) when the environment shows a launcher (OMPI_COMM_WORLD_SIZE,
 * PMIX_RANK, PMI_RANK), else gives id 0. Main thread, once, before anything else. */
bool mpi_world_init(struct mpi_world *out, struct error *err) MUST_CHECK;
/* Ends the world in order (MPI_Finalize) when every rank comes here; does nothing without one. */
void mpi_world_finalize(const struct mpi_world *world);

struct mesh_config {
    const char *bind_host;         /* "127.0.0.1", "0.0.0.0", "::" */
    uint16_t port_begin, port_end; /* --data-ports A-B inclusive; 0, 0: any */
    const char *advertise;         /* host that peers are told; NULL: bind_host */
    struct cluster_key key;
    struct mpi_world world;
    struct poller *poller;  /* borrowed */
    int64_t connect_ns_max; /* for a connect; 0: 20 s */
    int64_t reopen_ns_max;  /* for a link that is opened anew; 0: 5 s */
};
struct mesh;
struct mesh *mesh_create(const struct mesh_config *config, struct error *err) MUST_CHECK;
void mesh_destroy(struct mesh *mesh);
const char *mesh_endpoint(const struct mesh *mesh); /* tcp://host:port for peers */

/* A new epoch: closes the links of the old one and begins to connect to these peers (those that
 * this worker exchanges frames with), then to measure each. frame_bytes_max bounds a payload; the
 * pool for frames to be sent is the caller's. */
struct mesh_epoch {
    uint64_t epoch;
    uint32_t self; /* worker id */
    uint32_t peer_count;
    const struct peer_address *peers; /* copied */
    size_t frame_bytes_max;
    uint32_t frames_per_link_max; /* send queue bound: steps in flight × frames of a step */
    uint32_t frames_unread_max;   /* of one peer, until mesh_receive: how far it may run ahead */
};
bool mesh_connect(struct mesh *mesh, const struct mesh_epoch *epoch, struct error *err) MUST_CHECK;

enum mesh_state { MESH_IDLE, MESH_CONNECTING, MESH_READY, MESH_FAILED };
/* Does what can be done without waiting: accepts, dials, probes, flushes send queues, progresses
 * MPI. Call after each poller_wait, which mesh_wait_ns times. MESH_READY: every link stood and was
 * measured from both ends; of those that are lost from then on mesh_lost tells. MESH_FAILED, until
 * the next mesh_connect: a connect took longer than 20 s ("firewall?"), or a link could not be
 * opened anew within 5 s; err names both ends, address, port. */
enum mesh_state mesh_poll(struct mesh *mesh, struct error *err);
/* The next link of a mesh that is ready which was lost and has not been told of yet. What is sent
 * to its peer is dropped until the link is opened anew. */
struct mesh_loss {
    uint32_t peer;
    uint32_t attempt; /* in which the link was opened */
    struct error why; /* "crc…", "the connection was closed" */
};
bool mesh_lost(struct mesh *mesh, struct mesh_loss *out);
/* A further attempt begins: frames of earlier ones are dropped and counted from now on, whether
 * they wait to be sent or arrive. The links to these peers (to those that this worker talks to) are
 * opened anew, with another connection; frames for them wait until it stands. */
void mesh_attempt(struct mesh *mesh, uint32_t attempt, const uint32_t *peers, uint32_t peer_count);

/* Measurements of all links, once ready; lent until the next mesh_connect. */
const struct link_report *mesh_reports(const struct mesh *mesh, uint32_t *count);

/* Queues a frame from a pool to a peer of the epoch; takes it, also when it fails. The header's
 * kind, step, attempt, layer, rows, columns, dtype and payload_bytes are the caller's; epoch,
 * source and link_sequence are stamped here, into the bytes in front of the payload: so a frame is
 * sent once, to one peer. ERROR_PEER when the mesh has failed, ERROR_LIMIT when the bound is
 * exceeded (a bug above). */
bool mesh_send(struct mesh *mesh, uint32_t peer, struct frame *frame, struct error *err) MUST_CHECK;
/* One received frame of the current epoch, or NULL; the caller releases it. Frames of older epochs
 * and attempts are dropped and counted; of the next ones kept back (bounded). */
struct frame *mesh_receive(struct mesh *mesh);

/* While a step is open, MPI must be tested: gives the time poller_wait may sleep: -1 none needed,
 * else a back-off of 0 … 100 µs. While nobody here waits for a frame it grows to 500 µs, or to 5 ms
 * when none is under way, since each test takes time from whoever computes on this core. */
enum mesh_activity {
    MESH_QUIET,
    MESH_STEP_OPEN,      /* a frame is waited for */
    MESH_STEP_COMPUTING, /* a step is open, and what it needs now is here */
};
int64_t mesh_wait_ns(struct mesh *mesh, enum mesh_activity activity);
/* Whether a link of the epoch has to be tested; the others wake the poller. */
bool mesh_needs_tests(const struct mesh *mesh);

/* Counters of all links for heartbeats, from ready on, so that they count frames of steps: fills at
 * most `capacity`, returns the number. */
uint32_t mesh_usage(const struct mesh *mesh, struct link_usage *out, uint32_t capacity);

#endif
