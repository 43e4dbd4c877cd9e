/* packed_blocks.c - quantised blocks into panels of 16 rows.
 *
 * Blocks keep their bytes; only the order changes: word by word, 16 rows side by side, so that
 * vector lanes run across rows. A block whose size is no multiple of four has one f16 beside its
 * words, before or behind them; the panel has it behind. Whole panels go in 4 × 4 transposes of
 * words, the ragged rest word by word.
 */
#include "worker/kernels/packed_blocks.h"

#include "common/base/check.h"
#include "worker/kernels/packed_panel.h"

#include <string.h>

typedef uint32_t vec32 __attribute__((vector_size(16)));
typedef uint64_t vec64 __attribute__((vector_size(16)));

#define WORD_BYTES 4
#define HALF_BYTES 2

/* How the bytes of one block are divided. */
struct block_layout {
    size_t bytes;
    size_t word_begin; /* 0, or 2 behind an f16 */
    size_t word_count;
    size_t half_begin; /* where there is one */
    size_t half_count; /* 0 or 1 */
};

static struct block_layout layout_of(enum weight_type type)
{
    struct block_layout layout = {
        .bytes = weight_row_bytes(type, weight_type_block_values(type)),
    };

    layout.word_count = layout.bytes / WORD_BYTES;
    layout.half_count = layout.bytes % WORD_BYTES / HALF_BYTES;
    if (layout.half_count > 0 && (type == WEIGHT_Q3_K || type == WEIGHT_Q6_K)) {
        layout.half_begin = layout.bytes - HALF_BYTES;
    } else if (layout.half_count > 0) {
        layout.word_begin = HALF_BYTES;
    }
    return layout;
}

/* out[word * 16 + row] = word of row, for 4 × 4; `stride` bytes from row to row. */
static void transpose_words(const char *in, size_t stride, char *out)
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

        memcpy(out + 2 * i * PANEL_ROWS * WORD_BYTES, &even, sizeof(even));
        memcpy(out + (2 * i + 1) * PANEL_ROWS * WORD_BYTES, &odd, sizeof(odd));
    }
}

/* Words [word, word_count) and the f16 of one row's block. */
static void pack_rest(const struct block_layout *layout, size_t word, const char *in, char *out,
                      size_t row)
{
    char *half = out + layout->word_count * WORD_BYTES * PANEL_ROWS + row * HALF_BYTES;

    for (; word < layout->word_count; word++) {
        memcpy(out + (word * PANEL_ROWS + row) * WORD_BYTES,
               in + layout->word_begin + word * WORD_BYTES, WORD_BYTES);
    }
    memcpy(half, in + layout->half_begin, layout->half_count * HALF_BYTES);
}

/* One block of 16 rows. */
static void pack_block(const struct block_layout *layout, const char *in, size_t stride, char *out)
{
    size_t word = 0;

    for (; word + 4 <= layout->word_count; word += 4) {
        const char *from = in + layout->word_begin + word * WORD_BYTES;
        char *to = out + word * PANEL_ROWS * WORD_BYTES;

        panel_fetch_ahead(to, 4 * PANEL_ROWS * WORD_BYTES);
        for (size_t row = 0; row < PANEL_ROWS; row += 4) {
            transpose_words(from + row * stride, stride, to + row * WORD_BYTES);
        }
    }
    for (size_t row = 0; row < PANEL_ROWS; row++) {
        pack_rest(layout, word, in + row * stride, out, row);
    }
}

void pack_block_rows(char *packed, uint32_t columns, uint32_t row_begin, uint32_t row_count,
                     const struct pack_source *source)
{
    const struct block_layout layout = layout_of(source->type);
    const size_t panel_bytes = packed_panel_bytes(source->type, columns);
    const size_t stride = weight_row_bytes(source->type, (uint32_t)source->row_stride);
    const size_t block_count = columns / weight_type_block_values(source->type);
    size_t row = 0;

    while (row < row_count) {
        const char *in = (const char *)source->values + row * stride;
        const size_t first = row_begin + row;
        const bool is_whole = first % PANEL_ROWS == 0 && row_count - row >= PANEL_ROWS;
        char *out = packed + first / PANEL_ROWS * panel_bytes;

        for (size_t block = 0; block < block_count; block++) {
            if (is_whole) {
                pack_block(&layout, in, stride, out);
            } else {
                pack_rest(&layout, 0, in, out, first % PANEL_ROWS);
            }
            in += layout.bytes;
            out += layout.bytes * PANEL_ROWS;
        }
        row += is_whole ? PANEL_ROWS : 1;
    }
}
