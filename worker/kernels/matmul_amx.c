/* matmul_amx.c - products on AMX tiles.
 *
 * Up to 64 rows of activations become bf16 tiles of 16 rows × 32 columns, some columns at a time.
 * Weights in bf16 are tiles as they lie in their panels (packed.h); codes of e4m3 become such tiles
 * one block of columns at a time, and the block's sums are scaled in f32. Two tiles of rows meet
 * two of panels, or one meets four: four sums stay in registers. Tile numbers are constants of the
 * instructions, hence the repetitive leaves. */
#include "worker/kernels/amx.h"

#include <immintrin.h>
#include <string.h>

#define TILE_ROWS       16
#define TILE_COLUMNS    32 /* bf16 values */
#define TILE_BYTES      1024
#define TILE_STRIDE     64
#define CHUNK_COLUMNS   1024
#define CHUNK_TILES     (CHUNK_COLUMNS / TILE_COLUMNS)
#define BLOCK_TILES     (SCALE_BLOCK / TILE_COLUMNS)
#define ROW_TILES       (AMX_ROWS / TILE_ROWS)
#define PANELS_TOGETHER 4
#define AHEAD_TILES     4       /* how far ahead weights are asked for */
#define CODE_FACTOR     0x1p-8f /* packed scales are 256 times as large */

struct tile_config {
    uint8_t palette, start, reserved[14];
    uint16_t column_bytes[16];
    uint8_t rows[16];
};

/* Activations of one chunk of columns: [tile of rows][tile of columns]. */
struct activations {
    _Alignas(64) char tiles[ROW_TILES][CHUNK_TILES][TILE_BYTES];
};

static void tiles_configure(void)
{
    struct tile_config config = {.palette = 1};

    for (int i = 0; i < 8; i++) {
        config.column_bytes[i] = TILE_STRIDE;
        config.rows[i] = TILE_ROWS;
    }
    /* GCC 12 believes that 8 of the 64 bytes are read. */
    __asm__ volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
}

/* --- activations --- */

/* 32 values, of which `count` exist. */
static inline __m512i values_bf16(const float *x, size_t count)
{
    const uint32_t mask = count >= TILE_COLUMNS ? UINT32_MAX : (UINT32_C(1) << count) - 1;
    const __m512 low = _mm512_maskz_loadu_ps((__mmask16)mask, x);
    const __m512 high = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), x + 16);

    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

/* Columns 0, 2, 1, 3 of each four, as the codes have them. */
static inline __m512i as_codes_lie(__m512i values)
{
    const __m512i order =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));

    return _mm512_shuffle_epi8(values, order);
}

static void activations_make(struct activations *out, enum weight_type type, struct rows_view x,
                             uint32_t row_count, size_t columns)
{
    const size_t tiles = (columns + TILE_COLUMNS - 1) / TILE_COLUMNS;
    const uint32_t rows = (row_count + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;

    for (uint32_t row = 0; row < rows; row++) {
        const float *from = x.values + (size_t)row * x.stride;
        char *to = out->tiles[row / TILE_ROWS][0] + row % TILE_ROWS * TILE_STRIDE;

        for (size_t tile = 0; tile < tiles; tile++) {
            __m512i values = _mm512_setzero_si512();

            if (row < row_count) {
                values = values_bf16(from + tile * TILE_COLUMNS, columns - tile * TILE_COLUMNS);
                values = type == WEIGHT_F8_E4M3 ? as_codes_lie(values) : values;
            }
            _mm512_store_si512(to + tile * TILE_BYTES, values);
        }
    }
}

/* --- tiles --- */

/* Sums begin as what stands in memory, and go back there. */
struct operands {
    const char *a[2];                   /* tiles of rows, side by side in k */
    const char *b[PANELS_TOGETHER];     /* tiles of panels, likewise */
    float *c[2][PANELS_TOGETHER];       /* [row][16] */
    const char *ahead[PANELS_TOGETHER]; /* what is read next from memory */
    size_t ahead_bytes;                 /* for each tile of columns */
    size_t tile_count;
};

static inline void ask_ahead(const struct operands *o, size_t panel, size_t tile)
{
    const char *at = o->ahead[panel] + tile * o->ahead_bytes;

    for (size_t i = 0; i < o->ahead_bytes; i += 64) {
        _mm_prefetch(at + i, _MM_HINT_T0);
    }
}

static void tiles_1x4(const struct operands *o)
{
    _tile_loadd(0, o->c[0][0], TILE_STRIDE);
    _tile_loadd(1, o->c[0][1], TILE_STRIDE);
    _tile_loadd(2, o->c[0][2], TILE_STRIDE);
    _tile_loadd(3, o->c[0][3], TILE_STRIDE);
    for (size_t k = 0; k < o->tile_count; k++) {
        for (size_t panel = 0; panel < PANELS_TOGETHER; panel++) {
            ask_ahead(o, panel, k);
        }
        _tile_loadd(4, o->a[0] + k * TILE_BYTES, TILE_STRIDE);
        _tile_loadd(5, o->b[0] + k * TILE_BYTES, TILE_STRIDE);
        _tile_dpbf16ps(0, 4, 5);
        _tile_loadd(6, o->b[1] + k * TILE_BYTES, TILE_STRIDE);
        _tile_dpbf16ps(1, 4, 6);
        _tile_loadd(7, o->b[2] + k * TILE_BYTES, TILE_STRIDE);
        _tile_dpbf16ps(2, 4, 7);
        _tile_loadd(5, o->b[3] + k * TILE_BYTES, TILE_STRIDE);
        _tile_dpbf16ps(3, 4, 5);
    }
    _tile_stored(0, o->c[0][0], TILE_STRIDE);
    _tile_stored(1, o->c[0][1], TILE_STRIDE);
    _tile_stored(2, o->c[0][2], TILE_STRIDE);
    _tile_stored(3, o->c[0][3], TILE_STRIDE);
}

/* Panels `panel` and panel + 1. */
static void tiles_2x2(const struct operands *o, size_t panel)
{
    _tile_loadd(0, o->c[0][panel], TILE_STRIDE);
    _tile_loadd(1, o->c[0][panel + 1], TILE_STRIDE);
    _tile_loadd(2, o->c[1][panel], TILE_STRIDE);
    _tile_loadd(3, o->c[1][panel + 1], TILE_STRIDE);
    for (size_t k = 0; k < o->tile_count; k++) {
        ask_ahead(o, panel, k);
        ask_ahead(o, panel + 1, k);
        _tile_loadd(4, o->a[0] + k * TILE_BYTES, TILE_STRIDE);
        _tile_loadd(6, o->b[panel] + k * TILE_BYTES, TILE_STRIDE);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, o->b[panel + 1] + k * TILE_BYTES, TILE_STRIDE);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, o->a[1] + k * TILE_BYTES, TILE_STRIDE);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, o->c[0][panel], TILE_STRIDE);
    _tile_stored(1, o->c[0][panel + 1], TILE_STRIDE);
    _tile_stored(2, o->c[1][panel], TILE_STRIDE);
    _tile_stored(3, o->c[1][panel + 1], TILE_STRIDE);
}

/* One or two tiles of rows. */
static void tiles_multiply(const struct operands *o, size_t row_tiles)
{
    if (row_tiles == 1) {
        tiles_1x4(o);
        return;
    }
    tiles_2x2(o, 0);
    tiles_2x2(o, 2);
}

/* --- one chunk of columns, up to four panels --- */

struct chunk {
    const struct packed_matrix *w;
    const struct activations *x;
    size_t row_tiles;
    size_t column; /* the chunk's first */
    size_t columns;
    size_t panel; /* first of the four, in w */
    size_t panel_count;
    float *sums; /* of the first panel */
};

static const char *panel_at(const struct chunk *chunk, size_t panel)
{
    /* A panel that is not there is the last once more; what comes of it is thrown away. */
    const size_t index = panel < chunk->panel_count ? panel : chunk->panel_count - 1;

    return (const char *)chunk->w->data +
           (chunk->panel + index) * packed_panel_bytes(chunk->w->type, chunk->w->columns);
}

static float *sums_at(const struct chunk *chunk, size_t row_tile, size_t panel)
{
    return chunk->sums + (panel * AMX_ROWS + row_tile * TILE_ROWS) * PANEL_ROWS;
}

/* All rows of the chunk over tiles [tile, tile + o->tile_count) of its columns. */
static void chunk_rows(const struct chunk *chunk, struct operands *o, size_t tile)
{
    static const size_t pair = 2;
    _Alignas(64) float nowhere[2 * TILE_ROWS * PANEL_ROWS];

    for (size_t row_tile = 0; row_tile < chunk->row_tiles; row_tile += pair) {
        const size_t left = chunk->row_tiles - row_tile;
        const size_t tiles = left < pair ? left : pair;

        for (size_t i = 0; i < tiles; i++) {
            o->a[i] = chunk->x->tiles[row_tile + i][tile];
            for (size_t panel = 0; panel < PANELS_TOGETHER; panel++) {
                o->c[i][panel] = panel < chunk->panel_count ? sums_at(chunk, row_tile + i, panel)
                                                            : nowhere + i * TILE_ROWS * PANEL_ROWS;
            }
        }
        tiles_multiply(o, tiles);
    }
}

/* bf16: whole tiles from the panels, then what is left of the columns, padded. */
static void chunk_bf16(const struct chunk *chunk)
{
    _Alignas(64) char rest[PANELS_TOGETHER][TILE_BYTES] = {{0}};
    const size_t tiles = chunk->columns / TILE_COLUMNS;
    const size_t rest_bytes = (chunk->columns % TILE_COLUMNS + 1) / 2 * (TILE_BYTES / TILE_ROWS);
    struct operands o = {.tile_count = tiles, .ahead_bytes = TILE_BYTES};

    for (size_t panel = 0; panel < PANELS_TOGETHER; panel++) {
        o.b[panel] = panel_at(chunk, panel) + chunk->column * PANEL_ROWS * sizeof(uint16_t);
        o.ahead[panel] = o.b[panel] + AHEAD_TILES * TILE_BYTES;
        memcpy(rest[panel], o.b[panel] + tiles * TILE_BYTES, rest_bytes);
    }
    chunk_rows(chunk, &o, 0);
    if (rest_bytes > 0) {
        for (size_t panel = 0; panel < PANELS_TOGETHER; panel++) {
            o.b[panel] = rest[panel];
        }
        o.tile_count = 1;
        chunk_rows(chunk, &o, tiles);
    }
}

/* Two codes of each output: the exponent gets bf16's bias; where it is zero, the few values there
 * are come from a table. Exact. */
static inline __m512i codes_bf16(const char *codes, __m512i denormals)
{
    const __m512i wide =
        _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)codes));
    const __m512i fields = _mm512_slli_epi16(wide, 4);
    const __mmask32 is_small = _mm512_testn_epi16_mask(fields, _mm512_set1_epi16(0x0780));
    const __m512i normal = _mm512_add_epi16(_mm512_and_si512(fields, _mm512_set1_epi16(0x07f0)),
                                            _mm512_set1_epi16(0x3c00));
    const __m512i magnitude = _mm512_mask_permutexvar_epi16(normal, is_small, wide, denormals);

    return _mm512_or_si512(magnitude, _mm512_and_si512(wide, _mm512_set1_epi16((short)0x8000)));
}

/* m · 2^-9 for m = 0 … 7, by the code's lowest five bits. */
static __m512i denormal_table(void)
{
    return _mm512_castsi128_si512(
        _mm_setr_epi16(0, 0x3b00, 0x3b80, 0x3bc0, 0x3c00, 0x3c20, 0x3c40, 0x3c60));
}

/* One block of codes of a panel as tiles; columns that are not there are zero. */
static void block_tiles(char *out, const char *codes, size_t columns)
{
    const __m512i denormals = denormal_table();
    const size_t groups = (columns + F8_GROUP - 1) / F8_GROUP;

    for (size_t i = 0; i < groups * 2; i++) {
        _mm512_store_si512(out + i * TILE_STRIDE, codes_bf16(codes + i * 32, denormals));
    }
    memset(out + groups * 2 * TILE_STRIDE, 0, (SCALE_BLOCK / 2 - groups * 2) * TILE_STRIDE);
}

/* sums += scale · block */
static void block_close(const struct chunk *chunk, size_t panel, float scale, const float *block)
{
    const __m512 factor = _mm512_set1_ps(scale * CODE_FACTOR);
    float *sums = sums_at(chunk, 0, panel);

    for (size_t i = 0; i < chunk->row_tiles * TILE_ROWS * PANEL_ROWS; i += 16) {
        _mm512_store_ps(
            sums + i, _mm512_fmadd_ps(_mm512_load_ps(block + i), factor, _mm512_load_ps(sums + i)));
    }
}

static void chunk_f8(const struct chunk *chunk)
{
    _Alignas(64) char tiles[PANELS_TOGETHER][BLOCK_TILES * TILE_BYTES];
    _Alignas(64) float block[PANELS_TOGETHER][AMX_ROWS * PANEL_ROWS];
    struct chunk part = *chunk;
    struct operands o = {.ahead_bytes = SCALE_BLOCK * PANEL_ROWS / BLOCK_TILES};

    part.sums = block[0];
    for (size_t column = 0; column < chunk->columns; column += SCALE_BLOCK) {
        const size_t left = chunk->columns - column;
        const size_t columns = left < SCALE_BLOCK ? left : SCALE_BLOCK;

        o.tile_count = (columns + TILE_COLUMNS - 1) / TILE_COLUMNS;
        for (size_t panel = 0; panel < PANELS_TOGETHER; panel++) {
            const char *codes = panel_at(chunk, panel) + (chunk->column + column) * PANEL_ROWS;

            memset(block[panel], 0, chunk->row_tiles * TILE_BYTES);
            block_tiles(tiles[panel], codes, columns);
            o.b[panel] = tiles[panel];
            o.ahead[panel] = codes + SCALE_BLOCK * PANEL_ROWS;
        }
        chunk_rows(&part, &o, column / TILE_COLUMNS);
        for (size_t panel = 0; panel < chunk->panel_count; panel++) {
            const char *scales = panel_at(chunk, panel) + packed_scales_begin(chunk->w->columns);
            float scale;

            memcpy(&scale, scales + (chunk->column + column) / SCALE_BLOCK * sizeof(scale),
                   sizeof(scale));
            block_close(chunk, panel, scale, block[panel]);
        }
    }
}

/* --- all of it --- */

static void matrix_chunk(const struct amx_task *task, const struct packed_matrix *w,
                         const struct activations *x, size_t column, size_t columns,
                         struct amx_sums *sums)
{
    for (size_t panel = 0; panel < task->panel_count; panel += PANELS_TOGETHER) {
        const size_t left = task->panel_count - panel;
        const struct chunk chunk = {
            .w = w,
            .x = x,
            .row_tiles = (task->row_count + TILE_ROWS - 1) / TILE_ROWS,
            .column = column,
            .columns = columns,
            .panel = task->panel + panel,
            .panel_count = left < PANELS_TOGETHER ? left : PANELS_TOGETHER,
            .sums = sums->values[panel][0],
        };

        if (w->type == WEIGHT_F8_E4M3) {
            chunk_f8(&chunk);
        } else {
            chunk_bf16(&chunk);
        }
    }
}

static void sums_clear(const struct amx_task *task, struct amx_sums *sums)
{
    memset(sums->values, 0, task->panel_count * sizeof(sums->values[0]));
}

void amx_multiply(const struct amx_task *task, struct amx_sums *sums, struct amx_sums *up_sums)
{
    const size_t all = task->w->columns;
    struct activations x;

    tiles_configure();
    sums_clear(task, sums);
    if (task->up != NULL) {
        sums_clear(task, up_sums);
    }
    for (size_t column = 0; column < all; column += CHUNK_COLUMNS) {
        const size_t columns = all - column < CHUNK_COLUMNS ? all - column : CHUNK_COLUMNS;
        const struct rows_view part = {task->x.values + column, task->x.stride};

        activations_make(&x, task->w->type, part, task->row_count, columns);
        matrix_chunk(task, task->w, &x, column, columns, sums);
        if (task->up != NULL && task->up->type != task->w->type) {
            activations_make(&x, task->up->type, part, task->row_count, columns);
        }
        if (task->up != NULL) {
            matrix_chunk(task, task->up, &x, column, columns, up_sums);
        }
    }
    _tile_release();
}
