/* test_block_pool.c - holders of blocks. */
#include "coordinator/engine/block_pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void blocks_are_handed_out_once_and_come_back(void **state)
{
    struct block_pool pool;

    (void)state;
    block_pool_init(&pool, 3);
    assert_int_equal(block_pool_take(&pool), 0);
    assert_int_equal(block_pool_take(&pool), 1);
    assert_int_equal(block_pool_take(&pool), 2);
    assert_int_equal(pool.free_count, 0);
    assert_int_equal(block_pool_release(&pool, 1), 0);
    assert_int_equal(pool.free_count, 0); /* it rests */
    block_pool_free(&pool, 1);
    assert_int_equal(pool.free_count, 1);
    assert_int_equal(block_pool_take(&pool), 1);
    block_pool_deinit(&pool);
}

static void a_shared_block_rests_when_its_last_holder_has_let_go(void **state)
{
    struct block_pool pool;
    uint32_t block;

    (void)state;
    block_pool_init(&pool, 2);
    block = block_pool_take(&pool);
    assert_int_equal(block_pool_acquire(&pool, block), 2);
    assert_int_equal(block_pool_release(&pool, block), 1);
    assert_int_equal(block_pool_release(&pool, block), 0);
    assert_int_equal(block_pool_acquire(&pool, block), 1); /* from rest */
    block_pool_deinit(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_handed_out_once_and_come_back),
        cmocka_unit_test(a_shared_block_rests_when_its_last_holder_has_let_go),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
