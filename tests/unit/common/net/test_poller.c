/* The poller wakes for what it watches, in time, and sleeps otherwise. */
#include "common/net/poller.h"

#include "common/base/clock.h"
#include "common/base/ring.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>
#include <zmq.h>

static int64_t process_cpu_ns(void)
{
    struct timespec now;

    assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now), 0);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

static void a_waker_ends_the_wait(void **state)
{
    struct poller *poller = poller_create();
    struct waker waker;

    (void)state;
    assert_true(waker_open(&waker));
    poller_add_fd(poller, waker.fd);
    waker_wake(&waker);
    poller_wait(poller, -1);
    waker_clear(&waker);
    poller_remove_fd(poller, waker.fd);
    waker_wake(&waker);
    poller_wait(poller, NS_PER_MS); /* nobody listens: the time ends it */
    waker_close(&waker);
    poller_destroy(poller);
}

static void a_wait_shorter_than_a_millisecond_ends_in_time(void **state)
{
    struct poller *poller = poller_create();
    int64_t best_ns = INT64_MAX;

    (void)state;
    for (int i = 0; i < 50; i++) {
        int64_t begin_ns = clock_monotonic_ns();
        int64_t took_ns;

        poller_wait(poller, 50 * NS_PER_US);
        took_ns = clock_monotonic_ns() - begin_ns;
        assert_true(took_ns >= 50 * NS_PER_US);
        best_ns = took_ns < best_ns ? took_ns : best_ns;
    }
    assert_true(best_ns < 700 * NS_PER_US);
    poller_destroy(poller);
}

/* Each message is seen although the descriptor is edge-triggered. */
static void every_message_on_a_socket_ends_a_wait(void **state)
{
    struct poller *poller = poller_create();
    void *context = zmq_ctx_new();
    void *in = zmq_socket(context, ZMQ_PAIR);
    void *out = zmq_socket(context, ZMQ_PAIR);
    char byte;

    (void)state;
    assert_int_equal(zmq_bind(in, "inproc://poller-test"), 0);
    assert_int_equal(zmq_connect(out, "inproc://poller-test"), 0);
    poller_add_socket(poller, in);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(zmq_send(out, "a", 1, 0), 1);
        if (i % 3 == 0) {
            assert_int_equal(zmq_send(out, "b", 1, 0), 1);
        }
        while (zmq_recv(in, &byte, 1, ZMQ_DONTWAIT) != 1) {
            poller_wait(poller, -1);
        }
        if (i % 3 == 0) { /* left behind: the next wait must not sleep on it */
            poller_wait(poller, -1);
            assert_int_equal(zmq_recv(in, &byte, 1, 0), 1);
            assert_int_equal(byte, 'b');
        }
    }
    poller_remove_socket(poller, in);
    (void)zmq_close(in);
    (void)zmq_close(out);
    (void)zmq_ctx_term(context);
    poller_destroy(poller);
}

static void a_sleeping_poller_uses_no_processor(void **state)
{
    struct poller *poller = poller_create();
    void *context = zmq_ctx_new();
    void *socket = zmq_socket(context, ZMQ_ROUTER);
    int64_t begin_ns = clock_monotonic_ns();
    int64_t cpu_ns;

    (void)state;
    assert_int_equal(zmq_bind(socket, "tcp://127.0.0.1:*"), 0);
    poller_add_socket(poller, socket);
    cpu_ns = process_cpu_ns();
    while (clock_monotonic_ns() < begin_ns + 300 * NS_PER_MS) {
        poller_wait(poller, begin_ns + 300 * NS_PER_MS - clock_monotonic_ns());
    }
    assert_true(process_cpu_ns() - cpu_ns < 30 * NS_PER_MS);
    poller_remove_socket(poller, socket);
    (void)zmq_close(socket);
    (void)zmq_ctx_term(context);
    poller_destroy(poller);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_waker_ends_the_wait),
        cmocka_unit_test(a_wait_shorter_than_a_millisecond_ends_in_time),
        cmocka_unit_test(every_message_on_a_socket_ends_a_wait),
        cmocka_unit_test(a_sleeping_poller_uses_no_processor),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
