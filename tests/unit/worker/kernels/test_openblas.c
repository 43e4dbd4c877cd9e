/* A second opinion on the products: OpenBLAS computes the same sums in another order, so the
 * results agree to rounding and never need to be equal. */
#include "tests/unit/worker/kernels/kernel_cases.h"

#include "common/base/mem.h"
#include "worker/kernels/kernels.h"

#include <cblas.h>
#include <math.h>

#define ROWS      7
#define OUTPUTS   77
#define COLUMNS   300
#define TOLERANCE 1e-5 /* of the sum of absolute products, at 300 terms */

static float matrix_x[ROWS * COLUMNS];
static float matrix_w[OUTPUTS * COLUMNS];
static float ours[ROWS * OUTPUTS];
static float theirs[ROWS * OUTPUTS];

static void compare(void)
{
    for (size_t r = 0; r < ROWS; r++) {
        for (size_t o = 0; o < OUTPUTS; o++) {
            double scale = 0;

            for (size_t k = 0; k < COLUMNS; k++) {
                scale += fabs((double)matrix_x[r * COLUMNS + k] * matrix_w[o * COLUMNS + k]);
            }
            assert_true(fabs((double)ours[r * OUTPUTS + o] - theirs[r * OUTPUTS + o]) <=
                        TOLERANCE * scale);
        }
    }
}

static void products_agree_with_openblas(void **state)
{
    struct numbers numbers = {.seed = 1};
    struct pack_source source = {WEIGHT_F32, matrix_w, COLUMNS};
    struct packed_matrix packed = {WEIGHT_F32, OUTPUTS, COLUMNS, NULL};
    void *memory = mem_alloc_zeroed(packed_bytes(WEIGHT_F32, OUTPUTS, COLUMNS), 1);

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(matrix_x); i++) {
        matrix_x[i] = numbers_normal(&numbers);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(matrix_w); i++) {
        matrix_w[i] = numbers_normal(&numbers);
    }
    pack_rows(memory, COLUMNS, 0, OUTPUTS, &source);
    packed.data = memory;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, ROWS, OUTPUTS, COLUMNS, 1, matrix_x,
                COLUMNS, matrix_w, COLUMNS, 0, theirs, OUTPUTS);
    for (enum cpu_level level = 0; level < CPU_LEVEL_COUNT; level++) {
        if (!cpu_level_available(level)) {
            print_message("skipped: this machine has no %s\n", cpu_level_name(level));
            continue;
        }
        kernels_for(level, NUMERICS_EXACT)
            ->matmul(&packed, 0, packed_panel_count(OUTPUTS), (struct rows_view){matrix_x, COLUMNS},
                     ROWS, (struct rows_out){ours, OUTPUTS});
        compare();
    }
    mem_free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(products_agree_with_openblas)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
