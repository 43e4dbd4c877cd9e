/* bench_matmul.c - products of published weight types against what the machine can do.
 *
 * Usage: bench.matmul [threads] [MB of weights] [weight type, all: ""] [numerics, int8]; SHOAL_CPU
 * chooses the level. Times of different runs do not compare (machines drift), so each figure stands
 * beside a limit measured in the same run (worker/kernels/limits.h): of reading memory, or of the
 * level's FMAs, for block types of its int8 products, whichever is nearer.
 */
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "worker/kernels/kernels.h"
#include "worker/kernels/limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS        5
#define PANELS_A_TILE 16
#define PREFILL_ROWS  512
#define CODE_ROWS     16
#define LIMIT_BYTES   ((uint64_t)1 << 30) /* at most, of the measurement of reading */

struct bench {
    const struct kernels *kernels;
    struct team *team;
    char *memory; /* of all weights */
    uint64_t bytes;
    struct packed_matrix w; /* the matrix at hand */
    float *x, *out;
    struct int8_rows codes;
    uint32_t row_count;
    struct machine_limits limits; /* measured beside the type at hand */
};

static void product_tile(void *context, size_t tile, uint32_t thread)
{
    const struct bench *b = context;
    const uint32_t panels = packed_panel_count(b->w.rows);
    const uint32_t begin = (uint32_t)tile * PANELS_A_TILE;
    const uint32_t end = begin + PANELS_A_TILE < panels ? begin + PANELS_A_TILE : panels;

    (void)thread;
    if (weight_type_is_blocks(b->w.type)) {
        b->kernels->matmul_codes(&b->w, NULL, begin, end, b->codes, b->row_count,
                                 (struct rows_out){b->out, b->w.rows});
        return;
    }
    b->kernels->matmul(&b->w, begin, end, (struct rows_view){b->x, b->w.columns}, b->row_count,
                       (struct rows_out){b->out, b->w.rows});
}

static void code_tile(void *context, size_t tile, uint32_t thread)
{
    const struct bench *b = context;
    const uint32_t row = (uint32_t)tile * CODE_ROWS;
    const uint32_t rows = b->row_count - row < CODE_ROWS ? b->row_count - row : CODE_ROWS;

    (void)thread;
    b->kernels->code_rows(b->w.type, b->w.columns,
                          (struct rows_view){b->x + (size_t)row * b->w.columns, b->w.columns}, rows,
                          (struct int8_rows){b->codes.chunks, b->codes.stride, row});
}

static double seconds_since(int64_t start_ns)
{
    return (double)(clock_monotonic_ns() - start_ns) / (double)NS_PER_S;
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Sorts the values. */
static double median(double *values)
{
    qsort(values, ROUNDS, sizeof(*values), compare_doubles);
    return values[ROUNDS / 2];
}

/* Decode passes over as many matrices of this shape as the memory holds; prefill takes one. */
static void measure_product(struct bench *b, uint32_t columns, uint32_t row_count)
{
    const uint64_t matrix_bytes = packed_bytes(b->w.type, b->w.rows, columns);
    const uint64_t fit = b->bytes / matrix_bytes;
    const uint64_t matrices = row_count < PREFILL_ROWS ? fit : 1;
    const size_t tiles = (packed_panel_count(b->w.rows) + PANELS_A_TILE - 1) / PANELS_A_TILE;
    const bool is_blocks = weight_type_is_blocks(b->w.type);
    double gb_s[ROUNDS], gop_s[ROUNDS], read_share, peak_share;
    const char *bound;

    b->w.columns = columns;
    b->row_count = row_count;
    for (int round = -1; round < ROUNDS; round++) { /* the first finds cold pages */
        int64_t start_ns = clock_monotonic_ns();
        double s;

        if (is_blocks) {
            team_run(b->team, code_tile, b, (row_count + CODE_ROWS - 1) / CODE_ROWS);
        }
        for (uint64_t matrix = 0; matrix < matrices; matrix++) {
            b->w.data = b->memory + matrix * matrix_bytes;
            team_run(b->team, product_tile, b, tiles);
        }
        s = seconds_since(start_ns);
        if (round < 0) {
            continue;
        }
        gb_s[round] = (double)(matrices * matrix_bytes) / s / 1e9;
        gop_s[round] = 2.0 * (double)matrices * b->w.rows * columns * row_count / s / 1e9;
    }
    read_share = median(gb_s) * 1e9 / b->limits.read_bytes_per_s;
    peak_share = median(gop_s) * 1e9 /
                 (is_blocks ? b->limits.int8_operations_per_s : b->limits.f32_operations_per_s);
    bound = read_share > peak_share ? "read" : is_blocks ? b->limits.int8_unit : b->limits.f32_unit;
    printf("%-7s %u x %u, %3u rows: %7.2f GB/s, %7.1f GOPS: %3.0f %% of %s\n",
           weight_type_name(b->w.type), b->w.rows, columns, row_count, gb_s[ROUNDS / 2],
           gop_s[ROUNDS / 2], 100 * (read_share > peak_share ? read_share : peak_share), bound);
    fflush(stdout);
}

static bool bench_init(struct bench *b, uint32_t threads, uint64_t megabytes,
                       const char *numerics_text, struct error *err)
{
    enum numerics numerics = NUMERICS_INT8;
    const struct team_config config = {.thread_count = threads, .spin_ns = -1};
    enum cpu_level level;

    *b = (struct bench){.bytes = megabytes << 20, .w = {.type = WEIGHT_BF16, .rows = 2048}};
    if (!cpu_level_choose(&level, err)) {
        return false;
    }
    if (numerics_text != NULL &&
        (!numerics_find(numerics_text, &numerics) || !kernels_available(level, numerics))) {
        return error_set(err, ERROR_USAGE, "no numerics %s here", numerics_text);
    }
    b->kernels = kernels_for(level, numerics);
    b->team = team_create(&config, err);
    b->memory = b->team != NULL ? mem_map_pages(b->bytes, err) : NULL;
    if (b->memory == NULL) {
        return false;
    }
    for (uint64_t i = 0; i < b->bytes; i += 2) {
        uint16_t value = (uint16_t)(0x3f00 | (i * 37 & 0x80ff)); /* ±0.5 … ±1; also f8 and scales */
        memcpy(b->memory + i, &value, sizeof(value));
    }
    b->x = mem_new_array(float, (size_t)PREFILL_ROWS * 7168);
    b->out = mem_new_array(float, (size_t)PREFILL_ROWS * b->w.rows);
    b->codes.chunks = mem_map_pages(int8_rows_bytes(7168, PREFILL_ROWS), err);
    b->codes.stride = PREFILL_ROWS;
    if (b->codes.chunks == NULL) {
        return false;
    }
    for (size_t i = 0; i < (size_t)PREFILL_ROWS * 7168; i++) {
        b->x[i] = (float)(i % 17) / 16.0f - 0.5f;
    }
    return true;
}

static void bench_deinit(struct bench *b)
{
    team_destroy(b->team);
    mem_unmap_pages(b->memory, b->bytes);
    mem_unmap_pages(b->codes.chunks, int8_rows_bytes(7168, PREFILL_ROWS));
    mem_free(b->x);
    mem_free(b->out);
}

int main(int argc, char **argv)
{
    static const enum weight_type types[] = {
        WEIGHT_BF16, WEIGHT_F16,  WEIGHT_F32,  WEIGHT_F8_E4M3, WEIGHT_Q8_0, WEIGHT_Q5_0,
        WEIGHT_Q4_K, WEIGHT_Q6_K, WEIGHT_Q2_K, WEIGHT_IQ2_XXS, WEIGHT_IQ1_S};
    static const uint32_t columns[] = {2048, 7168}, rows[] = {1, 4, 8, 16, PREFILL_ROWS};
    const char *only = argc > 3 && argv[3][0] != '\0' ? argv[3] : NULL;
    const uint32_t threads = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 0;
    const uint64_t megabytes = argc > 2 ? strtoull(argv[2], NULL, 10) : 1024;
    struct bench b;
    struct error err;

    if (!bench_init(&b, threads, megabytes, argc > 4 ? argv[4] : NULL, &err)) {
        fprintf(stderr, "bench.matmul: %s\n", err.message);
        bench_deinit(&b);
        return 1;
    }
    for (size_t t = 0; t < ARRAY_LENGTH(types); t++) {
        b.w.type = types[t];
        if (only != NULL && strcmp(only, weight_type_name(types[t])) != 0) {
            continue;
        }
        if (!limits_measure(b.team, b.kernels->level, LIMIT_BYTES, &b.limits, &err)) {
            fprintf(stderr, "bench.matmul: %s\n", err.message);
            bench_deinit(&b);
            return 1;
        }
        printf("level %s, %u threads, %llu MB: read %.2f GB/s, %s %.1f GFLOPS, %s %.1f GOPS\n",
               cpu_level_name(b.kernels->level), team_thread_count(b.team),
               (unsigned long long)megabytes, b.limits.read_bytes_per_s / 1e9, b.limits.f32_unit,
               b.limits.f32_operations_per_s / 1e9, b.limits.int8_unit,
               b.limits.int8_operations_per_s / 1e9);
        for (size_t c = 0; c < ARRAY_LENGTH(columns); c++) {
            for (size_t r = 0; r < ARRAY_LENGTH(rows); r++) {
                measure_product(&b, columns[c], rows[r]);
            }
        }
    }
    bench_deinit(&b);
    return 0;
}
