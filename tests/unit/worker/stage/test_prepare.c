/* Assignments of DeepSeek-R1 as published: 163 files of its full metadata, all of them holes. The
 * linker puts the functions __wrap_* below in the place of the reads and of the packing (--wrap),
 * so that every range which a worker asks for is noted and 12 GB of weights take no memory. */
#include "worker/stage/prepare.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/model/model_hash.h"
#include "tests/support/checkpoint_write.h"
#include "tests/support/scratch.h"

#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define GB           UINT64_C(1000000000)
#define WORKER       1
#define RANGES_MAX   100000
#define HEADER_BEGIN 8 /* headers are read from here or from 0; no tensor begins there */

struct range {
    char path[320];
    uint64_t begin, end;
};
struct ranges {
    uint32_t count;
    struct range items[RANGES_MAX];
};

static pthread_mutex_t trace_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct ranges *trace; /* NULL: reads are not noted */

static const char *numerics = "exact"; /* of the placement */
static struct scratch scratch;
static struct catalog *catalog;

static void ranges_add(struct ranges *ranges, const char *path, uint64_t begin, uint64_t bytes)
{
    struct range *range = &ranges->items[ranges->count];

    ASSERT(ranges->count < RANGES_MAX);
    ASSERT(strlen(path) < sizeof(range->path));
    memcpy(range->path, path, strlen(path) + 1);
    range->begin = begin;
    range->end = begin + bytes;
    ranges->count++;
}

/* --- in the place of the worker's --- */

bool __real_file_pread(int fd, void *out, size_t length, uint64_t offset, const char *path,
                       struct error *err);
bool __wrap_file_pread(int fd, void *out, size_t length, uint64_t offset, const char *path,
                       struct error *err);
bool __wrap_weights_fill(const struct weights *weights, const struct weights_piece *piece,
                         const struct weights_rows *rows, struct error *err);

bool __wrap_file_pread(int fd, void *out, size_t length, uint64_t offset, const char *path,
                       struct error *err)
{
    if (trace == NULL || offset <= HEADER_BEGIN) {
        return __real_file_pread(fd, out, length, offset, path, err);
    }
    pthread_mutex_lock(&trace_mutex);
    ranges_add(trace, path, offset, length);
    pthread_mutex_unlock(&trace_mutex);
    return true;
}

bool __wrap_weights_fill(const struct weights *weights, const struct weights_piece *piece,
                         const struct weights_rows *rows, struct error *err)
{
    (void)weights;
    (void)piece;
    (void)rows;
    (void)err;
    return true;
}

/* --- sets of ranges --- */

static int range_compare(const void *left, const void *right)
{
    const struct range *a = left;
    const struct range *b = right;
    int order = strcmp(a->path, b->path);

    return order != 0 ? order : (a->begin > b->begin) - (a->begin < b->begin);
}

static uint64_t ranges_bytes(const struct ranges *ranges)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < ranges->count; i++) {
        bytes += ranges->items[i].end - ranges->items[i].begin;
    }
    return bytes;
}

/* Sorted; neighbours that touch or overlap become one. */
static void ranges_join(struct ranges *ranges)
{
    uint32_t kept = 0;

    qsort(ranges->items, ranges->count, sizeof(*ranges->items), range_compare);
    for (uint32_t i = 0; i < ranges->count; i++) {
        struct range *last = kept > 0 ? &ranges->items[kept - 1] : NULL;
        const struct range *range = &ranges->items[i];

        if (last != NULL && strcmp(last->path, range->path) == 0 && range->begin <= last->end) {
            last->end = range->end > last->end ? range->end : last->end;
        } else {
            memmove(&ranges->items[kept++], range, sizeof(*range));
        }
    }
    ranges->count = kept;
}

static void ranges_of_layers(struct ranges *ranges, uint32_t begin, uint32_t end)
{
    for (uint32_t i = 0; i < catalog->tensor_count; i++) {
        const struct tensor *tensor = &catalog->tensors[i];

        if (tensor->layer >= begin && tensor->layer < end) {
            ranges_add(ranges, catalog->files[tensor->file].path, tensor->offset, tensor->bytes);
            if (tensor->scales.bytes > 0) {
                ranges_add(ranges, catalog->files[tensor->scales.file].path, tensor->scales.offset,
                           tensor->scales.bytes);
            }
        }
    }
}

/* --- assignments --- */

/* Three workers, a stage each; the middle one has the layers asked for. */
static struct placement *make_placement(struct arena *arena, uint32_t begin, uint32_t end)
{
    const struct arch *arch = &catalog->arch;
    uint32_t borders[] = {0, begin, end, arch->layer_count};
    size_t pairs = (size_t)arch->layer_count * arch->router.expert_count;
    struct placement *placement = arena_new(arena, struct placement);

    *placement = (struct placement){
        .epoch = 1,
        .layer_count = arch->layer_count,
        .expert_count = arch->router.expert_count,
        .dense_layer_count = arch->dense_layer_count,
        .stage_count = 3,
        .stages = arena_new_array(arena, struct placement_stage, 3),
        .lane_count = 1,
        .lane_member = arena_new_array(arena, uint32_t, 3),
        .replica_offset = arena_new_array(arena, uint32_t, pairs + 1),
        .replica_member = arena_new_array(arena, uint32_t, pairs),
        .kv_type = KV_F16,
        .kv_block_count = 16,
        .slot_count = 4,
        .context_tokens_max = 1024,
        .step_rows_max = 64,
        .steps_in_flight_max = 4,
    };
    (void)snprintf(placement->numerics_id, sizeof(placement->numerics_id), "%s/f16/k%d", numerics,
                   KERNELS_VERSION);
    for (uint32_t i = 0; i < 3; i++) {
        placement->stages[i] = (struct placement_stage){borders[i], borders[i + 1], 1,
                                                        arena_new_array(arena, uint32_t, 1)};
        placement->stages[i].workers[0] = i;
    }
    for (size_t i = 0; i < pairs; i++) { /* member 0 owns every expert there is */
        bool moe = i / arch->router.expert_count >= arch->dense_layer_count;

        placement->replica_offset[i + 1] = placement->replica_offset[i] + moe;
    }
    return placement;
}

/* The outcome of preparing layers [begin, end); destroy it. */
static struct prepared *prepare_layers(uint32_t begin, uint32_t end, struct team *team,
                                       struct error *err)
{
    struct peer_address peers[3] = {
        {0, "tcp://a:1", 0, 0}, {1, "tcp://b:1", 0, 0}, {2, "tcp://c:1", 0, 0}};
    struct prepared *prepared;
    struct prepare *prepare;
    struct waker waker;
    struct arena arena;
    char hash[MODEL_HASH_BYTES];

    model_hash(catalog, hash);
    arena_init(&arena, 1 << 20);
    assert_true(waker_open(&waker));
    prepare = prepare_start(
        &(struct prepare_config){
            .assign = &(struct assign_message){make_placement(&arena, begin, end), 3, peers,
                                               scratch.folder, hash, "", "", 0, false},
            .worker = WORKER,
            .thread_count = 3,
            .limit_bytes = 24 * GB,
            .available_bytes = UINT64_MAX,
            .cpu_level = CPU_REF,
            .team = team,
            .waker = &waker,
        },
        err);
    assert_non_null(prepare);
    prepared = prepare_finish(prepare, err);
    waker_close(&waker);
    arena_deinit(&arena);
    return prepared;
}

static void a_dense_and_an_expert_layer_are_read_byte_for_byte(void **state)
{
    struct ranges *wanted = mem_new(struct ranges);
    struct error err = {0};
    struct prepared *prepared;
    struct team *team = team_create(&(struct team_config){1, -1}, &err);
    uint64_t wanted_bytes, read_bytes;

    (void)state;
    assert_non_null(team);
    trace = mem_new(struct ranges);
    prepared = prepare_layers(2, 4, team, &err);
    assert_string_equal(err.message, "");
    assert_non_null(prepared->stage);

    ranges_of_layers(wanted, 2, 4);
    wanted_bytes = ranges_bytes(wanted);
    read_bytes = ranges_bytes(trace);
    print_message("layers 2 and 3: %" PRIu64 " bytes wanted, %" PRIu64 " read, ledger %" PRIu64
                  " with weights of %" PRIu64 "\n",
                  wanted_bytes, read_bytes, ledger_total(&prepared->ledger),
                  prepared->weights->memory_bytes);
    assert_in_range(wanted_bytes, 12 * GB, 122 * GB / 10);
    assert_true(prepared->weights->file_bytes == wanted_bytes);
    assert_true(read_bytes == wanted_bytes); /* nothing twice */
    assert_in_range(ledger_total(&prepared->ledger), wanted_bytes, 126 * GB / 10);

    ranges_join(wanted);
    ranges_join(trace);
    assert_int_equal(trace->count, wanted->count);
    for (uint32_t i = 0; i < wanted->count; i++) {
        assert_string_equal(trace->items[i].path, wanted->items[i].path);
        assert_true(trace->items[i].begin == wanted->items[i].begin);
        assert_true(trace->items[i].end == wanted->items[i].end);
    }
    prepared_destroy(prepared);
    team_destroy(team);
    mem_free(wanted);
    mem_free(trace);
    trace = NULL;
}

static void three_expert_layers_are_refused_with_the_ledger_before_anything_is_read(void **state)
{
    struct error err = {0};
    struct prepared *prepared;
    struct team *team = team_create(&(struct team_config){1, -1}, &err);

    (void)state;
    assert_non_null(team);
    trace = mem_new(struct ranges);
    prepared = prepare_layers(30, 33, team, &err);
    print_message("%s\n", err.message);
    assert_null(prepared->stage);
    assert_int_equal(err.code, ERROR_LIMIT);
    assert_non_null(strstr(err.message, "not enough memory: weights 34."));
    assert_non_null(strstr(err.message, "KV cache "));
    assert_non_null(strstr(err.message, " of 24.0 GB"));
    assert_int_equal(trace->count, 0);
    prepared_destroy(prepared);
    team_destroy(team);
    mem_free(trace);
    trace = NULL;
}

static void numerics_that_the_cpu_lacks_are_refused_by_name(void **state)
{
    struct error err = {0};
    struct prepared *prepared;
    struct team *team = team_create(&(struct team_config){1, -1}, &err);

    (void)state;
    assert_non_null(team);
    numerics = "fast-amx";
    prepared = prepare_layers(2, 4, team, &err);
    numerics = "exact";
    assert_null(prepared->stage);
    assert_int_equal(err.code, ERROR_INPUT);
    assert_non_null(strstr(err.message, "numerics fast-amx/f16/k"));
    assert_non_null(strstr(err.message, "CPU level ref"));
    prepared_destroy(prepared);
    team_destroy(team);
}

static int checkpoint_open(void **state)
{
    struct error err = {0};
    struct checkpoint_settings settings = {.config = SHOAL_TEST_DATA "/configs/DeepSeek-R1.json",
                                           .data = CHECKPOINT_HOLES,
                                           .shard_count = 163,
                                           .directory = scratch.folder};

    (void)state;
    scratch_open(&scratch);
    if (checkpoint_write(&settings, &err)) {
        catalog = catalog_open(scratch.folder, &err);
    }
    if (catalog == NULL) {
        print_error("%s\n", err.message);
        scratch_close(&scratch);
        return -1;
    }
    return 0;
}

static int checkpoint_close(void **state)
{
    (void)state;
    catalog_close(catalog);
    scratch_close(&scratch);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_dense_and_an_expert_layer_are_read_byte_for_byte),
        cmocka_unit_test(numerics_that_the_cpu_lacks_are_refused_by_name),
        cmocka_unit_test(three_expert_layers_are_refused_with_the_ledger_before_anything_is_read),
    };

    return cmocka_run_group_tests(tests, checkpoint_open, checkpoint_close);
}
