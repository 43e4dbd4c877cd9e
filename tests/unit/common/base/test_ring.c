/* test_ring.c - nothing is lost, doubled or reordered between threads. */
#include "common/base/ring.h"

#include "common/base/mem.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define ITEM_COUNT     ((uintptr_t)200000)
#define PRODUCER_COUNT ((size_t)4)
#define NODE_COUNT     ((size_t)20000)

static void a_ring_takes_its_capacity_and_no_more(void **state)
{
    (void)state;
    struct ring *ring = ring_create(5); /* becomes 8 */
    char items[8];

    assert_null(ring_pop(ring));
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < 8; i++) {
            assert_int_equal(ring_length(ring), i);
            assert_true(ring_push(ring, &items[i]));
        }
        assert_false(ring_push(ring, &items[0]));
        assert_int_equal(ring_length(ring), 8);
        for (size_t i = 0; i < 8; i++) {
            assert_ptr_equal(ring_pop(ring), &items[i]);
        }
        assert_null(ring_pop(ring));
    }
    ring_destroy(ring);
    ring_destroy(NULL);
}

static void a_ring_of_one_alternates(void **state)
{
    (void)state;
    struct ring *ring = ring_create(1);
    int item;

    for (int i = 0; i < 5; i++) {
        assert_true(ring_push(ring, &item));
        assert_false(ring_push(ring, &item));
        assert_ptr_equal(ring_pop(ring), &item);
        assert_null(ring_pop(ring));
    }
    ring_destroy(ring);
}

static void *numbers_push(void *context)
{
    for (uintptr_t number = 1; number <= ITEM_COUNT; number++) {
        while (!ring_push(context, (void *)number)) {
            sched_yield();
        }
    }
    return NULL;
}

static void two_threads_see_the_same_order(void **state)
{
    (void)state;
    struct ring *ring = ring_create(64);
    pthread_t producer;

    assert_int_equal(pthread_create(&producer, NULL, numbers_push, ring), 0);
    for (uintptr_t number = 1; number <= ITEM_COUNT; number++) {
        void *item = ring_pop(ring);

        while (item == NULL) {
            sched_yield();
            item = ring_pop(ring);
        }
        assert_true(ring_length(ring) <= 64);
        assert_int_equal((uintptr_t)item, number);
    }
    assert_null(ring_pop(ring));
    pthread_join(producer, NULL);
    ring_destroy(ring);
}

struct message {
    struct mpsc_node node; /* first */
    size_t producer;
    size_t number;
};

struct producer {
    struct mpsc_list *list;
    struct waker *waker;
    struct message *messages; /* [NODE_COUNT] */
};

static void a_list_gives_everything_oldest_first(void **state)
{
    (void)state;
    struct mpsc_list list = {NULL};
    struct mpsc_node nodes[3];

    assert_null(mpsc_take_all(&list));
    assert_true(mpsc_push(&list, &nodes[0]));
    assert_false(mpsc_push(&list, &nodes[1]));
    assert_false(mpsc_push(&list, &nodes[2]));
    assert_ptr_equal(mpsc_take_all(&list), &nodes[0]);
    assert_ptr_equal(nodes[0].next, &nodes[1]);
    assert_ptr_equal(nodes[1].next, &nodes[2]);
    assert_null(nodes[2].next);
    assert_null(mpsc_take_all(&list));
    assert_true(mpsc_push(&list, &nodes[0]));
}

static void *messages_push(void *context)
{
    struct producer *producer = context;

    for (size_t i = 0; i < NODE_COUNT; i++) {
        producer->messages[i].number = i;
        if (mpsc_push(producer->list, &producer->messages[i].node)) {
            waker_wake(producer->waker);
        }
    }
    return NULL;
}

/* Sleeps in poll() whenever the list is empty: a lost wake-up would hang here. */
static void messages_receive(struct mpsc_list *list, struct waker *waker, size_t *next)
{
    size_t received = 0;

    while (received < PRODUCER_COUNT * NODE_COUNT) {
        struct pollfd sleep = {.fd = waker->fd, .events = POLLIN};
        struct mpsc_node *node;

        assert_int_equal(poll(&sleep, 1, 60000), 1);
        waker_clear(waker);
        for (node = mpsc_take_all(list); node != NULL; node = node->next) {
            struct message *message = (struct message *)node;

            assert_int_equal(message->number, next[message->producer]);
            next[message->producer]++;
            received++;
        }
    }
}

static void several_producers_keep_their_own_order(void **state)
{
    (void)state;
    struct mpsc_list list = {NULL};
    struct waker waker;
    struct producer producers[PRODUCER_COUNT];
    pthread_t threads[PRODUCER_COUNT];
    size_t next[PRODUCER_COUNT] = {0};

    assert_true(waker_open(&waker));
    for (size_t i = 0; i < PRODUCER_COUNT; i++) {
        producers[i] = (struct producer){&list, &waker, mem_new_array(struct message, NODE_COUNT)};
        for (size_t at = 0; at < NODE_COUNT; at++) {
            producers[i].messages[at].producer = i;
        }
        assert_int_equal(pthread_create(&threads[i], NULL, messages_push, &producers[i]), 0);
    }
    messages_receive(&list, &waker, next);
    for (size_t i = 0; i < PRODUCER_COUNT; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(next[i], NODE_COUNT);
        mem_free(producers[i].messages);
    }
    assert_null(mpsc_take_all(&list));
    waker_close(&waker);
}

static void a_waker_is_readable_until_it_is_cleared(void **state)
{
    (void)state;
    struct waker waker;
    struct pollfd sleep = {.events = POLLIN};

    assert_true(waker_open(&waker));
    sleep.fd = waker.fd;
    assert_int_equal(poll(&sleep, 1, 0), 0);
    waker_wake(&waker);
    waker_wake(&waker);
    assert_int_equal(poll(&sleep, 1, 0), 1);
    waker_clear(&waker);
    assert_int_equal(poll(&sleep, 1, 0), 0);
    waker_clear(&waker); /* clearing a calm one does not block */
    waker_close(&waker);
    waker_close(&waker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ring_takes_its_capacity_and_no_more),
        cmocka_unit_test(a_ring_of_one_alternates),
        cmocka_unit_test(two_threads_see_the_same_order),
        cmocka_unit_test(a_list_gives_everything_oldest_first),
        cmocka_unit_test(several_producers_keep_their_own_order),
        cmocka_unit_test(a_waker_is_readable_until_it_is_cleared),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
