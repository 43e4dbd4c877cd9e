/* bench_attention.c - one layer's attention, at any depth of context.
 *
 * Usage: bench.attention CONFIG KV_TYPE THREADS DEPTH…; SHOAL_CPU chooses the level. Dummy weights
 * of one layer of a config.json; rows of one sequence from the depth on: one (decoding) and
 * PREFILL_ROWS (a chunk of a prompt). Beside each time stands that at depth 0: what is between the
 * two is the cost of depth, shown as bytes of cache and multiply-adds a second. The rounds go over
 * as many sequences as fill CACHE_BYTES, so that decoding reads its cache from memory. Median of
 * the rounds.
 */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "worker/layers/forward.h"
#include "worker/layers/weights_dummy.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS_DECODE 65
#define ROUNDS_CHUNK  5
#define PREFILL_ROWS  256
#define CACHE_BYTES   ((uint64_t)384 << 20)
#define SLOTS_MAX     64
#define LAYER         1u

struct bench {
    struct catalog *catalog;
    struct weights *weights;
    enum cpu_level level;
    struct team *team;
    struct kv_cache *cache;
    struct forward *forward;
    uint32_t slot_count, slot; /* sequences, and the last one used */
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
    struct kv_config config = {
        .layer_begin = LAYER,
        .layer_end = LAYER + 1,
        .lane_count = 1,
        .blocks_per_slot_max = blocks,
        .layout = kv_layout_of(arch, type),
    };
    uint64_t slots = CACHE_BYTES / (blocks * config.layout.block_bytes);
    struct error err;

    b->slot_count = slots < 1 ? 1 : slots < SLOTS_MAX ? (uint32_t)slots : SLOTS_MAX;
    config.slot_count = b->slot_count;
    config.block_count = blocks * b->slot_count;

    b->cache = kv_cache_create(&config, &err);
    check(b->cache != NULL, &err);
    for (uint32_t block = 0; block < config.block_count; block++) {
        check(kv_cache_extend(b->cache, 0, block / blocks, block % blocks, &block, 1, &err), &err);
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

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* One layer's attention over rows at positions depth …, in ms; x starts the same each time. */
static double rows_time(struct bench *b, uint32_t depth, uint32_t row_count)
{
    const size_t values = (size_t)row_count * b->catalog->arch.hidden;
    const int rounds = row_count == 1 ? ROUNDS_DECODE : ROUNDS_CHUNK;
    double ms[ROUNDS_DECODE];

    for (int round = 0; round < rounds; round++) {
        int64_t began;

        b->slot = (b->slot + 1) % b->slot_count;
        for (uint32_t r = 0; r < row_count; r++) {
            b->rows[r] = (struct forward_row){
                .slot = b->slot,
                .position = depth + r,
                .token_class = row_count == 1 ? TOKEN_GENERATED : TOKEN_PROMPT,
            };
        }
        for (size_t i = 0; i < values; i++) {
            b->x[i] = (float)(i * 2654435761u % 1000003u) / 500000.0f - 1.0f;
        }
        began = clock_monotonic_ns();
        forward_attention(b->forward, LAYER, b->rows, row_count, b->x);
        ms[round] = (double)(clock_monotonic_ns() - began) * 1e-6;
    }
    qsort(ms, (size_t)rounds, sizeof(*ms), by_value);
    return ms[rounds / 2];
}

/* Every block of the contexts is like the first one, which a prompt has written. */
static void contexts_fill(struct bench *b, uint32_t tokens)
{
    const size_t bytes = kv_cache_config(b->cache)->layout.block_bytes;
    const char *first;

    b->slot = b->slot_count - 1;
    (void)rows_time(b, 0, KV_BLOCK_TOKENS);
    first = kv_cache_block(b->cache, LAYER, 0, 0, 0);
    for (uint32_t slot = 0; slot < b->slot_count; slot++) {
        for (uint32_t begin = slot == 0 ? KV_BLOCK_TOKENS : 0; begin < tokens;
             begin += KV_BLOCK_TOKENS) {
            memcpy(kv_cache_block(b->cache, LAYER, 0, slot, begin), first, bytes);
        }
    }
}

/* Multiply-adds of q·k and p·v of one key and one query, all heads: in the grouped form, the
 * absorbed one, or the expanded one. */
static double pair_multiplies(const struct arch *arch, bool is_expanded)
{
    double width = arch->qk_nope_dim + arch->qk_rope_dim + arch->v_head_dim;

    if (arch->attention == ATTENTION_MLA && !is_expanded) {
        width = 2.0 * arch->kv_lora_rank + arch->qk_rope_dim;
    }
    return arch->head_count * width;
}

/* Those that rows at `depth` do beyond those that rows at 0 do. */
static double depth_multiplies(const struct arch *arch, uint32_t depth, uint32_t row_count)
{
    double total = 0.0;

    for (uint32_t r = 0; r < row_count; r++) {
        uint32_t keys = depth + r + 1;
        uint32_t expanded =
            row_count == 1 ? 0
                           : keys - (depth + r) / ATTENTION_SEGMENT_TOKENS * ATTENTION_SEGMENT_TOKENS;

        total += (keys - expanded) * pair_multiplies(arch, false);
        total += expanded * pair_multiplies(arch, true);
        total -= (r + 1) * pair_multiplies(arch, row_count > 1);
    }
    return total;
}

static void line_print(struct bench *b, const char *what, uint32_t depth, uint32_t row_count)
{
    const struct kv_layout *layout = &kv_cache_config(b->cache)->layout;
    double deep = rows_time(b, depth, row_count);
    double shallow = rows_time(b, 0, row_count);
    double seconds = (deep - shallow) * 1e-3;

    printf("depth %6u, %-6s of %3u: %9.3f ms; at 0 %8.3f ms; between %6.2f GB/s, %7.1f GFMA/s\n",
           depth, what, row_count, deep, shallow,
           (double)(kv_layout_token_bytes(layout) * depth) / seconds * 1e-9,
           depth_multiplies(&b->catalog->arch, depth, row_count) / seconds * 1e-9);
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
    team_join(b.team);
    cache_open(&b, type, deepest + PREFILL_ROWS);
    forward_open(&b);
    b.x = mem_new_array(float, (size_t)PREFILL_ROWS *b.catalog->arch.hidden);
    contexts_fill(&b, deepest);
    printf("%s, kv %s, %s threads, %s\n", argv[1], argv[2], argv[3], cpu_level_name(b.level));
    for (int i = 4; i < argc; i++) {
        uint32_t depth = (uint32_t)atoi(argv[i]);

        line_print(&b, "decode", depth, 1);
        line_print(&b, "chunk", depth, PREFILL_ROWS);
    }
    return 0;
}
