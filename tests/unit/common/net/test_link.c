/* One contract, every link: zmq in both directions, sim; mpi runs the same duties under mpirun in
 * tests/cluster. And what the sim link's faults look like to a caller. */
#include "common/net/link.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/net/link_zmq.h"
#include "tests/support/link_sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define PAYLOAD_BYTES ((size_t)300000)
#define FRAMES        40u
#define PATIENCE_NS   (20 * NS_PER_S)

/* What a kind of link needs around it. */
struct fixture {
    struct link *ends[2];
    struct frame_pool *pool;
    struct poller *poller;
    struct data_port *port;
};

static struct frame *frame_make(struct fixture *fixture, uint32_t number, size_t payload_bytes)
{
    struct frame *frame = frame_pool_take(fixture->pool);

    assert_non_null(frame);
    frame->header = (struct frame_header){.kind = FRAME_DISPATCH,
                                          .dtype = FRAME_RAW,
                                          .epoch = 1,
                                          .rows = number,
                                          .payload_bytes = (uint32_t)payload_bytes};
    memset(frame->payload, (int)(number & 0xff), payload_bytes);
    return frame;
}

static void turn(struct fixture *fixture)
{
    if (fixture->port != NULL) {
        poller_wait(fixture->poller, NS_PER_MS);
        data_port_poll(fixture->port);
    }
}

static struct frame *receive_wait(struct fixture *fixture, uint32_t end)
{
    int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;
    struct frame *frame = NULL;
    struct error err;
    enum link_result result;

    while ((result = link_receive(fixture->ends[end], &frame, &err)) == LINK_AGAIN) {
        assert_true(clock_monotonic_ns() < deadline_ns);
        turn(fixture);
    }
    if (result == LINK_LOST) {
        fail_msg("%s", err.message);
    }
    return frame;
}

static void send_wait(struct fixture *fixture, uint32_t end, struct frame *frame)
{
    struct error err;
    enum link_result result;

    while ((result = link_send(fixture->ends[end], frame, &err)) == LINK_AGAIN) {
        turn(fixture);
    }
    if (result == LINK_LOST) {
        fail_msg("%s", err.message);
    }
}

static void pool_open(struct fixture *fixture)
{
    struct error err;

    fixture->pool = frame_pool_create(FRAMES * 2 + 2, PAYLOAD_BYTES, &err);
    assert_non_null(fixture->pool);
}

static int sim_open(void **state)
{
    static const struct sim_faults calm = {.busy_percent = 20, .delay_polls_max = 3, .seed = 5};
    struct fixture *fixture = mem_new(struct fixture);

    pool_open(fixture);
    (void)sim_pair_create(&calm, fixture->ends);
    *state = fixture;
    return 0;
}

static int zmq_open(void **state)
{
    static const struct cluster_key none = {0};
    const struct link_greeting greeting = {.epoch = 1, .source = 0, .target = 1};
    struct fixture *fixture = mem_new(struct fixture);
    struct frame *hello;
    struct error err;

    pool_open(fixture);
    fixture->poller = poller_create();
    fixture->port = data_port_open("tcp://127.0.0.1:*", &none, fixture->poller, &err);
    assert_non_null(fixture->port);
    fixture->ends[0] =
        link_zmq_dial(data_port_endpoint(fixture->port), 1, &none, fixture->poller, &err);
    assert_non_null(fixture->ends[0]);
    hello = frame_pool_take(fixture->pool);
    link_greeting_write(&greeting, hello);
    send_wait(fixture, 0, hello);
    while ((fixture->ends[1] = link_zmq_accept(fixture->port, &greeting)) == NULL) {
        turn(fixture);
    }
    hello = receive_wait(fixture, 1);
    assert_true(link_greeting_matches(&greeting, hello));
    frame_release(hello);
    *state = fixture;
    return 0;
}

static int fixture_close(void **state)
{
    struct fixture *fixture = *state;

    for (uint32_t i = 0; i < 2; i++) {
        if (fixture->ends[i] != NULL) {
            link_close(fixture->ends[i]);
            link_destroy(fixture->ends[i]);
        }
    }
    data_port_close(fixture->port);
    poller_destroy(fixture->poller);
    frame_pool_destroy(fixture->pool);
    mem_free(fixture);
    return 0;
}

/* --- the contract --- */

static void frames_arrive_in_order_each_once_in_both_directions(void **state)
{
    struct fixture *fixture = *state;

    for (uint32_t i = 0; i < FRAMES; i++) {
        size_t bytes = i % 7 == 0 ? 0 : i % 2 == 0 ? 100 + i : PAYLOAD_BYTES - i;

        send_wait(fixture, 0, frame_make(fixture, i, bytes));
        send_wait(fixture, 1, frame_make(fixture, i + 1000, 64));
    }
    for (uint32_t i = 0; i < FRAMES; i++) {
        size_t bytes = i % 7 == 0 ? 0 : i % 2 == 0 ? 100 + i : PAYLOAD_BYTES - i;
        struct frame *there = receive_wait(fixture, 1);
        struct frame *back = receive_wait(fixture, 0);

        assert_int_equal(there->header.rows, i);
        assert_int_equal(there->header.payload_bytes, bytes);
        assert_true(bytes == 0 || there->payload[bytes - 1] == (i & 0xff));
        assert_true((uintptr_t)there->payload % sizeof(float) == 0);
        assert_int_equal(back->header.rows, i + 1000);
        frame_release(there);
        frame_release(back);
    }
}

static void links_count_what_passes(void **state)
{
    struct fixture *fixture = *state;
    struct link_counters before = fixture->ends[0]->counters;

    send_wait(fixture, 0, frame_make(fixture, 1, 1000));
    frame_release(receive_wait(fixture, 1));
    assert_int_equal(fixture->ends[0]->counters.frames_sent, before.frames_sent + 1);
    assert_int_equal(fixture->ends[0]->counters.bytes_sent, before.bytes_sent + 1064);
    assert_int_equal(fixture->ends[1]->counters.bytes_received,
                     fixture->ends[0]->counters.bytes_sent);
}

static void a_closed_link_is_lost_both_ways_and_may_be_closed_again(void **state)
{
    struct fixture *fixture = *state;
    struct frame *frame = frame_make(fixture, 1, 10);
    struct frame *received;
    struct error err = {0};

    for (uint32_t i = 0; i < 2; i++) {
        link_close(fixture->ends[i]);
        link_close(fixture->ends[i]);
        assert_int_equal(link_send(fixture->ends[i], frame, &err), LINK_LOST);
        assert_int_equal(err.code, ERROR_PEER);
        assert_int_equal(link_receive(fixture->ends[i], &received, &err), LINK_LOST);
    }
    frame_release(frame); /* it stayed ours */
}

static void the_destruction_of_one_end_loses_the_other(void **state)
{
    struct fixture *fixture = *state;
    int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;
    struct frame *frame;
    struct error err;

    link_close(fixture->ends[0]);
    link_destroy(fixture->ends[0]);
    fixture->ends[0] = NULL;
    while (link_receive(fixture->ends[1], &frame, &err) == LINK_AGAIN) {
        assert_true(clock_monotonic_ns() < deadline_ns);
        turn(fixture);
    }
    assert_int_equal(err.code, ERROR_PEER);
}

static void a_received_frame_may_be_sent_on(void **state)
{
    struct fixture *fixture = *state;
    struct frame *frame;

    send_wait(fixture, 0, frame_make(fixture, 9, PAYLOAD_BYTES));
    send_wait(fixture, 1, receive_wait(fixture, 1));
    frame = receive_wait(fixture, 0);
    assert_int_equal(frame->header.rows, 9);
    assert_int_equal(frame->payload[PAYLOAD_BYTES - 1], 9);
    frame_release(frame);
}

static void every_frame_comes_home_to_its_pool(void **state)
{
    struct fixture *fixture = *state;
    struct frame *all[FRAMES * 2 + 2];
    int64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;

    for (uint32_t i = 0; i < FRAMES; i++) {
        send_wait(fixture, 0, frame_make(fixture, i, PAYLOAD_BYTES));
        frame_release(receive_wait(fixture, 1));
    }
    for (size_t i = 0; i < ARRAY_LENGTH(all); i++) {
        while ((all[i] = frame_pool_take(fixture->pool)) == NULL) {
            assert_true(clock_monotonic_ns() < deadline_ns);
            turn(fixture);
        }
    }
    for (size_t i = 0; i < ARRAY_LENGTH(all); i++) {
        frame_release(all[i]);
    }
}

/* --- faults --- */

/* Sends until the receiver sees the fault; how many frames arrived before. */
static uint32_t frames_until_lost(const struct sim_faults *faults, struct error *err)
{
    struct fixture fixture = {0};
    uint32_t arrived = 0;
    enum link_result result = LINK_AGAIN;

    pool_open(&fixture);
    (void)sim_pair_create(faults, fixture.ends);
    for (uint32_t i = 0; i < 1000 && result != LINK_LOST; i++) {
        struct frame *frame = frame_make(&fixture, i, 100);

        if (link_send(fixture.ends[0], frame, err) != LINK_DONE) {
            frame_release(frame);
        }
        result = link_receive(fixture.ends[1], &frame, err);
        if (result == LINK_DONE) {
            arrived++;
            frame_release(frame);
        }
    }
    assert_int_equal(result, LINK_LOST);
    link_destroy(fixture.ends[0]);
    link_destroy(fixture.ends[1]);
    frame_pool_destroy(fixture.pool);
    return arrived;
}

static void a_lost_frame_is_a_gap(void **state)
{
    const struct sim_faults faults = {.seed = 1, .lose_percent = 5};
    struct error err;

    (void)state;
    assert_in_range(frames_until_lost(&faults, &err), 1, 500);
    assert_non_null(strstr(err.message, "came instead of"));
}

static void swapped_frames_are_a_gap(void **state)
{
    const struct sim_faults faults = {.seed = 1, .swap_percent = 5, .delay_polls_max = 4};
    struct error err;

    (void)state;
    assert_in_range(frames_until_lost(&faults, &err), 1, 500);
    assert_non_null(strstr(err.message, "came instead of"));
}

static void a_damaged_frame_loses_the_link(void **state)
{
    const struct sim_faults faults = {.seed = 1, .damage_percent = 5};
    struct error err;

    (void)state;
    assert_in_range(frames_until_lost(&faults, &err), 1, 500);
    assert_int_equal(err.code, ERROR_INPUT);
}

static void a_pair_breaks_after_any_frame(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 20; n++) {
        const struct sim_faults faults = {.seed = 1, .break_after = n};
        struct error err;

        assert_int_equal(frames_until_lost(&faults, &err), n);
    }
}

static void the_same_seed_gives_the_same_fate(void **state)
{
    const struct sim_faults faults = {.seed = 77, .lose_percent = 2, .damage_percent = 2};
    struct error err;

    (void)state;
    assert_int_equal(frames_until_lost(&faults, &err), frames_until_lost(&faults, &err));
}

#define CONTRACT(open)                                                                             \
    cmocka_unit_test_setup_teardown(frames_arrive_in_order_each_once_in_both_directions, open,     \
                                    fixture_close),                                                \
        cmocka_unit_test_setup_teardown(links_count_what_passes, open, fixture_close),             \
        cmocka_unit_test_setup_teardown(a_closed_link_is_lost_both_ways_and_may_be_closed_again,   \
                                        open, fixture_close),                                      \
        cmocka_unit_test_setup_teardown(the_destruction_of_one_end_loses_the_other, open,          \
                                        fixture_close),                                            \
        cmocka_unit_test_setup_teardown(a_received_frame_may_be_sent_on, open, fixture_close),     \
        cmocka_unit_test_setup_teardown(every_frame_comes_home_to_its_pool, open, fixture_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CONTRACT(sim_open),
        CONTRACT(zmq_open),
        cmocka_unit_test(a_lost_frame_is_a_gap),
        cmocka_unit_test(swapped_frames_are_a_gap),
        cmocka_unit_test(a_damaged_frame_loses_the_link),
        cmocka_unit_test(a_pair_breaks_after_any_frame),
        cmocka_unit_test(the_same_seed_gives_the_same_fate),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
