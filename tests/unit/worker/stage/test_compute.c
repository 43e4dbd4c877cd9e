/* The hand-over between the communication and the compute thread. The linker puts the function
 * __wrap_stage_run below in the place of the stage (--wrap): a step that waits for one frame. */
#include "worker/stage/compute.h"

#include "common/net/frame.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE_MS 20000
#define PEER        7

static const struct frame_key key = {.step = 3, .layer = 2, .source = PEER, .kind = FRAME_HIDDEN};

enum stage_outcome __wrap_stage_run(struct stage *stage, struct exchange *frames,
                                    struct stage_job *job, struct error *err);
void __wrap_stage_thread_begin(const struct stage *stage);

void __wrap_stage_thread_begin(const struct stage *stage)
{
    (void)stage;
}

enum stage_outcome __wrap_stage_run(struct stage *stage, struct exchange *frames,
                                    struct stage_job *job, struct error *err)
{
    struct frame *frame = frames->ops->wait(frames, &key);

    (void)stage;
    (void)err;
    job->result.wait_ns = frames->wait_ns;
    if (frame == NULL) {
        return STAGE_ABANDONED;
    }
    frame_release(frame);
    return STAGE_DONE;
}

struct fixture {
    struct waker waker;
    struct traffic traffic;
    uint32_t peer;
    struct frame_pool *pool;
    struct compute *compute;
};

static void fixture_begin(struct fixture *fixture)
{
    struct error err;

    *fixture = (struct fixture){.peer = PEER};
    fixture->traffic = (struct traffic){
        .peer_count = 1, .peers = &fixture->peer, .frames_per_link_max = 1, .frames_early_max = 4};
    assert_true(waker_open(&fixture->waker));
    fixture->pool = frame_pool_create(2, 64, &err);
    fixture->compute = compute_start(&(struct compute_config){.traffic = &fixture->traffic,
                                                              .work_count = 2,
                                                              .waker = &fixture->waker},
                                     &err);
    assert_non_null(fixture->compute);
}

static void fixture_end(struct fixture *fixture)
{
    compute_destroy(fixture->compute);
    frame_pool_destroy(fixture->pool);
    waker_close(&fixture->waker);
}

static void step_submit(struct fixture *fixture)
{
    struct work *work = compute_free_work(fixture->compute);

    assert_non_null(work);
    work->job.step = (struct step){.number = key.step};
    compute_submit(fixture->compute, work);
}

static void frame_offer(struct fixture *fixture)
{
    struct frame *frame = frame_pool_take(fixture->pool);

    assert_non_null(frame);
    frame->header = (struct frame_header){
        .step = key.step, .layer = key.layer, .source = key.source, .kind = key.kind};
    assert_true(compute_offer_frame(fixture->compute, frame));
}

static void wait_for_wake(struct fixture *fixture)
{
    struct pollfd fd = {.fd = fixture->waker.fd, .events = POLLIN};

    assert_int_equal(poll(&fd, 1, PATIENCE_MS), 1);
    waker_clear(&fixture->waker);
}

static struct work *wait_for_finished(struct fixture *fixture)
{
    struct work *work;

    while ((work = compute_finished(fixture->compute)) == NULL) {
        wait_for_wake(fixture);
    }
    return work;
}

static void who_dozes_is_woken_when_a_frame_is_waited_for(void **state)
{
    struct fixture fixture;
    struct work *work;

    (void)state;
    fixture_begin(&fixture);
    assert_true(compute_may_doze(fixture.compute)); /* no step: no frame is waited for */
    step_submit(&fixture);
    wait_for_wake(&fixture);
    assert_false(compute_may_doze(fixture.compute));
    frame_offer(&fixture);
    work = wait_for_finished(&fixture);
    assert_int_equal(work->outcome, STAGE_DONE);
    compute_release(work);
    assert_true(compute_may_doze(fixture.compute));
    fixture_end(&fixture);
}

static void a_frame_that_is_there_wakes_nobody(void **state)
{
    struct fixture fixture;
    struct work *work;

    (void)state;
    fixture_begin(&fixture);
    frame_offer(&fixture);
    assert_true(compute_may_doze(fixture.compute));
    step_submit(&fixture);
    wait_for_wake(&fixture);
    work = compute_finished(fixture.compute); /* so the wake was for this */
    assert_non_null(work);
    assert_int_equal(work->job.result.wait_ns, 0);
    compute_release(work);
    fixture_end(&fixture);
}

/* Whether it has begun or not, and whatever frames of it are there. */
static void a_further_attempt_ends_the_steps_of_earlier_ones(void **state)
{
    struct fixture fixture;
    struct work *work;

    (void)state;
    fixture_begin(&fixture);
    step_submit(&fixture);
    assert_int_equal(compute_void_steps(fixture.compute), 0);
    compute_attempt(fixture.compute, 1);
    work = wait_for_finished(&fixture);
    assert_int_equal(work->outcome, STAGE_ABANDONED);
    compute_release(work);
    step_submit(&fixture); /* of attempt 0: it comes too late */
    frame_offer(&fixture);
    work = wait_for_finished(&fixture);
    assert_int_equal(work->outcome, STAGE_ABANDONED);
    compute_release(work);
    while (compute_counters(fixture.compute).frames_dropped == 0) {
        assert_int_equal(compute_void_steps(fixture.compute), 0);
    }
    fixture_end(&fixture);
}

/* The counter of the waker tells how often it was woken. */
static void who_does_not_doze_is_woken_by_the_result_alone(void **state)
{
    int64_t waited_ns = 0;

    (void)state;
    while (waited_ns == 0) { /* until the step began before its frame came */
        struct fixture fixture;
        struct pollfd fd;
        uint64_t wakes;
        struct work *work;

        fixture_begin(&fixture);
        fd = (struct pollfd){.fd = fixture.waker.fd, .events = POLLIN};
        step_submit(&fixture);
        assert_int_equal(poll(&fd, 1, 1), 0);
        frame_offer(&fixture);
        assert_int_equal(poll(&fd, 1, PATIENCE_MS), 1);
        assert_int_equal(read(fd.fd, &wakes, sizeof(wakes)), sizeof(wakes));
        assert_int_equal(wakes, 1);
        work = compute_finished(fixture.compute);
        assert_non_null(work);
        waited_ns = work->job.result.wait_ns;
        compute_release(work);
        fixture_end(&fixture);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_dozes_is_woken_when_a_frame_is_waited_for),
        cmocka_unit_test(a_frame_that_is_there_wakes_nobody),
        cmocka_unit_test(who_does_not_doze_is_woken_by_the_result_alone),
        cmocka_unit_test(a_further_attempt_ends_the_steps_of_earlier_ones),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
