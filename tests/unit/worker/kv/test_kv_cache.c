/* The paged cache: tables, addresses, refusals. */
#include "common/base/mem.h"
#include "worker/kv/kv_cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define BLOCK_BYTES ((size_t)64 * 40)

static const struct kv_config config = {
    .layer_begin = 2,
    .layer_end = 5,
    .lane_count = 2,
    .block_count = 7,
    .slot_count = 3,
    .blocks_per_slot_max = 5,
    .layout = {.type = KV_F16, .head_count = 1, .block_bytes = BLOCK_BYTES},
};

static struct kv_cache *cache_make(void)
{
    struct error err;
    struct kv_cache *cache = kv_cache_create(&config, &err);

    assert_non_null(cache);
    return cache;
}

static void a_fresh_slot_covers_nothing(void **state)
{
    struct kv_cache *cache = cache_make();

    (void)state;
    assert_true(kv_cache_covers(cache, 0, 0, 0));
    assert_false(kv_cache_covers(cache, 0, 0, 1));
    kv_cache_destroy(cache);
}

static void tokens_of_a_block_share_it(void **state)
{
    struct kv_cache *cache = cache_make();
    const uint32_t blocks[] = {6, 0};
    struct error err;
    char *first;

    (void)state;
    assert_true(kv_cache_extend(cache, 1, 2, 0, blocks, 2, &err));
    assert_true(kv_cache_covers(cache, 1, 2, 128));
    assert_false(kv_cache_covers(cache, 1, 2, 129));
    first = kv_cache_block(cache, 4, 1, 2, 0);
    for (uint32_t t = 0; t < 64; t++) {
        assert_ptr_equal(kv_cache_block(cache, 4, 1, 2, t), first);
    }
    assert_ptr_equal(kv_cache_block(cache, 4, 1, 2, 64), first - 6 * BLOCK_BYTES);
    assert_int_equal((uintptr_t)first % 64, 0);
    kv_cache_destroy(cache);
}

/* Fills every block of every layer and lane through its address, then reads all back. */
static void blocks_never_overlap(void **state)
{
    struct kv_cache *cache = cache_make();
    const uint32_t blocks[] = {3, 1, 4, 0, 6};
    struct error err;

    (void)state;
    for (uint32_t lane = 0; lane < 2; lane++) {
        assert_true(kv_cache_extend(cache, lane, 0, 0, blocks, 5, &err));
    }
    for (int pass = 0; pass < 2; pass++) {
        uint32_t stamp = 0;

        for (uint32_t layer = 2; layer < 5; layer++) {
            for (uint32_t i = 0; i < 2 * 5; i++) {
                uint32_t *block = kv_cache_block(cache, layer, i % 2, 0, i / 2 * 64);

                for (uint32_t k = 0; k < BLOCK_BYTES / sizeof(uint32_t); k++) {
                    stamp++;
                    if (pass == 0) {
                        block[k] = stamp;
                    }
                    assert_int_equal(block[k], stamp);
                }
            }
        }
    }
    kv_cache_destroy(cache);
}

static void a_step_issued_again_leaves_later_entries(void **state)
{
    struct kv_cache *cache = cache_make();
    const uint32_t blocks[] = {5, 2, 1};
    struct error err;

    (void)state;
    assert_true(kv_cache_extend(cache, 0, 1, 0, blocks, 1, &err));
    assert_true(kv_cache_extend(cache, 0, 1, 1, blocks + 1, 2, &err));
    assert_true(kv_cache_extend(cache, 0, 1, 0, blocks, 1, &err));
    assert_true(kv_cache_covers(cache, 0, 1, 192));
    assert_true(kv_cache_extend(cache, 0, 1, 3, NULL, 0, &err));
    assert_true(kv_cache_covers(cache, 0, 1, 192));
    kv_cache_destroy(cache);
}

static void what_does_not_exist_is_refused(void **state)
{
    struct kv_cache *cache = cache_make();
    const uint32_t good[] = {0, 1, 2, 3, 4, 5};
    const uint32_t bad[] = {0, 7};
    struct error err;

    (void)state;
    assert_false(kv_cache_extend(cache, 2, 0, 0, good, 1, &err));
    assert_int_equal(err.code, ERROR_PEER);
    assert_false(kv_cache_extend(cache, 0, 3, 0, good, 1, &err));
    assert_false(kv_cache_extend(cache, 0, 0, 1, good, 1, &err));
    assert_false(kv_cache_extend(cache, 0, 0, 0, good, 6, &err));
    assert_false(kv_cache_extend(cache, 0, 0, 0, good, UINT32_MAX, &err));
    assert_false(kv_cache_extend(cache, 0, 0, 0, bad, 2, &err));
    assert_non_null(strstr(err.message, "no block 7"));
    assert_false(kv_cache_covers(cache, 0, 0, 1));
    kv_cache_destroy(cache);
}

/* --- the plane of tokens --- */

static struct kv_cache *cache_make_with_tokens(void)
{
    struct kv_config with_tokens = config;
    struct kv_cache *cache;
    struct error err;

    with_tokens.has_tokens = true;
    cache = kv_cache_create(&with_tokens, &err);
    assert_non_null(cache);
    return cache;
}

static void tokens_of_lanes_and_blocks_never_overlap(void **state)
{
    struct kv_cache *cache = cache_make_with_tokens();
    const uint32_t blocks[] = {3, 1, 4, 0, 6};
    struct error err;

    (void)state;
    for (uint32_t lane = 0; lane < 2; lane++) {
        assert_true(kv_cache_extend(cache, lane, 0, 0, blocks, 5, &err));
        for (uint32_t i = 0; i < 320; i++) {
            *kv_cache_token(cache, lane, 0, i) = 1 + lane * 1000 + i;
        }
    }
    for (uint32_t lane = 0; lane < 2; lane++) {
        for (uint32_t i = 0; i < 320; i++) {
            const uint32_t *block = kv_cache_token(cache, lane, 0, i / 64 * 64);

            assert_int_equal(*kv_cache_token(cache, lane, 0, i), 1 + lane * 1000 + i);
            assert_ptr_equal(kv_cache_token(cache, lane, 0, i), block + i % 64);
        }
    }
    kv_cache_destroy(cache);
}

static void sequences_that_share_a_block_share_its_tokens(void **state)
{
    struct kv_cache *cache = cache_make_with_tokens();
    const uint32_t first[] = {5, 2};
    const uint32_t second[] = {5, 3};
    struct error err;

    (void)state;
    assert_true(kv_cache_extend(cache, 1, 0, 0, first, 2, &err));
    assert_true(kv_cache_extend(cache, 1, 2, 0, second, 2, &err));
    for (uint32_t i = 0; i < 70; i++) {
        *kv_cache_token(cache, 1, 0, i) = 100 + i;
    }
    for (uint32_t i = 0; i < 70; i++) {
        assert_int_equal(*kv_cache_token(cache, 1, 2, i), i < 64 ? 100 + i : 0);
    }
    kv_cache_destroy(cache);
}

static void every_failed_allocation_is_reported(void **state)
{
    struct kv_config with_tokens = config;
    struct error err;

    (void)state;
    with_tokens.has_tokens = true;
    for (uint64_t n = 1; n <= 4; n++) {
        mem_fail_after(n);
        assert_null(kv_cache_create(&with_tokens, &err));
        assert_int_equal(err.code, ERROR_LIMIT);
        mem_fail_after(0);
    }
    kv_cache_destroy(NULL);
}

static void the_ledger_counts_blocks_tables_and_tokens(void **state)
{
    struct kv_config with_tokens = config;

    (void)state;
    assert_true(kv_cache_bytes(&config) >= (uint64_t)3 * 2 * 7 * 64 * 40 + 2 * 3 * 6 * 4);
    assert_true(kv_cache_bytes(&config) < (uint64_t)3 * 2 * 7 * 64 * 40 + 1024);
    with_tokens.has_tokens = true;
    assert_int_equal(kv_cache_bytes(&with_tokens), kv_cache_bytes(&config) + 2 * 7 * 64 * 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fresh_slot_covers_nothing),
        cmocka_unit_test(tokens_of_a_block_share_it),
        cmocka_unit_test(blocks_never_overlap),
        cmocka_unit_test(a_step_issued_again_leaves_later_entries),
        cmocka_unit_test(what_does_not_exist_is_refused),
        cmocka_unit_test(every_failed_allocation_is_reported),
        cmocka_unit_test(tokens_of_lanes_and_blocks_never_overlap),
        cmocka_unit_test(sequences_that_share_a_block_share_its_tokens),
        cmocka_unit_test(the_ledger_counts_blocks_tables_and_tokens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
