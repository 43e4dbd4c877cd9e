/* test_placement.c - questions to a placement of two stages with two members, and every refusal of
 * the check. */
#include "common/plan/placement.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* Three layers, the first dense; four experts; expert 3 of layer 2 has a replica. */
struct fixture {
    struct placement placement;
    struct placement_stage stages[2];
    uint32_t workers[2][2];
    uint32_t lane_member[4];
    uint32_t offsets[17]; /* the last layer's are those of a draft layer */
    uint32_t members[13];
};

static void fixture_make(struct fixture *f)
{
    *f = (struct fixture){
        .stages = {{.layer_begin = 0, .layer_end = 2, .member_count = 2},
                   {.layer_begin = 2, .layer_end = 3, .member_count = 2}},
        .workers = {{10, 11}, {12, 7}},
        .lane_member = {0, 1, 1, 0},
        .offsets = {0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13},
        .members = {0, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1, 1},
    };
    f->placement = (struct placement){
        .epoch = 4,
        .numerics_id = "exact/f16/k1",
        .layer_count = 3,
        .expert_count = 4,
        .dense_layer_count = 1,
        .stage_count = 2,
        .stages = f->stages,
        .lane_count = 2,
        .lane_member = f->lane_member,
        .replica_offset = f->offsets,
        .replica_member = f->members,
        .kv_type = KV_F16,
        .kv_block_count = 8,
        .slot_count = 4,
        .context_tokens_max = 512,
        .step_rows_max = 64,
        .steps_in_flight_max = 4,
    };
    f->stages[0].workers = f->workers[0];
    f->stages[1].workers = f->workers[1];
}

static void a_sound_placement_passes(void **state)
{
    struct fixture f;
    struct error err;

    (void)state;
    fixture_make(&f);
    assert_true(placement_check(&f.placement, &err));
    assert_int_equal(placement_worker_count(&f.placement), 4);
}

static void workers_find_their_seats(void **state)
{
    struct fixture f;
    struct placement_seat seat;

    (void)state;
    fixture_make(&f);
    assert_true(placement_seat_of(&f.placement, 7, &seat));
    assert_int_equal(seat.stage, 1);
    assert_int_equal(seat.member, 1);
    assert_false(placement_seat_of(&f.placement, 8, &seat));
    assert_int_equal(placement_stage_of_layer(&f.placement, 1), 0);
    assert_int_equal(placement_stage_of_layer(&f.placement, 2), 1);
    assert_int_equal(placement_lane_worker(&f.placement, 0, 1), 11);
    assert_int_equal(placement_lane_worker(&f.placement, 1, 0), 7);
}

static void an_expert_is_computed_by_oneself_or_the_next_owner(void **state)
{
    struct fixture f;

    (void)state;
    fixture_make(&f);
    assert_true(placement_owns(&f.placement, 1, 0, 0));
    assert_false(placement_owns(&f.placement, 1, 0, 1));
    assert_false(placement_owns(&f.placement, 0, 0, 0)); /* dense */
    assert_int_equal(placement_expert_member(&f.placement, 1, 0, 1), 0);
    assert_int_equal(placement_expert_member(&f.placement, 1, 3, 0), 1);
    assert_int_equal(placement_expert_member(&f.placement, 2, 3, 0), 0);
    assert_int_equal(placement_expert_member(&f.placement, 2, 3, 1), 1);
}

static void the_draft_layer_belongs_to_the_last_stage(void **state)
{
    struct fixture f;
    struct arena arena;
    struct error err;
    struct placement *copy;

    (void)state;
    fixture_make(&f);
    assert_int_equal(placement_layers(&f.placement), 3);
    assert_int_equal(placement_stage_layers(&f.placement, 1), 1);
    f.placement.draft_layer_count = 1;
    assert_true(placement_check(&f.placement, &err));
    assert_int_equal(placement_layers(&f.placement), 4);
    assert_int_equal(placement_stage_layers(&f.placement, 0), 2);
    assert_int_equal(placement_stage_layers(&f.placement, 1), 2);
    assert_int_equal(placement_stage_of_layer(&f.placement, 3), 1);
    assert_true(placement_owns(&f.placement, 3, 0, 1));
    assert_int_equal(placement_expert_member(&f.placement, 3, 1, 1), 0);
    arena_init(&arena, 4096);
    copy = placement_copy(&f.placement, &arena);
    memset(f.members, 0xff, sizeof(f.members));
    assert_int_equal(copy->replica_member[12], 1);
    arena_deinit(&arena);
}

static void a_copy_shares_nothing(void **state)
{
    struct fixture f;
    struct arena arena;
    struct error err;
    struct placement *copy;

    (void)state;
    fixture_make(&f);
    arena_init(&arena, 4096);
    copy = placement_copy(&f.placement, &arena);
    memset(f.workers, 0xff, sizeof(f.workers));
    memset(f.lane_member, 0xff, sizeof(f.lane_member));
    memset(f.offsets, 0xff, sizeof(f.offsets));
    memset(f.members, 0xff, sizeof(f.members));
    memset(f.stages, 0xff, sizeof(f.stages));
    assert_true(placement_check(copy, &err));
    assert_int_equal(copy->stages[1].workers[1], 7);
    assert_int_equal(copy->replica_member[8], 1);
    arena_deinit(&arena);
}

static void assert_refused(const struct fixture *f, const char *words)
{
    struct error err;

    assert_false(placement_check(&f->placement, &err));
    assert_int_equal(err.code, ERROR_INPUT);
    if (strstr(err.message, words) == NULL) {
        fail_msg("'%s' lacks '%s'", err.message, words);
    }
}

#define REFUSED(change, words)                                                                     \
    do {                                                                                           \
        struct fixture f;                                                                          \
        fixture_make(&f);                                                                          \
        change;                                                                                    \
        assert_refused(&f, words);                                                                 \
    } while (0)

static void counts_out_of_bounds_are_refused_by_name(void **state)
{
    (void)state;
    REFUSED(f.placement.layer_count = 0, "layer_count is 0");
    REFUSED(f.placement.expert_count = UINT32_MAX, "expert_count");
    REFUSED(f.placement.dense_layer_count = 4, "dense_layer_count is 4, must be 0 to 3");
    REFUSED(f.placement.draft_layer_count = 2, "draft_layer_count is 2, must be 0 to 1");
    REFUSED((f.placement.draft_layer_count = 1, f.placement.expert_count = 0),
            "draft_layer_count is 1, must be 0 to 0");
    REFUSED(f.placement.stage_count = 4, "stage_count");
    REFUSED(f.placement.lane_count = 0, "lane_count");
    REFUSED(f.placement.kv_type = KV_TYPE_COUNT, "kv_type");
    REFUSED(f.placement.kv_block_count = 0, "kv_block_count");
    REFUSED(f.placement.slot_count = 0, "slot_count");
    REFUSED(f.placement.context_tokens_max = 0, "context_tokens_max");
    REFUSED(f.placement.step_rows_max = 0, "step_rows_max");
    REFUSED(f.placement.steps_in_flight_max = 0, "steps_in_flight_max");
    REFUSED(f.placement.numerics_id[0] = 0, "numerics_id");
    REFUSED(memset(f.placement.numerics_id, 'x', 64), "numerics_id");
}

static void broken_stages_are_refused(void **state)
{
    (void)state;
    REFUSED(f.placement.stages = NULL, "no stages");
    REFUSED(f.stages[1].layer_begin = 1, "stage 1 has layers 1 to 3, must begin at 2");
    REFUSED(f.stages[0].layer_end = 0, "stage 0");
    REFUSED(f.stages[1].layer_end = 4, "end at layer 4 of 3");
    REFUSED(f.stages[1].member_count = 0, "stage 1 has 0 members");
    REFUSED(f.stages[1].member_count = 5000, "stage 1 has 5000 members");
    REFUSED(f.workers[1][0] = 11, "worker 11 has two seats");
    REFUSED(f.workers[0][1] = 10, "worker 10 has two seats");
    REFUSED(f.workers[0][1] = PLACEMENT_NONE, "no worker");
    REFUSED(f.lane_member[2] = 2, "lane 0: stage 1 has no member 2");
    REFUSED(f.placement.lane_member = NULL, "no lanes");
}

static void broken_owners_are_refused(void **state)
{
    (void)state;
    REFUSED(f.placement.replica_offset = NULL, "missing");
    REFUSED(f.placement.replica_member = NULL, "missing");
    REFUSED(f.offsets[0] = 1, "missing");
    REFUSED(f.offsets[6] = 9, "falls from 9 to 3");
    REFUSED(f.offsets[6] = 1, "layer 1 expert 1 has 0 owners");
    REFUSED(f.offsets[4] = 1, "layer 0 expert 3 has 1 owners, the layer is dense");
    REFUSED(f.members[8] = 0, "layer 2 expert 3: owner 0 is out of order");
    REFUSED(f.members[1] = 2, "layer 1 expert 1: owner 2");
    REFUSED((f.placement.draft_layer_count = 1, f.offsets[14] = 10), "layer 3 expert 1 has 0");
    REFUSED((f.placement.draft_layer_count = 1, f.members[12] = 2), "layer 3 expert 3: owner 2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_placement_passes),
        cmocka_unit_test(workers_find_their_seats),
        cmocka_unit_test(an_expert_is_computed_by_oneself_or_the_next_owner),
        cmocka_unit_test(the_draft_layer_belongs_to_the_last_stage),
        cmocka_unit_test(a_copy_shares_nothing),
        cmocka_unit_test(counts_out_of_bounds_are_refused_by_name),
        cmocka_unit_test(broken_stages_are_refused),
        cmocka_unit_test(broken_owners_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
