/* test_arena.c - blocks live until the reset, zeroed and aligned. */
#include "common/base/arena.h"

#include "common/base/mem.h"
#include "tests/support/death.h"
#include "tests/support/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void blocks_are_aligned_zeroed_and_apart(void **state)
{
    (void)state;
    struct random random;
    struct arena arena;
    unsigned char *blocks[200];
    size_t lengths[200];

    random_init(&random, 2);
    arena_init(&arena, 4096);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < ARRAY_LENGTH(blocks); i++) {
            lengths[i] = random_below(&random, i % 20 == 0 ? 20000 : 300);
            blocks[i] = arena_alloc(&arena, lengths[i]);
            assert_int_equal((uintptr_t)blocks[i] % 64, 0);
            for (size_t at = 0; at < lengths[i]; at++) {
                assert_int_equal(blocks[i][at], 0);
            }
            memset(blocks[i], (int)i + 1, lengths[i]);
        }
        for (size_t i = 0; i < ARRAY_LENGTH(blocks); i++) {
            for (size_t at = 0; at < lengths[i]; at++) {
                assert_int_equal(blocks[i][at], i + 1);
            }
        }
        arena_reset(&arena);
        assert_int_equal(arena.used_bytes, 0);
    }
    arena_deinit(&arena);
}

static void a_reset_arena_reuses_its_chunk(void **state)
{
    (void)state;
    struct arena arena;
    void *first;

    arena_init(&arena, 1024);
    first = arena_alloc(&arena, 100);
    assert_int_equal(arena.used_bytes, 128);
    arena_reset(&arena);
    assert_ptr_equal(arena_alloc(&arena, 100), first);
    arena_reset(&arena);
    (void)arena_alloc(&arena, 100000);
    arena_reset(&arena);
    (void)arena_alloc(&arena, 60000);
    (void)arena_alloc(&arena, 40000);
    assert_null(*(void **)arena.chunks); /* the large chunk was kept and takes both */
    arena_deinit(&arena);
}

static void a_large_block_leaves_the_current_chunk_in_use(void **state)
{
    (void)state;
    struct arena arena;
    char *before;
    char *after;

    arena_init(&arena, 1024);
    before = arena_alloc(&arena, 64);
    (void)arena_alloc(&arena, 5000);
    after = arena_alloc(&arena, 64);
    assert_ptr_equal(after, before + 64);
    arena_deinit(&arena);
}

static void an_unused_arena_can_be_reset_and_deinited(void **state)
{
    (void)state;
    struct arena arena;

    arena_init(&arena, 1);
    arena_reset(&arena);
    arena_deinit(&arena);
    arena_deinit(&arena);
}

static void take_128(void *context)
{
    (void)arena_alloc(context, 128);
}

static void a_fixed_arena_gives_exactly_what_it_has(void **state)
{
    (void)state;
    char *memory = mem_new_array(char, 256);
    struct arena arena;

    memset(memory, 0xFF, 256);
    arena_init_fixed(&arena, memory, 256);
    for (int round = 0; round < 2; round++) {
        assert_ptr_equal(arena_alloc(&arena, 1), memory);
        assert_ptr_equal(arena_alloc(&arena, 128), memory + 64);
        assert_true(death_by_abort(take_128, &arena));
        assert_ptr_equal(arena_alloc(&arena, 64), memory + 192);
        assert_int_equal(arena.used_bytes, 256);
        assert_int_equal(memory[200], 0);
        arena_reset(&arena);
    }
    arena_deinit(&arena);
    mem_free(memory);
}

static void take_an_overflowing_array(void *context)
{
    (void)arena_alloc_array(context, SIZE_MAX / 2, 4);
}

static void take_everything(void *context)
{
    (void)arena_alloc(context, SIZE_MAX);
}

static void sizes_that_overflow_abort(void **state)
{
    (void)state;
    struct arena arena;

    arena_init(&arena, 64);
    assert_true(death_by_abort(take_an_overflowing_array, &arena));
    assert_true(death_by_abort(take_everything, &arena));
    arena_deinit(&arena);
}

static void texts_and_arrays_come_from_the_arena(void **state)
{
    (void)state;
    struct arena arena;
    uint64_t *numbers;

    arena_init(&arena, 256);
    numbers = arena_new_array(&arena, uint64_t, 40);
    assert_int_equal(numbers[39], 0);
    assert_int_equal(*arena_new(&arena, int), 0);
    assert_string_equal(arena_strdup(&arena, "fish"), "fish");
    assert_string_equal(arena_strndup(&arena, "fishes", 4), "fish");
    assert_string_equal(arena_strndup(&arena, "fish", 40), "fish");
    assert_string_equal(arena_printf(&arena, "%0300d", 7) + 298, "07");
    arena_deinit(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_aligned_zeroed_and_apart),
        cmocka_unit_test(a_reset_arena_reuses_its_chunk),
        cmocka_unit_test(a_large_block_leaves_the_current_chunk_in_use),
        cmocka_unit_test(an_unused_arena_can_be_reset_and_deinited),
        cmocka_unit_test(a_fixed_arena_gives_exactly_what_it_has),
        cmocka_unit_test(sizes_that_overflow_abort),
        cmocka_unit_test(texts_and_arrays_come_from_the_arena),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
