/* Frames that come early, late, or for an attempt that is over. */
#include "worker/stage/inbox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct frame frames[8];
static uint32_t released;

static void count_release(struct frame *frame)
{
    (void)frame;
    released++;
}

static struct frame *make(uint32_t index, uint64_t step, uint32_t attempt, uint32_t source)
{
    struct frame *frame = &frames[index];

    memset(frame, 0, sizeof(*frame));
    frame->header = (struct frame_header){
        .step = step, .attempt = attempt, .layer = 2, .source = source, .kind = FRAME_HIDDEN};
    atomic_init(&frame->references, 1);
    frame->release = count_release;
    released = index == 0 ? 0 : released;
    return frame;
}

static struct frame_key key_of(uint64_t step, uint32_t attempt, uint32_t source)
{
    return (struct frame_key){
        .step = step, .attempt = attempt, .layer = 2, .source = source, .kind = FRAME_HIDDEN};
}

static void put(struct inbox *inbox, struct frame *frame)
{
    struct error err = {0};

    assert_true(inbox_put(inbox, frame, &err));
}

static void frames_are_found_by_their_key_in_any_order(void **state)
{
    struct inbox *inbox = inbox_create(4);
    struct frame_key key = key_of(9, 0, 3);

    (void)state;
    put(inbox, make(0, 9, 0, 1));
    put(inbox, make(1, 8, 0, 3));
    assert_null(inbox_take(inbox, &key));
    put(inbox, make(2, 9, 0, 3));
    assert_ptr_equal(inbox_take(inbox, &key), &frames[2]);
    assert_null(inbox_take(inbox, &key));
    inbox_destroy(inbox);
    assert_int_equal(released, 2);
}

static void frames_of_a_step_that_is_over_are_dropped(void **state)
{
    struct inbox *inbox = inbox_create(4);
    struct frame_key next = key_of(8, 0, 1);

    (void)state;
    put(inbox, make(0, 7, 0, 1));
    put(inbox, make(1, 8, 0, 1));
    inbox_step_over(inbox, 7, 0);
    assert_int_equal(released, 1);
    put(inbox, make(2, 7, 0, 2));
    assert_int_equal(released, 2);
    assert_int_equal(inbox_dropped(inbox), 2);
    assert_ptr_equal(inbox_take(inbox, &next), &frames[1]);
    inbox_destroy(inbox);
}

static void a_later_attempt_waits_although_the_earlier_one_is_over(void **state)
{
    struct inbox *inbox = inbox_create(4);
    struct frame_key again = key_of(7, 1, 1);

    (void)state;
    inbox_step_over(inbox, 7, 0);
    inbox_step_over(inbox, 8, 0);
    put(inbox, make(0, 7, 1, 1));
    put(inbox, make(1, 7, 0, 1));
    assert_int_equal(released, 1);
    assert_ptr_equal(inbox_take(inbox, &again), &frames[0]);
    inbox_step_over(inbox, 7, 1);
    put(inbox, make(2, 7, 1, 1));
    assert_int_equal(released, 2);
    inbox_destroy(inbox);
}

static void a_new_attempt_drops_all_of_earlier_ones(void **state)
{
    struct inbox *inbox = inbox_create(4);
    struct frame_key again = key_of(9, 2, 1);

    (void)state;
    put(inbox, make(0, 8, 0, 1));
    put(inbox, make(1, 9, 2, 1)); /* its sender has heard of the attempt before us */
    inbox_attempt(inbox, 2);
    assert_int_equal(released, 1);
    put(inbox, make(2, 10, 1, 1));
    assert_int_equal(released, 2);
    assert_int_equal(inbox_dropped(inbox), 2);
    inbox_attempt(inbox, 1); /* long over */
    assert_ptr_equal(inbox_take(inbox, &again), &frames[1]);
    inbox_destroy(inbox);
}

static void more_than_the_bound_is_refused(void **state)
{
    struct inbox *inbox = inbox_create(2);
    struct error err = {0};

    (void)state;
    put(inbox, make(0, 7, 0, 1));
    put(inbox, make(1, 8, 0, 1));
    assert_false(inbox_put(inbox, make(2, 9, 0, 1), &err));
    assert_int_equal(err.code, ERROR_PEER);
    assert_int_equal(released, 1);
    inbox_destroy(inbox);
    assert_int_equal(released, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_are_found_by_their_key_in_any_order),
        cmocka_unit_test(frames_of_a_step_that_is_over_are_dropped),
        cmocka_unit_test(a_later_attempt_waits_although_the_earlier_one_is_over),
        cmocka_unit_test(a_new_attempt_drops_all_of_earlier_ones),
        cmocka_unit_test(more_than_the_bound_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
