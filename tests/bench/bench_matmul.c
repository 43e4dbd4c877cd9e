/* bench_matmul.c - products of published weight types against what the machine can do.
 *
 * Usage: bench.matmul [threads] [MB of weights] [type]; SHOAL_CPU chooses the level. Times of
 * different runs do not compare (machines drift), so each figure stands beside a limit measured in
 * the same run: decode beside a plain read of the same memory, prefill beside FMAs on registers, or
 * beside int8 dot products on registers where the machine has VNNI and the type blocks.
 */
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "worker/kernels/kernels.h"
#include "worker/team/team.h"

#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS        5
#define PANELS_A_TILE 16
#define PREFILL_ROWS  512
#define CODE_ROWS     16
#define FMA_TURNS     (1 << 21)
#define FMA_CHAINS    12
#define READ_BYTES    ((size_t)1 << 20) /* of one read tile */
#define READ_STREAMS  4

typedef uint64_t vector __attribute__((vector_size(16)));

struct bench {
    const struct kernels *kernels;
    struct team *team;
    char *memory; /* of all weights */
    uint64_t bytes;
    struct packed_matrix w; /* the matrix at hand */
    float *x, *out;
    struct int8_rows codes;
    uint32_t row_count;
    uint64_t *sink;                           /* [tile], keeps results alive */
    double read_gb_s, fma_gflop_s, dot_gop_s; /* the last: FMAs again without VNNI */
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

/* Four streams, asked for ahead: one alone does not fill the memory system. */
static void read_tile(void *context, size_t tile, uint32_t thread)
{
    const struct bench *b = context;
    const char *at = b->memory + tile * READ_BYTES;
    struct line {
        vector part[4];
    } line;
    vector sum[READ_STREAMS] = {{0}};

    (void)thread;
    for (size_t i = 0; i < READ_BYTES / READ_STREAMS; i += sizeof(line)) {
#pragma GCC unroll 4
        for (size_t s = 0; s < READ_STREAMS; s++) {
            const char *from = at + s * (READ_BYTES / READ_STREAMS) + i;

            memcpy(&line, from, sizeof(line));
            __builtin_prefetch(from + 2048);
            sum[s] ^= line.part[0] ^ line.part[1] ^ line.part[2] ^ line.part[3];
        }
    }
    for (size_t s = 0; s < READ_STREAMS; s++) {
        b->sink[tile] ^= sum[s][0] ^ sum[s][1];
    }
}

__attribute__((target("avx512f"))) static void fma_tile_avx512(void *context, size_t tile,
                                                               uint32_t thread)
{
    const struct bench *b = context;
    const __m512 a = _mm512_set1_ps(0.999f), c = _mm512_set1_ps(0.25f);
    __m512 sum[FMA_CHAINS];

    (void)thread;
#pragma GCC unroll 12
    for (int i = 0; i < FMA_CHAINS; i++) {
        sum[i] = _mm512_set1_ps((float)i);
    }
    for (int turn = 0; turn < FMA_TURNS; turn++) {
#pragma GCC unroll 12
        for (int i = 0; i < FMA_CHAINS; i++) {
            sum[i] = _mm512_fmadd_ps(sum[i], a, c);
        }
    }
#pragma GCC unroll 12
    for (int i = 1; i < FMA_CHAINS; i++) {
        sum[0] = _mm512_add_ps(sum[0], sum[i]);
    }
    b->sink[tile] = (uint64_t)_mm512_cvtss_f32(sum[0]);
}

__attribute__((target("avx2,fma"))) static void fma_tile_avx2(void *context, size_t tile,
                                                              uint32_t thread)
{
    const struct bench *b = context;
    const __m256 a = _mm256_set1_ps(0.999f), c = _mm256_set1_ps(0.25f);
    __m256 sum[FMA_CHAINS];

    (void)thread;
#pragma GCC unroll 12
    for (int i = 0; i < FMA_CHAINS; i++) {
        sum[i] = _mm256_set1_ps((float)i);
    }
    for (int turn = 0; turn < FMA_TURNS; turn++) {
#pragma GCC unroll 12
        for (int i = 0; i < FMA_CHAINS; i++) {
            sum[i] = _mm256_fmadd_ps(sum[i], a, c);
        }
    }
#pragma GCC unroll 12
    for (int i = 1; i < FMA_CHAINS; i++) {
        sum[0] = _mm256_add_ps(sum[0], sum[i]);
    }
    b->sink[tile] = (uint64_t)_mm256_cvtss_f32(sum[0]);
}

__attribute__((target("avx512f,avx512vnni"))) static void dot_tile(void *context, size_t tile,
                                                                   uint32_t thread)
{
    const struct bench *b = context;
    const __m512i a = _mm512_set1_epi8(3), c = _mm512_set1_epi8(5);
    __m512i sum[FMA_CHAINS];

    (void)thread;
#pragma GCC unroll 12
    for (int i = 0; i < FMA_CHAINS; i++) {
        sum[i] = _mm512_set1_epi32(i);
    }
    for (int turn = 0; turn < FMA_TURNS; turn++) {
#pragma GCC unroll 12
        for (int i = 0; i < FMA_CHAINS; i++) {
            sum[i] = _mm512_dpbusd_epi32(sum[i], a, c);
            __asm__("" : "+v"(sum[i])); /* no sum is foreseen */
        }
    }
#pragma GCC unroll 12
    for (int i = 1; i < FMA_CHAINS; i++) {
        sum[0] = _mm512_add_epi32(sum[0], sum[i]);
    }
    b->sink[tile] = (uint64_t)_mm_cvtsi128_si32(_mm512_castsi512_si128(sum[0]));
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

static void measure_limits(struct bench *b)
{
    const uint32_t threads = team_thread_count(b->team);
    const bool wide = b->kernels->level >= CPU_AVX512;
    const team_fn fma_tile = wide ? fma_tile_avx512 : fma_tile_avx2;
    const double flops = 2.0 * (wide ? 16 : 8) * FMA_CHAINS * FMA_TURNS * threads;
    const double dots = 2.0 * 64 * FMA_CHAINS * FMA_TURNS * threads;
    double read[ROUNDS], fma[ROUNDS], dot[ROUNDS];

    for (int round = 0; round < ROUNDS; round++) {
        int64_t start_ns = clock_monotonic_ns();

        team_run(b->team, read_tile, b, b->bytes / READ_BYTES);
        read[round] = (double)b->bytes / seconds_since(start_ns) / 1e9;
        start_ns = clock_monotonic_ns();
        if (cpu_level_available(CPU_AVX2)) {
            team_run(b->team, fma_tile, b, threads);
            fma[round] = flops / seconds_since(start_ns) / 1e9;
        } else {
            fma[round] = 0;
        }
        start_ns = clock_monotonic_ns();
        if (cpu_level_available(CPU_VNNI)) {
            team_run(b->team, dot_tile, b, threads);
            dot[round] = dots / seconds_since(start_ns) / 1e9;
        } else {
            dot[round] = fma[round];
        }
    }
    b->dot_gop_s = median(dot);
    b->read_gb_s = median(read);
    b->fma_gflop_s = median(fma);
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
    read_share = median(gb_s) / b->read_gb_s;
    peak_share = median(gop_s) / (is_blocks ? b->dot_gop_s : b->fma_gflop_s);
    bound = read_share > peak_share ? "read" : is_blocks ? "int8" : "FMA";
    printf("%-7s %u x %u, %3u rows: %7.2f GB/s, %7.1f GOPS: %3.0f %% of %s\n",
           weight_type_name(b->w.type), b->w.rows, columns, row_count, gb_s[ROUNDS / 2],
           gop_s[ROUNDS / 2], 100 * (read_share > peak_share ? read_share : peak_share), bound);
    fflush(stdout);
}

static bool bench_init(struct bench *b, uint32_t threads, uint64_t megabytes, struct error *err)
{
    const struct team_config config = {.thread_count = threads, .spin_ns = -1};
    enum cpu_level level;

    *b = (struct bench){.bytes = megabytes << 20, .w = {.type = WEIGHT_BF16, .rows = 2048}};
    if (!cpu_level_choose(&level, err)) {
        return false;
    }
    b->kernels = kernels_for(level, NUMERICS_INT8);
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
    b->sink = mem_new_array(uint64_t, b->bytes / READ_BYTES + team_thread_count(b->team));
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
    mem_free(b->sink);
}

int main(int argc, char **argv)
{
    static const enum weight_type types[] = {
        WEIGHT_BF16, WEIGHT_F16,  WEIGHT_F32,  WEIGHT_F8_E4M3, WEIGHT_Q8_0, WEIGHT_Q5_0,
        WEIGHT_Q4_K, WEIGHT_Q6_K, WEIGHT_Q2_K, WEIGHT_IQ2_XXS, WEIGHT_IQ1_S};
    static const uint32_t columns[] = {2048, 7168}, rows[] = {1, 4, 8, 16, PREFILL_ROWS};
    const char *only = argc > 3 ? argv[3] : NULL;
    const uint32_t threads = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 0;
    const uint64_t megabytes = argc > 2 ? strtoull(argv[2], NULL, 10) : 1024;
    struct bench b;
    struct error err;

    if (!bench_init(&b, threads, megabytes, &err)) {
        fprintf(stderr, "bench.matmul: %s\n", err.message);
        bench_deinit(&b);
        return 1;
    }
    for (size_t t = 0; t < ARRAY_LENGTH(types); t++) {
        b.w.type = types[t];
        if (only != NULL && strcmp(only, weight_type_name(types[t])) != 0) {
            continue;
        }
        measure_limits(&b);
        printf("level %s, %u threads, %llu MB: read %.2f GB/s, FMA %.1f GFLOPS, int8 %.1f GOPS\n",
               cpu_level_name(b.kernels->level), team_thread_count(b.team),
               (unsigned long long)megabytes, b.read_gb_s, b.fma_gflop_s, b.dot_gop_s);
        for (size_t c = 0; c < ARRAY_LENGTH(columns); c++) {
            for (size_t r = 0; r < ARRAY_LENGTH(rows); r++) {
                measure_product(&b, columns[c], rows[r]);
            }
        }
    }
    bench_deinit(&b);
    return 0;
}
