/* bench_attention.c - one layer's attention, at any depth of context.
 *
 * Usage: bench.attention CONFIG KV_TYPE THREADS DEPTH…; SHOAL_CPU chooses the level. Dummy weights
 * of one layer of a config.json; rows of one sequence from the depth on: one (decoding) and
 * PREFILL_ROWS (a chunk of a prompt). Beside each time stands that at depth 0: what is between the
 * two is the cost of depth. Best of ROUNDS, wall time and CPU time of all threads: others may use
 * the machine.
 */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "worker/layers/forward.h"
#include "worker/layers/weights_dummy.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROUNDS       5
#define PREFILL_ROWS 256
#define LAYER        1u

struct bench {
    struct catalog *catalog;
    struct weights *weights;
    enum cpu_level level;
    struct team *team;
    struct kv_cache *cache;
    struct forward *forward;
    struct forward_row rows[PREFILL_ROWS];
    float *x;
};

static void check(bool good, const struct error *err)
{
    if (!good) {
        fprintf(stderr, "bench.attention: %s\n", err->message);
        exit(1);
    }
}

static void weights_open(struct bench *b, const char *path)
{
    const struct weights_choice choice = {.source = WEIGHTS_DUMMY};
    const struct weights_share share = {.layer_begin = LAYER, .layer_end = LAYER + 1};
    struct weights_dummy *dummy;
    struct error err;

    b->catalog = catalog_open_weights(path, &choice, &err);
    check(b->catalog != NULL, &err);
    b->weights = weights_plan(b->catalog, &share, &err);
    check(b->weights != NULL, &err);
    dummy = weights_dummy_plan(b->weights, 1);
    check(weights_dummy_bind(dummy, b->weights, &err), &err); /* lives as long as the program */
}

static void cache_open(struct bench *b, enum kv_type type, uint32_t tokens)
{
    const struct arch *arch = &b->catalog->arch;
    const uint32_t blocks = (tokens + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    const struct kv_config config = {
        .layer_begin = LAYER,
        .layer_end = LAYER + 1,
        .lane_count = 1,
        .block_count = blocks,
        .slot_count = 1,
        .blocks_per_slot_max = blocks,
        .layout = kv_layout_of(arch, type),
    };
    struct error err;

    b->cache = kv_cache_create(&config, &err);
    check(b->cache != NULL, &err);
    for (uint32_t block = 0; block < blocks; block++) {
        check(kv_cache_extend(b->cache, 0, 0, block, &block, 1, &err), &err);
    }
}

static void forward_open(struct bench *b)
{
    const struct forward_config config = {
        .arch = &b->catalog->arch,
        .weights = b->weights,
        .cache = b->cache,
        .kernels = kernels_for(b->level, NUMERICS_EXACT),
        .team = b->team,
        .rows_max = PREFILL_ROWS,
        .expert_rows_max = 1,
    };
    struct error err;

    b->forward = forward_create(&config, &err);
    check(b->forward != NULL, &err);
}

struct cost {
    double wall_ms, cpu_ms;
};

static struct cost now(void)
{
    struct timespec cpu;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    return (struct cost){(double)clock_monotonic_ns() * 1e-6,
                         (double)cpu.tv_sec * 1e3 + (double)cpu.tv_nsec * 1e-6};
}

/* One layer's attention over rows at positions depth …; x starts the same each time. */
static struct cost rows_time(struct bench *b, uint32_t depth, uint32_t row_count)
{
    const size_t values = (size_t)row_count * b->catalog->arch.hidden;
    struct cost best = {INFINITY, INFINITY};

    for (uint32_t r = 0; r < row_count; r++) {
        b->rows[r] = (struct forward_row){.position = depth + r};
    }
    for (int round = 0; round < ROUNDS; round++) {
        struct cost began, ended;

        for (size_t i = 0; i < values; i++) {
            b->x[i] = (float)(i * 2654435761u % 1000003u) / 500000.0f - 1.0f;
        }
        began = now();
        forward_attention(b->forward, LAYER, b->rows, row_count, b->x);
        ended = now();
        best.wall_ms = fmin(best.wall_ms, ended.wall_ms - began.wall_ms);
        best.cpu_ms = fmin(best.cpu_ms, ended.cpu_ms - began.cpu_ms);
    }
    return best;
}

/* Every block of the context is like the first one, which a prompt has written. */
static void context_fill(struct bench *b, uint32_t tokens)
{
    const size_t bytes = kv_cache_config(b->cache)->layout.block_bytes;
    const char *first;

    (void)rows_time(b, 0, KV_BLOCK_TOKENS);
    first = kv_cache_block(b->cache, LAYER, 0, 0, 0);
    for (uint32_t begin = KV_BLOCK_TOKENS; begin < tokens; begin += KV_BLOCK_TOKENS) {
        memcpy(kv_cache_block(b->cache, LAYER, 0, 0, begin), first, bytes);
    }
}

static void line_print(struct bench *b, const char *what, uint32_t depth, uint32_t row_count)
{
    struct cost deep = rows_time(b, depth, row_count);
    struct cost shallow = rows_time(b, 0, row_count);

    printf("depth %6u, %-6s of %3u: %9.3f ms, CPU %9.3f ms; at 0 %8.3f ms, CPU %8.3f ms\n", depth,
           what, row_count, deep.wall_ms, deep.cpu_ms, shallow.wall_ms, shallow.cpu_ms);
}

int main(int argc, char **argv)
{
    struct bench b = {0};
    struct error err;
    enum kv_type type = KV_F16;
    uint32_t deepest = 0;

    if (argc < 5) {
        fprintf(stderr, "usage: bench.attention CONFIG KV_TYPE THREADS DEPTH…\n");
        return 2;
    }
    check(kv_type_parse(argv[2], &type, &err), &err);
    for (int i = 4; i < argc; i++) {
        uint32_t depth = (uint32_t)atoi(argv[i]);

        deepest = depth > deepest ? depth : deepest;
    }
    check(cpu_level_choose(&b.level, &err), &err);
    weights_open(&b, argv[1]);
    b.team = team_create(&(struct team_config){(uint32_t)atoi(argv[3]), -1}, &err);
    check(b.team != NULL, &err);
    cache_open(&b, type, deepest + PREFILL_ROWS);
    forward_open(&b);
    b.x = mem_new_array(float, (size_t)PREFILL_ROWS *b.catalog->arch.hidden);
    context_fill(&b, deepest);
    printf("%s, kv %s, %s threads, %s\n", argv[1], argv[2], argv[3], cpu_level_name(b.level));
    for (int i = 4; i < argc; i++) {
        uint32_t depth = (uint32_t)atoi(argv[i]);

        line_print(&b, "decode", depth, 1);
        line_print(&b, "chunk", depth, PREFILL_ROWS);
    }
    return 0;
}
