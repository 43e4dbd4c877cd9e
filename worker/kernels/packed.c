/* packed.c - weights into panels of 16 outputs.
 *
 * Loading passes every weight through here once, so whole panels go in 16 × 16 (8-bit), 8 × 8
 * (16-bit) and 4 × 4 (32-bit) register transposes, written with the compilers' vector extension:
 * plain C that becomes unpack instructions where there are any. The ragged rest goes value by
 * value.
 */
#include "worker/kernels/packed.h"

#include "common/base/check.h"
#include "common/base/half.h"
#include "common/model/quant.h"
#include "worker/kernels/packed_blocks.h"
#include "worker/kernels/packed_panel.h"

#include <math.h>
#include <string.h>

#define F8_SCALE_FACTOR 256.0f /* see packed.h */

typedef uint8_t vec8 __attribute__((vector_size(16)));
typedef uint16_t vec16 __attribute__((vector_size(16)));
typedef uint32_t vec32 __attribute__((vector_size(16)));
typedef uint64_t vec64 __attribute__((vector_size(16)));

/* The row and the column of a matrix to be filled next. */
struct target {
    char *packed;
    size_t columns;
    size_t value_bytes;
    size_t panel_bytes;
};

uint32_t packed_panel_count(uint32_t rows)
{
    return rows / PANEL_ROWS + (rows % PANEL_ROWS != 0);
}

static uint64_t align_line(uint64_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

uint64_t packed_panel_bytes(enum weight_type type, uint32_t columns)
{
    uint64_t bytes = PANEL_ROWS * weight_row_bytes(type, columns);

    if (type == WEIGHT_F8_E4M3) {
        bytes += scale_block_count(columns) * sizeof(float);
    }
    return type == WEIGHT_F8_E4M3 || weight_type_is_blocks(type) ? align_line(bytes) : bytes;
}

uint64_t packed_bytes(enum weight_type type, uint32_t rows, uint32_t columns)
{
    return align_line(packed_panel_count(rows) * packed_panel_bytes(type, columns));
}

struct packed_matrix packed_panels(const struct packed_matrix *w, uint32_t panel_begin,
                                   uint32_t panel_end)
{
    struct packed_matrix view = *w;
    uint32_t row_begin = panel_begin * PANEL_ROWS;
    uint32_t row_end = panel_end * PANEL_ROWS < w->rows ? panel_end * PANEL_ROWS : w->rows;

    view.rows = row_end - row_begin;
    view.data = (const char *)w->data + panel_begin * packed_panel_bytes(w->type, w->columns);
    return view;
}

static struct target target_of(void *packed, enum weight_type type, uint32_t columns)
{
    return (struct target){packed, columns, weight_type_bytes(type),
                           packed_panel_bytes(type, columns)};
}

static char *target_at(const struct target *target, size_t row, size_t column)
{
    size_t index = column * PANEL_ROWS + row % PANEL_ROWS;

    return target->packed + row / PANEL_ROWS * target->panel_bytes + index * target->value_bytes;
}

/* out[column * 16 + row] = in[row * stride + column], 16 × 16: rows i and i + 8 are interleaved
 * four times over. */
static void transpose_8bit(const uint8_t *in, size_t stride, uint8_t *out)
{
    vec8 row[16], zipped[16];

    for (size_t i = 0; i < 16; i++) {
        memcpy(&row[i], in + i * stride, sizeof(row[i]));
    }
    for (int round = 0; round < 4; round++) {
        for (size_t i = 0; i < 8; i++) {
            zipped[2 * i] = __builtin_shufflevector(row[i], row[i + 8], 0, 16, 1, 17, 2, 18, 3, 19,
                                                    4, 20, 5, 21, 6, 22, 7, 23);
            zipped[2 * i + 1] = __builtin_shufflevector(row[i], row[i + 8], 8, 24, 9, 25, 10, 26,
                                                        11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        }
        memcpy(row, zipped, sizeof(row));
    }
    memcpy(out, row, sizeof(row));
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
static size_t pack_panel_8bit(uint8_t *out, const uint8_t *in, size_t stride, size_t columns)
{
    size_t column =
        __builtin_cpu_supports("avx2") ? pack_panel_8bit_avx2(out, in, stride, columns) : 0;

    for (; column + 16 <= columns; column += 16) {
        transpose_8bit(in + column, stride, out + column * PANEL_ROWS);
    }
    return column;
}

static size_t pack_panel_16bit(uint16_t *out, const uint16_t *in, size_t stride, size_t columns)
{
    size_t column = 0;

    for (; column + 8 <= columns; column += 8) {
        panel_fetch_ahead(out + column * PANEL_ROWS, 8 * PANEL_ROWS * sizeof(uint16_t));
        transpose_16bit(in + column, stride, out + column * PANEL_ROWS);
        transpose_16bit(in + 8 * stride + column, stride, out + column * PANEL_ROWS + 8);
    }
    return column;
}

static size_t pack_panel_32bit(uint32_t *out, const uint32_t *in, size_t stride, size_t columns)
{
    size_t column = 0;

    for (; column + 4 <= columns; column += 4) {
        panel_fetch_ahead(out + column * PANEL_ROWS, 4 * PANEL_ROWS * sizeof(uint32_t));
        for (size_t row = 0; row < PANEL_ROWS; row += 4) {
            transpose_32bit(in + row * stride + column, stride, out + column * PANEL_ROWS + row);
        }
    }
    return column;
}

static size_t pack_panel(const struct target *target, void *out, const void *in, size_t stride)
{
    switch (target->value_bytes) {
    case 1:
        return pack_panel_8bit(out, in, stride, target->columns);
    case 2:
        return pack_panel_16bit(out, in, stride, target->columns);
    default:
        return pack_panel_32bit(out, in, stride, target->columns);
    }
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

static void pack_value_rows(void *packed, uint32_t columns, uint32_t row_begin, uint32_t row_count,
                            const struct pack_source *source)
{
    const struct target target = target_of(packed, source->type, columns);
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
            done = pack_panel(&target, out, in, stride);
        }
        for (size_t i = 0; i < rows; i++) {
            pack_values(&target, first + i, done, source, row + i);
        }
        row += rows;
    }
}

void pack_rows(void *packed, uint32_t columns, uint32_t row_begin, uint32_t row_count,
               const struct pack_source *source)
{
    if (weight_type_is_blocks(source->type)) {
        pack_block_rows(packed, columns, row_begin, row_count, source);
    } else {
        pack_value_rows(packed, columns, row_begin, row_count, source);
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
    const struct target target = target_of(packed, source->type, columns);
    const size_t group_bytes = PANEL_ROWS * source->row_stride * target.value_bytes;
    struct pack_source group = *source;

    for (size_t row = 0; row < source_row_count; row += PANEL_ROWS) {
        size_t left = source_row_count - row;

        pack_transposed_group(&target, rows, column_begin + row, &group,
                              left < PANEL_ROWS ? left : PANEL_ROWS);
        group.values = (const char *)group.values + group_bytes;
    }
}

void pack_scales(void *packed, uint32_t columns, uint32_t row_begin, uint32_t row_count,
                 const float *scales)
{
    const struct target target = target_of(packed, WEIGHT_F8_E4M3, columns);
    const size_t block_count = scale_block_count(columns);
    const size_t row_end = (size_t)row_begin + row_count;

    ASSERT(row_begin % PANEL_ROWS == 0);
    for (size_t row = row_begin; row < row_end; row += PANEL_ROWS) {
        const float *in = scales + (row / SCALE_BLOCK - row_begin / SCALE_BLOCK) * block_count;
        char *out = target_at(&target, row, columns);

        for (size_t i = 0; i < block_count; i++) {
            float scale = in[i] * F8_SCALE_FACTOR;

            memcpy(out + i * sizeof(scale), &scale, sizeof(scale));
        }
    }
}

bool f8_codes_are_numbers(const uint8_t *codes, size_t count)
{
    bool has_nan = false;
    size_t at = __builtin_cpu_supports("avx2") ? f8_codes_seen_avx2(codes, count, &has_nan) : 0;

    for (; at < count; at++) {
        has_nan |= (codes[at] & 0x7f) == 0x7f;
    }
    return !has_nan;
}

bool f8_scales_are_finite(const float *scales, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(scales[i] * F8_SCALE_FACTOR)) {
            return false;
        }
    }
    return true;
}

/* The magnitudes of eight codes: multiples of a power of two. */
#define F8_DENORMAL(u) 0, 1 * (u), 2 * (u), 3 * (u), 4 * (u), 5 * (u), 6 * (u), 7 * (u)
#define F8_NORMAL(u)   8 * (u), 9 * (u), 10 * (u), 11 * (u), 12 * (u), 13 * (u), 14 * (u), 15 * (u)

static const float f8_magnitudes[128] = {F8_DENORMAL(0x1p-9f),
                                         F8_NORMAL(0x1p-9f),
                                         F8_NORMAL(0x1p-8f),
                                         F8_NORMAL(0x1p-7f),
                                         F8_NORMAL(0x1p-6f),
                                         F8_NORMAL(0x1p-5f),
                                         F8_NORMAL(0x1p-4f),
                                         F8_NORMAL(0x1p-3f),
                                         F8_NORMAL(0x1p-2f),
                                         F8_NORMAL(0x1p-1f),
                                         F8_NORMAL(0x1p0f),
                                         F8_NORMAL(0x1p1f),
                                         F8_NORMAL(0x1p2f),
                                         F8_NORMAL(0x1p3f),
                                         F8_NORMAL(0x1p4f),
                                         256,
                                         288,
                                         320,
                                         352,
                                         384,
                                         416,
                                         448,
                                         NAN};

void widen_f8(float *out, const uint8_t *codes, size_t count, float scale)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t sign = (uint32_t)(codes[i] & 0x80) << 24;

        out[i] = float_of_bits(float_bits(f8_magnitudes[codes[i] & 0x7f]) | sign) * scale;
    }
}
