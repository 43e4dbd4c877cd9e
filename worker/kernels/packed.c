/* packed.c - weights into panels of 16 outputs.
 *
 * Loading passes every weight through here once, so whole panels go in 8 × 8 (16-bit) and 4 × 4
 * (32-bit) register transposes, written with the compilers' vector extension: plain C that becomes
 * unpack instructions where there are any. The ragged rest goes value by value.
 */
#include "worker/kernels/packed.h"

#include "common/base/check.h"
#include "common/base/half.h"

#include <string.h>

typedef uint16_t vec16 __attribute__((vector_size(16)));
typedef uint32_t vec32 __attribute__((vector_size(16)));
typedef uint64_t vec64 __attribute__((vector_size(16)));

/* The row and the column of a matrix to be filled next. */
struct target {
    char *packed;
    size_t columns;
    size_t value_bytes;
};

uint32_t packed_panel_count(uint32_t rows)
{
    return rows / PANEL_ROWS + (rows % PANEL_ROWS != 0);
}

uint64_t packed_bytes(enum weight_type type, uint32_t rows, uint32_t columns)
{
    uint64_t values = (uint64_t)packed_panel_count(rows) * PANEL_ROWS * columns;

    return (values * weight_type_bytes(type) + 63) / 64 * 64;
}

static char *target_at(const struct target *target, size_t row, size_t column)
{
    size_t index = (row / PANEL_ROWS * target->columns + column) * PANEL_ROWS + row % PANEL_ROWS;

    return target->packed + index * target->value_bytes;
}

/* out[column * 16 + row] = in[row * stride + column], 8 × 8. */
static void transpose_16bit(const uint16_t *in, size_t stride, uint16_t *out)
{
    vec16 row[8];
    vec32 pair[8];
    vec64 quad[8];

    for (size_t i = 0; i < 8; i++) {
        memcpy(&row[i], in + i * stride, sizeof(row[i]));
    }
    for (size_t i = 0; i < 8; i += 2) {
        pair[i] = (vec32)__builtin_shufflevector(row[i], row[i + 1], 0, 8, 1, 9, 2, 10, 3, 11);
        pair[i + 1] =
            (vec32)__builtin_shufflevector(row[i], row[i + 1], 4, 12, 5, 13, 6, 14, 7, 15);
    }
    for (size_t i = 0; i < 8; i += 4) {
        quad[i] = (vec64)__builtin_shufflevector(pair[i], pair[i + 2], 0, 4, 1, 5);
        quad[i + 1] = (vec64)__builtin_shufflevector(pair[i], pair[i + 2], 2, 6, 3, 7);
        quad[i + 2] = (vec64)__builtin_shufflevector(pair[i + 1], pair[i + 3], 0, 4, 1, 5);
        quad[i + 3] = (vec64)__builtin_shufflevector(pair[i + 1], pair[i + 3], 2, 6, 3, 7);
    }
    for (size_t i = 0; i < 4; i++) {
        vec64 even = __builtin_shufflevector(quad[i], quad[i + 4], 0, 2);
        vec64 odd = __builtin_shufflevector(quad[i], quad[i + 4], 1, 3);

        memcpy(out + 2 * i * PANEL_ROWS, &even, sizeof(even));
        memcpy(out + (2 * i + 1) * PANEL_ROWS, &odd, sizeof(odd));
    }
}

/* The same for 32-bit values, 4 × 4. */
static void transpose_32bit(const uint32_t *in, size_t stride, uint32_t *out)
{
    vec32 row[4];
    vec64 pair[4];

    for (size_t i = 0; i < 4; i++) {
        memcpy(&row[i], in + i * stride, sizeof(row[i]));
    }
    for (size_t i = 0; i < 4; i += 2) {
        pair[i] = (vec64)__builtin_shufflevector(row[i], row[i + 1], 0, 4, 1, 5);
        pair[i + 1] = (vec64)__builtin_shufflevector(row[i], row[i + 1], 2, 6, 3, 7);
    }
    for (size_t i = 0; i < 2; i++) {
        vec64 even = __builtin_shufflevector(pair[i], pair[i + 2], 0, 2);
        vec64 odd = __builtin_shufflevector(pair[i], pair[i + 2], 1, 3);

        memcpy(out + 2 * i * PANEL_ROWS, &even, sizeof(even));
        memcpy(out + (2 * i + 1) * PANEL_ROWS, &odd, sizeof(odd));
    }
}

/* Whole panels of 16 source rows; returns how many columns are done, the rest goes one by one. */
static size_t pack_panel_16bit(uint16_t *out, const uint16_t *in, size_t stride, size_t columns)
{
    size_t column = 0;

    for (; column + 8 <= columns; column += 8) {
        transpose_16bit(in + column, stride, out + column * PANEL_ROWS);
        transpose_16bit(in + 8 * stride + column, stride, out + column * PANEL_ROWS + 8);
    }
    return column;
}

static size_t pack_panel_32bit(uint32_t *out, const uint32_t *in, size_t stride, size_t columns)
{
    size_t column = 0;

    for (; column + 4 <= columns; column += 4) {
        for (size_t row = 0; row < PANEL_ROWS; row += 4) {
            transpose_32bit(in + row * stride + column, stride, out + column * PANEL_ROWS + row);
        }
    }
    return column;
}

static void pack_values(const struct target *target, size_t row, size_t column,
                        const struct pack_source *source, size_t source_row)
{
    const size_t bytes = target->value_bytes;
    const char *in = (const char *)source->values + source_row * source->row_stride * bytes;

    for (; column < target->columns; column++) {
        memcpy(target_at(target, row, column), in + column * bytes, bytes);
    }
}

void pack_rows(void *packed, uint32_t columns, uint32_t row_begin, uint32_t row_count,
               const struct pack_source *source)
{
    const struct target target = {packed, columns, weight_type_bytes(source->type)};
    const size_t stride = source->row_stride;
    size_t row = 0;

    while (row < row_count) {
        const char *in = (const char *)source->values + row * stride * target.value_bytes;
        size_t first = row_begin + row;
        size_t rows = 1;
        size_t done = 0;

        if (first % PANEL_ROWS == 0 && row_count - row >= PANEL_ROWS) {
            void *out = target_at(&target, first, 0);

            rows = PANEL_ROWS;
            done = target.value_bytes == 2
                       ? pack_panel_16bit(out, (const void *)in, stride, columns)
                       : pack_panel_32bit(out, (const void *)in, stride, columns);
        }
        for (size_t i = 0; i < rows; i++) {
            pack_values(&target, first + i, done, source, row + i);
        }
        row += rows;
    }
}

/* Source rows in small groups, so that a panel receives whole cache lines while they are near. */
static void pack_transposed_group(const struct target *target, size_t rows, size_t column,
                                  const struct pack_source *group, size_t group_rows)
{
    const size_t bytes = target->value_bytes;
    const size_t stride_bytes = group->row_stride * bytes;

    for (size_t row = 0; row < rows; row += PANEL_ROWS) {
        const size_t count = rows - row < PANEL_ROWS ? rows - row : PANEL_ROWS;
        const char *in = (const char *)group->values + row * bytes;

        for (size_t i = 0; i < group_rows; i++) {
            memcpy(target_at(target, row, column + i), in + i * stride_bytes, count * bytes);
        }
    }
}

void pack_transposed(void *packed, uint32_t rows, uint32_t columns, uint32_t column_begin,
                     uint32_t source_row_count, const struct pack_source *source)
{
    const struct target target = {packed, columns, weight_type_bytes(source->type)};
    const size_t group_bytes = PANEL_ROWS * source->row_stride * target.value_bytes;
    struct pack_source group = *source;

    for (size_t row = 0; row < source_row_count; row += PANEL_ROWS) {
        size_t left = source_row_count - row;

        pack_transposed_group(&target, rows, column_begin + row, &group,
                              left < PANEL_ROWS ? left : PANEL_ROWS);
        group.values = (const char *)group.values + group_bytes;
    }
}

static uint16_t load_u16(const void *values, size_t index)
{
    uint16_t bits;

    memcpy(&bits, (const char *)values + index * sizeof(bits), sizeof(bits));
    return bits;
}

void widen_values(float *out, const void *values, enum weight_type type, size_t count)
{
    switch (type) {
    case WEIGHT_F32:
        memcpy(out, values, count * sizeof(float));
        return;
    case WEIGHT_F16:
        for (size_t i = 0; i < count; i++) {
            out[i] = float_of_f16(load_u16(values, i));
        }
        return;
    case WEIGHT_BF16:
        for (size_t i = 0; i < count; i++) {
            out[i] = float_of_bf16(load_u16(values, i));
        }
        return;
    case WEIGHT_TYPE_COUNT:
        break;
    }
    ASSERT(type < WEIGHT_TYPE_COUNT);
}
