/* Matrices widened to f32, as they are and transposed: every level against rows that were widened
 * and packed one by one. */
#include "tests/unit/worker/kernels/kernel_cases.h"

#include "common/base/mem.h"
#include "common/model/quant.h"
#include "worker/kernels/kernels.h"

#define ROWS_MAX    70u
#define COLUMNS_MAX 512u

struct shape {
    enum weight_type type;
    uint32_t rows, columns;
};

static const struct shape shapes[] = {
    {WEIGHT_F32, 33, 21},   {WEIGHT_F16, 48, 40},   {WEIGHT_BF16, 70, 17},   {WEIGHT_F32, 5, 8},
    {WEIGHT_F16, 16, 16},   {WEIGHT_Q8_0, 64, 128}, {WEIGHT_Q5_0, 40, 96},   {WEIGHT_Q4_0, 16, 32},
    {WEIGHT_Q4_K, 64, 512}, {WEIGHT_Q6_K, 19, 256}, {WEIGHT_IQ4_NL, 70, 64},
};

struct matrix {
    char source[ROWS_MAX * COLUMNS_MAX * sizeof(float)]; /* as in a file */
    float values[ROWS_MAX * COLUMNS_MAX];
    float turned[ROWS_MAX * COLUMNS_MAX];
    float got[(ROWS_MAX + 16) * (COLUMNS_MAX + 16)];
    float wanted[(ROWS_MAX + 16) * (COLUMNS_MAX + 16)];
    float scratch[COLUMNS_MAX * PANEL_ROWS];
};

/* Random bytes, but for floats, which are numbers; scales of blocks may be any finite value. */
static void matrix_fill(struct matrix *m, const struct shape *shape, struct numbers *numbers)
{
    const size_t count = (size_t)shape->rows * shape->columns;

    for (size_t i = 0; i < weight_row_bytes(shape->type, count); i++) {
        m->source[i] = (char)(numbers_bits(numbers) & 0x3b);
    }
    for (size_t i = 0; !weight_type_is_blocks(shape->type) && i < count; i++) {
        float value = numbers_odd(numbers);
        uint16_t half = shape->type == WEIGHT_F16 ? f16_of_float(value) : bf16_of_float(value);

        if (shape->type == WEIGHT_F32) {
            memcpy(m->source + i * sizeof(value), &value, sizeof(value));
        } else {
            memcpy(m->source + i * sizeof(half), &half, sizeof(half));
        }
    }
    weight_values_widen(m->values, shape->type, m->source, count);
    for (uint32_t row = 0; row < shape->rows; row++) {
        for (uint32_t column = 0; column < shape->columns; column++) {
            m->turned[column * shape->rows + row] = m->values[row * shape->columns + column];
        }
    }
}

static void wanted_pack(struct matrix *m, const float *values, uint32_t rows, uint32_t columns)
{
    const struct pack_source source = {WEIGHT_F32, values, columns};

    memset(m->wanted, 0, sizeof(m->wanted));
    pack_rows(m->wanted, columns, 0, rows, &source);
}

/* A zero's sign is nobody's business: chains begin at +0. */
static void assert_same(struct matrix *m, size_t count, const char *what, enum cpu_level level)
{
    for (size_t i = 0; i < count; i++) {
        m->got[i] += 0.0f;
        m->wanted[i] += 0.0f;
    }
    assert_same_bits(m->got, m->wanted, count, what, level);
}

static void check_shape(struct matrix *m, const struct shape *shape, enum cpu_level level)
{
    const struct kernels *kernels = kernels_for(level, NUMERICS_EXACT);
    const struct pack_source source = {shape->type, m->source, shape->columns};
    char *packed = mem_new_array(char, packed_bytes(shape->type, shape->rows, shape->columns) + 64);
    char *aligned = packed + (64 - (uintptr_t)packed % 64) % 64;
    const struct packed_matrix w = {shape->type, shape->rows, shape->columns, aligned};

    pack_rows(aligned, shape->columns, 0, shape->rows, &source);
    wanted_pack(m, m->values, shape->rows, shape->columns);
    kernels->widen(&w, m->got);
    assert_same(m, packed_bytes(WEIGHT_F32, shape->rows, shape->columns) / sizeof(float), "rows",
                level);
    wanted_pack(m, m->turned, shape->columns, shape->rows);
    kernels->widen_transposed(&w, m->scratch, m->got);
    assert_same(m, packed_bytes(WEIGHT_F32, shape->columns, shape->rows) / sizeof(float),
                "transposed", level);
    mem_free(packed);
}

static void check_level(enum cpu_level level)
{
    struct matrix *m = mem_new(struct matrix);
    struct numbers numbers = {.seed = 77};

    for (size_t i = 0; i < ARRAY_LENGTH(shapes); i++) {
        matrix_fill(m, &shapes[i], &numbers);
        check_shape(m, &shapes[i], level);
    }
    mem_free(m);
}

static void every_level_gives_the_packed_values(void **state)
{
    (void)state;
    on_every_level(check_level);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_level_gives_the_packed_values),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
