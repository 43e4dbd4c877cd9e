/* The n largest of a row, against a sort. */
#include "worker/stage/largest.h"

#include "common/base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define VOCAB_MAX 900

static float row[VOCAB_MAX];
static uint32_t sorted[VOCAB_MAX];

static int by_rank(const void *a, const void *b)
{
    return largest_is_before(row, *(const uint32_t *)a, *(const uint32_t *)b) ? -1 : 1;
}

static void check(uint32_t vocab)
{
    const uint32_t counts[] = {1, 2, 3, 20, vocab / 2, vocab - 1, vocab};
    uint32_t tokens[VOCAB_MAX];

    for (uint32_t i = 0; i < vocab; i++) {
        sorted[i] = i;
    }
    qsort(sorted, vocab, sizeof(sorted[0]), by_rank);
    for (uint32_t level = 0; level < CPU_LEVEL_COUNT; level++) {
        for (size_t i = 0; i < ARRAY_LENGTH(counts); i++) {
            if (counts[i] < 1 || counts[i] > vocab || !cpu_level_available((enum cpu_level)level)) {
                continue;
            }
            largest_tokens(kernels_for((enum cpu_level)level, NUMERICS_EXACT), row, vocab,
                           counts[i], tokens);
            assert_memory_equal(tokens, sorted, counts[i] * sizeof(uint32_t));
        }
    }
}

static void among_equals_the_lower_id_is_larger(void **state)
{
    (void)state;
    row[0] = -0.0f;
    row[1] = 0.0f;
    assert_true(largest_is_before(row, 0, 1));
    assert_false(largest_is_before(row, 1, 0));
    row[1] = 1e-45f;
    assert_true(largest_is_before(row, 1, 0));
}

static void rows_of_any_shape_come_out_sorted(void **state)
{
    const uint32_t vocabs[] = {1, 2, 15, 16, 17, 63, 64, 65, 130, VOCAB_MAX};
    const uint32_t kinds[] = {1, 2, 7, 1000000}; /* different values */
    uint64_t counter = 0;

    (void)state;
    for (size_t v = 0; v < ARRAY_LENGTH(vocabs); v++) {
        for (size_t k = 0; k < ARRAY_LENGTH(kinds); k++) {
            for (uint32_t i = 0; i < vocabs[v]; i++) {
                row[i] = (float)(hash_counter(3, v, k, counter++) % kinds[k]) - 5.0f;
            }
            check(vocabs[v]);
        }
    }
}

static void rising_and_falling_rows_come_out_sorted(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < VOCAB_MAX; i++) {
        row[i] = (float)i;
    }
    check(VOCAB_MAX);
    for (uint32_t i = 0; i < VOCAB_MAX; i++) {
        row[i] = -(float)i;
    }
    check(VOCAB_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(among_equals_the_lower_id_is_larger),
        cmocka_unit_test(rows_of_any_shape_come_out_sorted),
        cmocka_unit_test(rising_and_falling_rows_come_out_sorted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
