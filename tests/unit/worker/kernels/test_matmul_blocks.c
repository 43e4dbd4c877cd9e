/* Products of every block type: every level against the definition, written down independently from
 * the kernels over the decoders that the golden blocks check.
 *
 * A block's integers are what its decoder gives for d = 1 and dmin = 0, or d = 0 and dmin = 1. */
#include "tests/unit/worker/kernels/kernel_cases.h"

#include "common/base/mem.h"
#include "common/model/quant.h"
#include "worker/kernels/kernels.h"

#include <math.h>

#define HALF_ONE  0x3c00
#define BLOCK_MAX 256

/* Where a block has its f16 fields, what its integers are multiplied with, and its mins' sign. */
static const struct fields {
    int d, min; /* byte offsets; -1: none; -2: IQ1_M's four quarters */
    float factor, min_sign;
} fields[WEIGHT_TYPE_COUNT] = {
    [WEIGHT_Q4_0] = {0, -1, 1, 0},        [WEIGHT_Q4_1] = {0, 2, 1, 1},
    [WEIGHT_Q5_0] = {0, -1, 1, 0},        [WEIGHT_Q5_1] = {0, 2, 1, 1},
    [WEIGHT_Q8_0] = {0, -1, 1, 0},        [WEIGHT_IQ4_NL] = {0, -1, 1, 0},
    [WEIGHT_Q2_K] = {80, 82, 1, -1},      [WEIGHT_Q3_K] = {108, -1, 1, 0},
    [WEIGHT_Q4_K] = {0, 2, 1, -1},        [WEIGHT_Q5_K] = {0, 2, 1, -1},
    [WEIGHT_Q6_K] = {208, -1, 1, 0},      [WEIGHT_IQ1_S] = {0, -1, 0.125f, 0},
    [WEIGHT_IQ1_M] = {-2, -1, 0.125f, 0}, [WEIGHT_IQ2_XXS] = {0, -1, 0.125f, 0},
    [WEIGHT_IQ2_XS] = {0, -1, 0.125f, 0}, [WEIGHT_IQ2_S] = {0, -1, 0.125f, 0},
    [WEIGHT_IQ3_XXS] = {0, -1, 0.25f, 0}, [WEIGHT_IQ3_S] = {0, -1, 1, 0},
    [WEIGHT_IQ4_XS] = {0, -1, 1, 0},
};

static void set_half(uint8_t *block, int offset, uint16_t half)
{
    if (offset == -2) {
        for (int i = 0; i < 4; i++) {
            uint8_t *upper = block + 48 + 2 * i + 1;

            *upper = (uint8_t)((*upper & 0x0f) | (half >> 4 * i & 15) << 4);
        }
    } else if (offset >= 0) {
        memcpy(block + offset, &half, sizeof(half));
    }
}

static uint16_t get_half(const uint8_t *block, int offset)
{
    uint16_t half = 0;

    if (offset == -2) {
        for (int i = 0; i < 4; i++) {
            half = (uint16_t)(half | (block[48 + 2 * i + 1] >> 4) << 4 * i);
        }
    } else if (offset >= 0) {
        memcpy(&half, block + offset, sizeof(half));
    }
    return half;
}

struct problem {
    enum weight_type type;
    uint32_t rows, columns, row_count;
    uint32_t block_values, block_count;
    size_t block_bytes, row_bytes;
    uint8_t *raw; /* [rows][row_bytes] */
    struct packed_matrix w;
    float *x; /* [row_count][columns + 3] */
    size_t x_stride, out_stride;
    float *out, *wanted;
};

static void problem_init(struct problem *p, struct numbers *numbers)
{
    void *packed = mem_alloc_zeroed(packed_bytes(p->type, p->rows, p->columns), 1);
    struct pack_source source = {p->type, NULL, p->columns};

    p->block_values = weight_type_block_values(p->type);
    p->block_count = p->columns / p->block_values;
    p->block_bytes = weight_row_bytes(p->type, p->block_values);
    p->row_bytes = weight_row_bytes(p->type, p->columns);
    p->raw = mem_new_array(uint8_t, p->rows * p->row_bytes);
    for (size_t i = 0; i < p->rows * p->row_bytes; i++) {
        p->raw[i] = (uint8_t)numbers_bits(numbers);
    }
    for (uint8_t *block = p->raw; block < p->raw + p->rows * p->row_bytes;
         block += p->block_bytes) {
        set_half(block, fields[p->type].d, f16_of_float(numbers_normal(numbers)));
        set_half(block, fields[p->type].min, f16_of_float(numbers_normal(numbers)));
    }
    source.values = p->raw;
    pack_rows(packed, p->columns, 0, p->rows, &source);
    p->w = (struct packed_matrix){p->type, p->rows, p->columns, packed};
    p->x_stride = p->columns + 3;
    p->out_stride = p->rows + 5;
    p->x = mem_new_array(float, p->row_count * p->x_stride);
    for (size_t i = 0; i < p->row_count * p->x_stride; i++) {
        p->x[i] = numbers_odd(numbers);
    }
    if (p->row_count > 1) {
        memset(p->x + p->x_stride, 0, p->columns * sizeof(float)); /* blocks of zeros */
    }
    p->out = mem_new_array(float, p->row_count * p->out_stride);
    p->wanted = mem_new_array(float, p->row_count * p->out_stride);
}

static void problem_deinit(struct problem *p)
{
    mem_free((void *)p->w.data);
    mem_free(p->raw);
    mem_free(p->x);
    mem_free(p->out);
    mem_free(p->wanted);
}

static const uint8_t *block_at(const struct problem *p, uint32_t output, uint32_t block)
{
    return p->raw + output * p->row_bytes + block * p->block_bytes;
}

/* The integers of a block, with and without mins. */
static void integers_of(const struct problem *p, const uint8_t *block, float *codes, float *mins)
{
    const struct fields *at = &fields[p->type];
    uint8_t copy[BLOCK_MAX];

    memcpy(copy, block, p->block_bytes);
    set_half(copy, at->d, HALF_ONE);
    set_half(copy, at->min, 0);
    weight_values_widen(codes, p->type, copy, p->block_values);
    set_half(copy, at->d, 0);
    set_half(copy, at->min, HALF_ONE);
    weight_values_widen(mins, p->type, copy, p->block_values);
}

/* Codes of one block of activations; returns da. */
static float codes_of(const float *x, uint32_t count, int32_t *codes)
{
    float most = 0;

    for (uint32_t i = 0; i < count; i++) {
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    }
    for (uint32_t i = 0; i < count; i++) {
        codes[i] = most < 0x1p-100f ? 0 : (int32_t)rintf(x[i] * (127.0f / most));
        assert_in_range(codes[i] + 127, 0, 254);
    }
    return most < 0x1p-100f ? 0 : most / 127.0f;
}

static float add_block(const struct problem *p, const float *x, const uint8_t *block, float acc)
{
    const struct fields *at = &fields[p->type];
    float codes[BLOCK_MAX], mins[BLOCK_MAX];
    int32_t activations[BLOCK_MAX];
    float da = codes_of(x, p->block_values, activations);
    float d = float_of_f16(get_half(block, at->d));
    int64_t s = 0, m = 0;

    integers_of(p, block, codes, mins);
    for (uint32_t i = 0; i < p->block_values; i++) {
        s += (int64_t)(codes[i] / at->factor) * activations[i];
        m += (int64_t)fabsf(mins[i]) * activations[i];
    }
    assert_true(llabs(s) < INT32_MAX && llabs(m) < INT32_MAX);
    acc = fmaf(d * at->factor * da, (float)(int32_t)s, acc);
    if (at->min >= 0) {
        float scale = float_of_f16(get_half(block, at->min)) * da;

        acc = fmaf(at->min_sign * scale, (float)(int32_t)m, acc);
    }
    return acc;
}

static float output_int8(const struct problem *p, const float *x, uint32_t output)
{
    float acc = 0;

    for (uint32_t b = 0; b < p->block_count; b++) {
        acc = add_block(p, x + (size_t)b * p->block_values, block_at(p, output, b), acc);
    }
    return acc;
}

static float output_exact(const struct problem *p, const float *x, uint32_t output)
{
    float wide[BLOCK_MAX];
    float acc = 0;

    for (uint32_t b = 0; b < p->block_count; b++) {
        weight_values_widen(wide, p->type, block_at(p, output, b), p->block_values);
        for (uint32_t i = 0; i < p->block_values; i++) {
            acc = fmaf(x[(size_t)b * p->block_values + i], wide[i], acc);
        }
    }
    return acc;
}

static void naive_product(struct problem *p, enum numerics numerics, uint32_t begin, uint32_t end)
{
    for (uint32_t row = 0; row < p->row_count; row++) {
        const float *x = p->x + row * p->x_stride;
        float *wanted = p->wanted + row * p->out_stride;

        memset(wanted, 0, p->out_stride * sizeof(float));
        for (uint32_t output = begin; output < end && output < p->rows; output++) {
            wanted[output] =
                numerics == NUMERICS_EXACT ? output_exact(p, x, output) : output_int8(p, x, output);
        }
    }
}

/* The same outputs from rows that became codes before, in two parts. */
static void codes_product(struct problem *p, const struct kernels *kernels, uint32_t begin,
                          uint32_t end)
{
    const uint64_t bytes = int8_rows_bytes(p->columns, p->row_count);
    const uint32_t half = p->row_count / 2;
    struct error err;
    struct int8_rows codes = {mem_map_pages(bytes, &err), p->row_count, 0};
    struct rows_view x = {p->x, p->x_stride};

    assert_non_null(codes.chunks);
    kernels->code_rows(p->type, p->columns, x, half, codes);
    codes.row = half;
    x.values += half * p->x_stride;
    kernels->code_rows(p->type, p->columns, x, p->row_count - half, codes);
    codes.row = 0;
    kernels->matmul_codes(&p->w, NULL, begin, end, codes, p->row_count,
                          (struct rows_out){p->out, p->out_stride});
    mem_unmap_pages(codes.chunks, bytes);
}

static void check_problem(struct problem *p, struct numbers *numbers)
{
    const uint32_t panels = packed_panel_count(p->rows);
    const uint32_t begin = numbers_below(numbers, panels);
    const uint32_t end = begin + 1 + numbers_below(numbers, panels - begin);
    const size_t count = p->row_count * p->out_stride;
    const struct rows_view x = {p->x, p->x_stride};
    const struct rows_out out = {p->out, p->out_stride};

    for (int numerics = 0; numerics < NUMERICS_COUNT; numerics++) {
        naive_product(p, (enum numerics)numerics, begin * PANEL_ROWS, end * PANEL_ROWS);
        for (int level = 0; level < CPU_LEVEL_COUNT; level++) {
            if (cpu_level_available((enum cpu_level)level)) {
                const struct kernels *kernels =
                    kernels_for((enum cpu_level)level, (enum numerics)numerics);

                memset(p->out, 0, count * sizeof(float));
                kernels->matmul(&p->w, begin, end, x, p->row_count, out);
                assert_same_bits(p->out, p->wanted, count, weight_type_name(p->type),
                                 (enum cpu_level)level);
                if (kernels->code_rows != NULL) {
                    memset(p->out, 0, count * sizeof(float));
                    codes_product(p, kernels, begin, end);
                    assert_same_bits(p->out, p->wanted, count, weight_type_name(p->type),
                                     (enum cpu_level)level);
                }
            }
        }
    }
}

static void every_level_gives_the_definition(void **state)
{
    static const uint32_t shapes[][3] = {
        /* outputs, columns in blocks of 256, rows */
        {1, 1, 1},  {16, 2, 1},   {37, 3, 2},  {64, 5, 1},
        {20, 9, 3}, {270, 1, 50}, {33, 4, 49}, {40, 1, 135},
    };
    struct numbers numbers = {.seed = 31};

    (void)state;
    for (int type = WEIGHT_Q4_0; type < WEIGHT_TYPE_COUNT; type++) {
        for (size_t i = 0; i < ARRAY_LENGTH(shapes); i++) {
            struct problem p = {.type = (enum weight_type)type,
                                .rows = shapes[i][0],
                                .columns = shapes[i][1] * 256,
                                .row_count = shapes[i][2]};

            if (weight_type_block_values(p.type) == 32 && i > 0) {
                p.columns -= 32 * (uint32_t)i; /* ends within 256 */
            }
            problem_init(&p, &numbers);
            check_problem(&p, &numbers);
            problem_deinit(&p);
        }
    }
}

/* Codes of gate and up in one call, and any window of rows: as one product after the other. */
static void windows_of_rows(enum cpu_level level)
{
    struct numbers numbers = {.seed = 12};
    struct problem gate = {.type = WEIGHT_Q4_K, .rows = 70, .columns = 512, .row_count = 150};
    struct problem up = {.type = WEIGHT_Q6_K, .rows = 70, .columns = 512, .row_count = 150};
    const struct kernels *kernels = kernels_for(level, NUMERICS_INT8);
    const uint64_t bytes = int8_rows_bytes(512, 150);
    struct error err;
    struct int8_rows codes = {mem_map_pages(bytes, &err), 150, 0};
    struct rows_view x;
    uint32_t rows;

    assert_non_null(codes.chunks);
    problem_init(&gate, &numbers);
    problem_init(&up, &numbers);
    x = (struct rows_view){gate.x, gate.x_stride};
    kernels->code_rows(gate.type, 512, x, 150, codes);
    kernels->matmul_gate_up(&gate.w, &up.w, 0, 5, x, 150,
                            (struct rows_out){gate.wanted, gate.out_stride});
    for (; codes.row < 150; codes.row += rows) {
        float *out = gate.out + codes.row * gate.out_stride;

        rows = 1 + numbers_below(&numbers, (uint32_t)(150 - codes.row));
        kernels->matmul_codes(&gate.w, &up.w, 0, 2, codes, rows,
                              (struct rows_out){out, gate.out_stride});
        kernels->matmul_codes(&gate.w, &up.w, 2, 5, codes, rows,
                              (struct rows_out){out, gate.out_stride});
    }
    for (uint32_t row = 0; row < 150; row++) {
        assert_memory_equal(gate.out + row * gate.out_stride, gate.wanted + row * gate.out_stride,
                            70 * sizeof(float));
    }
    mem_unmap_pages(codes.chunks, bytes);
    problem_deinit(&gate);
    problem_deinit(&up);
}

static void a_row_is_the_same_in_any_window(void **state)
{
    (void)state;
    on_every_level(windows_of_rows);
}

/* Gate and up of any two types: two products, then SiLU as of float weights. */
static void gate_up_pair(enum cpu_level level, enum weight_type gate_type, enum weight_type up_type)
{
    struct numbers numbers = {.seed = 7};
    struct problem gate = {.type = gate_type, .rows = 90, .columns = 512, .row_count = 3};
    struct problem up = {.type = up_type, .rows = 90, .columns = 512, .row_count = 3};

    problem_init(&gate, &numbers);
    problem_init(&up, &numbers);
    for (int numerics = 0; numerics < NUMERICS_COUNT; numerics++) {
        const struct kernels *kernels = kernels_for(level, (enum numerics)numerics);
        const struct rows_view x = {gate.x, gate.x_stride};

        kernels->matmul(&gate.w, 0, 6, x, 3, (struct rows_out){gate.wanted, gate.out_stride});
        kernels->matmul(&up.w, 0, 6, x, 3, (struct rows_out){up.wanted, up.out_stride});
        kernels->matmul_gate_up(&gate.w, &up.w, 0, 6, x, 3,
                                (struct rows_out){gate.out, gate.out_stride});
        for (uint32_t i = 0; i < 3 * gate.out_stride; i++) {
            float g = gate.wanted[i], sigmoid = g;

            if (i % gate.out_stride < gate.rows) {
                kernels->sigmoid(&sigmoid, 1);
                assert_true(gate.out[i] == g * sigmoid * up.wanted[i]);
            }
        }
    }
    problem_deinit(&gate);
    problem_deinit(&up);
}

static void gate_up_pairs(enum cpu_level level)
{
    gate_up_pair(level, WEIGHT_Q4_K, WEIGHT_Q4_K);
    gate_up_pair(level, WEIGHT_Q4_K, WEIGHT_Q6_K);
    gate_up_pair(level, WEIGHT_IQ3_S, WEIGHT_Q8_0);
}

static void gate_and_up_may_differ_in_type(void **state)
{
    (void)state;
    on_every_level(gate_up_pairs);
}

static void mixed_gate_up(enum cpu_level level)
{
    struct numbers numbers = {.seed = 8};
    struct problem blocks = {.type = WEIGHT_Q5_K, .rows = 70, .columns = 256, .row_count = 50};
    const struct kernels *kernels = kernels_for(level, NUMERICS_INT8);
    float *floats = mem_new_array(float, 70 * 256);
    struct packed_matrix up = {WEIGHT_F32, 70, 256,
                               mem_alloc_zeroed(packed_bytes(WEIGHT_F32, 70, 256), 1)};
    struct pack_source source = {WEIGHT_F32, floats, 256};
    struct rows_view x;

    problem_init(&blocks, &numbers);
    x = (struct rows_view){blocks.x, blocks.x_stride};
    for (int i = 0; i < 70 * 256; i++) {
        floats[i] = numbers_normal(&numbers);
    }
    pack_rows((void *)up.data, 256, 0, 70, &source);
    kernels->matmul_gate_up(&blocks.w, &up, 1, 5, x, 50,
                            (struct rows_out){blocks.out, blocks.out_stride});
    for (uint32_t row = 0; row < 50; row++) {
        float gate[70], wanted[70];

        x.values = blocks.x + row * blocks.x_stride;
        kernels->matmul(&blocks.w, 0, 5, x, 1, (struct rows_out){gate, 70});
        kernels->matmul(&up, 0, 5, x, 1, (struct rows_out){wanted, 70});
        for (uint32_t i = 16; i < 70; i++) {
            float sigmoid = gate[i];

            kernels->sigmoid(&sigmoid, 1);
            assert_true(blocks.out[row * blocks.out_stride + i] == gate[i] * sigmoid * wanted[i]);
        }
    }
    problem_deinit(&blocks);
    mem_free(floats);
    mem_free((void *)up.data);
}

static void one_of_gate_and_up_may_be_of_floats(void **state)
{
    (void)state;
    on_every_level(mixed_gate_up);
}

/* A NaN or an infinity among the activations spoils its row's outputs, and no other's. */
static void broken_activations(enum cpu_level level)
{
    static const float broken[] = {NAN, INFINITY, -INFINITY};
    struct numbers numbers = {.seed = 9};
    struct problem p = {.type = WEIGHT_Q4_K, .rows = 16, .columns = 512, .row_count = 2};

    problem_init(&p, &numbers);
    for (size_t i = 0; i < ARRAY_LENGTH(broken); i++) {
        p.x[300] = broken[i];
        kernels_for(level, NUMERICS_INT8)
            ->matmul(&p.w, 0, 1, (struct rows_view){p.x, p.x_stride}, 2,
                     (struct rows_out){p.out, p.out_stride});
        for (int o = 0; o < 16; o++) {
            assert_true(isnan(p.out[o]));
            assert_true(isfinite(p.out[p.out_stride + (size_t)o]));
        }
    }
    problem_deinit(&p);
}

static void broken_activations_show(void **state)
{
    (void)state;
    on_every_level(broken_activations);
}

/* Rows that come in pieces, and the last of a panel that is not full. */
static void pieces_pack_alike(void **state)
{
    struct numbers numbers = {.seed = 10};

    (void)state;
    for (int type = WEIGHT_Q4_0; type < WEIGHT_TYPE_COUNT; type++) {
        struct problem p = {
            .type = (enum weight_type)type, .rows = 43, .columns = 512, .row_count = 1};
        size_t bytes = packed_bytes(p.type, p.rows, p.columns);
        char *packed = mem_alloc_zeroed(bytes, 1);
        static const uint32_t cuts[] = {0, 16, 20, 43};

        problem_init(&p, &numbers);
        for (size_t i = 0; i + 1 < ARRAY_LENGTH(cuts); i++) {
            struct pack_source source = {p.type, p.raw + cuts[i] * p.row_bytes, p.columns};

            pack_rows(packed, p.columns, cuts[i], cuts[i + 1] - cuts[i], &source);
        }
        assert_memory_equal(packed, p.w.data, bytes);
        mem_free(packed);
        problem_deinit(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_level_gives_the_definition),
        cmocka_unit_test(a_row_is_the_same_in_any_window),
        cmocka_unit_test(gate_and_up_may_differ_in_type),
        cmocka_unit_test(one_of_gate_and_up_may_be_of_floats),
        cmocka_unit_test(broken_activations_show),
        cmocka_unit_test(pieces_pack_alike),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
