/* Placement files: what is written is read again, and what is wrong is named. */
#include "coordinator/cluster/placement_file.h"

#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char good_text[] =
    "{\"version\": 1, \"layer_count\": 3, \"expert_count\": 2, \"dense_layer_count\": 1,"
    " \"stages\": [{\"layers\": [0, 2], \"workers\": [0, 1]},"
    "              {\"layers\": [2, 3], \"workers\": [2]}],"
    " \"lane_count\": 2, \"lane_member\": [[0, 1], [0, 0]],"
    " \"experts\": [[], [[0], [0, 1]], [[0], [0]]],"
    " \"kv_type\": \"f16\", \"kv_block_count\": 8, \"slot_count\": 4,"
    " \"context_tokens_max\": 256, \"step_rows_max\": 64, \"steps_in_flight_max\": 3}";

static int arena_setup(void **state)
{
    static struct arena arena;

    arena_init(&arena, 4096);
    *state = &arena;
    return 0;
}

static int arena_teardown(void **state)
{
    arena_deinit(*state);
    return 0;
}

static struct placement *parse(const char *text, struct arena *arena, struct error *err)
{
    return placement_file_parse(text, strlen(text), "p.json", arena, err);
}

/* The good text with one part replaced is refused, and the message holds `words`. */
static void refused(struct arena *arena, const char *part, const char *instead, const char *words)
{
    char text[2048];
    const char *at = strstr(good_text, part);
    struct error err;

    assert_non_null(at);
    (void)snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - good_text), good_text, instead,
                   at + strlen(part));
    assert_null(parse(text, arena, &err));
    if (strstr(err.message, words) == NULL || strncmp(err.message, "p.json", 6) != 0) {
        fail_msg("%s: %s", instead, err.message);
    }
}

static void a_good_file_is_read_whole(void **state)
{
    struct error err;
    struct placement *placement = parse(good_text, *state, &err);

    assert_non_null(placement);
    assert_int_equal(placement->stage_count, 2);
    assert_int_equal(placement->stages[0].workers[1], 1);
    assert_int_equal(placement->lane_member[3], 0);
    assert_true(placement_owns(placement, 1, 1, 1));
    assert_false(placement_owns(placement, 1, 0, 1));
    assert_int_equal(placement->kv_type, KV_F16);
    assert_int_equal(placement->steps_in_flight_max, 3);
}

static void the_draft_layer_has_the_last_row_of_owners(void **state)
{
    static const char part[] = "[[0], [0]]], \"kv_type\"";
    char text[2048];
    const char *at = strstr(good_text, part);
    struct scratch scratch;
    struct error err;
    struct placement *placement;
    const char *path;

    assert_non_null(at);
    (void)snprintf(text, sizeof(text),
                   "%.*s[[0], [0]], [[0], [0]]], \"draft_layer_count\": 1, \"kv_type\"%s",
                   (int)(at - good_text), good_text, at + strlen(part));
    placement = parse(text, *state, &err);
    assert_non_null(placement);
    assert_int_equal(placement->draft_layer_count, 1);
    scratch_open(&scratch);
    path = scratch_path(&scratch, "p.json");
    assert_true(placement_file_write(path, placement, &err));
    placement = placement_file_read(path, *state, &err);
    assert_non_null(placement);
    assert_int_equal(placement->draft_layer_count, 1);
    assert_true(placement_owns(placement, 3, 1, 0));
    scratch_close(&scratch);
}

static void what_is_written_is_read_again(void **state)
{
    struct scratch scratch;
    struct error err;
    struct placement *first = parse(good_text, *state, &err);
    struct placement *second;
    const char *path;

    assert_non_null(first);
    scratch_open(&scratch);
    path = scratch_path(&scratch, "p.json");
    assert_true(placement_file_write(path, first, &err));
    second = placement_file_read(path, *state, &err);
    assert_non_null(second);
    assert_int_equal(second->layer_count, 3);
    assert_memory_equal(first->replica_offset, second->replica_offset, 7 * sizeof(uint32_t));
    assert_memory_equal(first->replica_member, second->replica_member, 5 * sizeof(uint32_t));
    assert_memory_equal(first->lane_member, second->lane_member, 4 * sizeof(uint32_t));
    scratch_close(&scratch);
}

static void what_is_wrong_is_named(void **state)
{
    refused(*state, "\"version\": 1", "\"version\": 2", "version 2");
    refused(*state, "[0, 2], \"workers\"", "[0], \"workers\"", "stages[0]: layers");
    refused(*state, "\"workers\": [2]", "\"workers\": [1]", "worker 1 has two seats");
    refused(*state, "\"workers\": [2]", "\"workers\": [-2]", "workers[0]");
    refused(*state, "\"workers\": [2]", "\"workers\": 2", "workers");
    refused(*state, "\"layers\": [2, 3]", "\"layers\": [1, 3]", "stage 1");
    refused(*state, "[[0, 1], [0, 0]]", "[[0, 1]]", "lane_member");
    refused(*state, "[[0, 1], [0, 0]]", "[[0, 1], [0]]", "lane_member[1]");
    refused(*state, "[[0, 1], [0, 0]]", "[[0, 1], [0, 1]]", "lane 1");
    refused(*state, "[[0], [0, 1]]", "[[0]]", "experts[1]");
    refused(*state, "[[0], [0, 1]]", "[[0], [\"a\"]]", "experts[1]: expert 1");
    refused(*state, "[[0], [0, 1]]", "[[0], [0, 2]]", "2");
    refused(*state, "\"kv_type\"", "\"draft_layer_count\": 1, \"kv_type\"",
            "layer_count is 3, draft_layer_count 1");
    refused(*state, "\"kv_type\"", "\"draft_layer_count\": 2, \"kv_type\"",
            "draft_layer_count is 2, must be 0 or 1");
    refused(*state, "\"f16\"", "\"q9\"", "q9");
    refused(*state, "\"slot_count\": 4", "\"slot_count\": 0", "slot_count");
    refused(*state, "\"slot_count\": 4", "\"slot_count\": \"4\"", "slot_count");
    refused(*state, "\"lane_count\": 2", "\"lane_count\": 4000000000", "lane_member");
    refused(*state, "\"expert_count\": 2", "\"expert_count\": 4000000000", "experts");
}

static void a_file_cut_anywhere_is_refused(void **state)
{
    char text[sizeof(good_text)];
    struct error err;

    for (size_t length = 0; length + 1 < sizeof(good_text); length++) {
        memcpy(text, good_text, length);
        assert_null(placement_file_parse(text, length, "p.json", *state, &err));
    }
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, arena_setup, arena_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_good_file_is_read_whole),
        CASE(what_is_written_is_read_again),
        CASE(the_draft_layer_has_the_last_row_of_owners),
        CASE(what_is_wrong_is_named),
        CASE(a_file_cut_anywhere_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
