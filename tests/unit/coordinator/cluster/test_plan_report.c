/* test_plan_report.c - the table of ledgers and the refusal, as people see them. */
#include "coordinator/cluster/plan_report.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define GB 1000000000ull

struct bench {
    struct planner_layer layers[4];
    struct planner_worker workers[4];
    struct planner_request request;
    struct arena arena;
    struct buffer text;
};

/* A dense layer and three of 16 experts in two groups of members. */
static void bench_init(struct bench *b, uint64_t memory_bytes)
{
    memset(b, 0, sizeof(*b));
    arena_init(&b->arena, 65536);
    for (uint32_t i = 0; i < 4; i++) {
        b->layers[i] = (struct planner_layer){GB, i == 0 ? 0 : GB / 4};
        b->workers[i] = (struct planner_worker){
            .id = 3 + i, .memory_bytes = memory_bytes, .read_bytes_per_s = 1e9, .host = "rack-1"};
    }
    b->request = (struct planner_request){.numerics_id = "plan",
                                          .layer_count = 4,
                                          .layers = b->layers,
                                          .embedding_bytes = GB / 2,
                                          .head_bytes = GB / 2,
                                          .dense_layer_count = 1,
                                          .expert_count = 16,
                                          .expert_group_count = 8,
                                          .kv_entry_bytes = 1000,
                                          .fixed_bytes = 300000000,
                                          .buffer_bytes = 200000000,
                                          .frame_bytes = 70000000,
                                          .context_tokens_max = 64000,
                                          .kv_tokens = 64000,
                                          .worker_count = 4,
                                          .workers = b->workers,
                                          .stage_count = 2,
                                          .group_size = 2};
}

static void bench_deinit(struct bench *b)
{
    buffer_deinit(&b->text);
    arena_deinit(&b->arena);
}

static void a_table_has_a_line_for_each_worker_and_a_sum(void **state)
{
    static const char wanted[] =
        "worker  host   stage member  layers   experts  weights       KV  buffers   frames    "
        "fixed "
        "   total    limit      left\n"
        "     3  rack-1     0      0     0-1       0-7  4.50 GB   128 MB   200 MB  70.0 MB  30.0 "
        "MB "
        " 4.93 GB  10.0 GB   5.07 GB\n"
        "     4  rack-1     0      1     0-1      8-15  4.50 GB   128 MB   200 MB  70.0 MB  30.0 "
        "MB "
        " 4.93 GB  10.0 GB   5.07 GB\n"
        "     5  rack-1     1      0     2-3       0-7  6.50 GB   128 MB   200 MB  70.0 MB  30.0 "
        "MB "
        " 6.93 GB  10.0 GB   3.07 GB\n"
        "     6  rack-1     1      1     2-3      8-15  6.50 GB   128 MB   200 MB  70.0 MB  30.0 "
        "MB "
        " 6.93 GB  10.0 GB   3.07 GB\n"
        "   sum                                         22.0 GB   512 MB   800 MB   280 MB   120 "
        "MB "
        " 23.7 GB  40.0 GB   16.3 GB\n";
    struct bench b;
    struct error err;
    struct placement *placement;

    (void)state;
    bench_init(&b, 10 * GB);
    placement = planner_make(&b.request, &b.arena, &err);
    assert_non_null(placement);
    plan_report_ledgers(&b.request, placement, &b.text);
    assert_string_equal(buffer_text(&b.text), wanted);
    bench_deinit(&b);
}

static void a_refusal_says_what_is_missing_and_what_would_fit(void **state)
{
    struct bench b;
    struct error err;

    (void)state;
    bench_init(&b, 6 * GB);
    assert_null(planner_make(&b.request, &b.arena, &err));
    plan_report_refusal(planner_refusal_of(&b.request, &b.arena), &b.text);
    assert_non_null(strstr(buffer_text(&b.text), " 6.93 GB  6.00 GB   -928 MB\n"));
    assert_non_null(strstr(
        buffer_text(&b.text),
        "\ndoes not fit    worker 5 (rack-1) needs 6.93 GB and has 6.00 GB: 928 MB too little\n"
        "                1.86 GB are missing in all; the workers have 24.0 GB\n"
        "would fit       2 more workers like worker 3\n"
        "                4 workers with 6.96 GB each\n"));
    bench_deinit(&b);
}

static void experts_are_shown_as_ranges(void **state)
{
    struct bench b;
    struct error err;
    struct placement *placement;
    char text[64];

    (void)state;
    bench_init(&b, 10 * GB);
    placement = planner_make(&b.request, &b.arena, &err);
    assert_non_null(placement);
    assert_string_equal(
        plan_report_experts(placement, (struct placement_seat){0, 1}, text, sizeof(text)), "8-15");
    /* Expert 12 of layer 1 moves to the first member. */
    placement->replica_member[placement->replica_offset[1 * 16 + 12]] = 0;
    assert_string_equal(
        plan_report_experts(placement, (struct placement_seat){0, 0}, text, sizeof(text)),
        "0-7 12-12");
    assert_string_equal(
        plan_report_experts(placement, (struct placement_seat){0, 1}, text, sizeof(text)),
        "8-11 13-15");
    placement->expert_count = 0;
    assert_string_equal(
        plan_report_experts(placement, (struct placement_seat){0, 1}, text, sizeof(text)), "-");
    bench_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_table_has_a_line_for_each_worker_and_a_sum),
        cmocka_unit_test(a_refusal_says_what_is_missing_and_what_would_fit),
        cmocka_unit_test(experts_are_shown_as_ranges),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
