/* Three meshes in one process over ZeroMQ: they connect, measure, exchange frames, and notice. */
#include "common/net/mesh.h"

#include "common/base/clock.h"
#include "common/base/mem.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <zmq.h>

#define COUNT         3
#define PAYLOAD_BYTES ((size_t)100000)
#define PATIENCE_NS   (20 * NS_PER_S)
#define UNREAD_MAX    500

struct trio {
    struct poller *poller;
    struct cluster_key key;
    struct mesh *meshes[COUNT];
    struct frame_pool *pool;
    size_t frame_bytes_max[COUNT]; /* 0: PAYLOAD_BYTES */
};

static void trio_open(struct trio *trio, int64_t connect_ns_max)
{
    struct error err;

    trio->poller = poller_create();
    trio->pool = frame_pool_create(64, PAYLOAD_BYTES, &err);
    assert_non_null(trio->pool);
    for (uint32_t i = 0; i < COUNT; i++) {
        struct mesh_config config = {.bind_host = "127.0.0.1",
                                     .key = trio->key,
                                     .poller = trio->poller,
                                     .connect_ns_max = connect_ns_max};

        trio->meshes[i] = mesh_create(&config, &err);
        assert_non_null(trio->meshes[i]);
    }
}

static void trio_close(struct trio *trio)
{
    for (uint32_t i = 0; i < COUNT; i++) {
        mesh_destroy(trio->meshes[i]);
    }
    frame_pool_destroy(trio->pool);
    poller_destroy(trio->poller);
}

/* Worker ids are 10, 11, 12. */
static void connect_one(struct trio *trio, uint32_t index, uint64_t epoch)
{
    struct peer_address peers[COUNT];
    struct mesh_epoch plan = {.epoch = epoch,
                              .self = 10 + index,
                              .peers = peers,
                              .frame_bytes_max = trio->frame_bytes_max[index] > 0
                                                     ? trio->frame_bytes_max[index]
                                                     : PAYLOAD_BYTES,
                              .frames_per_link_max = 16,
                              .frames_unread_max = UNREAD_MAX};
    struct error err;

    for (uint32_t i = 0; i < COUNT; i++) {
        if (i != index && trio->meshes[i] != NULL) {
            peers[plan.peer_count++] = (struct peer_address){
                .worker = 10 + i, .data_endpoint = mesh_endpoint(trio->meshes[i])};
        }
    }
    assert_true(mesh_connect(trio->meshes[index], &plan, &err));
}

static void wait_a_little(struct trio *trio)
{
    int64_t timeout_ns = 10 * NS_PER_MS;

    for (uint32_t i = 0; i < COUNT; i++) {
        int64_t wanted_ns =
            trio->meshes[i] == NULL ? -1 : mesh_wait_ns(trio->meshes[i], MESH_QUIET);

        timeout_ns = wanted_ns >= 0 && wanted_ns < timeout_ns ? wanted_ns : timeout_ns;
    }
    poller_wait(trio->poller, timeout_ns);
}

/* Polls all until each of them is in this state. */
static void wait_for(struct trio *trio, enum mesh_state wanted)
{
    int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;
    uint32_t there = 0;

    while (there != COUNT) {
        assert_true(clock_monotonic_ns() < deadline_ns);
        wait_a_little(trio);
        there = 0;
        for (uint32_t i = 0; i < COUNT; i++) {
            struct error err = {0};
            enum mesh_state state = mesh_poll(trio->meshes[i], &err);

            if (state == MESH_FAILED && wanted != MESH_FAILED) {
                fail_msg("mesh %u: %s", i, err.message);
            }
            there += state == wanted;
        }
    }
}

static void connect_all(struct trio *trio, uint64_t epoch)
{
    for (uint32_t i = 0; i < COUNT; i++) {
        connect_one(trio, i, epoch);
    }
    wait_for(trio, MESH_READY);
}

static struct frame *frame_for(struct trio *trio, uint64_t step, uint8_t fill)
{
    struct frame *frame = frame_pool_take(trio->pool);

    assert_non_null(frame);
    frame->header = (struct frame_header){.kind = FRAME_HIDDEN,
                                          .dtype = FRAME_F32,
                                          .step = step,
                                          .rows = 25,
                                          .columns = 1000,
                                          .payload_bytes = PAYLOAD_BYTES};
    memset(frame->payload, fill, PAYLOAD_BYTES);
    return frame;
}

static struct frame *frame_of_attempt(struct trio *trio, uint64_t step, uint32_t attempt)
{
    struct frame *frame = frame_for(trio, step, 7);

    frame->header.attempt = attempt;
    return frame;
}

/* Polls all meshes until this one has lost a link. */
static struct mesh_loss loss_wait(struct trio *trio, uint32_t index)
{
    int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;
    struct mesh_loss loss;

    while (!mesh_lost(trio->meshes[index], &loss)) {
        assert_true(clock_monotonic_ns() < deadline_ns);
        wait_a_little(trio);
        for (uint32_t i = 0; i < COUNT; i++) {
            struct error err;

            if (trio->meshes[i] != NULL) {
                assert_int_equal(mesh_poll(trio->meshes[i], &err), MESH_READY);
            }
        }
    }
    assert_int_equal(loss.why.code, ERROR_PEER);
    assert_false(mesh_lost(trio->meshes[index], &loss)); /* it tells once */
    return loss;
}

static struct link_usage usage_of(struct trio *trio, uint32_t index, uint32_t peer)
{
    struct link_usage usage[COUNT];
    uint32_t count = mesh_usage(trio->meshes[index], usage, COUNT);

    for (uint32_t i = 0; i < count; i++) {
        if (usage[i].peer == peer) {
            return usage[i];
        }
    }
    fail_msg("no link to %u", peer);
    return usage[0];
}

static struct frame *receive_wait(struct trio *trio, uint32_t index)
{
    int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;
    struct frame *frame;

    while ((frame = mesh_receive(trio->meshes[index])) == NULL) {
        assert_true(clock_monotonic_ns() < deadline_ns);
        wait_a_little(trio);
        for (uint32_t i = 0; i < COUNT; i++) {
            struct error err;

            assert_int_equal(mesh_poll(trio->meshes[i], &err), MESH_READY);
        }
    }
    return frame;
}

static void exchange_all(struct trio *trio, uint64_t epoch)
{
    for (uint32_t from = 0; from < COUNT; from++) {
        for (uint32_t to = 0; to < COUNT; to++) {
            struct error err;
            struct frame *frame;

            if (from == to) {
                continue;
            }
            assert_true(mesh_send(trio->meshes[from], 10 + to,
                                  frame_for(trio, from * 100 + to, (uint8_t)(from + 1)), &err));
            frame = receive_wait(trio, to);
            assert_int_equal(frame->header.source, 10 + from);
            assert_int_equal(frame->header.step, from * 100 + to);
            assert_int_equal(frame->header.epoch, epoch);
            assert_int_equal(frame->header.payload_bytes, PAYLOAD_BYTES);
            assert_int_equal(frame->payload[PAYLOAD_BYTES - 1], from + 1);
            frame_release(frame);
        }
    }
}

static void meshes_connect_measure_and_exchange_frames(void **state)
{
    struct trio trio = {0};
    const struct link_report *reports;
    struct link_usage usage[COUNT];
    uint32_t count;

    (void)state;
    trio_open(&trio, 0);
    connect_all(&trio, 1);
    reports = mesh_reports(trio.meshes[1], &count);
    assert_int_equal(count, 2);
    for (uint32_t i = 0; i < count; i++) {
        assert_string_equal(reports[i].kind, "zmq");
        assert_true(reports[i].latency_ns > 0 && reports[i].bytes_per_s > 0);
    }
    exchange_all(&trio, 1);
    assert_int_equal(mesh_usage(trio.meshes[0], usage, COUNT), 2);
    assert_true(usage[0].bytes_sent > PAYLOAD_BYTES && usage[0].frames_received > 0);
    assert_int_equal(mesh_wait_ns(trio.meshes[0], MESH_QUIET), -1);
    assert_int_equal(mesh_wait_ns(trio.meshes[0], MESH_STEP_OPEN), -1);
    trio_close(&trio);
}

/* Empty frames to mesh 1, which does not look meanwhile. */
static void run_ahead(struct trio *trio, uint32_t count)
{
    int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;

    for (uint32_t i = 0; i < count; i++) {
        struct frame *frame;
        struct error err;

        while ((frame = frame_pool_take(trio->pool)) == NULL) {
            assert_true(clock_monotonic_ns() < deadline_ns);
        }
        frame->header = (struct frame_header){.kind = FRAME_DISPATCH, .step = i};
        assert_true(mesh_send(trio->meshes[0], 11, frame, &err));
    }
    while (mesh_wait_ns(trio->meshes[0], MESH_QUIET) >= 0) {
        struct error err;

        assert_true(clock_monotonic_ns() < deadline_ns);
        assert_int_equal(mesh_poll(trio->meshes[0], &err), MESH_READY);
    }
}

static void a_peer_may_run_ahead_as_far_as_the_epoch_says(void **state)
{
    struct trio trio = {0};
    struct mesh_loss loss;

    (void)state;
    trio_open(&trio, 0);
    connect_all(&trio, 1);
    run_ahead(&trio, UNREAD_MAX);
    for (uint32_t i = 0; i < UNREAD_MAX; i++) {
        struct frame *frame = receive_wait(&trio, 1);

        assert_int_equal(frame->header.step, i);
        frame_release(frame);
    }
    run_ahead(&trio, UNREAD_MAX + 1);
    loss = loss_wait(&trio, 1);
    assert_int_equal(loss.peer, 10);
    assert_non_null(strstr(loss.why.message, "500 frames unread"));
    trio_close(&trio);
}

static void a_frame_larger_than_the_epoch_allows_loses_the_link(void **state)
{
    struct trio trio = {.frame_bytes_max = {PAYLOAD_BYTES, PAYLOAD_BYTES - 1, PAYLOAD_BYTES}};
    struct mesh_loss loss;
    struct error err = {0};

    (void)state;
    trio_open(&trio, 0);
    connect_all(&trio, 1);
    assert_true(mesh_send(trio.meshes[0], 11, frame_for(&trio, 1, 1), &err));
    loss = loss_wait(&trio, 1);
    assert_int_equal(loss.peer, 10);
    assert_int_equal(loss.attempt, 0);
    assert_non_null(strstr(loss.why.message, "100000 bytes"));
    trio_close(&trio);
}

static void meshes_connect_with_a_key(void **state)
{
    struct trio trio = {.key = {.present = true}};

    (void)state;
    assert_int_equal(zmq_curve_keypair(trio.key.public_text, trio.key.secret_text), 0);
    trio_open(&trio, 0);
    connect_all(&trio, 1);
    exchange_all(&trio, 1);
    trio_close(&trio);
}

static void a_new_epoch_connects_anew_and_drops_old_frames(void **state)
{
    struct trio trio = {0};
    struct error err;

    (void)state;
    trio_open(&trio, 0);
    connect_all(&trio, 1);
    assert_true(mesh_send(trio.meshes[0], 11, frame_for(&trio, 1, 1), &err));
    connect_all(&trio, 2);
    assert_null(mesh_receive(trio.meshes[1]));
    exchange_all(&trio, 2);
    trio_close(&trio);
}

static void a_late_mesh_is_waited_for(void **state)
{
    struct trio trio = {0};

    (void)state;
    trio_open(&trio, 0);
    connect_one(&trio, 2, 1);
    connect_one(&trio, 0, 1);
    for (int i = 0; i < 20; i++) {
        wait_a_little(&trio);
        for (uint32_t k = 0; k < COUNT; k++) {
            struct error err;

            assert_int_equal(mesh_poll(trio.meshes[k], &err), k == 1 ? MESH_IDLE : MESH_CONNECTING);
        }
    }
    connect_one(&trio, 1, 1);
    wait_for(&trio, MESH_READY);
    exchange_all(&trio, 1);
    trio_close(&trio);
}

/* Both the one who dialed the lost mesh and the one who accepted it. */
static void the_end_of_a_mesh_is_noticed_at_once_by_its_peers(void **state)
{
    struct trio trio = {0};
    int64_t begin_ns;

    (void)state;
    trio_open(&trio, 0);
    connect_all(&trio, 1);
    mesh_destroy(trio.meshes[1]);
    trio.meshes[1] = NULL;
    begin_ns = clock_monotonic_ns();
    for (uint32_t i = 0; i < COUNT; i += 2) {
        struct mesh_loss loss = loss_wait(&trio, i);
        struct error err;

        assert_int_equal(loss.peer, 11);
        assert_non_null(strstr(loss.why.message, "worker 11"));
        assert_true(mesh_send(trio.meshes[i], 11, frame_for(&trio, 1, 1), &err));
        assert_int_equal(usage_of(&trio, i, 11).frames_dropped, 1);
    }
    assert_true(clock_monotonic_ns() < begin_ns + 5 * NS_PER_S);
    trio_close(&trio);
}

/* Each end is told when it is told: frames wait for the new connection meanwhile. */
static void a_link_is_opened_anew_in_a_further_attempt(void **state)
{
    static const uint32_t ids[] = {10, 11, 12};

    (void)state;
    for (uint32_t first = 0; first < 2; first++) {
        struct trio trio = {0};
        struct error err;
        uint64_t before;
        struct frame *frame;

        trio_open(&trio, 0);
        connect_all(&trio, 1);
        exchange_all(&trio, 1);
        before = usage_of(&trio, 0, 11).frames_sent;
        for (uint32_t attempt = 1; attempt < 4; attempt++) {
            mesh_attempt(trio.meshes[first], attempt, &ids[1 - first], 1);
            assert_true(mesh_send(trio.meshes[first], ids[1 - first],
                                  frame_of_attempt(&trio, 5, attempt), &err));
            wait_a_little(&trio);
            assert_int_equal(mesh_poll(trio.meshes[first], &err), MESH_READY);
            mesh_attempt(trio.meshes[1 - first], attempt, &ids[first], 1);
            mesh_attempt(trio.meshes[2], attempt, NULL, 0);
            frame = receive_wait(&trio, 1 - first);
            assert_int_equal(frame->header.attempt, attempt);
            frame_release(frame);
        }
        assert_true(usage_of(&trio, 0, 11).frames_sent >= before + 3); /* counts go on */
        assert_int_equal(mesh_wait_ns(trio.meshes[0], MESH_QUIET), -1);
        trio_close(&trio);
    }
}

static void frames_of_an_earlier_attempt_are_dropped_and_counted(void **state)
{
    struct trio trio = {0};
    struct frame *frame;
    struct error err;

    (void)state;
    trio_open(&trio, 0);
    connect_all(&trio, 1);
    mesh_attempt(trio.meshes[1], 2, NULL, 0);
    assert_true(mesh_send(trio.meshes[0], 11, frame_of_attempt(&trio, 1, 0), &err));
    assert_true(mesh_send(trio.meshes[0], 11, frame_of_attempt(&trio, 2, 2), &err));
    frame = receive_wait(&trio, 1);
    assert_int_equal(frame->header.step, 2);
    frame_release(frame);
    assert_int_equal(usage_of(&trio, 1, 10).frames_dropped, 1);
    assert_true(mesh_send(trio.meshes[1], 10, frame_of_attempt(&trio, 3, 1), &err));
    assert_int_equal(usage_of(&trio, 1, 10).frames_dropped, 2);
    trio_close(&trio);
}

static void a_link_that_cannot_be_opened_anew_is_named_with_both_ends(void **state)
{
    static const uint32_t lost = 11;
    struct trio trio = {0};
    int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;
    enum mesh_state mesh_state = MESH_READY;
    struct error err = {0};

    (void)state;
    trio_open(&trio, 0);
    mesh_destroy(trio.meshes[0]);
    trio.meshes[0] = mesh_create(&(struct mesh_config){.bind_host = "127.0.0.1",
                                                       .poller = trio.poller,
                                                       .reopen_ns_max = 300 * NS_PER_MS},
                                 &err);
    connect_all(&trio, 1);
    mesh_destroy(trio.meshes[1]);
    trio.meshes[1] = NULL;
    mesh_attempt(trio.meshes[0], 1, &lost, 1);
    while (mesh_state == MESH_READY) {
        assert_true(clock_monotonic_ns() < deadline_ns);
        wait_a_little(&trio);
        mesh_state = mesh_poll(trio.meshes[0], &err);
    }
    assert_int_equal(mesh_state, MESH_FAILED);
    assert_non_null(strstr(err.message, "no data connection from worker 10 (127.0.0.1) to worker "
                                        "11 at tcp://127.0.0.1:"));
    assert_non_null(strstr(err.message, "after 0.3 s"));
    assert_false(mesh_send(trio.meshes[0], 12, frame_for(&trio, 1, 1), &err));
    trio_close(&trio);
}

static void a_peer_that_never_comes_is_named_with_address_and_advice(void **state)
{
    struct trio trio = {0};
    struct error err = {0};

    (void)state;
    trio_open(&trio, 300 * NS_PER_MS);
    connect_one(&trio, 0, 1);
    while (mesh_poll(trio.meshes[0], &err) == MESH_CONNECTING) {
        wait_a_little(&trio);
    }
    assert_non_null(strstr(err.message, "no data connection from worker 10 (127.0.0.1) to worker "
                                        "11 at tcp://127.0.0.1:"));
    assert_non_null(strstr(err.message, "after 0.3 s: firewall? (--data-ports, --advertise)"));
    trio_close(&trio);
}

static void a_mesh_listens_on_ipv6(void **state)
{
    struct trio trio = {.poller = poller_create()};
    struct mesh_config config = {.bind_host = "::1", .poller = trio.poller};
    struct error err;

    (void)state;
    trio.meshes[0] = mesh_create(&config, &err);
    if (trio.meshes[0] == NULL) { /* a machine without IPv6 */
        poller_destroy(trio.poller);
        skip();
    }
    assert_non_null(strstr(mesh_endpoint(trio.meshes[0]), "tcp://[::1]:"));
    trio.meshes[1] = mesh_create(&config, &err);
    trio.meshes[2] = mesh_create(&config, &err);
    trio.pool = frame_pool_create(8, PAYLOAD_BYTES, &err);
    connect_all(&trio, 1);
    exchange_all(&trio, 1);
    trio_close(&trio);
}

static void a_mesh_takes_its_ports_from_the_range(void **state)
{
    struct poller *poller = poller_create();
    struct mesh_config config = {.bind_host = "127.0.0.1", .poller = poller};
    struct error err;
    struct mesh *first = mesh_create(&config, &err);
    struct mesh *second;
    unsigned port;

    (void)state;
    assert_non_null(first);
    assert_int_equal(sscanf(mesh_endpoint(first), "tcp://127.0.0.1:%u", &port), 1);
    config.port_begin = (uint16_t)port;
    config.port_end = (uint16_t)port;
    config.advertise = "::1";
    assert_null(mesh_create(&config, &err));
    assert_non_null(strstr(err.message, "Address already in use"));
    mesh_destroy(first);
    second = mesh_create(&config, &err);
    assert_non_null(second);
    assert_int_equal(sscanf(mesh_endpoint(second), "tcp://[::1]:%u", &port), 1);
    assert_int_equal(port, config.port_begin);
    mesh_destroy(second);
    poller_destroy(poller);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(meshes_connect_measure_and_exchange_frames),
        cmocka_unit_test(a_peer_may_run_ahead_as_far_as_the_epoch_says),
        cmocka_unit_test(a_frame_larger_than_the_epoch_allows_loses_the_link),
        cmocka_unit_test(meshes_connect_with_a_key),
        cmocka_unit_test(a_new_epoch_connects_anew_and_drops_old_frames),
        cmocka_unit_test(a_late_mesh_is_waited_for),
        cmocka_unit_test(the_end_of_a_mesh_is_noticed_at_once_by_its_peers),
        cmocka_unit_test(a_link_is_opened_anew_in_a_further_attempt),
        cmocka_unit_test(frames_of_an_earlier_attempt_are_dropped_and_counted),
        cmocka_unit_test(a_link_that_cannot_be_opened_anew_is_named_with_both_ends),
        cmocka_unit_test(a_peer_that_never_comes_is_named_with_address_and_advice),
        cmocka_unit_test(a_mesh_listens_on_ipv6),
        cmocka_unit_test(a_mesh_takes_its_ports_from_the_range),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
