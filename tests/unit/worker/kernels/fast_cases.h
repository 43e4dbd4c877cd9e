#ifndef SHOAL_TESTS_FAST_CASES_H
#define SHOAL_TESTS_FAST_CASES_H

/* Problems for the products of --numerics fast, and how near to the product in double they must be.
 */
#include "tests/unit/worker/kernels/kernel_cases.h"

#include "common/base/mem.h"
#include "common/model/quant.h"
#include "worker/kernels/kernels.h"

#include <math.h>

/* On AMX an activation is off by 2^-8 of itself at most and a weight not at all, so a sum is off by
 * 2^-8 of the sum of absolute products, and by what f32 additions lose. */
#define TOLERANCE_AMX  (0x1p-8 + 1e-5) /* of the sum of absolute products */
#define TOLERANCE_BLAS 1e-5
#define TINY           1e-30 /* where bf16 flushes denormals */
#define SENTINEL       12345.0f

struct problem {
    enum weight_type type;
    uint32_t outputs, columns, row_count;
    size_t x_stride, out_stride;
    struct packed_matrix w;
    float *wide; /* [outputs][columns]: the weights' exact values */
    float *x, *out;
};

static inline void weights_init(struct problem *p, struct numbers *numbers)
{
    const size_t count = (size_t)p->outputs * p->columns;
    const uint32_t bytes = weight_type_bytes(p->type);
    const size_t blocks = scale_block_count(p->columns);
    float *scales = mem_new_array(float, scale_block_count(p->outputs) * blocks);
    char *raw = mem_alloc_zeroed(count, bytes);
    void *packed = mem_alloc_zeroed(packed_bytes(p->type, p->outputs, p->columns), 1);
    struct pack_source source = {p->type, raw, p->columns};

    for (size_t i = 0; i < count; i++) {
        float value = numbers_normal(numbers);
        uint16_t half = p->type == WEIGHT_F16 ? f16_of_float(value) : bf16_of_float(value);
        uint8_t code = (uint8_t)numbers_bits(numbers);

        code &= (code & 0x7f) == 0x7f ? 0xfe : 0xff;
        memcpy(raw + i * bytes,
               p->type == WEIGHT_F8_E4M3 ? (void *)&code
               : p->type == WEIGHT_F32   ? (void *)&value
                                         : (void *)&half,
               bytes);
    }
    pack_rows(packed, p->columns, 0, p->outputs, &source);
    if (p->type == WEIGHT_F8_E4M3) {
        for (size_t i = 0; i < scale_block_count(p->outputs) * blocks; i++) {
            scales[i] = numbers_normal(numbers) * 0x1p-7f;
        }
        pack_scales(packed, p->columns, 0, p->outputs, scales);
        for (size_t i = 0; i < count; i++) {
            size_t block = i / p->columns / 128 * blocks + i % p->columns / 128;

            widen_f8(&p->wide[i], (const uint8_t *)raw + i, 1, scales[block]);
        }
    } else {
        weight_values_widen(p->wide, p->type, raw, count);
    }
    p->w = (struct packed_matrix){p->type, p->outputs, p->columns, packed};
    mem_free(scales);
    mem_free(raw);
}

static inline void problem_init(struct problem *p, struct numbers *numbers)
{
    p->x_stride = p->columns + 3;
    p->out_stride = p->outputs + 5;
    p->wide = mem_new_array(float, (size_t)p->outputs * p->columns);
    p->x = mem_new_array(float, p->row_count * p->x_stride);
    p->out = mem_new_array(float, p->row_count * p->out_stride);
    weights_init(p, numbers);
    for (size_t i = 0; i < p->row_count * p->x_stride; i++) {
        p->x[i] = numbers_odd(numbers);
    }
    for (size_t i = 0; i < p->row_count * p->out_stride; i++) {
        p->out[i] = SENTINEL;
    }
}

static inline void problem_deinit(struct problem *p)
{
    mem_free((void *)p->w.data);
    mem_free(p->wide);
    mem_free(p->x);
    mem_free(p->out);
}

static inline void product(struct problem *p, const struct kernels *kernels)
{
    kernels->matmul(&p->w, 0, packed_panel_count(p->outputs), (struct rows_view){p->x, p->x_stride},
                    p->row_count, (struct rows_out){p->out, p->out_stride});
}

/* Some outputs of each row; those behind the last are untouched. */
static inline void assert_near(const struct problem *p, double tolerance, const char *what)
{
    const uint32_t step = p->outputs / 7 + 1;

    for (uint32_t row = 0; row < p->row_count; row++) {
        const float *got = p->out + row * p->out_stride;

        for (uint32_t output = row % step; output < p->outputs; output += step) {
            const float *x = p->x + row * p->x_stride;
            const float *w = p->wide + (size_t)output * p->columns;
            double sum = 0, size = 0;

            for (uint32_t k = 0; k < p->columns; k++) {
                sum += (double)x[k] * w[k];
                size += fabs((double)x[k] * w[k]);
            }
            if (!(fabs(got[output] - sum) <= tolerance * size + TINY)) {
                fail_msg("%s, %s %u x %u, row %u of %u, output %u: %g instead of %g (size %g)",
                         what, weight_type_name(p->type), p->outputs, p->columns, row, p->row_count,
                         output, (double)got[output], sum, size);
            }
        }
        for (size_t i = p->outputs; i < p->out_stride; i++) {
            assert_true(got[i] == SENTINEL);
        }
    }
}

static const uint32_t shapes[][3] = {
    /* outputs, columns, rows */
    {1, 1, 1},     {16, 32, 1},    {65, 300, 1},  {130, 17, 2},   {48, 64, 16},
    {80, 65, 17},  {96, 255, 31},  {64, 256, 33}, {300, 129, 48}, {33, 1100, 49},
    {70, 131, 64}, {100, 300, 65}, {40, 70, 512}, {270, 2052, 5}};

static inline void near_on_level(enum cpu_level level, enum numerics numerics, double tolerance)
{
    struct numbers numbers = {.seed = 31};

    for (size_t i = 0; i < ARRAY_LENGTH(shapes); i++) {
        for (int type = 0; type < WEIGHT_Q4_0; type++) {
            struct problem p = {.type = (enum weight_type)type,
                                .outputs = shapes[i][0],
                                .columns = shapes[i][1],
                                .row_count = shapes[i][2]};

            problem_init(&p, &numbers);
            product(&p, kernels_for(level, numerics));
            assert_near(&p, tolerance, numerics_name(numerics));
            problem_deinit(&p);
        }
    }
}

/* A row alone, and as the last of many. */
static inline void neighbours_change_no_bit_of(enum weight_type type, enum cpu_level level)
{
    struct numbers numbers = {.seed = 37};
    struct problem p = {.type = type, .outputs = 90, .columns = 1300, .row_count = 71};
    float alone[90];

    problem_init(&p, &numbers);
    product(&p, kernels_for(level, NUMERICS_FAST_AMX));
    for (uint32_t row = 0; row < p.row_count; row += 14) {
        kernels_for(level, NUMERICS_FAST_AMX)
            ->matmul(&p.w, 0, packed_panel_count(p.outputs),
                     (struct rows_view){p.x + row * p.x_stride, p.x_stride}, 1,
                     (struct rows_out){alone, p.outputs});
        assert_same_bits(alone, p.out + row * p.out_stride, p.outputs, "a row alone", level);
    }
    problem_deinit(&p);
}

/* Gate and up at once: the bits of two products and SiLU. */
static inline void joined_on_level(enum cpu_level level, enum numerics numerics)
{
    static const enum weight_type types[][2] = {{WEIGHT_BF16, WEIGHT_BF16},
                                                {WEIGHT_F8_E4M3, WEIGHT_F8_E4M3},
                                                {WEIGHT_F8_E4M3, WEIGHT_BF16},
                                                {WEIGHT_F16, WEIGHT_F32}};
    struct numbers numbers = {.seed = 41};

    for (size_t i = 0; i < ARRAY_LENGTH(types); i++) {
        struct problem gate = {.type = types[i][0], .outputs = 90, .columns = 140, .row_count = 20};
        struct problem up = gate;
        const struct kernels *kernels = kernels_for(level, numerics);

        up.type = types[i][1];
        problem_init(&gate, &numbers);
        problem_init(&up, &numbers);
        memcpy(up.x, gate.x, gate.row_count * gate.x_stride * sizeof(float));
        product(&gate, kernels);
        product(&up, kernels);
        for (size_t v = 0; v < gate.row_count * gate.out_stride; v++) {
            float *g = &gate.out[v], sigmoid = *g;

            kernels->sigmoid(&sigmoid, 1);
            *g = v % gate.out_stride < gate.outputs ? *g * sigmoid * up.out[v] : SENTINEL;
            up.out[v] = SENTINEL;
        }
        kernels->matmul_gate_up(&gate.w, &up.w, 0, packed_panel_count(gate.outputs),
                                (struct rows_view){gate.x, gate.x_stride}, gate.row_count,
                                (struct rows_out){up.out, up.out_stride});
        assert_same_bits(up.out, gate.out, gate.row_count * gate.out_stride,
                         numerics_name(numerics), level);
        problem_deinit(&gate);
        problem_deinit(&up);
    }
}

#endif
