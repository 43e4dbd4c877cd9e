/* test_plan_search.c - which layouts are tried, and which one is taken. */
#include "common/plan/plan_search.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define LAYERS      8
#define WORKERS_MAX 12
#define MB          1000000ull

struct bench {
    struct planner_request request;
    struct planner_layer layers[LAYERS];
    struct planner_worker workers[WORKERS_MAX];
    struct plan_port ports[WORKERS_MAX];
    struct plan_search search;
    uint32_t sized; /* calls of size */
    struct arena arena;
};

/* A megabyte, one more for each 1024 tokens of context, and one for each 16 rows of a step. */
static void size(void *context, struct planner_request *request)
{
    struct bench *b = context;

    b->sized++;
    request->buffer_bytes = (request->context_tokens_max / 1024 + request->step_rows_max / 16) * MB;
    request->frame_bytes = 0;
    request->fixed_bytes = request->buffer_bytes + MB;
}

/* Layers of 100 MB and 64 experts of 20 MB, of which a row visits four; fast ports. */
static void bench_init(struct bench *b, uint32_t worker_count)
{
    memset(b, 0, sizeof(*b));
    arena_init(&b->arena, 65536);
    for (uint32_t i = 0; i < LAYERS; i++) {
        b->layers[i] = (struct planner_layer){.common_bytes = 100 * MB, .expert_bytes = 20 * MB};
    }
    for (uint32_t i = 0; i < worker_count; i++) {
        b->workers[i] =
            (struct planner_worker){.id = i, .memory_bytes = 50000 * MB, .read_bytes_per_s = 10e9};
        b->ports[i] = (struct plan_port){.machine = i, .bytes_per_s = 10e9, .latency_s = 1e-6};
    }
    b->request = (struct planner_request){.numerics_id = "plan",
                                          .layer_count = LAYERS,
                                          .layers = b->layers,
                                          .expert_count = 64,
                                          .expert_group_count = 8,
                                          .kv_entry_bytes = 1000,
                                          .context_tokens_max = 16384,
                                          .slot_count = 64,
                                          .step_rows_max = 512,
                                          .worker_count = worker_count,
                                          .workers = b->workers};
    b->search = (struct plan_search){.facts = {.request = &b->request,
                                               .ports = b->ports,
                                               .hidden = 1000,
                                               .chosen_count = 4,
                                               .parts_max = 4},
                                     .size = size,
                                     .size_context = b,
                                     .objective = PLAN_LATENCY,
                                     .context = PLAN_CONTEXT_SHRINKS};
}

static struct plan_outcome *run(struct bench *b)
{
    struct error err;
    struct plan_outcome *outcome = plan_search_run(&b->search, &b->arena, &err);

    if (outcome == NULL) {
        fail_msg("%s", err.message);
    }
    return outcome;
}

static void assert_layout(const struct plan_layout *layout, uint32_t stages, uint32_t group,
                          bool even)
{
    assert_int_equal(layout->stage_count, stages);
    assert_int_equal(layout->group_size, group);
    assert_int_equal(layout->even, even);
}

static void every_division_is_tried_smaller_groups_first(void **state)
{
    struct bench b;
    struct plan_outcome *outcome;

    (void)state;
    bench_init(&b, 6);
    outcome = run(&b);
    assert_int_equal(outcome->layout_count, 4);
    assert_layout(&outcome->layouts[0], 6, 1, true);
    assert_layout(&outcome->layouts[1], 3, 2, true);
    assert_layout(&outcome->layouts[2], 2, 3, true);
    assert_layout(&outcome->layouts[3], 1, 6, true);
    assert_int_equal(outcome->fitting_count, 4);
    assert_int_equal(outcome->context_tokens, 16384);
    assert_null(outcome->refusal);
    assert_int_equal(b.sized, 4);
    arena_deinit(&b.arena);
}

static void more_workers_than_layers_make_uneven_groups_too(void **state)
{
    struct bench b;
    struct plan_outcome *outcome;

    (void)state;
    bench_init(&b, 11);
    outcome = run(&b);
    assert_int_equal(outcome->layout_count, 2);
    assert_layout(&outcome->layouts[0], 8, 2, false);
    assert_layout(&outcome->layouts[1], 1, 11, true);
    assert_non_null(outcome->layouts[0].placement);
    assert_int_equal(placement_worker_count(outcome->layouts[0].placement), 11);
    arena_deinit(&b.arena);
}

static void a_layout_that_is_asked_for_is_the_only_one(void **state)
{
    struct bench b;
    struct plan_outcome *outcome;

    (void)state;
    bench_init(&b, 6);
    b.request.stage_count = 2;
    b.request.group_size = 2;
    outcome = run(&b);
    assert_int_equal(outcome->layout_count, 1);
    assert_layout(&outcome->layouts[0], 2, 2, true);
    assert_int_equal(placement_worker_count(outcome->layouts[0].placement), 4);
    arena_deinit(&b.arena);
}

/* Members read a row's experts side by side, unless the network eats the gain. */
static void groups_pay_where_messages_are_fast(void **state)
{
    struct bench b;
    struct plan_outcome *outcome;

    (void)state;
    bench_init(&b, 4);
    outcome = run(&b);
    assert_true(outcome->layouts[outcome->chosen].group_size > 1);
    for (uint32_t i = 0; i < outcome->layout_count; i++) {
        assert_true(outcome->layouts[outcome->chosen].time.token_s <=
                    outcome->layouts[i].time.token_s);
    }
    for (uint32_t i = 0; i < 4; i++) {
        b.ports[i].latency_s = 10e-3;
    }
    outcome = run(&b);
    assert_layout(&outcome->layouts[outcome->chosen], 4, 1, true);
    arena_deinit(&b.arena);
}

static void the_objective_decides(void **state)
{
    struct bench b;
    struct plan_outcome *outcome;

    (void)state;
    bench_init(&b, 4);
    b.search.objective = PLAN_THROUGHPUT;
    outcome = run(&b);
    for (uint32_t i = 0; i < outcome->layout_count; i++) {
        assert_true(outcome->layouts[outcome->chosen].time.full_tokens_per_s >=
                    outcome->layouts[i].time.full_tokens_per_s);
    }
    arena_deinit(&b.arena);
}

/* Two layers, 2760 MB of weights; 1 + 32 MB for steps of 512 rows; 4096 tokens are 8.2 MB of cache
 * and 4 MB. */
static void a_context_nobody_asked_for_shrinks(void **state)
{
    struct bench b;
    struct plan_outcome *outcome;

    (void)state;
    bench_init(&b, 1);
    b.request.layer_count = 2;
    b.workers[0].memory_bytes = 2805 * MB;
    b.request.slot_count = 1;
    outcome = run(&b);
    assert_null(outcome->refusal);
    assert_int_equal(outcome->context_tokens, 2048);
    b.workers[0].memory_bytes = 2806 * MB;
    assert_int_equal(run(&b)->context_tokens, 4096);
    b.search.context = PLAN_CONTEXT_FIXED;
    b.workers[0].memory_bytes = 2770 * MB;
    outcome = run(&b);
    assert_non_null(outcome->refusal);
    assert_int_equal(outcome->context_tokens, 16384);
    assert_int_equal(outcome->refusal->nearest->context_tokens_max, 16384);
    arena_deinit(&b.arena);
}

/* 16384 tokens are 32.8 MB of cache and 16 MB: 2814 MB leave 4 MB, which 64 rows take. */
static void steps_shrink_where_the_context_cannot(void **state)
{
    struct bench b;
    struct plan_outcome *outcome;

    (void)state;
    bench_init(&b, 1);
    b.request.layer_count = 2;
    b.request.slot_count = 1;
    b.search.context = PLAN_CONTEXT_FIXED;
    b.workers[0].memory_bytes = 2814 * MB;
    outcome = run(&b);
    assert_null(outcome->refusal);
    assert_int_equal(outcome->context_tokens, 16384);
    assert_int_equal(outcome->step_rows_max, 64);
    assert_int_equal(outcome->layouts[0].placement->step_rows_max, 64);
    b.workers[0].memory_bytes = 2813 * MB;
    assert_non_null(run(&b)->refusal);
    assert_int_equal(run(&b)->step_rows_max, 512);
    arena_deinit(&b.arena);
}

static void of_layouts_that_do_not_fit_the_closest_is_shown(void **state)
{
    struct bench b;
    struct plan_outcome *outcome;

    (void)state;
    bench_init(&b, 4);
    for (uint32_t i = 0; i < 4; i++) {
        b.workers[i].memory_bytes = 2000 * MB; /* of 11 GB in all */
    }
    outcome = run(&b);
    assert_int_equal(outcome->fitting_count, 0);
    assert_non_null(outcome->refusal);
    assert_int_equal(outcome->context_tokens, 16384);
    for (uint32_t i = 0; i < outcome->layout_count; i++) {
        struct planner_refusal *refusal =
            planner_refusal_of(&outcome->layouts[i].request, &b.arena);

        assert_true(refusal->overload >= outcome->refusal->overload);
    }
    assert_true(outcome->refusal->missing_bytes > 3000 * MB);
    arena_deinit(&b.arena);
}

static void nothing_to_plan_is_refused(void **state)
{
    struct bench b;
    struct error err;

    (void)state;
    bench_init(&b, 4);
    b.request.worker_count = 0;
    assert_null(plan_search_run(&b.search, &b.arena, &err));
    assert_int_equal(err.code, ERROR_USAGE);
    arena_deinit(&b.arena);
    bench_init(&b, 4);
    b.request.stage_count = 4;
    b.request.group_size = 2;
    assert_null(plan_search_run(&b.search, &b.arena, &err));
    assert_int_equal(err.code, ERROR_USAGE);
    assert_non_null(strstr(err.message, "layout 4x2 needs 8 workers, there are 4"));
    arena_deinit(&b.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_division_is_tried_smaller_groups_first),
        cmocka_unit_test(more_workers_than_layers_make_uneven_groups_too),
        cmocka_unit_test(a_layout_that_is_asked_for_is_the_only_one),
        cmocka_unit_test(groups_pay_where_messages_are_fast),
        cmocka_unit_test(the_objective_decides),
        cmocka_unit_test(a_context_nobody_asked_for_shrinks),
        cmocka_unit_test(steps_shrink_where_the_context_cannot),
        cmocka_unit_test(of_layouts_that_do_not_fit_the_closest_is_shown),
        cmocka_unit_test(nothing_to_plan_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
