#ifndef SHOAL_NET_MESH_INTERNAL_H
#define SHOAL_NET_MESH_INTERNAL_H

/* The mesh's own parts: mesh.c (life, sending, receiving), mesh_connect.c (from nothing to an open
 * link), mesh_probe.c (measuring).
 */
#include "common/base/arena.h"
#include "common/base/clock.h"
#include "common/net/frame_queue.h"
#include "common/net/link_mpi.h"
#include "common/net/link_zmq.h"
#include "common/net/mesh.h"

#define MESH_CONNECT_NS (20 * NS_PER_S)
#define MESH_REDIAL_NS  (200 * NS_PER_MS)
#define MESH_REOPEN_NS  (5 * NS_PER_S)
#define MESH_GREET_NS   NS_PER_S /* of a link that is opened anew: then another connection */
#define MESH_CONNECT_TICK_NS                                                                       \
    (50 * NS_PER_MS) /* of zmq links, whose events wake the poller anyway */
#define MESH_NO_LINK UINT32_MAX

enum mesh_link_state {
    MESH_LINK_WAITING,  /* no connection yet: to be dialed at redial_ns, or to be accepted */
    MESH_LINK_GREETING, /* our HELLO is out, or theirs is about to be read */
    MESH_LINK_OPEN,     /* both have greeted */
    MESH_LINK_LOST,     /* until it is opened anew */
};
struct mesh_link {
    struct peer_address address; /* its text lies in the mesh's arena */
    enum mesh_link_state state;
    struct link *link; /* NULL while waiting, and once lost */
    bool is_mpi;
    bool dials;       /* this end speaks first: the lower worker id */
    uint32_t attempt; /* in which it was opened */
    int64_t redial_ns;
    int64_t greet_ns;            /* when the greeting began */
    int64_t deadline_ns;         /* of being opened anew */
    struct frame_queue outgoing; /* what the transport did not take yet */
    uint32_t inbox_count;        /* its frames in the mesh's inbox */
    struct link_counters past;   /* of its earlier connections, and what was dropped here */
    bool is_told;                /* LOST: mesh_lost has told of it */
    bool is_measured;            /* by us */
    bool peer_has_measured;      /* us */
    struct error trouble;        /* the last attempt's; code 0: none */
};

/* The one measurement under way. */
#define PROBE_ROUNDS_SMALL 10
#define PROBE_ROUNDS_LARGE 3
#define PROBE_ROUNDS       (PROBE_ROUNDS_SMALL + PROBE_ROUNDS_LARGE)
struct mesh_probe {
    uint32_t link; /* index; MESH_NO_LINK: none */
    uint32_t round;
    bool is_out; /* waiting for the echo */
    int64_t sent_ns;
    int64_t round_trips_ns[PROBE_ROUNDS];
};

struct mesh {
    struct mesh_config config;
    char advertise[256]; /* host that peers are told */
    char endpoint[300];
    struct data_port *data_port;
    struct mpi_port *mpi_port; /* NULL without a world */

    enum mesh_state state;
    struct error failure;    /* of MESH_FAILED */
    struct mesh_epoch epoch; /* peers: see links */
    uint32_t attempt;
    int64_t deadline_ns;     /* of connecting */
    struct arena arena;      /* of the epoch */
    struct mesh_link *links; /* [epoch.peer_count] */
    struct link_report *reports;
    struct frame_queue inbox;
    struct frame_pool *small; /* greetings and latency probes */
    struct frame_pool *large; /* bandwidth probes; gone once ready */
    struct mesh_probe probe;

    enum mesh_activity activity; /* as the caller last said */
    uint32_t backoff;            /* index into the pauses between tests of MPI */
    bool moved;                  /* something happened in this poll */
};

/* --- mesh_connect.c --- */
/* Ends what the last epoch had: links, queues, pools, arena. */
void mesh_epoch_end(struct mesh *mesh);
/* Sends a frame of the mesh's own (takes it); the queue keeps it if it can't go now. */
void mesh_link_queue(struct mesh *mesh, struct mesh_link *link, struct frame *frame);
/* Moves a link along: dials or accepts, greets, flushes, receives. False: the mesh can't be made,
 * or the link can't be opened anew. */
bool mesh_link_poll(struct mesh *mesh, struct mesh_link *link, int64_t now_ns, struct error *err);
/* The mesh's new attempt: frames that wait for this link are of an earlier one. */
enum link_fate { LINK_STAYS, LINK_OPENS_ANEW };
void mesh_link_attempt(struct mesh *mesh, struct mesh_link *link, enum link_fate fate);
/* Links are about to be opened anew. */
bool mesh_is_reopening(const struct mesh *mesh);
/* A frame that is not needed any more. */
void mesh_link_drop(struct mesh_link *link, struct frame *frame);
/* Why the connect took too long. */
void mesh_explain_timeout(const struct mesh *mesh, struct error *err);

/* --- mesh_probe.c --- */
bool mesh_probe_create(struct mesh *mesh, struct error *err) MUST_CHECK;
/* Sends the next probe, if it is time. */
void mesh_probe_poll(struct mesh *mesh);
/* A PROBE or PROBE_ECHO frame of a peer (takes it). */
void mesh_probe_receive(struct mesh *mesh, struct mesh_link *link, struct frame *frame);
/* The link begins again: what was measured does not count. */
void mesh_probe_forget(struct mesh *mesh, struct mesh_link *link);
bool mesh_probe_is_done(const struct mesh *mesh);

#endif
