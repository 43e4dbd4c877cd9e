/* bench_load.c - loading with a warm page cache against what the machine can read.
 *
 * Usage: bench.load [threads [MODEL ...]]; without models it writes a BF16 and an FP8 one of about
 * 1 GB below $TMPDIR and removes them. A round takes the parts one after another, each on files
 * that `cat` just brought into the page cache: as many threads `pread` the very ranges of the load
 * into fresh memory with MADV_HUGEPAGE, 1 MB at a time; the load itself, until every byte stands in
 * kernel layout, with and without checksums; and `cat` once more, timed. Machines drift: only
 * ratios count, and the best of ROUNDS stands for each part.
 */
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "tests/support/checkpoint_write.h"
#include "tests/support/scratch.h"
#include "worker/stage/load.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS      7
#define READ_BYTES  ((uint64_t)1 << 20)
#define THREADS_MAX 256u

struct bench {
    struct catalog *catalog;
    struct weights *weights;
    struct load_plan *plan;
    uint32_t threads;
    int *files;
    char *memory;
    _Atomic uint64_t cursor; /* of the plain read: the next block */
    uint64_t block_count;
    struct block {
        uint32_t file;
        uint64_t offset, bytes, destination;
    } * blocks;
};

static void check(bool good, const struct error *err)
{
    if (!good) {
        fprintf(stderr, "bench.load: %s\n", err->message);
        exit(1);
    }
}

/* Wall time is what a user waits for; CPU time of all threads, system calls included, also means
 * something while others use the machine. */
struct cost {
    double wall_s, cpu_s;
};

static struct cost now(void)
{
    struct timespec cpu;

    ASSERT(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu) == 0);
    return (struct cost){(double)clock_monotonic_ns() * 1e-9,
                         (double)cpu.tv_sec + (double)cpu.tv_nsec * 1e-9};
}

static void keep_best(struct cost *best, struct cost begin)
{
    struct cost end = now();
    double wall_s = end.wall_s - begin.wall_s;
    double cpu_s = end.cpu_s - begin.cpu_s;

    best->wall_s = best->wall_s == 0 || wall_s < best->wall_s ? wall_s : best->wall_s;
    best->cpu_s = best->cpu_s == 0 || cpu_s < best->cpu_s ? cpu_s : best->cpu_s;
}

/* --- cat --- */

static void cat(const struct bench *bench)
{
    char *block = mem_new_array(char, 128 << 10);

    for (uint32_t i = 0; i < bench->catalog->file_count; i++) {
        (void)lseek(bench->files[i], 0, SEEK_SET);
        while (read(bench->files[i], block, 128 << 10) > 0) {
        }
    }
    mem_free(block);
}

static uint64_t file_bytes(const struct bench *bench)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < bench->catalog->file_count; i++) {
        bytes += bench->catalog->files[i].bytes;
    }
    return bytes;
}

/* Machines that give their free memory back to a host get it back slowly: each part begins with
 * pages that were in use just before. */
static void prime_memory(uint64_t bytes)
{
    struct error err;
    char *memory = mem_map_pages(bytes, &err);

    check(memory != NULL, &err);
    for (uint64_t at = 0; at < bytes; at += 4096) {
        memory[at] = 1;
    }
    mem_unmap_pages(memory, bytes);
}

/* --- plain pread --- */

static void blocks_add(struct bench *bench, uint32_t file, uint64_t offset, uint64_t bytes)
{
    static uint64_t destination;

    if (bench->block_count == 0) {
        destination = 0;
    }
    while (bytes > 0) {
        uint64_t part = bytes < READ_BYTES ? bytes : READ_BYTES;

        bench->blocks[bench->block_count++] = (struct block){file, offset, part, destination};
        offset += part;
        bytes -= part;
        destination += part;
    }
}

static void blocks_plan(struct bench *bench)
{
    const struct weights *weights = bench->weights;

    bench->blocks =
        mem_new_array(struct block, weights->file_bytes / READ_BYTES + 2 * weights->piece_count);
    for (uint32_t i = 0; i < weights->piece_count; i++) {
        const struct tensor *tensor = weights->pieces[i].tensor;

        blocks_add(bench, tensor->file, tensor->offset, tensor->bytes);
        blocks_add(bench, tensor->scales.file, tensor->scales.offset, tensor->scales.bytes);
    }
}

static void *plain_thread(void *context)
{
    struct bench *bench = context;
    uint64_t at;

    while ((at = atomic_fetch_add(&bench->cursor, 1)) < bench->block_count) {
        const struct block *block = &bench->blocks[at];
        struct error err;

        check(file_pread(bench->files[block->file], bench->memory + block->destination,
                         block->bytes, block->offset, "model", &err),
              &err);
    }
    return NULL;
}

static void plain_read(struct bench *bench, struct cost *best)
{
    pthread_t threads[THREADS_MAX];
    struct error err;
    struct cost begin;

    prime_memory(bench->weights->file_bytes);
    begin = now();
    atomic_store(&bench->cursor, 0);
    bench->memory = mem_map_pages(bench->weights->file_bytes, &err);
    check(bench->memory != NULL, &err);
    for (uint32_t i = 1; i < bench->threads; i++) {
        ASSERT(pthread_create(&threads[i], NULL, plain_thread, bench) == 0);
    }
    (void)plain_thread(bench);
    for (uint32_t i = 1; i < bench->threads; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    keep_best(best, begin);
    mem_unmap_pages(bench->memory, bench->weights->file_bytes);
}

/* --- the load --- */

static void load(struct bench *bench, const struct load_guard *guard, struct cost *best)
{
    struct load_progress progress = {0};
    struct error err;
    struct cost begin;
    void *memory;

    prime_memory(bench->weights->memory_bytes);
    begin = now();
    memory = mem_map_pages(bench->weights->memory_bytes, &err);
    check(memory != NULL, &err);
    weights_bind(bench->weights, memory);
    check(load_weights(&(struct load_config){.catalog = bench->catalog,
                                             .weights = bench->weights,
                                             .plan = bench->plan,
                                             .thread_count = bench->threads,
                                             .guard = guard,
                                             .progress = &progress},
                       &err),
          &err);
    keep_best(best, begin);
    mem_unmap_pages(memory, bench->weights->memory_bytes);
}

static bool await_nothing(void *context, uint32_t chunk, struct error *err)
{
    (void)context;
    (void)chunk;
    (void)err;
    return true;
}

static enum load_verdict check_nothing(void *context, uint32_t chunk, uint32_t crc32c,
                                       struct error *err)
{
    (void)context;
    (void)chunk;
    (void)err;
    (void)crc32c;
    return LOAD_GOOD;
}

static void measure(const char *directory, uint32_t threads)
{
    struct bench bench = {.threads = threads};
    const struct load_guard guard = {await_nothing, check_nothing, NULL};
    struct weights_share share = {.has_embedding = true, .has_head = true};
    struct error err;
    struct cost plain = {0}, loaded = {0}, checked = {0}, catted = {0};
    double gb;

    bench.catalog = catalog_open(directory, &err);
    check(bench.catalog != NULL, &err);
    share.layer_end = bench.catalog->arch.layer_count;
    bench.weights = weights_plan(bench.catalog, &share, &err);
    check(bench.weights != NULL, &err);
    bench.files = mem_new_array(int, bench.catalog->file_count);
    for (uint32_t i = 0; i < bench.catalog->file_count; i++) {
        bench.files[i] = open(bench.catalog->files[i].path, O_RDONLY | O_CLOEXEC);
        ASSERT(bench.files[i] >= 0);
    }
    bench.plan = load_plan_create(bench.weights);
    blocks_plan(&bench);
    for (int round = 0; round < ROUNDS; round++) {
        struct cost begin;

        cat(&bench);
        begin = now();
        cat(&bench);
        keep_best(&catted, begin);
        plain_read(&bench, &plain);
        load(&bench, NULL, &loaded);
        cat(&bench);
        load(&bench, &guard, &checked);
    }
    gb = (double)bench.weights->file_bytes * 1e-9;
    printf("%s: %.2f GB, %u thread%s\n  pread %.2f GB/s, load %.2f GB/s, with checksums %.2f GB/s, "
           "cat %.2f GB/s\n  load / pread %.3f (CPU %.3f); with checksums %.3f (CPU %.3f)\n",
           directory, gb, threads, threads == 1 ? "" : "s", gb / plain.wall_s, gb / loaded.wall_s,
           gb / checked.wall_s, (double)file_bytes(&bench) * 1e-9 / catted.wall_s,
           plain.wall_s / loaded.wall_s, plain.cpu_s / loaded.cpu_s, plain.wall_s / checked.wall_s,
           plain.cpu_s / checked.cpu_s);
    for (uint32_t i = 0; i < bench.catalog->file_count; i++) {
        (void)close(bench.files[i]);
    }
    mem_free(bench.files);
    mem_free(bench.blocks);
    load_plan_destroy(bench.plan);
    weights_destroy(bench.weights);
    catalog_close(bench.catalog);
}

/* --- models of its own --- */

static const char f8_config[] =
    "{\"architectures\": [\"DeepseekV3ForCausalLM\"], \"model_type\": \"deepseek_v3\", "
    "\"hidden_act\": \"silu\", \"moe_layer_freq\": 1, \"norm_topk_prob\": true, "
    "\"rms_norm_eps\": 1e-6, \"rope_theta\": 10000, \"routed_scaling_factor\": 2.5, "
    "\"scoring_func\": \"sigmoid\", \"topk_method\": \"noaux_tc\", \"num_hidden_layers\": 3, "
    "\"first_k_dense_replace\": 1, \"hidden_size\": 7168, \"num_attention_heads\": 16, "
    "\"num_key_value_heads\": 16, \"q_lora_rank\": 1536, \"kv_lora_rank\": 512, "
    "\"qk_nope_head_dim\": 128, \"qk_rope_head_dim\": 64, \"v_head_dim\": 128, "
    "\"intermediate_size\": 18432, \"moe_intermediate_size\": 2048, \"n_routed_experts\": 8, "
    "\"num_experts_per_tok\": 2, \"n_shared_experts\": 1, \"n_group\": 1, \"topk_group\": 1, "
    "\"vocab_size\": 4096, \"max_position_embeddings\": 4096, \"eos_token_id\": 1, "
    "\"quantization_config\": {\"quant_method\": \"fp8\", \"fmt\": \"e4m3\", "
    "\"activation_scheme\": \"dynamic\", \"weight_block_size\": [128, 128]}}";

static void make_and_measure(const struct checkpoint_settings *settings, uint32_t threads)
{
    struct error err;

    check(checkpoint_write(settings, &err), &err);
    measure(settings->directory, threads);
}

/* The values of the FP8 model are zeros: they take as long as others. */
static void measure_own(uint32_t threads)
{
    struct checkpoint_settings bf16 = {.numbers = {[NUMBER_LAYERS] = 3,
                                                   [NUMBER_DENSE] = 1,
                                                   [NUMBER_HIDDEN] = 4096,
                                                   [NUMBER_HEADS] = 16,
                                                   [NUMBER_Q_LORA] = 1536,
                                                   [NUMBER_KV_LORA] = 512,
                                                   [NUMBER_NOPE] = 128,
                                                   [NUMBER_ROPE] = 64,
                                                   [NUMBER_V] = 128,
                                                   [NUMBER_WIDTH] = 8192,
                                                   [NUMBER_EXPERT_WIDTH] = 2048,
                                                   [NUMBER_EXPERTS] = 8,
                                                   [NUMBER_CHOSEN] = 2,
                                                   [NUMBER_SHARED] = 1,
                                                   [NUMBER_GROUPS] = 1,
                                                   [NUMBER_GROUPS_CHOSEN] = 1,
                                                   [NUMBER_VOCAB] = 4096,
                                                   [NUMBER_CONTEXT] = 4096},
                                       .seed = 1,
                                       .shard_bytes = UINT64_C(2000000000)};
    struct checkpoint_settings f8 = {.data = CHECKPOINT_HOLES, .shard_count = 2};
    struct scratch scratch;
    struct error err;

    scratch_open(&scratch);
    bf16.directory = mem_strdup(scratch_path(&scratch, "bf16"));
    f8.directory = mem_strdup(scratch_path(&scratch, "fp8"));
    f8.config = mem_strdup(scratch_path(&scratch, "config.json"));
    check(file_write(f8.config, f8_config, sizeof(f8_config) - 1, 0600, &err), &err);
    make_and_measure(&bf16, threads);
    make_and_measure(&f8, threads);
    mem_free((char *)bf16.directory);
    mem_free((char *)f8.directory);
    mem_free((char *)f8.config);
    scratch_close(&scratch);
}

int main(int argc, char **argv)
{
    uint32_t threads = argc > 1 ? (uint32_t)atoi(argv[1]) : 2;

    if (threads == 0 || threads > THREADS_MAX) {
        fprintf(stderr, "usage: bench.load [1 to %u threads [MODEL ...]]\n", THREADS_MAX);
        return 2;
    }
    for (int i = 2; i < argc; i++) {
        measure(argv[i], threads);
    }
    if (argc <= 2) {
        measure_own(threads);
    }
    return 0;
}
