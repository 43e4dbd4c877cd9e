/* test_planner.c - the planner against brute force over all layer borders, on figures of
 * DeepSeek-R1, and its refusals. */
#include "common/plan/planner.h"
#include "tests/support/sim_random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LAYERS_MAX  9
#define WORKERS_MAX 8
#define GB          1000000000ull

struct problem {
    struct planner_request request;
    struct planner_layer layers[LAYERS_MAX];
    struct planner_worker workers[WORKERS_MAX];
};

/* Of layers [begin, end): what a generating step reads with `members` in a stage; what a row meets.
 */
static double brute_work(const struct planner_request *r, uint32_t begin, uint32_t end,
                         uint32_t members, bool prompt)
{
    double common = end == r->layer_count && !prompt ? (double)r->head_bytes : 0;
    double expert = 0;

    for (uint32_t i = begin; i < end; i++) {
        common += (double)r->layers[i].common_bytes;
        expert += (double)r->layers[i].expert_bytes;
    }
    if (end == r->layer_count && r->draft_layer_count > 0) {
        common += (double)r->draft.common_bytes;
        expert += (double)r->draft.expert_bytes;
    }
    return prompt ? common + expert * r->chosen_count : common * members + expert * r->expert_count;
}

/* One stage of the brute force, from the request's own words. Members are equal where there are
 * several, and the groups divide evenly. INFINITY when a member's memory is exceeded. */
static double brute_stage_time(const struct planner_request *r, uint32_t begin, uint32_t end,
                               const struct planner_worker *first)
{
    uint64_t common = end == r->layer_count ? r->head_bytes : 0;
    uint64_t experts = 0;
    uint64_t blocks = (r->context_tokens_max + 63) / 64;
    uint64_t need;
    double rate = 0;

    uint32_t drafts = end == r->layer_count ? r->draft_layer_count : 0;

    for (uint32_t i = begin; i < end; i++) {
        common += r->layers[i].common_bytes;
        experts += r->layers[i].expert_bytes * r->expert_count;
    }
    common += drafts * r->draft.common_bytes;
    experts += drafts * r->draft.expert_bytes * r->expert_count;
    need = common + experts / r->group_size + (begin == 0 || drafts > 0 ? r->embedding_bytes : 0) +
           blocks * 64 * r->kv_entry_bytes * (end - begin + drafts) +
           (end == r->layer_count ? blocks * 64 * r->kv_token_bytes : 0) + r->fixed_bytes;
    for (uint32_t i = 0; i < r->group_size; i++) {
        rate += first[i].read_bytes_per_s;
        if (need > first[i].memory_bytes) {
            return INFINITY;
        }
    }
    return ((1 - r->prompt_share) * brute_work(r, begin, end, r->group_size, false) +
            r->prompt_share * brute_work(r, begin, end, r->group_size, true) *
                brute_work(r, 0, r->layer_count, r->group_size, false) /
                brute_work(r, 0, r->layer_count, r->group_size, true)) /
           rate;
}

static double brute_time(const struct planner_request *r, uint32_t stage, uint32_t begin)
{
    const struct planner_worker *first = &r->workers[stage * r->group_size];
    double best = INFINITY;

    if (stage + 1 == r->stage_count) {
        return brute_stage_time(r, begin, r->layer_count, first);
    }
    for (uint32_t end = begin + 1; end < r->layer_count; end++) {
        double time = fmax(brute_stage_time(r, begin, end, first), brute_time(r, stage + 1, end));

        best = fmin(best, time);
    }
    return best;
}

static double placement_time(const struct planner_request *r, const struct placement *placement)
{
    double slowest = 0;

    for (uint32_t i = 0; i < placement->stage_count; i++) {
        const struct placement_stage *stage = &placement->stages[i];
        const struct planner_worker *first = &r->workers[i * r->group_size];

        for (uint32_t m = 0; m < stage->member_count; m++) {
            assert_int_equal(stage->workers[m], first[m].id);
        }
        slowest = fmax(slowest, brute_stage_time(r, stage->layer_begin, stage->layer_end, first));
    }
    return slowest;
}

static void problem_random(struct problem *p, uint64_t seed)
{
    struct sim_random random = sim_random_from(seed);
    struct planner_request *r = &p->request;

    memset(p, 0, sizeof(*p));
    r->numerics_id = "exact/f16/k1";
    r->layers = p->layers;
    r->workers = p->workers;
    r->stage_count = sim_random_u32(&random, 1, 4);
    r->group_size = sim_random_u32(&random, 1, 2);
    r->layer_count = sim_random_u32(&random, r->stage_count, LAYERS_MAX);
    r->dense_layer_count = sim_random_u32(&random, 0, r->layer_count);
    r->expert_count = sim_random_chance(&random, 80) ? 16 : 0;
    r->expert_group_count = 8;
    r->chosen_count = r->expert_count > 0 ? 4 : 0;
    r->prompt_share = sim_random_chance(&random, 50) ? sim_random_u32(&random, 0, 4) / 4.0 : 0;
    r->embedding_bytes = sim_random_range(&random, 0, 3000);
    r->head_bytes = sim_random_range(&random, 0, 3000);
    r->kv_entry_bytes = sim_random_range(&random, 0, 5);
    r->kv_token_bytes = sim_random_range(&random, 0, 5);
    r->buffer_bytes = sim_random_range(&random, 0, 30);
    r->frame_bytes = sim_random_range(&random, 0, 30);
    r->fixed_bytes = r->buffer_bytes + r->frame_bytes + sim_random_range(&random, 0, 40);
    r->divided_bytes = sim_random_range(&random, 0, 2000);
    r->context_tokens_max = sim_random_u32(&random, 1, 500);
    r->slot_count = 4;
    r->worker_count = r->stage_count * r->group_size;
    for (uint32_t i = 0; i < r->layer_count; i++) {
        p->layers[i].common_bytes = sim_random_range(&random, 1, 3000);
        if (i >= r->dense_layer_count && r->expert_count > 0) {
            p->layers[i].expert_bytes = sim_random_range(&random, 1, 300);
        }
    }
    for (uint32_t i = 0; i < r->worker_count; i++) {
        struct planner_worker *worker = &p->workers[i];

        if (i % r->group_size != 0) {
            *worker = p->workers[i - 1];
        } else {
            worker->memory_bytes = sim_random_range(&random, 5000, 40000);
            worker->read_bytes_per_s = (double)sim_random_range(&random, 100, 1000);
        }
        worker->id = i + 100;
    }
    if (r->expert_count > 0 && sim_random_chance(&random, 40)) {
        r->draft_layer_count = 1;
        r->draft = (struct planner_layer){sim_random_range(&random, 1, 3000),
                                          sim_random_range(&random, 1, 300)};
    }
}

static bool fits(const struct planner_request *request, struct arena *arena)
{
    struct error err;

    return planner_make(request, arena, &err) != NULL;
}

static void assert_context_true(const struct problem *p, uint64_t tokens, struct arena *arena)
{
    struct planner_request request = p->request;

    request.kv_tokens = tokens;
    assert_true(fits(&request, arena));
    request.kv_tokens = tokens + 64;
    assert_false(fits(&request, arena));
}

/* The memory is the least that does, where all have the same. */
static void assert_memory_true(const struct problem *p, uint64_t memory_bytes, struct arena *arena)
{
    struct problem more = *p;

    more.request.layers = more.layers;
    more.request.workers = more.workers;
    for (uint32_t i = 0; i < p->request.worker_count; i++) {
        more.workers[i].memory_bytes = memory_bytes;
    }
    assert_true(fits(&more.request, arena));
}

static void assert_workers_true(const struct problem *p, const struct planner_refusal *refusal,
                                struct arena *arena)
{
    struct planner_request request = p->request;
    uint32_t count = request.worker_count + refusal->workers_more;
    struct planner_worker *workers = arena_new_array(arena, struct planner_worker, count);

    memcpy(workers, p->workers, request.worker_count * sizeof(*workers));
    for (uint32_t i = request.worker_count; i < count; i++) {
        workers[i] = p->workers[refusal->workers_like - p->workers[0].id];
        workers[i].id = 1000 + i;
    }
    request.workers = workers;
    request.worker_count = count;
    request.stage_count += refusal->workers_more / request.group_size;
    assert_true(fits(&request, arena));
}

/* What a refusal says is true: its figures are those of its placement, and each remedy fits. */
static void assert_refusal_true(const struct problem *p, const struct error *err)
{
    struct arena arena;
    struct planner_refusal *refusal;
    struct planner_ledger ledger;
    uint64_t missing = 0;
    char text[sizeof(err->message)];

    arena_init(&arena, 65536);
    refusal = planner_refusal_of(&p->request, &arena);
    assert_int_equal(err->code, ERROR_LIMIT);
    assert_string_equal(err->message, planner_refusal_write(refusal, text, sizeof(text)));
    assert_non_null(strstr(err->message, "but it has"));
    for (uint32_t i = 0; i < p->request.worker_count; i++) {
        ledger = planner_ledger_of(&refusal->request, refusal->nearest, p->workers[i].id);
        assert_int_equal(ledger.limit_bytes, p->workers[i].memory_bytes);
        assert_int_equal(ledger.total_bytes, ledger.weight_bytes + ledger.kv_bytes +
                                                 ledger.buffer_bytes + ledger.frame_bytes +
                                                 ledger.fixed_bytes);
        assert_true(ledger.total_bytes <= refusal->memory_bytes);
        missing +=
            ledger.total_bytes > ledger.limit_bytes ? ledger.total_bytes - ledger.limit_bytes : 0;
    }
    assert_true(missing > 0);
    assert_int_equal(missing, refusal->missing_bytes);
    ledger = planner_ledger_of(&refusal->request, refusal->nearest, refusal->tightest);
    assert_true(ledger.total_bytes > ledger.limit_bytes);
    if (refusal->kv_tokens > 0) {
        assert_context_true(p, refusal->kv_tokens, &arena);
    }
    if (refusal->workers_more > 0) {
        assert_workers_true(p, refusal, &arena);
    }
    assert_memory_true(p, refusal->memory_bytes, &arena);
    arena_deinit(&arena);
}

static void assert_budget_kept(const struct planner_request *r, const struct placement *placement)
{
    for (uint32_t i = 0; i < r->worker_count; i++) {
        struct planner_share share = planner_share_of(r, placement, r->workers[i].id);

        assert_true(share.weight_bytes + share.kv_bytes + r->fixed_bytes <=
                    r->workers[i].memory_bytes);
    }
    assert_true((uint64_t)placement->kv_block_count * 64 >= r->context_tokens_max);
    assert_true(placement->kv_block_count <= (r->context_tokens_max + 63) / 64 * r->slot_count);
}

static void planner_equals_brute_force(void **state)
{
    uint32_t fitted = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 500; seed++) {
        struct problem p;
        struct arena arena;
        struct error err;
        struct placement *placement;
        double best;

        problem_random(&p, seed);
        arena_init(&arena, 65536);
        best = brute_time(&p.request, 0, 0);
        placement = planner_make(&p.request, &arena, &err);
        if ((placement != NULL) != (best < INFINITY)) {
            fail_msg("seed %d: brute force %g, planner: %s", (int)seed, best, err.message);
        }
        if (placement == NULL) {
            assert_refusal_true(&p, &err);
        } else {
            fitted++;
            assert_true(placement_time(&p.request, placement) <= best * (1 + 1e-9));
            assert_budget_kept(&p.request, placement);
        }
        arena_deinit(&arena);
    }
    assert_in_range(fitted, 150, 450);
}

/* DeepSeek-R1 in FP8 kernel layout: about 671 GB of layers. */
static void r1_make(struct planner_request *r, struct planner_layer *layers,
                    struct planner_worker *workers, uint32_t worker_count)
{
    for (uint32_t i = 0; i < 61 && layers != NULL; i++) {
        layers[i] = (struct planner_layer){
            .common_bytes = i < 3 ? 583000000 : 234000000,
            .expert_bytes = i < 3 ? 0 : 44040192,
        };
    }
    for (uint32_t i = 0; i < worker_count; i++) {
        workers[i] = (struct planner_worker){
            .id = i, .memory_bytes = 80 * GB, .read_bytes_per_s = 200e9, .host = "node"};
    }
    *r = (struct planner_request){
        .numerics_id = "exact/f16/k1",
        .layer_count = 61,
        .layers = layers,
        .embedding_bytes = 1850000000,
        .head_bytes = 1850000000,
        .dense_layer_count = 3,
        .expert_count = 256,
        .expert_group_count = 8,
        .kv_entry_bytes = 1152,
        .fixed_bytes = GB,
        .context_tokens_max = 32768,
        .worker_count = worker_count,
        .workers = workers,
    };
}

static void deepseek_r1_fits_ten_machines_of_80_gb(void **state)
{
    struct planner_layer layers[61];
    struct planner_worker workers[10];
    struct planner_request r;
    struct arena arena;
    struct error err;
    struct placement *placement;

    (void)state;
    r1_make(&r, layers, workers, 10);
    arena_init(&arena, 1 << 20);
    placement = planner_make(&r, &arena, &err);
    assert_non_null(placement);
    assert_int_equal(placement->stage_count, 10);
    assert_int_equal(placement->slot_count, 64);
    assert_int_equal(placement->step_rows_max, 512);
    assert_int_equal(placement->steps_in_flight_max, 12);
    r.slot_count = placement->slot_count;
    assert_true(placement->stages[0].layer_end >= 7); /* dense layers are light */
    for (uint32_t i = 1; i < 10; i++) {
        uint32_t count = placement->stages[i].layer_end - placement->stages[i].layer_begin;

        assert_in_range(count, 5, 6);
    }
    assert_budget_kept(&r, placement);
    arena_deinit(&arena);
}

/* Sixteen layers and a head as large as five of them: it is read for every generated token, and
 * for no row of a prompt but the last. */
static void prompts_and_generation_want_other_borders(void **state)
{
    struct planner_layer layers[16];
    struct planner_worker workers[2];
    struct planner_request r;
    struct arena arena;
    struct error err;
    const struct {
        double prompt_share;
        uint32_t border;
    } cases[] = {{0, 11}, {0.5, 9}, {1, 8}};

    (void)state;
    r1_make(&r, NULL, workers, 2);
    r.layer_count = 16;
    r.layers = layers;
    r.expert_count = r.dense_layer_count = 0;
    r.head_bytes = 215 * 1000000;
    for (uint32_t i = 0; i < 16; i++) {
        layers[i] = (struct planner_layer){.common_bytes = 36500000};
    }
    arena_init(&arena, 1 << 20);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct placement *placement;

        r.prompt_share = cases[i].prompt_share;
        placement = planner_make(&r, &arena, &err);
        assert_non_null(placement);
        assert_int_equal(placement->stages[0].layer_end, cases[i].border);
    }
    r.prompt_share = 1.5;
    assert_null(planner_make(&r, &arena, &err));
    assert_non_null(strstr(err.message, "prompt share 1.5"));
    arena_deinit(&arena);
}

static void whole_router_groups_go_to_equal_members_equally(void **state)
{
    struct planner_layer layers[61];
    struct planner_worker workers[16];
    struct planner_request r;
    struct arena arena;
    struct error err;
    struct placement *placement;

    (void)state;
    r1_make(&r, layers, workers, 16);
    r.stage_count = 4;
    r.group_size = 4;
    arena_init(&arena, 1 << 20);
    placement = planner_make(&r, &arena, &err);
    assert_non_null(placement);
    assert_int_equal(placement->lane_count, 4);
    for (uint32_t expert = 0; expert < 256; expert++) {
        assert_int_equal(placement_expert_member(placement, 30, expert, 0), expert / 64);
        assert_false(placement_owns(placement, 2, expert, 0));
    }
    for (uint32_t stage = 0; stage < 4; stage++) {
        assert_int_equal(placement_lane_worker(placement, stage, 3), stage * 4 + 3);
    }
    arena_deinit(&arena);
}

/* The memory that a refusal asks for is enough. */
static void layers_larger_than_any_worker_are_refused_with_the_memory_that_it_takes(void **state)
{
    struct planner_layer layers[61];
    struct planner_worker workers[8];
    struct planner_request r;
    struct arena arena;
    struct error err;
    const char *remedy;
    double gigabytes;

    (void)state;
    r1_make(&r, layers, workers, 8);
    for (uint32_t i = 0; i < 8; i++) {
        workers[i].memory_bytes = 3 * GB;
    }
    arena_init(&arena, 1 << 20);
    assert_null(planner_make(&r, &arena, &err));
    assert_int_equal(err.code, ERROR_LIMIT);
    assert_non_null(strstr(err.message, "but it has 3.00 GB"));
    remedy = strstr(err.message, "; 8 workers with ");
    assert_non_null(remedy);
    assert_non_null(strstr(remedy, " GB each would fit"));
    gigabytes = strtod(remedy + strlen("; 8 workers with "), NULL);
    for (uint32_t i = 0; i < 8; i++) {
        workers[i].memory_bytes = (uint64_t)(gigabytes * 1e9);
    }
    assert_non_null(planner_make(&r, &arena, &err));
    arena_deinit(&arena);
}

static void a_refusal_shows_the_tightest_worker_and_a_way_out(void **state)
{
    struct planner_layer layers[61];
    struct planner_worker workers[9];
    struct planner_request r;
    struct arena arena;
    struct error err;

    (void)state;
    r1_make(&r, layers, workers, 8);
    snprintf(workers[7].host, sizeof(workers[7].host), "tiny");
    workers[7].memory_bytes = 60 * GB;
    arena_init(&arena, 1 << 20);
    assert_null(planner_make(&r, &arena, &err));
    assert_int_equal(err.code, ERROR_LIMIT);
    assert_non_null(strstr(err.message, "weights "));
    assert_non_null(strstr(err.message, "(32768 tokens, 1 lane)"));
    assert_non_null(strstr(err.message, "more worker"));
    assert_non_null(strstr(err.message, "like worker 0 would fit"));
    arena_deinit(&arena);
}

static void a_small_problem(struct problem *p, uint32_t layers, uint32_t workers)
{
    memset(p, 0, sizeof(*p));
    p->request = (struct planner_request){
        .numerics_id = "exact/f16/k1",
        .layer_count = layers,
        .layers = p->layers,
        .expert_count = 16,
        .expert_group_count = 8,
        .kv_entry_bytes = 1,
        .context_tokens_max = 64,
        .slot_count = 2,
        .worker_count = workers,
        .workers = p->workers,
    };
    for (uint32_t i = 0; i < layers; i++) {
        p->layers[i] = (struct planner_layer){.common_bytes = 1000, .expert_bytes = 100};
    }
    for (uint32_t i = 0; i < workers; i++) {
        p->workers[i] =
            (struct planner_worker){.id = i, .memory_bytes = 1000000, .read_bytes_per_s = 1000};
    }
}

static void islands_stay_together_and_loners_come_last(void **state)
{
    const uint32_t expected[] = {5, 2, 1, 3, 4, 0};
    struct problem p;
    struct arena arena;
    struct error err;
    struct placement *placement;

    (void)state;
    a_small_problem(&p, 6, 6);
    p.workers[0].rank = 0;
    snprintf(p.workers[0].host, sizeof(p.workers[0].host), "z");
    snprintf(p.workers[4].host, sizeof(p.workers[4].host), "a");
    p.workers[1].island = p.workers[3].island = 77;
    p.workers[3].rank = 1;
    p.workers[2].island = p.workers[5].island = 9;
    p.workers[2].rank = 1;
    arena_init(&arena, 65536);
    placement = planner_make(&p.request, &arena, &err);
    assert_non_null(placement);
    for (uint32_t i = 0; i < 6; i++) {
        assert_int_equal(placement->stages[i].workers[0], expected[i]);
    }
    arena_deinit(&arena);
}

static void workers_keep_the_seats_whose_weights_they_hold(void **state)
{
    const uint32_t expected[] = {3, 1, 0, 2};
    struct problem p;
    struct arena arena;
    struct error err;
    struct placement *placement;

    (void)state;
    a_small_problem(&p, 4, 4);
    snprintf(p.workers[0].host, sizeof(p.workers[0].host), "a");
    snprintf(p.workers[2].host, sizeof(p.workers[2].host), "b");
    snprintf(p.workers[3].host, sizeof(p.workers[3].host), "z");
    p.workers[3].held_seat = 1;
    p.workers[1].held_seat = (UINT64_C(1) << 32) + 1;
    arena_init(&arena, 65536);
    placement = planner_make(&p.request, &arena, &err);
    assert_non_null(placement);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(placement->stages[i].workers[0], expected[i]);
    }
    arena_deinit(&arena);
}

static void a_faster_member_owns_more_groups(void **state)
{
    struct problem p;
    struct arena arena;
    struct error err;
    struct placement *placement;

    (void)state;
    a_small_problem(&p, 2, 2);
    p.request.stage_count = 1;
    p.request.group_size = 2;
    p.workers[0].read_bytes_per_s = 3000;
    arena_init(&arena, 65536);
    placement = planner_make(&p.request, &arena, &err);
    assert_non_null(placement);
    assert_int_equal(planner_share_of(&p.request, placement, 0).expert_slots, 2 * 12);
    assert_int_equal(planner_share_of(&p.request, placement, 1).expert_slots, 2 * 4);
    arena_deinit(&arena);
}

static void groups_are_split_where_whole_ones_do_not_fit(void **state)
{
    struct problem p;
    struct arena arena;
    struct error err;
    struct placement *placement;

    (void)state;
    a_small_problem(&p, 2, 2);
    p.request.stage_count = 1;
    p.request.group_size = 2;
    /* Each member: 2000 common + 128 KV, and room for seven and nine experts of two layers. */
    p.workers[0].memory_bytes = 2128 + 7 * 200;
    p.workers[1].memory_bytes = 2128 + 9 * 200;
    arena_init(&arena, 65536);
    placement = planner_make(&p.request, &arena, &err);
    assert_non_null(placement);
    assert_int_equal(planner_share_of(&p.request, placement, 0).expert_slots, 14);
    assert_int_equal(placement_expert_member(placement, 1, 6, 0), 0);
    assert_int_equal(placement_expert_member(placement, 1, 7, 0), 1);
    p.workers[1].memory_bytes -= 1;
    assert_null(planner_make(&p.request, &arena, &err));
    assert_int_equal(err.code, ERROR_LIMIT);
    arena_deinit(&arena);
}

/* Divided groups send more, which is kept free: the ledger says so. */
static void divided_groups_take_more_for_messages(void **state)
{
    struct problem p;
    struct arena arena;
    struct error err;
    struct placement *placement;

    (void)state;
    a_small_problem(&p, 2, 2);
    p.request.stage_count = 1;
    p.request.group_size = 2;
    p.request.fixed_bytes = 20;
    p.request.frame_bytes = 20;
    p.request.divided_bytes = 50;
    p.workers[0].memory_bytes = 2128 + 8 * 200 + 20; /* whole groups fit */
    p.workers[1].memory_bytes = 2128 + 8 * 200 + 20;
    arena_init(&arena, 65536);
    placement = planner_make(&p.request, &arena, &err);
    assert_non_null(placement);
    assert_int_equal(planner_ledger_of(&p.request, placement, 1).frame_bytes, 20);
    p.workers[0].memory_bytes = 2128 + 7 * 200 + 70;
    p.workers[1].memory_bytes = 2128 + 9 * 200 + 70;
    placement = planner_make(&p.request, &arena, &err);
    assert_non_null(placement);
    assert_int_equal(planner_share_of(&p.request, placement, 0).expert_slots, 14);
    assert_int_equal(planner_ledger_of(&p.request, placement, 0).frame_bytes, 70);
    assert_int_equal(planner_ledger_of(&p.request, placement, 0).total_bytes,
                     p.workers[0].memory_bytes);
    p.workers[1].memory_bytes -= 1;
    assert_null(planner_make(&p.request, &arena, &err));
    arena_deinit(&arena);
}

static void more_members_than_groups_share_them(void **state)
{
    struct problem p;
    struct arena arena;
    struct error err;
    struct placement *placement;

    (void)state;
    a_small_problem(&p, 1, 8);
    p.request.expert_group_count = 4;
    p.request.stage_count = 1;
    p.request.group_size = 8;
    arena_init(&arena, 65536);
    placement = planner_make(&p.request, &arena, &err);
    assert_non_null(placement);
    for (uint32_t expert = 0; expert < 16; expert++) {
        assert_int_equal(placement_expert_member(placement, 0, expert, 0), expert / 2);
    }
    arena_deinit(&arena);
}

static void five_workers_in_two_stages_make_three_lanes(void **state)
{
    struct problem p;
    struct arena arena;
    struct error err;
    struct placement *placement;
    uint32_t small;

    (void)state;
    a_small_problem(&p, 6, 5);
    p.request.stage_count = 2;
    arena_init(&arena, 65536);
    placement = planner_make(&p.request, &arena, &err);
    assert_non_null(placement);
    assert_int_equal(placement->lane_count, 3);
    assert_int_equal(placement_worker_count(placement), 5);
    small = placement->stages[0].member_count == 2 ? 0 : 1;
    assert_int_equal(placement->lane_member[small * 3 + 2], 0);
    assert_int_equal(
        planner_share_of(&p.request, placement, placement->stages[small].workers[0]).kv_bytes,
        2ull * placement->kv_block_count * 64 *
            (placement->stages[small].layer_end - placement->stages[small].layer_begin));
    arena_deinit(&arena);
}

static void more_workers_than_layers_form_groups(void **state)
{
    struct problem p;
    struct arena arena;
    struct error err;
    struct placement *placement;

    (void)state;
    a_small_problem(&p, 3, 8);
    arena_init(&arena, 65536);
    placement = planner_make(&p.request, &arena, &err);
    assert_non_null(placement);
    assert_int_equal(placement->stage_count, 3);
    assert_int_equal(placement_worker_count(placement), 8);
    arena_deinit(&arena);
}

static void a_thousand_workers_are_planned_at_once(void **state)
{
    static struct planner_worker workers[1000];
    struct planner_layer layers[61];
    struct planner_request r;
    struct arena arena;
    struct error err;
    struct placement *placement;

    (void)state;
    r1_make(&r, layers, workers, 1000);
    for (uint32_t i = 0; i < 1000; i++) {
        workers[i].memory_bytes = 6 * GB + i * (GB / 100);
        workers[i].read_bytes_per_s = 20e9 + i * 1e8;
    }
    arena_init(&arena, 1 << 20);
    placement = planner_make(&r, &arena, &err);
    assert_non_null(placement);
    assert_int_equal(placement->stage_count, 61);
    assert_int_equal(placement_worker_count(placement), 1000);
    arena_deinit(&arena);
}

static void a_dense_model_has_no_owners(void **state)
{
    struct problem p;
    struct arena arena;
    struct error err;
    struct placement *placement;

    (void)state;
    a_small_problem(&p, 4, 2);
    p.request.expert_count = 0;
    p.request.dense_layer_count = 4;
    arena_init(&arena, 65536);
    placement = planner_make(&p.request, &arena, &err);
    assert_non_null(placement);
    assert_null(placement->replica_offset);
    assert_int_equal(placement->stages[0].layer_end, 2);
    arena_deinit(&arena);
}

static void wanted_kv_tokens_are_kept_in_whole_blocks(void **state)
{
    struct problem p;
    struct arena arena;
    struct error err;
    struct placement *placement;

    (void)state;
    a_small_problem(&p, 4, 2);
    p.request.context_tokens_max = 1000;
    p.request.kv_tokens = 65; /* less than a context, as asked for */
    arena_init(&arena, 65536);
    placement = planner_make(&p.request, &arena, &err);
    assert_non_null(placement);
    assert_int_equal(placement->kv_block_count, 2);
    p.request.kv_tokens = 1000000; /* more than two slots can use */
    placement = planner_make(&p.request, &arena, &err);
    assert_non_null(placement);
    assert_int_equal(placement->kv_block_count, 32);
    arena_deinit(&arena);
}

static void impossible_layouts_are_refused_with_figures(void **state)
{
    struct problem p;
    struct arena arena;
    struct error err;

    (void)state;
    arena_init(&arena, 65536);
    a_small_problem(&p, 4, 3);
    p.request.stage_count = p.request.group_size = 2;
    assert_null(planner_make(&p.request, &arena, &err));
    assert_int_equal(err.code, ERROR_USAGE);
    assert_string_equal(err.message, "layout 2x2 needs 4 workers, there are 3");
    a_small_problem(&p, 2, 3);
    p.request.stage_count = 3;
    assert_null(planner_make(&p.request, &arena, &err));
    assert_string_equal(err.message, "3 stages are more than the model's 2 layers");
    a_small_problem(&p, 2, 2);
    p.workers[1].read_bytes_per_s = 0;
    assert_null(planner_make(&p.request, &arena, &err));
    assert_string_equal(err.message, "worker 1 has no measured read rate");
    a_small_problem(&p, 2, 2);
    p.workers[1].id = 0;
    assert_null(planner_make(&p.request, &arena, &err));
    a_small_problem(&p, 2, 2);
    p.request.group_size = 3;
    assert_null(planner_make(&p.request, &arena, &err));
    assert_int_equal(err.code, ERROR_USAGE);
    arena_deinit(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(planner_equals_brute_force),
        cmocka_unit_test(deepseek_r1_fits_ten_machines_of_80_gb),
        cmocka_unit_test(prompts_and_generation_want_other_borders),
        cmocka_unit_test(whole_router_groups_go_to_equal_members_equally),
        cmocka_unit_test(a_refusal_shows_the_tightest_worker_and_a_way_out),
        cmocka_unit_test(layers_larger_than_any_worker_are_refused_with_the_memory_that_it_takes),
        cmocka_unit_test(islands_stay_together_and_loners_come_last),
        cmocka_unit_test(workers_keep_the_seats_whose_weights_they_hold),
        cmocka_unit_test(a_faster_member_owns_more_groups),
        cmocka_unit_test(groups_are_split_where_whole_ones_do_not_fit),
        cmocka_unit_test(divided_groups_take_more_for_messages),
        cmocka_unit_test(more_members_than_groups_share_them),
        cmocka_unit_test(five_workers_in_two_stages_make_three_lanes),
        cmocka_unit_test(more_workers_than_layers_form_groups),
        cmocka_unit_test(a_thousand_workers_are_planned_at_once),
        cmocka_unit_test(a_dense_model_has_no_owners),
        cmocka_unit_test(wanted_kv_tokens_are_kept_in_whole_blocks),
        cmocka_unit_test(impossible_layouts_are_refused_with_figures),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
