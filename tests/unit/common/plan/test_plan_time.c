/* test_plan_time.c - modelled times against sums made by hand. */
#include "common/plan/plan_time.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define LAYERS  4
#define WORKERS 4
#define GB      1e9

struct bench {
    struct planner_request request;
    struct planner_layer layers[LAYERS];
    struct planner_worker workers[WORKERS];
    struct plan_port ports[WORKERS];
    struct plan_facts facts;
    struct arena arena;
};

/* Workers of 10 GB/s on machines of their own, ports of 1 GB/s and 1 ms; layers of 1 GB. */
static void bench_init(struct bench *b, uint32_t stages, uint32_t group)
{
    memset(b, 0, sizeof(*b));
    arena_init(&b->arena, 65536);
    for (uint32_t i = 0; i < LAYERS; i++) {
        b->layers[i].common_bytes = 1000000000;
    }
    for (uint32_t i = 0; i < WORKERS; i++) {
        b->workers[i] = (struct planner_worker){
            .id = 7 + i, .memory_bytes = UINT64_C(1) << 40, .read_bytes_per_s = 10 * GB};
        b->ports[i] = (struct plan_port){.machine = i, .bytes_per_s = 1 * GB, .latency_s = 1e-3};
    }
    b->request = (struct planner_request){.numerics_id = "plan",
                                          .layer_count = LAYERS,
                                          .layers = b->layers,
                                          .dense_layer_count = LAYERS,
                                          .context_tokens_max = 2048,
                                          .kv_tokens = 2048 * 3,
                                          .slot_count = 64,
                                          .step_rows_max = 512,
                                          .worker_count = stages * group,
                                          .workers = b->workers,
                                          .stage_count = stages,
                                          .group_size = group};
    b->facts = (struct plan_facts){.request = &b->request, .ports = b->ports, .hidden = 250000};
}

static struct plan_time bench_time(struct bench *b)
{
    struct error err;
    struct placement *placement = planner_make(&b->request, &b->arena, &err);
    struct plan_time time;

    if (placement == NULL) {
        fail_msg("%s", err.message);
    }
    time = plan_time_of(&b->facts, placement);
    arena_deinit(&b->arena);
    return time;
}

static void assert_close(double got, double wanted)
{
    if (!(fabs(got - wanted) <= 1e-9 * fabs(wanted))) {
        fail_msg("got %.12g, wanted %.12g", got, wanted);
    }
}

/* Every row is 1 MB: 1 ms through a port, after 1 ms of latency. */
static void a_pipeline_reads_every_stage_and_hops_between(void **state)
{
    struct bench b;
    struct plan_time time;

    (void)state;
    bench_init(&b, 2, 1);
    b.request.head_bytes = 500000000;
    time = bench_time(&b);
    assert_close(time.alone.read_s, 0.4 + 0.05);
    assert_close(time.alone.exchange_s, 0);
    assert_close(time.alone.hop_s, 2e-3 + 2e-3); /* hop; to the coordinator and back */
    assert_close(time.token_s, 0.454);
    assert_close(time.alone_tokens_per_s, 1 / 0.454);
    /* Room for three sequences of 2048 tokens: one of them in each of two steps. */
    assert_int_equal(time.sequences, 3);
    assert_int_equal(time.step_rows, 1);
    assert_int_equal(time.slowest_stage, 1);
    assert_close(time.full.read_s, 0.25);
    assert_close(time.full_tokens_per_s, 1 / 0.25);
}

static void the_cache_of_a_sequence_is_read(void **state)
{
    struct bench b;
    struct plan_time time;

    (void)state;
    bench_init(&b, 1, 1);
    b.request.kv_entry_bytes = 10000; /* 4 layers of 2048 tokens: 82 MB */
    time = bench_time(&b);
    assert_close(time.alone.read_s, (4e9 + 4 * 2048 * 10000.0) / (10 * GB));
    assert_int_equal(time.step_rows, 3);
    assert_close(time.full.read_s, (4e9 + 3 * 4 * 2048 * 10000.0) / (10 * GB));
}

static void workers_of_one_machine_use_no_port(void **state)
{
    struct bench b;
    struct plan_time time;

    (void)state;
    bench_init(&b, 2, 1);
    b.ports[1].machine = b.ports[0].machine;
    time = bench_time(&b);
    assert_close(time.alone.hop_s, PLAN_LOCAL_LATENCY_S + 1e6 / PLAN_LOCAL_BYTES_PER_S + 2e-3);
}

static void the_slower_port_counts(void **state)
{
    struct bench b;
    struct plan_time time;

    (void)state;
    bench_init(&b, 2, 1);
    b.ports[0].bytes_per_s = GB / 4;
    b.ports[1].latency_s = 5e-3;
    time = bench_time(&b);
    assert_close(time.alone.hop_s, 5e-3 + 4e-3 + 2 * 5e-3);
}

/* 16 experts of 10 MB in all layers, two of them chosen by a row. */
static void make_moe(struct bench *b)
{
    for (uint32_t i = 0; i < LAYERS; i++) {
        b->layers[i].expert_bytes = 10000000;
    }
    b->request.dense_layer_count = 0;
    b->request.expert_count = 16;
    b->request.expert_group_count = 8;
    b->facts.chosen_count = 2;
    b->facts.parts_max = 2;
}

static void a_row_reads_its_experts(void **state)
{
    struct bench b;
    struct plan_time time;

    (void)state;
    bench_init(&b, 1, 1);
    make_moe(&b);
    time = bench_time(&b);
    assert_close(time.alone.read_s, (4e9 + 4 * 2 * 1e7) / (10 * GB));
    /* Three rows visit 16 * (1 - (7/8)^3) of them. */
    assert_close(time.full.read_s, (4e9 + 4 * 16 * (1 - pow(0.875, 3)) * 1e7) / (10 * GB));
}

static void a_group_exchanges_rows_and_waits_for_its_busiest_member(void **state)
{
    struct bench b;
    struct plan_time time;
    double mean = 4 * 0.125; /* visits to one of four members by one row */
    double most = mean + sqrt(2 * mean * 0.875 * log(4));

    (void)state;
    bench_init(&b, 1, 4);
    make_moe(&b);
    time = bench_time(&b);
    /* The member with the row reads what all have, and its part of the experts. */
    assert_close(time.alone.read_s, (4e9 + 4 * most * 1e7) / (10 * GB));
    /* In each layer out and back: 1 ms each; the row goes to two members at most, and 3/4 of its
     * two parts come back, 1 MB each. */
    assert_close(time.alone.exchange_s, 4 * (2e-3 + 2e-3 + 1.5e-3));
    assert_int_equal(plan_limit_of(&time.alone), PLAN_LIMIT_READ);
}

static void the_largest_part_is_the_limit(void **state)
{
    (void)state;
    assert_int_equal(plan_limit_of(&(struct plan_parts){3, 2, 1}), PLAN_LIMIT_READ);
    assert_int_equal(plan_limit_of(&(struct plan_parts){1, 3, 2}), PLAN_LIMIT_EXCHANGE);
    assert_int_equal(plan_limit_of(&(struct plan_parts){1, 2, 3}), PLAN_LIMIT_HOPS);
    assert_string_equal(plan_limit_name(PLAN_LIMIT_READ), "reading memory");
}

/* A slow network bounds the rate at full load, though stages work meanwhile. */
static void a_hop_longer_than_a_stage_bounds_the_rate(void **state)
{
    struct bench b;
    struct plan_time time;

    (void)state;
    bench_init(&b, 2, 1);
    b.request.kv_tokens = 2048 * 64;
    b.ports[0].bytes_per_s = 10e6; /* 100 ms for a row */
    time = bench_time(&b);
    assert_int_equal(time.step_rows, 32);
    assert_int_equal(time.slowest_stage, 0);
    assert_close(time.full.hop_s, 1e-3 + 3.2);
    assert_close(time.full_tokens_per_s,
                 fmin(32 / 3.201, 64 / (3.201 + 2e-3 + 2 * time.full.read_s)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pipeline_reads_every_stage_and_hops_between),
        cmocka_unit_test(the_cache_of_a_sequence_is_read),
        cmocka_unit_test(workers_of_one_machine_use_no_port),
        cmocka_unit_test(the_slower_port_counts),
        cmocka_unit_test(a_row_reads_its_experts),
        cmocka_unit_test(a_group_exchanges_rows_and_waits_for_its_busiest_member),
        cmocka_unit_test(the_largest_part_is_the_limit),
        cmocka_unit_test(a_hop_longer_than_a_stage_bounds_the_rate),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
