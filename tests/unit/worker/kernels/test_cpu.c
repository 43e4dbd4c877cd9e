/* The choice of a level by the machine and by SHOAL_CPU. */
#include "tests/unit/worker/kernels/kernel_cases.h"

#include "worker/kernels/kernels.h"

static void every_available_level_can_be_chosen_by_name(void **state)
{
    (void)state;
    for (int level = 0; level < CPU_LEVEL_COUNT; level++) {
        struct error err;
        enum cpu_level chosen = CPU_LEVEL_COUNT;

        setenv("SHOAL_CPU", cpu_level_name((enum cpu_level)level), 1);
        if (cpu_level_available((enum cpu_level)level)) {
            assert_true(cpu_level_choose(&chosen, &err));
            assert_int_equal(chosen, level);
        } else {
            assert_false(cpu_level_choose(&chosen, &err));
            assert_int_equal(err.code, ERROR_USAGE);
            assert_int_equal(chosen, CPU_LEVEL_COUNT);
        }
    }
}

static void without_a_wish_the_best_is_taken(void **state)
{
    struct error err;
    enum cpu_level chosen;

    (void)state;
    unsetenv("SHOAL_CPU");
    assert_true(cpu_level_choose(&chosen, &err));
    assert_true(cpu_level_available(chosen));
    for (int level = (int)chosen + 1; level < CPU_LEVEL_COUNT; level++) {
        assert_false(cpu_level_available((enum cpu_level)level));
    }
}

static void an_unknown_word_is_refused_by_name(void **state)
{
    struct error err;
    enum cpu_level chosen;

    (void)state;
    setenv("SHOAL_CPU", "avx1024", 1);
    assert_false(cpu_level_choose(&chosen, &err));
    assert_int_equal(err.code, ERROR_USAGE);
    assert_non_null(strstr(err.message, "avx1024"));
    unsetenv("SHOAL_CPU");
}

static void each_table_knows_its_level(void **state)
{
    (void)state;
    for (int level = 0; level < CPU_LEVEL_COUNT; level++) {
        assert_int_equal(kernels_for((enum cpu_level)level, NUMERICS_EXACT)->level, level);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_available_level_can_be_chosen_by_name),
        cmocka_unit_test(without_a_wish_the_best_is_taken),
        cmocka_unit_test(an_unknown_word_is_refused_by_name),
        cmocka_unit_test(each_table_knows_its_level),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
