#ifndef SHOAL_NET_LINK_MPI_H
#define SHOAL_NET_LINK_MPI_H

/* Links over MPI, between the workers of one island. Everything on the main thread, nothing blocks.
 */
#include "common/net/link.h"
#include "common/net/mesh.h"

struct mpi_port;
/* Of the world that mpi_world_init found; frames in messages above bytes_max are refused. */
struct mpi_port *mpi_port_open(const struct mpi_world *world);
/* After its links were destroyed; waits a bounded time for sends under way. NULL is legal. */
void mpi_port_close(struct mpi_port *port);
/* Tests everything once: what arrives and what was sent. True: something moved. */
bool mpi_port_poll(struct mpi_port *port);
bool mpi_port_is_busy(const struct mpi_port *port); /* sends or receives are under way */

/* A link to a rank. It begins with the peer's HELLO of its epoch and attempt: what came before is
 * of earlier links, dropped and counted. A further HELLO, and frames of a later epoch, wait for the
 * link that they belong to. One link per rank at a time. */
struct mpi_link_options {
    uint64_t epoch;
    uint32_t attempt; /* of the epoch's, in which the link is opened */
    uint32_t peer;    /* worker id */
    uint32_t rank;
    uint32_t sends_max; /* frames under way; beyond: LINK_AGAIN */
};
struct link *link_mpi_create(struct mpi_port *port, const struct mpi_link_options *options);

#endif
