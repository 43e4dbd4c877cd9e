/* Workers stay where their weights are: losses, newcomers, other layouts. */
#include "common/plan/plan_keep.h"

#include "common/base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define LAYERS      12
#define EXPERTS     8
#define WORKERS_MAX 8
#define COMMON      1000
#define EXPERT      100
#define EMBEDDING   300
#define HEAD        500

struct cluster {
    struct planner_layer layers[LAYERS];
    struct planner_worker workers[WORKERS_MAX];
    struct planner_request request;
    struct plan_holding *held[WORKERS_MAX]; /* by index */
    uint64_t keys[WORKERS_MAX];
    struct arena arena;
    struct placement *placement; /* of the last plan */
};

static void cluster_open(struct cluster *cluster, uint32_t worker_count)
{
    *cluster = (struct cluster){0};
    arena_init(&cluster->arena, 1 << 16);
    for (uint32_t i = 0; i < LAYERS; i++) {
        cluster->layers[i] = (struct planner_layer){COMMON, i > 0 ? EXPERT : 0};
    }
    for (uint32_t i = 0; i < worker_count; i++) {
        cluster->workers[i] = (struct planner_worker){
            .id = i, .memory_bytes = UINT64_C(1) << 30, .read_bytes_per_s = 1e9};
    }
    cluster->request = (struct planner_request){.numerics_id = "exact/f16/k1",
                                                .layer_count = LAYERS,
                                                .layers = cluster->layers,
                                                .embedding_bytes = EMBEDDING,
                                                .head_bytes = HEAD,
                                                .dense_layer_count = 1,
                                                .expert_count = EXPERTS,
                                                .chosen_count = 2,
                                                .expert_group_count = 8,
                                                .kv_entry_bytes = 16,
                                                .context_tokens_max = 1024,
                                                .worker_count = worker_count,
                                                .workers = cluster->workers};
}

static void cluster_close(struct cluster *cluster)
{
    for (uint32_t i = 0; i < WORKERS_MAX; i++) {
        plan_holding_destroy(cluster->held[i]);
    }
    arena_deinit(&cluster->arena);
}

/* Workers in the order of planner_make, then as they keep most; everybody loads their share.
 * Returns the bytes that were kept. */
static uint64_t plan(struct cluster *cluster, uint32_t stages, uint32_t group)
{
    struct planner_request *request = &cluster->request;
    const struct plan_holding *const *held = (const struct plan_holding *const *)cluster->held;
    struct error err;
    uint64_t kept;

    request->stage_count = stages;
    request->group_size = group;
    for (uint32_t i = 0; i < request->worker_count; i++) {
        cluster->workers[i].held_seat = 0;
    }
    cluster->placement = planner_make(request, &cluster->arena, &err);
    assert_non_null(cluster->placement);
    if (plan_keep_seats(request, cluster->placement, held, cluster->keys)) {
        for (uint32_t i = 0; i < request->worker_count; i++) {
            cluster->workers[i].held_seat = cluster->keys[i];
        }
        cluster->placement = planner_make(request, &cluster->arena, &err);
        assert_non_null(cluster->placement);
    }
    kept = plan_kept_bytes(request, cluster->placement, held);
    for (uint32_t i = 0; i < request->worker_count; i++) {
        struct placement_seat seat;

        plan_holding_destroy(cluster->held[i]);
        cluster->held[i] = NULL;
        if (placement_seat_of(cluster->placement, cluster->workers[i].id, &seat)) {
            cluster->held[i] = plan_holding_create(cluster->placement, seat);
        }
    }
    return kept;
}

static uint64_t model_bytes(void)
{
    return LAYERS * COMMON + (LAYERS - 1) * EXPERTS * EXPERT + EMBEDDING + HEAD;
}

static uint32_t worker_of(const struct cluster *cluster, uint32_t stage, uint32_t member)
{
    return cluster->placement->stages[stage].workers[member];
}

static void the_same_plan_keeps_everything(void **state)
{
    struct cluster cluster;

    (void)state;
    cluster_open(&cluster, 4);
    assert_true(plan(&cluster, 4, 1) == 0);
    assert_true(plan(&cluster, 4, 1) == model_bytes());
    assert_true(plan(&cluster, 2, 2) > 0);
    assert_true(plan(&cluster, 2, 2) == model_bytes() + (LAYERS * COMMON + EMBEDDING + HEAD));
    cluster_close(&cluster);
}

static void a_newcomer_takes_the_seat_of_the_lost(void **state)
{
    struct cluster cluster;

    (void)state;
    for (uint32_t lost = 0; lost < 4; lost++) {
        uint64_t lost_bytes;

        cluster_open(&cluster, 4);
        (void)plan(&cluster, 4, 1);
        lost_bytes =
            plan_holding_common_bytes(&cluster.request, cluster.held[lost], cluster.held[lost]);
        cluster.workers[lost].id = 9; /* the newcomer; the planner would seat it last */
        plan_holding_destroy(cluster.held[lost]);
        cluster.held[lost] = NULL;
        assert_true(plan(&cluster, 4, 1) == model_bytes() - lost_bytes);
        assert_int_equal(worker_of(&cluster, lost, 0), 9);
        cluster_close(&cluster);
    }
}

static void members_of_a_stage_keep_their_experts(void **state)
{
    struct cluster cluster;
    struct plan_holding *first;

    (void)state;
    cluster_open(&cluster, 2);
    (void)plan(&cluster, 1, 2);
    first = cluster.held[0];
    cluster.held[0] = cluster.held[1];
    cluster.held[1] = first;
    assert_true(plan(&cluster, 1, 2) == model_bytes() + (LAYERS * COMMON + EMBEDDING + HEAD));
    assert_int_equal(worker_of(&cluster, 0, 0), 1);
    assert_int_equal(worker_of(&cluster, 0, 1), 0);
    cluster_close(&cluster);
}

/* The border moves by half a stage: the seat with more of the old one is the better. */
static void survivors_share_what_is_lost(void **state)
{
    struct cluster cluster;
    uint64_t held_bytes = 0;

    (void)state;
    cluster_open(&cluster, 3);
    (void)plan(&cluster, 3, 1);
    plan_holding_destroy(cluster.held[0]);
    cluster.held[0] = cluster.held[2]; /* what is left is in the wrong order, too */
    cluster.held[2] = NULL;
    cluster.request.worker_count = 2;
    for (uint32_t i = 0; i < 2; i++) {
        held_bytes += plan_holding_common_bytes(&cluster.request, cluster.held[i], cluster.held[i]);
    }
    assert_true(plan(&cluster, 2, 1) > held_bytes / 2);
    assert_int_equal(worker_of(&cluster, 0, 0), 1);
    assert_int_equal(worker_of(&cluster, 1, 0), 0);
    cluster_close(&cluster);
}

static void islands_stay_as_they_are(void **state)
{
    struct cluster cluster;
    struct plan_holding *first;

    (void)state;
    cluster_open(&cluster, 4);
    for (uint32_t i = 0; i < 2; i++) {
        cluster.workers[i].island = 7;
        cluster.workers[i].rank = i;
    }
    (void)plan(&cluster, 4, 1);
    for (uint32_t i = 0; i < 4; i += 2) { /* everybody holds what the neighbour had */
        first = cluster.held[i];
        cluster.held[i] = cluster.held[i + 1];
        cluster.held[i + 1] = first;
    }
    (void)plan(&cluster, 4, 1);
    assert_int_equal(worker_of(&cluster, 0, 0), 0);
    assert_int_equal(worker_of(&cluster, 1, 0), 1);
    assert_int_equal(worker_of(&cluster, 2, 0), 3);
    assert_int_equal(worker_of(&cluster, 3, 0), 2);
    cluster_close(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_plan_keeps_everything),
        cmocka_unit_test(a_newcomer_takes_the_seat_of_the_lost),
        cmocka_unit_test(members_of_a_stage_keep_their_experts),
        cmocka_unit_test(survivors_share_what_is_lost),
        cmocka_unit_test(islands_stay_as_they_are),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
