/* The products of --numerics fast on what this machine has. */
#include "tests/unit/worker/kernels/fast_cases.h"

#include "worker/kernels/amx.h"

static void near_with_amx(enum cpu_level level)
{
    if (kernels_available(level, NUMERICS_FAST_AMX)) {
        near_on_level(level, NUMERICS_FAST_AMX, TOLERANCE_AMX);
    } else {
        print_message("skipped: no AMX at level %s\n", cpu_level_name(level));
    }
}

static void near_with_blas(enum cpu_level level)
{
    near_on_level(level, NUMERICS_FAST_BLAS, TOLERANCE_BLAS);
}

static void products_are_near_the_product_in_double(void **state)
{
    (void)state;
    on_every_level(near_with_amx);
    on_every_level(near_with_blas);
}

static void joined(enum cpu_level level)
{
    joined_on_level(level, NUMERICS_FAST_BLAS);
    if (kernels_available(level, NUMERICS_FAST_AMX)) {
        joined_on_level(level, NUMERICS_FAST_AMX);
        neighbours_change_no_bit_of(WEIGHT_BF16, level);
        neighbours_change_no_bit_of(WEIGHT_F8_E4M3, level);
    }
}

static void gate_and_up_are_joined_by_silu(void **state)
{
    (void)state;
    on_every_level(joined);
}

static void fast_is_what_the_level_has(void **state)
{
    (void)state;
    assert_int_equal(kernels_fast(CPU_REF), NUMERICS_INT8);
    assert_false(kernels_available(CPU_REF, NUMERICS_FAST_AMX));
    assert_true(kernels_available(CPU_REF, NUMERICS_FAST_BLAS));
    assert_true(kernels_available(CPU_REF, NUMERICS_EXACT));
    if (amx_available()) {
        assert_int_equal(kernels_fast(CPU_AVX512), NUMERICS_FAST_AMX);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_near_the_product_in_double),
        cmocka_unit_test(gate_and_up_are_joined_by_silu),
        cmocka_unit_test(fast_is_what_the_level_has),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
