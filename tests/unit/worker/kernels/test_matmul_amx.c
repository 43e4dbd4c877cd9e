/* The products of --numerics fast-amx on emulated tiles: the same source, on any machine with
 * AVX-512 BF16. */
#include "tests/unit/worker/kernels/fast_cases.h"
#include "tests/unit/worker/kernels/tiles_emulated.h"

#include "worker/kernels/matmul_amx.c" /* instead of the library's */

static void sums_are_near_the_product_in_double(void **state)
{
    (void)state;
    near_on_level(CPU_AVX512, NUMERICS_FAST_AMX, TOLERANCE_AMX);
}

static void neighbours_never_show(void **state)
{
    (void)state;
    neighbours_change_no_bit_of(WEIGHT_BF16, CPU_AVX512);
    neighbours_change_no_bit_of(WEIGHT_F8_E4M3, CPU_AVX512);
}

static void gate_and_up_are_joined_by_silu(void **state)
{
    (void)state;
    joined_on_level(CPU_AVX512, NUMERICS_FAST_AMX);
}

/* Every code of e4m3 reaches the tiles as its exact value. */
static void codes_are_exact_on_amx(void **state)
{
    enum { CODES = 256 };
    uint8_t raw[CODES];
    float x[CODES] = {0}, out, wanted;
    const float scale = 1;
    struct packed_matrix w = {WEIGHT_F8_E4M3, 1, CODES, NULL};
    void *packed = mem_alloc_zeroed(packed_bytes(w.type, 1, CODES), 1);
    const float scales[2] = {scale, scale};

    (void)state;
    for (size_t i = 0; i < CODES; i++) {
        raw[i] = (uint8_t)((i & 0x7f) == 0x7f ? 0 : i);
    }
    pack_rows(packed, CODES, 0, 1, &(struct pack_source){w.type, raw, CODES});
    pack_scales(packed, CODES, 0, 1, scales);
    w.data = packed;
    for (size_t i = 0; i < CODES; i++) {
        x[i] = 1;
        kernels_for(CPU_AVX512, NUMERICS_FAST_AMX)
            ->matmul(&w, 0, 1, (struct rows_view){x, CODES}, 1, (struct rows_out){&out, 1});
        x[i] = 0;
        widen_f8(&wanted, raw + i, 1, scale);
        assert_true(out == wanted);
    }
    mem_free(packed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_near_the_product_in_double),
        cmocka_unit_test(neighbours_never_show),
        cmocka_unit_test(gate_and_up_are_joined_by_silu),
        cmocka_unit_test(codes_are_exact_on_amx),
    };

    if (!cpu_level_available(CPU_AVX512) || !__builtin_cpu_supports("avx512bf16")) {
        print_message("skipped: this machine lacks AVX-512 BF16\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
