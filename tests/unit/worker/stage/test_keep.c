/* What a worker keeps from one assignment to the next: reads are counted where they happen
 * (--wrap=file_pread), and what is kept has the bits of a fresh load. */
#include "worker/stage/prepare.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "tests/support/random.h"
#include "tests/support/scratch.h"
#include "worker/kernels/kernels.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define SELF         0 /* the worker under test */
#define LIMIT_BYTES  (UINT64_C(1) << 30)
#define HEADER_BEGIN 8 /* headers are read from here or from 0; no tensor begins there */
#define PATH_BYTES   512

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static uint64_t bytes_read;
static uint64_t cancel_at; /* when so many bytes have been read, `cancelled` is; 0: never */
static struct prepare *cancelled;

bool __real_file_pread(int fd, void *out, size_t length, uint64_t offset, const char *path,
                       struct error *err);
bool __wrap_file_pread(int fd, void *out, size_t length, uint64_t offset, const char *path,
                       struct error *err);
bool __wrap_file_pread(int fd, void *out, size_t length, uint64_t offset, const char *path,
                       struct error *err)
{
    if (offset > HEADER_BEGIN) {
        pthread_mutex_lock(&mutex);
        bytes_read += length;
        if (cancel_at > 0 && bytes_read >= cancel_at) {
            prepare_cancel(cancelled);
        }
        pthread_mutex_unlock(&mutex);
    }
    return __real_file_pread(fd, out, length, offset, path, err);
}

/* --- assignments --- */

/* A worker's place, whose experts are those of all members but few. */
struct place {
    uint32_t layer_begin, layer_end;
    bool has_draft; /* only of the last layers */
    uint64_t expert_seed;
};

struct office {
    char path[PATH_BYTES]; /* of the model */
    struct catalog *catalog;
    struct team *team;
    struct waker waker;
    uint64_t limit_bytes, available_bytes;
    uint64_t busy_bytes; /* above 0: the next place is prepared beside the epoch that there is */
    struct model *model; /* kept from the last epoch */
    struct prepared *prepared;
    struct error err;
};

static void office_open(struct office *office, const char *path)
{
    *office = (struct office){.limit_bytes = LIMIT_BYTES, .available_bytes = UINT64_MAX};
    (void)snprintf(office->path, sizeof(office->path), "%s", path);
    office->catalog = catalog_open(path, &office->err);
    assert_non_null(office->catalog);
    office->team = team_create(&(struct team_config){1, -1}, &office->err);
    assert_non_null(office->team);
    assert_true(waker_open(&office->waker));
}

static void office_close(struct office *office)
{
    prepared_destroy(office->prepared);
    model_destroy(office->model);
    team_destroy(office->team);
    waker_close(&office->waker);
    catalog_close(office->catalog);
}

static bool owns(const struct place *place, uint32_t layer, uint32_t expert)
{
    struct random random = {.seed = place->expert_seed + layer * 1000 + expert};

    return random_below(&random, 3) > 0;
}

/* Stages before and after ours have one member, ours two; the other member of ours has every
 * expert, so that ours may own any. */
static struct placement *placement_make(const struct office *office, const struct place *place,
                                        struct arena *arena)
{
    const struct arch *arch = &office->catalog->arch;
    uint32_t layers = arch->layer_count + place->has_draft;
    uint32_t experts = arch->router.expert_count, stage = 0, worker = 1, used = 0;
    struct placement *out = arena_new(arena, struct placement);

    *out = (struct placement){.epoch = 1,
                              .layer_count = arch->layer_count,
                              .expert_count = experts,
                              .dense_layer_count = experts > 0 ? arch->dense_layer_count : 0,
                              .draft_layer_count = place->has_draft,
                              .stages = arena_new_array(arena, struct placement_stage, 3),
                              .lane_count = 2,
                              .lane_member = arena_new_array(arena, uint32_t, 6),
                              .kv_type = KV_F32,
                              .kv_block_count = 4,
                              .slot_count = 2,
                              .context_tokens_max = 128,
                              .step_rows_max = 64,
                              .steps_in_flight_max = 2};
    (void)snprintf(out->numerics_id, sizeof(out->numerics_id), "exact/f32/k%d", KERNELS_VERSION);
    for (uint32_t begin = 0; begin < arch->layer_count; stage++) {
        bool is_ours = begin == place->layer_begin;
        uint32_t end = is_ours                      ? place->layer_end
                       : begin < place->layer_begin ? place->layer_begin
                                                    : arch->layer_count;
        uint32_t *workers = arena_new_array(arena, uint32_t, 2);

        workers[0] = is_ours ? SELF : worker++;
        workers[1] = worker++;
        out->stages[stage] = (struct placement_stage){begin, end, 2, workers};
        out->lane_member[stage * 2 + 1] = 1;
        begin = end;
    }
    out->stage_count = stage;
    out->replica_offset = arena_new_array(arena, uint32_t, (size_t)layers * experts + 1);
    out->replica_member = arena_new_array(arena, uint32_t, (size_t)layers * experts * 2 + 1);
    for (uint32_t i = 0; i < layers * experts; i++) {
        out->replica_offset[i] = used;
        if (i / experts >= arch->dense_layer_count) {
            if (owns(place, i / experts, i % experts)) {
                out->replica_member[used++] = 0;
            }
            out->replica_member[used++] = 1;
        }
    }
    out->replica_offset[layers * experts] = used;
    return out;
}

/* Starts what `office_await` ends. The model goes with it. */
static struct prepare *office_assign(struct office *office, const struct place *place)
{
    struct arena arena;
    struct prepare *prepare;
    struct placement *placement;
    struct peer_address peers[8];
    char hash[MODEL_HASH_BYTES];

    if (office->prepared != NULL && office->busy_bytes == 0) {
        office->model = prepared_end(office->prepared);
        office->prepared = NULL;
    }
    arena_init(&arena, 1 << 16);
    model_hash(office->catalog, hash);
    placement = placement_make(office, place, &arena);
    for (uint32_t i = 0; i < ARRAY_LENGTH(peers); i++) {
        peers[i] = (struct peer_address){i, "tcp://a:1", 0, 0};
    }
    bytes_read = 0;
    prepare = prepare_start(
        &(struct prepare_config){
            .assign = &(struct assign_message){placement, placement->stage_count * 2, peers,
                                               office->path, hash, "", "", 0, false},
            .worker = SELF,
            .thread_count = 2,
            .limit_bytes = office->limit_bytes,
            .available_bytes = office->available_bytes,
            .cpu_level = CPU_REF,
            .team = office->team,
            .model_kept = office->busy_bytes > 0 ? office->prepared->model : office->model,
            .goal = office->busy_bytes > 0 ? PREPARE_PRELOAD : PREPARE_STAGE,
            .busy_bytes = office->busy_bytes,
            .waker = &office->waker,
        },
        &office->err);
    assert_non_null(prepare);
    office->model = NULL;
    arena_deinit(&arena);
    return prepare;
}

static bool office_prepare(struct office *office, const struct place *place)
{
    struct prepare *prepare = office_assign(office, place);

    office->err.message[0] = '\0';
    office->prepared = prepare_finish(prepare, &office->err);
    return office->prepared->stage != NULL;
}

/* --- what is expected --- */

enum use { USE_ITSELF = 1, USE_AS_HEAD = 2 };

/* What a place needs a tensor for; from the catalog alone. */
static unsigned uses(const struct office *office, const struct place *place,
                     const struct tensor *tensor)
{
    const struct arch *arch = &office->catalog->arch;
    uint32_t end = place->layer_end + place->has_draft;
    bool is_last = place->layer_end == arch->layer_count;

    if (tensor->layer == CATALOG_NO_LAYER && tensor->role == ROLE_EMBEDDING) {
        return (place->layer_begin == 0 || place->has_draft ? USE_ITSELF : 0u) |
               (arch->tied_embedding && is_last ? USE_AS_HEAD : 0u);
    }
    if (tensor->layer == CATALOG_NO_LAYER) {
        return is_last ? USE_ITSELF : 0u;
    }
    /* A published draft layer has copies of the main embedding and head, too. */
    if (tensor->layer < place->layer_begin || tensor->layer >= end ||
        tensor->role == ROLE_DRAFT_EMBEDDING || tensor->role == ROLE_DRAFT_HEAD) {
        return 0;
    }
    return tensor->expert == CATALOG_NO_EXPERT || owns(place, tensor->layer, tensor->expert)
               ? USE_ITSELF
               : 0u;
}

/* Of files, that a place needs and another one (NULL: none) does not have. */
static uint64_t difference_bytes(const struct office *office, const struct place *place,
                                 const struct place *before)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < office->catalog->tensor_count; i++) {
        const struct tensor *tensor = &office->catalog->tensors[i];
        unsigned missing =
            uses(office, place, tensor) & ~(before != NULL ? uses(office, before, tensor) : 0u);

        bytes += ((missing & 1) + (missing >> 1)) * (tensor->bytes + tensor->scales.bytes);
    }
    return bytes;
}

static struct place random_place(struct random *random, const struct arch *arch)
{
    struct place place = {.layer_begin = (uint32_t)random_below(random, arch->layer_count),
                          .expert_seed = random_below(random, 4) * 100000};

    place.layer_end = place.layer_begin + 1 +
                      (uint32_t)random_below(random, arch->layer_count - place.layer_begin);
    place.has_draft = place.layer_end == arch->layer_count && arch->draft_layer_count > 0 &&
                      random_below(random, 2) == 0;
    return place;
}

static void expect_bits_of_a_fresh_load(const struct office *office, const struct place *place)
{
    struct office fresh;
    const struct weights *weights = office->prepared->weights;

    office_open(&fresh, office->path);
    assert_true(office_prepare(&fresh, place));
    assert_int_equal(fresh.prepared->weights->part_count, weights->part_count);
    for (uint32_t i = 0; i < weights->part_count; i++) {
        const struct weights_part *part = &weights->parts[i];

        assert_true(part->is_filled);
        assert_memory_equal(part->memory, fresh.prepared->weights->parts[i].memory, part->bytes);
    }
    office_close(&fresh);
}

/* --- cases --- */

static void shares_follow_each_other(const char *path, uint32_t count)
{
    struct random random;
    struct office office;
    struct place before = {0};

    random_init(&random, 7);
    office_open(&office, path);
    for (uint32_t i = 0; i < count; i++) {
        struct place place = random_place(&random, &office.catalog->arch);
        uint64_t missing = difference_bytes(&office, &place, i > 0 ? &before : NULL);
        uint64_t whole = difference_bytes(&office, &place, NULL);

        assert_true(office_prepare(&office, &place));
        assert_true(bytes_read == missing);
        assert_true(office.prepared->read_bytes == missing);
        assert_true(office.prepared->kept_bytes == whole - missing);
        assert_true(part_store_bytes(office.prepared->model->store) ==
                    office.prepared->weights->memory_bytes); /* nothing else is held */
        expect_bits_of_a_fresh_load(&office, &place);
        before = place;
    }
    office_close(&office);
}

static void only_what_is_missing_is_read(void **state)
{
    (void)state;
    shares_follow_each_other(SHOAL_TEST_DATA "/deepseek_v3-bf16/model", 40);
    shares_follow_each_other(SHOAL_TEST_DATA "/qwen3_moe-bf16/model", 40);
    shares_follow_each_other(SHOAL_TEST_DATA "/gguf/deepseek_v3/Q4_K_M/model.gguf", 40);
    shares_follow_each_other(SHOAL_TEST_DATA "/llama-tied/model", 20);
}

/* Scales of F8_E4M3 are read with their values. */
static void an_equal_share_reads_nothing(void **state)
{
    struct office office;
    struct place whole = {0};

    (void)state;
    office_open(&office, SHOAL_TEST_DATA "/deepseek_v3-fp8/model");
    whole.layer_end = office.catalog->arch.layer_count;
    assert_true(office_prepare(&office, &whole));
    assert_true(office.prepared->read_bytes == difference_bytes(&office, &whole, NULL));
    assert_true(office_prepare(&office, &whole));
    assert_true(bytes_read == 0);
    assert_true(office.prepared->read_bytes == 0);
    assert_true(office.prepared->kept_bytes == office.prepared->weights->file_bytes);
    office_close(&office);
}

static void a_cancelled_load_keeps_what_was_complete(void **state)
{
    struct office office;
    struct place whole = {0};
    struct prepare *prepare;
    uint64_t all, read_first;

    (void)state;
    office_open(&office, SHOAL_TEST_DATA "/deepseek_v3-bf16/model");
    whole.layer_end = office.catalog->arch.layer_count;
    all = difference_bytes(&office, &whole, NULL);
    pthread_mutex_lock(&mutex); /* nothing is read before it can be cancelled */
    cancel_at = all / 2;
    prepare = office_assign(&office, &whole);
    cancelled = prepare;
    pthread_mutex_unlock(&mutex);
    office.prepared = prepare_finish(prepare, &office.err);
    cancel_at = 0;
    assert_null(office.prepared->stage);
    assert_non_null(strstr(office.err.message, "cancelled"));
    read_first = bytes_read;
    assert_true(read_first < all);

    assert_true(office_prepare(&office, &whole));
    assert_true(office.prepared->kept_bytes > 0 && office.prepared->kept_bytes <= read_first);
    assert_true(bytes_read == all - office.prepared->kept_bytes);
    expect_bits_of_a_fresh_load(&office, &whole);
    office_close(&office);
}

static void copy_model(struct scratch *scratch, const char *const *names)
{
    for (size_t i = 0; names[i] != NULL; i++) {
        struct error err;
        char path[PATH_BYTES];
        size_t length;
        char *bytes;

        (void)snprintf(path, sizeof(path), "%s/deepseek_v3-bf16/model/%s", SHOAL_TEST_DATA,
                       names[i]);
        assert_true(file_read(path, 1 << 24, &bytes, &length, &err));
        assert_true(file_write(scratch_path(scratch, names[i]), bytes, length, 0600, &err));
        mem_free(bytes);
    }
}

static const char *const names[] = {"config.json",
                                    "model.safetensors.index.json",
                                    "model-00001-of-00003.safetensors",
                                    "model-00002-of-00003.safetensors",
                                    "model-00003-of-00003.safetensors",
                                    NULL};

static void a_file_that_cannot_be_read_leaves_what_was_held(void **state)
{
    struct scratch scratch;
    struct office office;
    struct place first = {.layer_end = 1};
    struct place whole = {0};
    char moved[PATH_BYTES];

    (void)state;
    scratch_open(&scratch);
    copy_model(&scratch, names);
    office_open(&office, scratch.folder);
    whole.layer_end = office.catalog->arch.layer_count;
    assert_true(office_prepare(&office, &first));
    (void)snprintf(moved, sizeof(moved), "%s/away", scratch.folder);
    assert_int_equal(rename(scratch_path(&scratch, names[4]), moved), 0);
    assert_false(office_prepare(&office, &whole));
    assert_int_equal(office.err.code, ERROR_SYSTEM);
    assert_non_null(strstr(office.err.message, names[4]));

    assert_true(office_prepare(&office, &first)); /* usable all the same */
    assert_true(bytes_read == 0);
    assert_int_equal(rename(moved, scratch_path(&scratch, names[4])), 0);
    assert_true(office_prepare(&office, &whole));
    assert_true(bytes_read == difference_bytes(&office, &whole, &first));
    office_close(&office);
    scratch_close(&scratch);
}

static void a_replaced_file_of_the_same_headers_is_read_anew(void **state)
{
    struct scratch scratch;
    struct office office;
    struct place whole = {0};
    const struct tensor *tensor;
    char path[PATH_BYTES], link_path[PATH_BYTES + 8];
    FILE *file;

    (void)state;
    scratch_open(&scratch);
    copy_model(&scratch, names);
    office_open(&office, scratch.folder);
    whole.layer_end = office.catalog->arch.layer_count;
    assert_true(office_prepare(&office, &whole));

    /* The same files under another name are the same model. */
    (void)snprintf(link_path, sizeof(link_path), "%s/link", scratch.folder);
    assert_int_equal(symlink(scratch.folder, link_path), 0);
    (void)snprintf(office.path, sizeof(office.path), "%s/link", scratch.folder);
    assert_true(office_prepare(&office, &whole));
    assert_true(bytes_read == 0);

    tensor = catalog_find(office.catalog, ROLE_ATTENTION_OUT, 1, CATALOG_NO_EXPERT);
    (void)snprintf(path, sizeof(path), "%s", office.catalog->files[tensor->file].path);
    file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)tensor->offset, SEEK_SET), 0);
    assert_int_equal(fwrite("\x01\x02", 1, 2, file), 2);
    assert_int_equal(fclose(file), 0);
    assert_true(office_prepare(&office, &whole));
    assert_true(bytes_read == difference_bytes(&office, &whole, NULL));
    expect_bits_of_a_fresh_load(&office, &whole);
    assert_int_equal(unlink(link_path), 0);
    office_close(&office);
    scratch_close(&scratch);
}

static void what_is_refused_gives_up_nothing(void **state)
{
    struct office office;
    struct place first = {.layer_end = 1};
    struct place whole = {0};

    (void)state;
    office_open(&office, SHOAL_TEST_DATA "/deepseek_v3-bf16/model");
    whole.layer_end = office.catalog->arch.layer_count;
    assert_true(office_prepare(&office, &whole));

    office.limit_bytes = 1 << 20;
    assert_false(office_prepare(&office, &first));
    assert_int_equal(office.err.code, ERROR_LIMIT);
    assert_non_null(strstr(office.err.message, "not enough memory: weights"));
    office.limit_bytes = LIMIT_BYTES;

    office.available_bytes = 1000; /* somebody else has taken it */
    assert_false(office_prepare(&office, &whole));
    assert_int_equal(office.err.code, ERROR_LIMIT);
    assert_non_null(strstr(office.err.message, "not enough memory now"));
    assert_non_null(strstr(office.err.message, "1.00 kB are available"));
    office.available_bytes = UINT64_MAX;

    (void)snprintf(office.path, sizeof(office.path), "%s", SHOAL_TEST_DATA "/llama-tied/model");
    assert_false(office_prepare(&office, &first));
    assert_non_null(strstr(office.err.message, "is not the coordinator's model"));
    (void)snprintf(office.path, sizeof(office.path), "%s",
                   SHOAL_TEST_DATA "/deepseek_v3-bf16/model");

    assert_true(office_prepare(&office, &whole));
    assert_true(bytes_read == 0);
    office_close(&office);
}

static void a_share_is_loaded_beside_one_that_is_used(void **state)
{
    struct office office, alone;
    struct place first = {.layer_end = 3};
    struct place second = {.layer_begin = 1};
    struct prepared *next;
    uint64_t alone_bytes;

    (void)state;
    office_open(&office, SHOAL_TEST_DATA "/deepseek_v3-bf16/model");
    second.layer_end = office.catalog->arch.layer_count;
    office_open(&alone, office.path);
    assert_true(office_prepare(&alone, &second));
    alone_bytes = ledger_total(&alone.prepared->ledger);
    office_close(&alone);
    assert_true(office_prepare(&office, &first));
    office.busy_bytes = ledger_total(&office.prepared->ledger);

    office.limit_bytes = /* enough for each of them */
        (alone_bytes > office.busy_bytes ? alone_bytes : office.busy_bytes) + 1000;
    office.err.message[0] = '\0';
    next = prepare_finish(office_assign(&office, &second), &office.err);
    assert_false(next->is_loaded);
    assert_int_equal(office.err.code, ERROR_LIMIT);
    assert_non_null(strstr(office.err.message, "beside what is served"));
    assert_true(prepared_end(next) == office.prepared->model);
    office.limit_bytes = LIMIT_BYTES;

    next = prepare_finish(office_assign(&office, &second), &office.err);
    assert_true(next->is_loaded && next->stage == NULL);
    assert_true(bytes_read == difference_bytes(&office, &second, &first));
    assert_true(next->weights->layers[0].input_norm ==
                office.prepared->weights->layers[1].input_norm);
    expect_bits_of_a_fresh_load(&office, &first); /* undisturbed */

    assert_true(prepared_end(next) == office.prepared->model);
    office.busy_bytes = 0;
    assert_true(office_prepare(&office, &second)); /* the switch */
    assert_true(bytes_read == 0);
    expect_bits_of_a_fresh_load(&office, &second);
    assert_true(part_store_bytes(office.prepared->model->store) ==
                office.prepared->weights->memory_bytes);
    office_close(&office);
}

static void memory_that_is_out_refuses_the_assignment_only(void **state)
{
    struct office office;
    struct place first = {.layer_end = 1};
    struct place whole = {0};

    (void)state;
    office_open(&office, SHOAL_TEST_DATA "/deepseek_v3-bf16/model");
    whole.layer_end = office.catalog->arch.layer_count;
    assert_true(office_prepare(&office, &first));
    for (uint32_t nth = 1;; nth++) {
        bool prepared;

        mem_fail_after(nth);
        prepared = office_prepare(&office, &whole);
        if (prepared) {
            mem_fail_after(0);
            assert_true(nth > 3);
            break;
        }
        assert_int_equal(office.err.code, ERROR_LIMIT);
        mem_fail_after(0);
        assert_true(office_prepare(&office, &first));
        assert_true(bytes_read == 0);
    }
    expect_bits_of_a_fresh_load(&office, &whole);
    office_close(&office);
}

static void another_model_takes_the_place_of_the_first(void **state)
{
    struct office office, other;
    struct place whole = {0};

    (void)state;
    office_open(&office, SHOAL_TEST_DATA "/deepseek_v3-bf16/model");
    office_open(&other, SHOAL_TEST_DATA "/llama-tied/model");
    whole.layer_end = office.catalog->arch.layer_count;
    assert_true(office_prepare(&office, &whole));
    other.model = prepared_end(office.prepared);
    office.prepared = NULL;
    whole.layer_end = other.catalog->arch.layer_count;
    assert_true(office_prepare(&other, &whole));
    assert_true(bytes_read == difference_bytes(&other, &whole, NULL));
    assert_true(part_store_bytes(other.prepared->model->store) ==
                other.prepared->weights->memory_bytes);
    office_close(&office);
    office_close(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_is_missing_is_read),
        cmocka_unit_test(an_equal_share_reads_nothing),
        cmocka_unit_test(a_cancelled_load_keeps_what_was_complete),
        cmocka_unit_test(a_file_that_cannot_be_read_leaves_what_was_held),
        cmocka_unit_test(a_replaced_file_of_the_same_headers_is_read_anew),
        cmocka_unit_test(what_is_refused_gives_up_nothing),
        cmocka_unit_test(a_share_is_loaded_beside_one_that_is_used),
        cmocka_unit_test(memory_that_is_out_refuses_the_assignment_only),
        cmocka_unit_test(another_model_takes_the_place_of_the_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
