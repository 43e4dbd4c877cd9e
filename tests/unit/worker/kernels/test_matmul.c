/* Products: every level against an independent chain of fmaf, and against double. */
#include "tests/unit/worker/kernels/kernel_cases.h"

#include "common/base/mem.h"
#include "common/model/quant.h"
#include "worker/kernels/kernels.h"

#include <math.h>

#define SENTINEL 12345.0f

struct problem {
    uint32_t rows, columns, row_count;
    enum weight_type type;
    struct packed_matrix w, w2;
    float *wide, *wide2; /* [rows][columns]: the weights as f32; of F8_E4M3: the codes' values */
    float *scales, *scales2; /* of F8_E4M3, for each block of 128 × 128 */
    float *x;                /* [row_count][columns + 3] */
    size_t x_stride, out_stride;
    float *out, *wanted; /* [row_count][out_stride] */
};

static size_t scale_count(const struct problem *p)
{
    return (size_t)scale_block_count(p->rows) * scale_block_count(p->columns);
}

/* All codes but NaN, under scales of both signs and many magnitudes. */
static void *packed_random_f8(struct problem *p, struct numbers *numbers, float *wide,
                              float *scales)
{
    const size_t count = (size_t)p->rows * p->columns;
    uint8_t *raw = mem_alloc_zeroed(count, 1);
    void *packed = mem_alloc_zeroed(packed_bytes(p->type, p->rows, p->columns), 1);
    struct pack_source source = {p->type, raw, p->columns};

    for (size_t i = 0; i < count; i++) {
        raw[i] = (uint8_t)numbers_bits(numbers);
        raw[i] &= (raw[i] & 0x7f) == 0x7f ? 0xfe : 0xff;
    }
    for (size_t i = 0; i < scale_count(p); i++) {
        scales[i] = numbers_odd(numbers);
    }
    quant_decode_f8_run(wide, raw, count);
    pack_rows(packed, p->columns, 0, p->rows, &source);
    pack_scales(packed, p->columns, 0, p->rows, scales);
    mem_free(raw);
    return packed;
}

static void *packed_random(struct problem *p, struct numbers *numbers, float *wide)
{
    const size_t count = (size_t)p->rows * p->columns;
    const uint32_t bytes = weight_type_bytes(p->type);
    char *raw = mem_alloc_zeroed(count, bytes);
    void *packed = mem_alloc_zeroed(packed_bytes(p->type, p->rows, p->columns), 1);
    struct pack_source source = {p->type, raw, p->columns};

    for (size_t i = 0; i < count; i++) {
        float value = numbers_odd(numbers);
        uint16_t half = p->type == WEIGHT_F16 ? f16_of_float(value) : bf16_of_float(value);

        if (p->type == WEIGHT_F16 && (half & 0x7c00) == 0x7c00) {
            half = 0x3c00; /* no infinities in weights */
        }
        memcpy(raw + i * bytes, p->type == WEIGHT_F32 ? (void *)&value : (void *)&half, bytes);
    }
    weight_values_widen(wide, p->type, raw, count);
    pack_rows(packed, p->columns, 0, p->rows, &source);
    mem_free(raw);
    return packed;
}

static void problem_init(struct problem *p, struct numbers *numbers)
{
    const size_t count = (size_t)p->rows * p->columns;

    p->wide = mem_new_array(float, count);
    p->wide2 = mem_new_array(float, count);
    p->scales = mem_new_array(float, scale_count(p));
    p->scales2 = mem_new_array(float, scale_count(p));
    p->w = (struct packed_matrix){p->type, p->rows, p->columns, NULL};
    p->w2 = p->w;
    if (p->type == WEIGHT_F8_E4M3) {
        p->w.data = packed_random_f8(p, numbers, p->wide, p->scales);
        p->w2.data = packed_random_f8(p, numbers, p->wide2, p->scales2);
    } else {
        p->w.data = packed_random(p, numbers, p->wide);
        p->w2.data = packed_random(p, numbers, p->wide2);
    }
    p->x_stride = p->columns + 3;
    p->out_stride = p->rows + 5;
    p->x = mem_new_array(float, p->row_count * p->x_stride);
    for (size_t i = 0; i < p->row_count * p->x_stride; i++) {
        p->x[i] = numbers_odd(numbers);
    }
    p->out = mem_new_array(float, p->row_count * p->out_stride);
    p->wanted = mem_new_array(float, p->row_count * p->out_stride);
}

static void problem_deinit(struct problem *p)
{
    mem_free((void *)p->w.data);
    mem_free((void *)p->w2.data);
    mem_free(p->wide);
    mem_free(p->wide2);
    mem_free(p->scales);
    mem_free(p->scales2);
    mem_free(p->x);
    mem_free(p->out);
    mem_free(p->wanted);
}

static void fill_sentinel(struct problem *p, float *values)
{
    for (size_t i = 0; i < p->row_count * p->out_stride; i++) {
        values[i] = SENTINEL;
    }
}

static float chain(const float *x, const float *w, uint32_t columns)
{
    float sum = 0;

    for (uint32_t k = 0; k < columns; k++) {
        sum = fmaf(x[k], w[k], sum);
    }
    return sum;
}

/* One chain for each block of 128 columns, over value / 256, closed by an fma with 256 × scale. */
static float chain_f8(const struct problem *p, const float *x, uint32_t output)
{
    const float *w = p->wide + (size_t)output * p->columns;
    const float *scales = p->scales + output / 128 * scale_block_count(p->columns);
    float sum = 0, block = 0;

    for (uint32_t k = 0; k < p->columns; k++) {
        block = fmaf(x[k], w[k] / 256, block);
        if (k % 128 == 127 || k + 1 == p->columns) {
            sum = fmaf(block, scales[k / 128] * 256, sum);
            block = 0;
        }
    }
    return sum;
}

static float output_of(const struct problem *p, uint32_t row, uint32_t output)
{
    const float *x = p->x + row * p->x_stride;

    return p->type == WEIGHT_F8_E4M3 ? chain_f8(p, x, output)
                                     : chain(x, p->wide + (size_t)output * p->columns, p->columns);
}

static void naive_product(struct problem *p, uint32_t row_begin, uint32_t row_end)
{
    fill_sentinel(p, p->wanted);
    for (uint32_t row = 0; row < p->row_count; row++) {
        for (uint32_t output = row_begin; output < row_end && output < p->rows; output++) {
            p->wanted[row * p->out_stride + output] = output_of(p, row, output);
        }
    }
}

static void check_problem(struct problem *p, enum cpu_level level, struct numbers *numbers)
{
    const struct kernels *kernels = kernels_for(level, NUMERICS_EXACT);
    const struct rows_view x = {p->x, p->x_stride};
    const struct rows_out out = {p->out, p->out_stride};
    const size_t count = p->row_count * p->out_stride;
    const uint32_t panels = packed_panel_count(p->rows);
    const uint32_t begin = numbers_below(numbers, panels);
    const uint32_t end = begin + 1 + numbers_below(numbers, panels - begin);

    fill_sentinel(p, p->out);
    naive_product(p, begin * PANEL_ROWS, end * PANEL_ROWS);
    kernels->matmul(&p->w, begin, end, x, p->row_count, out);
    assert_same_bits(p->out, p->wanted, count, "product", level);

    /* gate and up together: the same as two products and the reference's SiLU */
    fill_sentinel(p, p->wanted);
    kernels_for(CPU_REF, NUMERICS_EXACT)
        ->matmul_gate_up(&p->w, &p->w2, 0, panels, x, p->row_count,
                         (struct rows_out){p->wanted, p->out_stride});
    fill_sentinel(p, p->out);
    kernels->matmul_gate_up(&p->w, &p->w2, 0, panels, x, p->row_count, out);
    assert_same_bits(p->out, p->wanted, count, "gate and up", level);
}

static void ragged_shapes_give_the_chain(enum cpu_level level)
{
    static const uint32_t shapes[][3] = {
        /* outputs, columns, rows */
        {1, 1, 1},    {16, 8, 1},   {64, 33, 1},    {65, 300, 1},   {130, 17, 2},  {48, 64, 3},
        {80, 65, 4},  {96, 255, 5}, {64, 256, 6},   {64, 257, 7},   {200, 31, 12}, {33, 600, 13},
        {70, 19, 48}, {16, 40, 49}, {100, 300, 50}, {79, 513, 101}, {270, 128, 2},
    };
    struct numbers numbers = {.seed = 17};

    for (size_t i = 0; i < ARRAY_LENGTH(shapes); i++) {
        for (int type = 0; type < WEIGHT_Q4_0; type++) {
            struct problem p = {.rows = shapes[i][0],
                                .columns = shapes[i][1],
                                .row_count = shapes[i][2],
                                .type = (enum weight_type)type};

            problem_init(&p, &numbers);
            check_problem(&p, level, &numbers);
            problem_deinit(&p);
        }
    }
}

static void every_level_gives_the_chain_at_ragged_shapes(void **state)
{
    (void)state;
    on_every_level(ragged_shapes_give_the_chain);
}

static void silu_of_the_gate_times_up(enum cpu_level level)
{
    struct numbers numbers = {.seed = 5};
    struct problem p = {.rows = 40, .columns = 24, .row_count = 3, .type = WEIGHT_F32};

    problem_init(&p, &numbers);
    kernels_for(level, NUMERICS_EXACT)
        ->matmul_gate_up(&p.w, &p.w2, 0, packed_panel_count(p.rows),
                         (struct rows_view){p.x, p.x_stride}, p.row_count,
                         (struct rows_out){p.out, p.out_stride});
    for (uint32_t row = 0; row < p.row_count; row++) {
        for (uint32_t output = 0; output < p.rows; output++) {
            const float *x = p.x + row * p.x_stride;
            double gate = chain(x, p.wide + (size_t)output * p.columns, p.columns);
            double up = chain(x, p.wide2 + (size_t)output * p.columns, p.columns);
            double wanted = gate < -87 ? 0 : gate / (1 + exp(-gate)) * up;
            double got = p.out[row * p.out_stride + output];

            assert_true(fabs(got - wanted) <= 1e-6 * fabs(wanted) + 1e-30);
        }
    }
    problem_deinit(&p);
}

static void gate_and_up_are_joined_by_silu(void **state)
{
    (void)state;
    on_every_level(silu_of_the_gate_times_up);
}

static void near_double(enum cpu_level level)
{
    struct numbers numbers = {.seed = 23};
    struct problem p = {.rows = 64, .columns = 1536, .row_count = 7, .type = WEIGHT_BF16};

    problem_init(&p, &numbers);
    kernels_for(level, NUMERICS_EXACT)
        ->matmul(&p.w, 0, packed_panel_count(p.rows), (struct rows_view){p.x, p.x_stride},
                 p.row_count, (struct rows_out){p.out, p.out_stride});
    for (uint32_t row = 0; row < p.row_count; row++) {
        for (uint32_t output = 0; output < p.rows; output++) {
            double sum = 0, size = 0;

            for (uint32_t k = 0; k < p.columns; k++) {
                double product = (double)p.x[row * p.x_stride + k] *
                                 (double)p.wide[(size_t)output * p.columns + k];
                sum += product;
                size += fabs(product);
            }
            assert_true(fabs(p.out[row * p.out_stride + output] - sum) <= 1e-5 * size);
        }
    }
    problem_deinit(&p);
}

/* Scaled weights, as the definition of the format has them. */
static void near_double_f8(enum cpu_level level)
{
    struct numbers numbers = {.seed = 29};
    struct problem p = {.rows = 200, .columns = 700, .row_count = 8, .type = WEIGHT_F8_E4M3};

    problem_init(&p, &numbers);
    kernels_for(level, NUMERICS_EXACT)
        ->matmul(&p.w, 0, packed_panel_count(p.rows), (struct rows_view){p.x, p.x_stride},
                 p.row_count, (struct rows_out){p.out, p.out_stride});
    for (uint32_t row = 0; row < p.row_count; row++) {
        for (uint32_t output = 0; output < p.rows; output++) {
            double sum = 0, size = 0;

            for (uint32_t k = 0; k < p.columns; k++) {
                double scale = p.scales[output / 128 * 6 + k / 128];
                double product = (double)p.x[row * p.x_stride + k] * scale *
                                 (double)p.wide[(size_t)output * p.columns + k];
                sum += product;
                size += fabs(product);
            }
            assert_true(fabs(p.out[row * p.out_stride + output] - sum) <= 1e-5 * size);
        }
    }
    problem_deinit(&p);
}

static void every_level_is_near_the_product_in_double(void **state)
{
    (void)state;
    on_every_level(near_double);
    on_every_level(near_double_f8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_level_gives_the_chain_at_ragged_shapes),
        cmocka_unit_test(gate_and_up_are_joined_by_silu),
        cmocka_unit_test(every_level_is_near_the_product_in_double),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
