/* The 16-bit types: integer code against arithmetic and against every level's own conversions. */
#include "tests/unit/worker/kernels/kernel_cases.h"

#include "worker/kernels/kernels.h"

#include <math.h>

static void widening_f16_is_exact(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        uint32_t exponent = bits >> 10 & 0x1f, fraction = bits & 0x3ff;
        double sign = bits >> 15 != 0 ? -1.0 : 1.0;
        float got = float_of_f16((uint16_t)bits);

        if (exponent == 31) {
            assert_true(fraction != 0 ? isnan(got) : (double)got == sign * INFINITY);
        } else if (exponent == 0) {
            assert_true((double)got == sign * ldexp(fraction, -24));
            assert_int_equal(signbit(got) != 0, bits >> 15);
        } else {
            assert_true((double)got == sign * ldexp(1024.0 + fraction, (int)exponent - 25));
        }
    }
}

static void narrowing_gives_back_what_was_widened(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        if (!isnan(float_of_f16((uint16_t)bits))) {
            assert_int_equal(f16_of_float(float_of_f16((uint16_t)bits)), bits);
        }
        if (!isnan(float_of_bf16((uint16_t)bits))) {
            assert_int_equal(bf16_of_float(float_of_bf16((uint16_t)bits)), bits);
        }
    }
}

static void ties_go_to_the_even_neighbour(void **state)
{
    (void)state;
    assert_int_equal(f16_of_float(1.0f + 0x1p-11f), 0x3c00);
    assert_int_equal(f16_of_float(1.0f + 0x1.8p-10f), 0x3c02);
    assert_int_equal(f16_of_float(1.0f + 0x1.002p-11f), 0x3c01);
    assert_int_equal(f16_of_float(0x1p-25f), 0x0000); /* half of the smallest denormal */
    assert_int_equal(f16_of_float(0x1.000002p-25f), 0x0001);
    assert_int_equal(f16_of_float(0x1.8p-24f), 0x0002);
    assert_int_equal(f16_of_float(0x1.ffcp-15f), 0x0400); /* denormals carry into normals: exact */
    assert_int_equal(f16_of_float(65519.0f), 0x7bff);
    assert_int_equal(f16_of_float(65520.0f), 0x7c00);
    assert_int_equal(f16_of_float(-1e9f), 0xfc00);
    assert_int_equal(bf16_of_float(1.0f + 0x1p-8f), 0x3f80);
    assert_int_equal(bf16_of_float(1.0f + 0x1.8p-7f), 0x3f82);
    assert_int_equal(bf16_of_float(0x1.fffffep127f), 0x7f80);
    assert_int_equal(bf16_of_float(NAN) & 0x7fc0, 0x7fc0);
}

/* Values around every rounding boundary: all exponents, fractions near multiples of 2^12. */
static size_t boundary_values(float *values, size_t capacity)
{
    struct numbers numbers = {.seed = 3};
    size_t count = 0;

    while (count < capacity) {
        uint64_t bits = numbers_bits(&numbers);
        uint32_t fraction = (uint32_t)(bits >> 41 << 12) + (uint32_t)(bits & 3) - 1;
        float value = float_of_bits((uint32_t)(bits >> 2 & 0x1ff) << 23 | (fraction & 0x7fffff));

        if (!isnan(value)) {
            values[count++] = value;
        }
    }
    return count;
}

static void same_cache_bytes(enum cpu_level level)
{
    static float values[20000 + 7];
    static uint16_t wanted[ARRAY_LENGTH(values)], got[ARRAY_LENGTH(values)];
    static float back_wanted[ARRAY_LENGTH(values)], back[ARRAY_LENGTH(values)];
    const struct kernels *kernels = kernels_for(level, NUMERICS_EXACT);
    size_t count = boundary_values(values, ARRAY_LENGTH(values));

    for (int type = KV_F16; type <= KV_BF16; type++) {
        for (size_t i = 0; i < count; i++) {
            wanted[i] = type == KV_F16 ? f16_of_float(values[i]) : bf16_of_float(values[i]);
            back_wanted[i] = type == KV_F16 ? float_of_f16(wanted[i]) : float_of_bf16(wanted[i]);
        }
        kernels->kv_store(got, (enum kv_type)type, values, count);
        assert_memory_equal(got, wanted, count * sizeof(uint16_t));
        kernels->kv_load(back, got, (enum kv_type)type, count);
        assert_same_bits(back, back_wanted, count, "cache value", level);
    }
    kernels->kv_store(back, KV_F32, values, count);
    assert_same_bits(back, values, count, "f32 cache value", level);
}

static void every_level_stores_the_same_cache_bytes(void **state)
{
    (void)state;
    on_every_level(same_cache_bytes);
}

/* Scale and codes of q8, straight from common/model/kv_type.h. */
static void same_codes(enum cpu_level level)
{
    static const size_t counts[] = {1, 7, 16, 31, 64, 512};
    const struct kernels *kernels = kernels_for(level, NUMERICS_EXACT);
    struct numbers numbers = {.seed = 12};

    for (size_t round = 0; round < 50 * ARRAY_LENGTH(counts); round++) {
        size_t count = counts[round % ARRAY_LENGTH(counts)];
        float values[512], most = 0.0f;
        int8_t codes[512 + 1];

        for (size_t i = 0; i < count; i++) {
            values[i] = numbers_odd(&numbers);
            most = fmaxf(most, fabsf(values[i]));
        }
        codes[count] = 77;
        if (most < 0x1p-100f) {
            assert_true(kernels->kv_store_q8(values, count, codes) == 0.0f);
            most = INFINITY; /* all codes 0 */
        } else {
            assert_true(kernels->kv_store_q8(values, count, codes) == most / 127.0f);
        }
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(codes[i], (int)rintf(values[i] * (127.0f / most)));
        }
        assert_int_equal(codes[count], 77);
    }
}

static void every_level_stores_the_same_codes(void **state)
{
    (void)state;
    on_every_level(same_codes);
}

static void broken_scales(enum cpu_level level)
{
    const struct kernels *kernels = kernels_for(level, NUMERICS_EXACT);
    const float odd[] = {NAN, INFINITY, -INFINITY};
    float values[20] = {1.0f, -2.0f};
    int8_t codes[20];

    for (size_t i = 0; i < ARRAY_LENGTH(odd); i++) {
        values[17] = odd[i];
        assert_true(isnan(kernels->kv_store_q8(values, 20, codes)));
        assert_int_equal(codes[0], 0);
    }
}

static void what_is_no_number_makes_the_scale_nan(void **state)
{
    (void)state;
    on_every_level(broken_scales);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(widening_f16_is_exact),
        cmocka_unit_test(narrowing_gives_back_what_was_widened),
        cmocka_unit_test(ties_go_to_the_even_neighbour),
        cmocka_unit_test(every_level_stores_the_same_cache_bytes),
        cmocka_unit_test(every_level_stores_the_same_codes),
        cmocka_unit_test(what_is_no_number_makes_the_scale_nan),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
