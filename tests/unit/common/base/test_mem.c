/* test_mem.c - blocks are aligned, zeroed, checked; pages too. */
#include "common/base/mem.h"

#include "tests/support/death.h"
#include "tests/support/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static bool is_zero(const void *bytes, size_t length)
{
    const unsigned char *at = bytes;

    for (size_t i = 0; i < length; i++) {
        if (at[i] != 0) {
            return false;
        }
    }
    return true;
}

static void blocks_of_any_size_are_aligned_and_zeroed(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 7, 63, 64, 65, 4096, 100000, 3 << 20};

    for (size_t i = 0; i < ARRAY_LENGTH(sizes); i++) {
        struct error err = {0};
        char *block = mem_new_array(char, sizes[i]);
        char *tried = mem_try_array(char, sizes[i], &err);

        assert_non_null(block);
        assert_non_null(tried);
        assert_int_equal((uintptr_t)block % 64, 0);
        assert_int_equal((uintptr_t)tried % 64, 0);
        assert_true(is_zero(block, sizes[i]));
        assert_true(is_zero(tried, sizes[i]));
        memset(block, 0xA5, sizes[i]);
        mem_free(block);
        mem_free(tried);
    }
    mem_free(NULL);
}

static void resizing_keeps_the_content_and_the_alignment(void **state)
{
    (void)state;
    struct random random;
    unsigned char *block = NULL;
    unsigned char *other = NULL;
    size_t length = 0;

    random_init(&random, 1);
    for (int round = 0; round < 300; round++) {
        size_t wanted = random_below(&random, round % 10 == 0 ? 300000 : 500);

        block = mem_resize(block, wanted, 1);
        assert_int_equal((uintptr_t)block % 64, 0);
        for (size_t i = 0; i < length && i < wanted; i++) {
            assert_int_equal(block[i], (unsigned char)(i * 7));
        }
        for (size_t i = 0; i < wanted; i++) {
            block[i] = (unsigned char)(i * 7);
        }
        length = wanted;
        other = mem_resize(other, random_below(&random, 900), 3); /* stands in the way */
    }
    mem_free(block);
    mem_free(other);
}

static void products_that_overflow_are_refused(void **state)
{
    (void)state;
    size_t out = 5;

    assert_true(size_mul(0, SIZE_MAX, &out) && out == 0);
    assert_true(size_mul(SIZE_MAX, 1, &out) && out == SIZE_MAX);
    assert_true(size_mul(SIZE_MAX / 3, 3, &out) && out == SIZE_MAX / 3 * 3);
    out = 5;
    assert_false(size_mul(SIZE_MAX / 3 + 1, 3, &out));
    assert_false(size_mul(SIZE_MAX, SIZE_MAX, &out));
    assert_false(size_mul((size_t)1 << 32, (size_t)1 << 32, &out));
    assert_int_equal(out, 5);
}

static void sums_that_overflow_are_refused(void **state)
{
    (void)state;
    size_t out = 5;

    assert_true(size_add(SIZE_MAX, 0, &out) && out == SIZE_MAX);
    assert_true(size_add(SIZE_MAX - 1, 1, &out) && out == SIZE_MAX);
    out = 5;
    assert_false(size_add(SIZE_MAX, 1, &out));
    assert_false(size_add(1, SIZE_MAX, &out));
    assert_int_equal(out, 5);
}

static void impossible_sizes_fail_with_the_figures(void **state)
{
    (void)state;
    struct error err = {0};

    assert_null(mem_try_zeroed(SIZE_MAX, 2, &err));
    assert_int_equal(err.code, ERROR_LIMIT);
    assert_string_equal(err.message, "out of memory: 18446744073709551615 * 2 bytes");
    assert_null(mem_try_zeroed(1, SIZE_MAX / 2, &err));
    assert_null(mem_try_zeroed((size_t)1 << 41, 1, &err));
    assert_null(mem_map_pages(UINT64_MAX, &err));
    assert_null(mem_map_pages(UINT64_MAX - ((uint64_t)2 << 20), &err));
    assert_null(mem_map_pages((uint64_t)1 << 50, &err));
    assert_int_equal(err.code, ERROR_LIMIT);
    assert_string_equal(err.message, "out of memory: cannot map 1125899906842624 bytes");
}

static void alloc_too_much(void *context)
{
    (void)context;
    mem_free(mem_alloc_zeroed(SIZE_MAX / 2, 4));
}

static void resize_too_much(void *context)
{
    (void)context;
    mem_free(mem_resize(NULL, SIZE_MAX / 2, 4));
}

static void small_allocations_abort_when_they_cannot_be(void **state)
{
    (void)state;
    assert_true(death_by_abort(alloc_too_much, NULL));
    assert_true(death_by_abort(resize_too_much, NULL));
}

static void the_nth_try_fails_and_only_that(void **state)
{
    (void)state;
    struct error err = {0};

    for (uint64_t n = 1; n <= 4; n++) {
        mem_fail_after(n);
        for (uint64_t call = 1; call <= 6; call++) {
            bool paged = call % 2 == 0;
            void *got = paged ? mem_map_pages(10, &err) : mem_try_zeroed(1, 10, &err);

            assert_int_equal(got == NULL, call == n);
            if (paged) {
                mem_unmap_pages(got, 10);
            } else {
                mem_free(got);
            }
        }
    }
    mem_fail_after(1);
    mem_fail_after(0);
    mem_unmap_pages(mem_map_pages(1, &err), 1);
    mem_free(mem_new(int)); /* never counted */
}

static void pages_are_aligned_zeroed_and_writable(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {0, 1, 4096, 4097, 2 << 20, (2 << 20) + 1, 9 << 20};

    for (size_t i = 0; i < ARRAY_LENGTH(sizes); i++) {
        struct error err = {0};
        char *pages = mem_map_pages(sizes[i], &err);

        assert_non_null(pages);
        assert_int_equal((uintptr_t)pages % (2 << 20), 0);
        assert_true(is_zero(pages, sizes[i]));
        memset(pages, 1, sizes[i]);
        mem_unmap_pages(pages, sizes[i]);
    }
    mem_unmap_pages(NULL, 7);
}

static void one_block_shows_again_and_again(void **state)
{
    (void)state;
    const uint64_t block = (uint64_t)sysconf(_SC_PAGESIZE), bytes = 3 * block + 100;
    struct error err = {0};
    char *pages = mem_map_repeated(block, bytes, &err);

    assert_non_null(pages);
    assert_int_equal(pages[2 * block + 5], 0);
    pages[5] = 17;
    assert_int_equal(pages[block + 5], 17);
    assert_int_equal(pages[3 * block + 5], 17);
    pages[3 * block + 99] = 18;
    assert_int_equal(pages[99], 18);
    mem_unmap_pages(pages, bytes);

    assert_null(mem_map_repeated(block, UINT64_MAX, &err));
    assert_int_equal(err.code, ERROR_LIMIT);
    mem_fail_after(1);
    assert_null(mem_map_repeated(block, bytes, &err));
    assert_non_null(strstr(err.message, "cannot map"));
}

static void texts_are_copied_and_formatted(void **state)
{
    (void)state;
    char *whole = mem_strdup("shoal");
    char *part = mem_strndup("shoal of fish", 8);
    char *shorter = mem_strndup("fish", 100);
    char *made = mem_printf("%s-%d", "worker", 3);

    assert_string_equal(whole, "shoal");
    assert_string_equal(part, "shoal of");
    assert_string_equal(shorter, "fish");
    assert_string_equal(made, "worker-3");
    mem_free(whole);
    mem_free(part);
    mem_free(shorter);
    mem_free(made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_of_any_size_are_aligned_and_zeroed),
        cmocka_unit_test(resizing_keeps_the_content_and_the_alignment),
        cmocka_unit_test(products_that_overflow_are_refused),
        cmocka_unit_test(sums_that_overflow_are_refused),
        cmocka_unit_test(impossible_sizes_fail_with_the_figures),
        cmocka_unit_test(small_allocations_abort_when_they_cannot_be),
        cmocka_unit_test(the_nth_try_fails_and_only_that),
        cmocka_unit_test(pages_are_aligned_zeroed_and_writable),
        cmocka_unit_test(one_block_shows_again_and_again),
        cmocka_unit_test(texts_are_copied_and_formatted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
