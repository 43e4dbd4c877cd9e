/* packed.c - weights into panels of 16 outputs.
 *
 * Loading passes every weight through here once, so whole panels go in 8 × 8 (16-bit) and 4 × 4
 * (32-bit) register transposes, written with the compilers' vector extension: plain C that becomes
 * unpack instructions where there are any. Two bf16, and two codes of e4m3, that stay together are
 * one value to a transpose. The ragged rest goes value by value.
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
    enum weight_type type;
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

uint64_t packed_scales_begin(uint32_t columns)
{
    return align_line((uint64_t)columns * PANEL_ROWS);
}

uint64_t packed_panel_bytes(enum weight_type type, uint32_t columns)
{
    switch (type) {
    case WEIGHT_F32:
    case WEIGHT_F16:
        return PANEL_ROWS * weight_row_bytes(type, columns);
    case WEIGHT_F8_E4M3:
        return align_line(packed_scales_begin(columns) +
                          scale_block_count(columns) * sizeof(float));
    default:
        return align_line(PANEL_ROWS * weight_row_bytes(type, columns));
    }
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
    return (struct target){type, packed, columns, weight_type_bytes(type),
                           packed_panel_bytes(type, columns)};
}

/* Of a row in a panel and a column: which value of the panel they are. */
static size_t panel_index(enum weight_type type, size_t row, size_t column)
{
    switch (type) {
    case WEIGHT_BF16:
        return column / 2 * (2 * PANEL_ROWS) + row * 2 + column % 2;
    case WEIGHT_F8_E4M3:
        return column / F8_GROUP * (F8_GROUP * PANEL_ROWS) + column % 2 * (2 * PANEL_ROWS) +
               row * 2 + column / 2 % 2;
    default:
        return column * PANEL_ROWS + row;
    }
}

static char *target_at(const struct target *target, size_t row, size_t column)
{
    size_t index = panel_index(target->type, row % PANEL_ROWS, column);

    return target->packed + row / PANEL_ROWS * target->panel_bytes + index * target->value_bytes;
}

/* Eight rows of 16 bytes; strides in bytes. */
static void rows_of_values(const char *in, size_t stride, vec16 row[8])
{
    for (size_t i = 0; i < 8; i++) {
        memcpy(&row[i], in + i * stride, sizeof(row[i]));
    }
}

/* The same of codes, which pair with their second neighbours. */
static void rows_of_codes(const char *in, size_t stride, vec16 row[8])
{
    for (size_t i = 0; i < 8; i++) {
        vec8 codes;

        memcpy(&codes, in + i * stride, sizeof(codes));
        row[i] = (vec16)__builtin_shufflevector(codes, codes, 0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11,
                                                12, 14, 13, 15);
    }
}

/* out[column * 16 + row] = row[row][column], 8 × 8. */
static void transpose_16bit(const vec16 row[8], char *out)
{
    vec32 pair[8];
    vec64 quad[8];

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

        memcpy(out + 2 * i * PANEL_ROWS * sizeof(uint16_t), &even, sizeof(even));
        memcpy(out + (2 * i + 1) * PANEL_ROWS * sizeof(uint16_t), &odd, sizeof(odd));
    }
}

/* The same for 32-bit values, 4 × 4, from memory. */
static void transpose_32bit(const char *in, size_t stride, char *out)
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

        memcpy(out + 2 * i * PANEL_ROWS * sizeof(uint32_t), &even, sizeof(even));
        memcpy(out + (2 * i + 1) * PANEL_ROWS * sizeof(uint32_t), &odd, sizeof(odd));
    }
}

typedef void (*rows_load_fn)(const char *in, size_t stride, vec16 row[8]);

/* Whole panels of 16 source rows, `stride` bytes apart, 16 bytes of each at a time; return how many
 * bytes of each are done, the rest goes value by value. */
static inline size_t pack_panel_16bit(rows_load_fn load, char *out, const char *in, size_t stride,
                                      size_t bytes)
{
    size_t done = 0;

    for (; done + 16 <= bytes; done += 16) {
        vec16 row[8];

        panel_fetch_ahead(out + done * PANEL_ROWS, 16 * PANEL_ROWS);
        load(in + done, stride, row);
        transpose_16bit(row, out + done * PANEL_ROWS);
        load(in + 8 * stride + done, stride, row);
        transpose_16bit(row, out + done * PANEL_ROWS + 16);
    }
    return done;
}

static size_t pack_panel_32bit(char *out, const char *in, size_t stride, size_t bytes)
{
    size_t done = 0;

    for (; done + 16 <= bytes; done += 16) {
        panel_fetch_ahead(out + done * PANEL_ROWS, 16 * PANEL_ROWS);
        for (size_t row = 0; row < PANEL_ROWS; row += 4) {
            transpose_32bit(in + row * stride + done, stride,
                            out + done * PANEL_ROWS + row * sizeof(uint32_t));
        }
    }
    return done;
}

/* Returns how many columns are done. */
static size_t pack_panel(const struct target *target, char *out, const char *in, size_t stride)
{
    const size_t bytes = target->columns * target->value_bytes;

    switch (target->type) {
    case WEIGHT_F8_E4M3:
        return pack_panel_16bit(rows_of_codes, out, in, stride, bytes);
    case WEIGHT_F16:
        return pack_panel_16bit(rows_of_values, out, in, stride, bytes) / sizeof(uint16_t);
    default:
        return pack_panel_32bit(out, in, stride, bytes) / target->value_bytes;
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
            char *out = target_at(&target, first, 0);

            rows = PANEL_ROWS;
            done = pack_panel(&target, out, in, stride * target.value_bytes);
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

/* One source row: a column of the packed matrix. */
static void pack_column(const struct target *target, size_t row, size_t row_count, size_t column,
                        const char *in)
{
    const size_t bytes = target->value_bytes;
    char *out = target_at(target, row, column);

    if (target->type != WEIGHT_BF16) { /* side by side */
        memcpy(out, in, row_count * bytes);
        return;
    }
    for (size_t i = 0; i < row_count; i++) {
        memcpy(out + i * 2 * bytes, in + i * bytes, bytes);
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
            pack_column(target, row, count, column + i, in + i * stride_bytes);
        }
    }
}

void pack_transposed(void *packed, uint32_t rows, uint32_t columns, uint32_t column_begin,
                     uint32_t source_row_count, const struct pack_source *source)
{
    const struct target target = target_of(packed, source->type, columns);
    const size_t group_bytes = PANEL_ROWS * source->row_stride * target.value_bytes;
    struct pack_source group = *source;

    ASSERT(source->type != WEIGHT_F8_E4M3);
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
        char *out = target_at(&target, row, 0) + packed_scales_begin(columns);

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
