/* Shares of one model that hold its parts at the same time. */
#include "worker/stage/part_store.h"

#include "common/base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct catalog *catalog;

static struct weights *share_plan(uint32_t layer_begin, uint32_t layer_end)
{
    struct weights_share share = {.layer_begin = layer_begin, .layer_end = layer_end};
    struct error err;
    struct weights *weights = weights_plan(catalog, &share, &err);

    assert_non_null(weights);
    return weights;
}

/* Fills what is not filled, as a loader does. */
static void share_fill(struct part_store *store, struct weights *weights, int value)
{
    for (uint32_t i = 0; i < weights->part_count; i++) {
        struct weights_part *part = &weights->parts[i];

        if (!part->is_filled) {
            memset(part->memory, value, part->bytes);
            part->is_filled = true;
        }
    }
    part_store_note(store, weights);
}

static void an_old_and_a_new_share_hold_parts_together(void **state)
{
    struct part_store *store = part_store_create(&catalog->arch);
    struct weights *old = share_plan(0, 3);
    struct weights *new = share_plan(1, 4);
    struct error err;
    struct part_sum sum;

    (void)state;
    assert_true(part_store_take(store, old, &err));
    share_fill(store, old, 1);
    assert_true(part_store_bytes(store) == old->memory_bytes);

    sum = part_store_sum(store, new);
    assert_true(sum.kept_bytes > 0 && sum.kept_bytes < new->memory_bytes);
    assert_true(sum.kept_file_bytes > 0 && sum.kept_file_bytes < new->file_bytes);
    assert_true(sum.spare_bytes == 0); /* the old share holds them all */
    part_store_trim(store, new);
    assert_true(part_store_bytes(store) == old->memory_bytes);
    assert_true(part_store_take(store, new, &err));
    assert_true(part_store_bytes(store) == old->memory_bytes + new->memory_bytes - sum.kept_bytes);
    share_fill(store, new, 2);
    for (uint32_t i = 0; i < new->part_count; i++) {
        const struct weights_part *part = &new->parts[i];

        assert_int_equal(part->memory[0], part->layer < 3 ? 1 : 2); /* where it was, or new */
        assert_int_equal(part->memory[part->bytes - 1], part->layer < 3 ? 1 : 2);
    }
    assert_ptr_equal(new->layers[0].input_norm, old->layers[1].input_norm);

    part_store_release(store, old);
    assert_true(part_store_sum(store, new).spare_bytes ==
                part_store_bytes(store) - new->memory_bytes);
    part_store_trim(store, new);
    assert_true(part_store_bytes(store) == new->memory_bytes);
    assert_int_equal(new->parts[0].memory[0], 1);
    part_store_release(store, new);
    assert_true(part_store_bytes(store) == new->memory_bytes);
    weights_destroy(old);
    weights_destroy(new);
    part_store_destroy(store);
}

static void parts_that_were_not_filled_are_given_back(void **state)
{
    struct part_store *store = part_store_create(&catalog->arch);
    struct weights *weights = share_plan(1, 3);
    struct error err;
    uint64_t bytes;

    (void)state;
    assert_true(part_store_take(store, weights, &err));
    weights->parts[2].is_filled = true;
    bytes = weights->parts[2].bytes;
    part_store_note(store, weights);
    part_store_release(store, weights);
    part_store_release(store, weights); /* holds nothing any more */
    assert_true(part_store_bytes(store) == bytes);
    assert_true(part_store_sum(store, weights).kept_bytes == bytes);
    weights_destroy(weights);
    part_store_destroy(store);
}

static void without_memory_nothing_is_taken(void **state)
{
    struct part_store *store = part_store_create(&catalog->arch);
    struct weights *first = share_plan(0, 1);
    struct weights *more = share_plan(0, 2);
    struct error err;

    (void)state;
    assert_true(part_store_take(store, first, &err));
    share_fill(store, first, 1);
    mem_fail_after(1);
    assert_false(part_store_take(store, more, &err));
    mem_fail_after(0);
    assert_int_equal(err.code, ERROR_LIMIT);
    part_store_release(store, more);
    assert_true(part_store_bytes(store) == first->memory_bytes);
    part_store_release(store, first);
    weights_destroy(first);
    weights_destroy(more);
    part_store_destroy(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_old_and_a_new_share_hold_parts_together),
        cmocka_unit_test(parts_that_were_not_filled_are_given_back),
        cmocka_unit_test(without_memory_nothing_is_taken),
    };
    struct error err;
    int failed;

    catalog = catalog_open(SHOAL_TEST_DATA "/deepseek_v3-bf16/model", &err);
    if (catalog == NULL) {
        return 1;
    }
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    catalog_close(catalog);
    return failed;
}
