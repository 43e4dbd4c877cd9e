/* test_arch.c - what follows from an architecture's numbers. */
#include "tests/unit/common/model/model_fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void the_softmax_scale_has_yarns_factor_squared(void **state)
{
    (void)state;
    struct arch r1 = fixture_arch("DeepSeek-R1");
    struct arch lite = fixture_arch("DeepSeek-V2-Lite");
    struct arch plain = r1;

    plain.rope.scaling = ROPE_PLAIN;
    assert_true(fabs(arch_softmax_scale(&plain) * sqrt(192.0) - 1.0) < 1e-6);
    assert_true(fabs(arch_softmax_scale(&r1) * sqrt(192.0) - 1.8739) < 1e-4);
    assert_true(fabs(arch_softmax_scale(&lite) * sqrt(192.0) - 1.5896) < 1e-4);
}

static void a_model_with_groups_combines_by_them(void **state)
{
    (void)state;
    struct arch arch = fixture_arch("DeepSeek-R1");

    assert_int_equal(arch_combine_group_count(&arch), 8);
    assert_int_equal(arch_combine_group(&arch, 0), 0);
    assert_int_equal(arch_combine_group(&arch, 31), 0);
    assert_int_equal(arch_combine_group(&arch, 32), 1);
    assert_int_equal(arch_combine_group(&arch, 255), 7);
}

static void a_model_without_groups_combines_by_eight_ranges(void **state)
{
    (void)state;
    struct arch arch = fixture_arch("DeepSeek-V2-Lite");

    assert_int_equal(arch_combine_group_count(&arch), 8);
    for (uint32_t expert = 0; expert < 64; expert++) {
        assert_int_equal(arch_combine_group(&arch, expert), expert / 8);
    }
    arch.router.expert_count = 5;
    assert_int_equal(arch_combine_group(&arch, 4), 6);
}

static void layers_and_cache_follow_the_config(void **state)
{
    (void)state;
    struct arch arch = fixture_arch("DeepSeek-R1");

    assert_false(arch_layer_is_moe(&arch, 2));
    assert_true(arch_layer_is_moe(&arch, 3));
    assert_true(arch_layer_is_moe(&arch, 61));
    assert_int_equal(arch_kv_values(&arch), 576);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_softmax_scale_has_yarns_factor_squared),
        cmocka_unit_test(a_model_with_groups_combines_by_them),
        cmocka_unit_test(a_model_without_groups_combines_by_eight_ranges),
        cmocka_unit_test(layers_and_cache_follow_the_config),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
