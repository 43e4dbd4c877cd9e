/* The mesh over MPI: every rank is a worker of one island. Run by mpirun with two ranks or more.
 *
 * The duties of a link are those of tests/unit/common/net/test_link.c; and what only MPI has:
 * frames of the next epoch that come before this end is there, and rest while no step is open.
 */
#include "common/net/mesh.h"

#include "common/base/clock.h"
#include "common/base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PAYLOAD_BYTES ((size_t)3 << 20)
#define ROUNDS        12u
#define EPOCHS        4u
#define PATIENCE_NS   (60 * NS_PER_S)

struct rank {
    struct mpi_world world;
    struct poller *poller;
    struct mesh *mesh;
    struct frame_pool *pool;
    int64_t deadline_ns;
};

static void die(const char *what, const struct error *err)
{
    (void)fprintf(stderr, "%s: %s\n", what, err->message);
    abort();
}

static void connect_all(struct rank *rank, uint64_t epoch)
{
    struct peer_address peers[64];
    struct mesh_epoch plan = {.epoch = epoch,
                              .self = 100 + rank->world.rank,
                              .peers = peers,
                              .frame_bytes_max = PAYLOAD_BYTES,
                              .frames_per_link_max = 64,
                              .frames_unread_max = 1024};
    struct error err;

    for (uint32_t i = 0; i < rank->world.size; i++) {
        if (i != rank->world.rank) {
            peers[plan.peer_count++] = (struct peer_address){.worker = 100 + i,
                                                             .data_endpoint = "tcp://127.0.0.1:9",
                                                             .world_id = rank->world.id,
                                                             .world_rank = i};
        }
    }
    if (!mesh_connect(rank->mesh, &plan, &err)) {
        die("mesh_connect", &err);
    }
}

static enum mesh_state turn(struct rank *rank, enum mesh_activity activity)
{
    struct error err;
    enum mesh_state state;

    ASSERT(clock_monotonic_ns() < rank->deadline_ns);
    poller_wait(rank->poller, mesh_wait_ns(rank->mesh, activity));
    state = mesh_poll(rank->mesh, &err);
    if (state == MESH_FAILED) {
        die("mesh_poll", &err);
    }
    return state;
}

static size_t size_of(uint32_t round)
{
    static const size_t sizes[] = {0, 4, 1000, 70000, PAYLOAD_BYTES};

    return sizes[round % ARRAY_LENGTH(sizes)];
}

static void round_send(struct rank *rank, uint32_t round)
{
    for (uint32_t to = 0; to < rank->world.size; to++) {
        struct frame *frame;
        struct error err;

        if (to == rank->world.rank) {
            continue;
        }
        while ((frame = frame_pool_take(rank->pool)) == NULL) {
            (void)turn(rank, MESH_STEP_OPEN);
        }
        frame->header = (struct frame_header){
            .kind = FRAME_HIDDEN, .step = round, .payload_bytes = (uint32_t)size_of(round)};
        memset(frame->payload, (int)(round + rank->world.rank), size_of(round));
        if (!mesh_send(rank->mesh, 100 + to, frame, &err)) {
            die("mesh_send", &err);
        }
    }
}

static void frame_check(const struct rank *rank, const struct frame *frame, uint64_t epoch,
                        uint64_t round)
{
    size_t bytes = size_of((uint32_t)round);
    uint32_t from = frame->header.source - 100;

    ASSERT(frame->header.epoch == epoch && frame->header.step == round);
    ASSERT(from < rank->world.size && from != rank->world.rank);
    ASSERT(frame->header.payload_bytes == bytes);
    ASSERT(bytes == 0 || (frame->payload[0] == (uint8_t)(round + from) &&
                          frame->payload[bytes - 1] == (uint8_t)(round + from)));
}

/* All rounds are sent ahead as far as the pool reaches; each peer's come in order. */
static void exchange(struct rank *rank, uint64_t epoch)
{
    uint64_t next[64] = {0};
    uint32_t missing = ROUNDS * (rank->world.size - 1);
    uint32_t round = 0;

    while (missing > 0 || round < ROUNDS) {
        struct frame *frame;

        if (round < ROUNDS) {
            round_send(rank, round++);
        }
        (void)turn(rank, MESH_STEP_OPEN);
        while ((frame = mesh_receive(rank->mesh)) != NULL) {
            frame_check(rank, frame, epoch, next[frame->header.source - 100]++);
            frame_release(frame);
            missing--;
        }
    }
}

static int64_t cpu_ns(void)
{
    struct timespec now;

    ASSERT(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now) == 0);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* What was sent at the end must leave first; then nothing is to be done, and nothing is. */
static void rest(struct rank *rank)
{
    int64_t begin_ns;
    int64_t begin_cpu_ns;
    int64_t spent_ns;

    while (mesh_wait_ns(rank->mesh, MESH_QUIET) >= 0) {
        (void)turn(rank, MESH_QUIET);
    }
    begin_ns = clock_monotonic_ns();
    begin_cpu_ns = cpu_ns();
    while (clock_monotonic_ns() - begin_ns < NS_PER_S) {
        ASSERT(mesh_wait_ns(rank->mesh, MESH_QUIET) < 0);
        poller_wait(rank->poller, NS_PER_S - (clock_monotonic_ns() - begin_ns));
        ASSERT(mesh_poll(rank->mesh, &(struct error){0}) == MESH_READY);
    }
    spent_ns = cpu_ns() - begin_cpu_ns;
    ASSERT(spent_ns < 20 * NS_PER_MS);
}

/* Where a frame is waited for, it is looked for often; where one computes, rarely. */
static void pauses_check(struct rank *rank)
{
    int64_t last_ns = -1;

    ASSERT(mesh_needs_tests(rank->mesh));
    for (int i = 0; i < 20; i++) {
        int64_t pause_ns = mesh_wait_ns(rank->mesh, MESH_STEP_COMPUTING);

        ASSERT(pause_ns >= last_ns && pause_ns <= 5 * NS_PER_MS);
        last_ns = pause_ns;
    }
    ASSERT(last_ns == 5 * NS_PER_MS);
    ASSERT(mesh_wait_ns(rank->mesh, MESH_STEP_OPEN) == 0);
    for (int i = 0; i < 20; i++) {
        last_ns = mesh_wait_ns(rank->mesh, MESH_STEP_OPEN);
        ASSERT(last_ns <= 100 * NS_PER_US);
    }
    ASSERT(last_ns == 100 * NS_PER_US);
    ASSERT(mesh_wait_ns(rank->mesh, MESH_QUIET) == -1);
}

static void reports_check(const struct rank *rank)
{
    struct link_usage usage[64];
    uint32_t count;
    const struct link_report *reports = mesh_reports(rank->mesh, &count);

    ASSERT(count == rank->world.size - 1 && mesh_usage(rank->mesh, usage, 64) == count);
    for (uint32_t i = 0; i < count; i++) {
        ASSERT(strcmp(reports[i].kind, "mpi") == 0 && strcmp(usage[i].kind, "mpi") == 0);
        ASSERT(reports[i].latency_ns > 0 && reports[i].bytes_per_s > 0);
        /* Those of a peer that ran ahead may have come before counting began here. */
        ASSERT(usage[i].frames_sent > 0);
        ASSERT(usage[i].crc_errors == 0);
        if (rank->world.rank == 0) {
            (void)printf("0 -> %u: %.1f us, %.0f MB/s\n", reports[i].peer - 100,
                         (double)reports[i].latency_ns / 1e3, reports[i].bytes_per_s / 1e6);
        }
    }
}

int main(void)
{
    struct rank rank = {.deadline_ns = clock_monotonic_ns() + PATIENCE_NS};
    struct mesh_config config = {.bind_host = "127.0.0.1"};
    struct error err;

    if (!mpi_world_init(&rank.world, &err)) {
        die("mpi_world_init", &err);
    }
    if (rank.world.size < 2 || rank.world.size > 64) {
        (void)fprintf(stderr, "run me by mpirun -n 2 or more\n");
        return 77;
    }
    rank.poller = poller_create();
    config.world = rank.world;
    config.poller = rank.poller;
    rank.mesh = mesh_create(&config, &err);
    rank.pool = frame_pool_create(2 * rank.world.size, PAYLOAD_BYTES, &err);
    if (rank.mesh == NULL || rank.pool == NULL) {
        die("mesh_create", &err);
    }
    for (uint64_t epoch = 1; epoch <= EPOCHS; epoch++) { /* the fastest rank runs ahead */
        connect_all(&rank, epoch);
        while (turn(&rank, MESH_QUIET) != MESH_READY) {
        }
        exchange(&rank, epoch);
    }
    reports_check(&rank);
    rest(&rank);
    pauses_check(&rank);
    mesh_destroy(rank.mesh);
    frame_pool_destroy(rank.pool);
    poller_destroy(rank.poller);
    mpi_world_finalize(&rank.world);
    return 0;
}
