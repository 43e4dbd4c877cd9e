/* model_fixture.c - loads a small checkpoint with plain reads and runs it layer by layer. */
#include "tests/unit/worker/layers/model_fixture.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* All of a tensor's scales; mem_free them. */
static char *scales_read(const struct test_model *model, const struct tensor *tensor)
{
    char *scales = mem_alloc_zeroed(tensor->scales.bytes + 1, 1);
    const char *path = model->catalog->files[tensor->scales.file].path;
    struct error err;
    int fd;

    if (tensor->scales.bytes > 0) {
        fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_true(
            file_pread(fd, scales, tensor->scales.bytes, tensor->scales.offset, path, &err));
        close(fd);
    }
    return scales;
}

void test_model_load_piece(const struct test_model *model, const struct weights_piece *piece,
                           uint32_t rows_per_call)
{
    const struct tensor *tensor = piece->tensor;
    const char *path = model->catalog->files[tensor->file].path;
    uint64_t row_bytes = tensor->bytes / tensor->rows;
    char *values = mem_alloc_zeroed(rows_per_call, row_bytes);
    uint64_t scale_row_bytes = scale_block_count(tensor->columns) * sizeof(float);
    char *scales = scales_read(model, tensor);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct error err;

    assert_true(fd >= 0);
    for (uint32_t row = 0; row < tensor->rows; row += rows_per_call) {
        uint32_t end = row + rows_per_call < tensor->rows ? row + rows_per_call : tensor->rows;

        assert_true(file_pread(fd, values, (end - row) * row_bytes,
                               tensor->offset + row * row_bytes, path, &err));
        struct weights_rows rows = {row, end, values,
                                    (const void *)(scales + row / SCALE_BLOCK * scale_row_bytes)};
        assert_true(weights_fill(model->weights, piece, &rows, &err));
    }
    close(fd);
    mem_free(values);
    mem_free(scales);
}

struct test_model test_model_open(const char *name, const struct weights_share *share)
{
    struct test_model model;
    struct error err = {ERROR_NONE, ""};
    char path[512];

    snprintf(path, sizeof(path), "%s/%s/model%s", SHOAL_TEST_DATA, name,
             strncmp(name, "gguf/", 5) == 0 ? ".gguf" : "");
    model.catalog = catalog_open(path, &err);
    assert_string_equal(err.message, "");
    assert_non_null(model.catalog);
    struct weights_share all = {0, model.catalog->arch.layer_count, true, true, false, NULL};
    model.weights = weights_plan(model.catalog, share != NULL ? share : &all, &err);
    assert_string_equal(err.message, "");
    assert_non_null(model.weights);
    model.memory = mem_map_pages(model.weights->memory_bytes, &err);
    assert_non_null(model.memory);
    weights_bind(model.weights, model.memory);
    for (uint32_t i = 0; i < model.weights->piece_count; i++) {
        test_model_load_piece(&model, &model.weights->pieces[i],
                              model.weights->pieces[i].tensor->rows);
    }
    return model;
}

void test_model_close(struct test_model *model)
{
    if (model->weights != NULL) {
        mem_unmap_pages(model->memory, model->weights->memory_bytes);
    }
    weights_destroy(model->weights);
    catalog_close(model->catalog);
}

static uint32_t owner_of(const struct engine_options *options, uint32_t expert)
{
    return expert / options->owner_run % options->owner_count;
}

static struct forward *forward_open(struct engine *engine, const struct test_model *model)
{
    const struct engine_options *options = &engine->options;
    const struct arch *arch = &model->weights->arch;
    struct forward_config config = {
        .arch = arch,
        .weights = model->weights,
        .cache = engine->cache,
        .kernels = kernels_for(options->level, NUMERICS_EXACT),
        .team = engine->team,
        .rows_max = options->rows_max,
        .expert_rows_max = options->rows_max * arch->router.chosen_count,
    };
    struct error err;
    struct forward *forward = forward_create(&config, &err);

    assert_non_null(forward);
    return forward;
}

/* The share of one pretended owner: its experts, no embedding, no head. */
static void owner_open(struct engine *engine, uint32_t owner)
{
    const struct arch *arch = &engine->model.weights->arch;
    uint32_t count = arch->layer_count * arch->router.expert_count;
    uint8_t *owned = mem_new_array(uint8_t, count);
    struct weights_share share = {0, arch->layer_count, owner == 0, owner == 0, false, owned};

    for (uint32_t i = 0; i < count; i++) {
        owned[i] = owner_of(&engine->options, i % arch->router.expert_count) == owner;
    }
    engine->owner_models[owner] = test_model_open(engine->name, &share);
    engine->owners[owner] = forward_open(engine, &engine->owner_models[owner]);
    mem_free(owned);
}

static void cache_open(struct engine *engine)
{
    const struct engine_options *options = &engine->options;
    const struct arch *arch = &engine->model.weights->arch;
    uint32_t per_slot = (options->context_tokens_max + 63) / 64;
    struct kv_config config = {
        .layer_begin = 0,
        .layer_end = arch->layer_count,
        .lane_count = 1,
        .block_count = per_slot * ENGINE_SLOTS,
        .slot_count = ENGINE_SLOTS,
        .blocks_per_slot_max = per_slot,
        .layout = kv_layout_of(arch, options->kv_type),
    };
    struct error err;

    engine->cache = kv_cache_create(&config, &err);
    assert_non_null(engine->cache);
    for (uint32_t slot = 0; slot < ENGINE_SLOTS; slot++) {
        for (uint32_t i = 0; i < per_slot; i++) {
            uint32_t block = i * ENGINE_SLOTS + (slot + i) % ENGINE_SLOTS; /* scattered */

            assert_true(kv_cache_extend(engine->cache, 0, slot, i, &block, 1, &err));
        }
    }
}

struct engine *engine_open(const char *name, const struct engine_options *options)
{
    struct engine *engine = mem_new(struct engine);
    struct team_config team = {options->thread_count, -1};
    const struct arch *arch;
    struct error err;
    size_t pairs;

    engine->options = *options;
    engine->name = name;
    if (options->owner_count == 0) {
        engine->options.owner_count = 1;
        engine->options.owner_run = 1;
    }
    engine->model = test_model_open(name, NULL);
    arch = &engine->model.weights->arch;
    engine->team = team_create(&team, &err);
    assert_non_null(engine->team);
    cache_open(engine);
    for (uint32_t owner = 0; owner < engine->options.owner_count; owner++) {
        owner_open(engine, owner);
    }
    pairs = (size_t)options->rows_max * arch->router.chosen_count;
    engine->choices = mem_new_array(struct expert_choice, pairs);
    engine->jobs = mem_new_array(struct expert_job, pairs);
    engine->shared = mem_new_array(float, (size_t)options->rows_max * arch->hidden);
    engine->outputs = mem_new_array(float, pairs * arch->hidden);
    engine->sums = mem_new_array(float, (size_t)arch->router.chosen_count * arch->hidden);
    return engine;
}

void engine_close(struct engine *engine)
{
    for (uint32_t owner = 0; owner < engine->options.owner_count; owner++) {
        forward_destroy(engine->owners[owner]);
        test_model_close(&engine->owner_models[owner]);
    }
    mem_free(engine->choices);
    mem_free(engine->jobs);
    mem_free(engine->shared);
    mem_free(engine->outputs);
    mem_free(engine->sums);
    kv_cache_destroy(engine->cache);
    team_destroy(engine->team);
    test_model_close(&engine->model);
    mem_free(engine);
}

/* Jobs in falling row order: forward_experts takes any order. */
static void owner_compute(struct engine *engine, uint32_t owner, uint32_t layer, uint32_t row_count,
                          const float *normed)
{
    const struct arch *arch = &engine->model.weights->arch;
    uint32_t chosen = arch->router.chosen_count;
    uint32_t job_count = 0;

    for (size_t i = (size_t)row_count * chosen; i-- > 0;) {
        const struct expert_choice *choice = &engine->choices[i];

        if (owner_of(&engine->options, choice->expert) == owner) {
            engine->jobs[job_count++] = (struct expert_job){choice->expert, choice->weight,
                                                            normed + i / chosen * arch->hidden,
                                                            engine->outputs + i * arch->hidden};
        }
    }
    forward_experts(engine->owners[owner], layer, engine->jobs, job_count);
}

/* The parts of one row: a group's sum where one owner has all of it (odd rows of a single owner
 * keep their rows apart, so that both ways are taken), rows otherwise. */
static void row_combine(struct engine *engine, uint32_t row, float *x)
{
    const struct arch *arch = &engine->model.weights->arch;
    uint32_t chosen = arch->router.chosen_count;
    const struct expert_choice *choices = engine->choices + (size_t)row * chosen;
    float *outputs = engine->outputs + (size_t)row * chosen * arch->hidden;
    struct combine_part parts[64];
    const float *rows[64];
    uint32_t part_count = 0;

    for (uint32_t i = 0; i < chosen;) {
        uint32_t group = arch_combine_group(arch, choices[i].expert);
        uint32_t owner = owner_of(&engine->options, choices[i].expert);
        bool whole = engine->options.owner_count > 1 || row % 2 == 0;
        uint32_t count = 0;

        for (; i + count < chosen && arch_combine_group(arch, choices[i + count].expert) == group;
             count++) {
            rows[count] = outputs + (size_t)(i + count) * arch->hidden;
            whole = whole && owner_of(&engine->options, choices[i + count].expert) == owner;
        }
        if (whole) {
            float *sum = engine->sums + (size_t)part_count * arch->hidden;

            forward_group_sum(engine->owners[owner], rows, count, sum);
            parts[part_count++] = (struct combine_part){sum, group};
        } else {
            for (uint32_t k = 0; k < count; k++) {
                parts[part_count++] = (struct combine_part){rows[k], group};
            }
        }
        i += count;
    }
    forward_combine_row(engine->owners[0], parts, part_count,
                        engine->shared + (size_t)row * arch->hidden,
                        x + (size_t)row * arch->hidden);
}

static void moe_run(struct engine *engine, uint32_t layer, uint32_t row_count,
                    const struct engine_taps *taps, float *x)
{
    const float *normed;

    forward_route(engine->owners[0], layer, row_count, x, &normed, engine->choices);
    if (taps != NULL && taps->routing != NULL) {
        taps->routing(taps->context, layer, engine->choices, row_count);
    }
    for (uint32_t owner = 0; owner < engine->options.owner_count; owner++) {
        owner_compute(engine, owner, layer, row_count, normed);
    }
    forward_shared(engine->owners[0], layer, row_count, normed, engine->shared);
    for (uint32_t r = 0; r < row_count; r++) {
        row_combine(engine, r, x);
    }
}

void engine_step(struct engine *engine, const struct forward_row *rows, uint32_t row_count,
                 const struct engine_taps *taps, float *logits)
{
    const struct arch *arch = &engine->model.weights->arch;
    struct forward *forward = engine->owners[0];
    float *x = mem_new_array(float, (size_t)row_count * arch->hidden);
    uint32_t *indexes = mem_new_array(uint32_t, row_count);

    forward_embed(forward, rows, row_count, x);
    for (uint32_t layer = 0; layer < arch->layer_count; layer++) {
        if (taps != NULL && taps->hidden != NULL) {
            taps->hidden(taps->context, layer, x, row_count);
        }
        forward_attention(forward, layer, rows, row_count, x);
        if (arch_layer_is_moe(arch, layer)) {
            moe_run(engine, layer, row_count, taps, x);
        } else {
            forward_dense(forward, layer, row_count, x);
        }
    }
    if (taps != NULL && taps->hidden != NULL) {
        taps->hidden(taps->context, arch->layer_count, x, row_count);
    }
    for (uint32_t r = 0; r < row_count; r++) {
        indexes[r] = r;
    }
    forward_logits(forward, x, indexes, row_count, logits);
    mem_free(indexes);
    mem_free(x);
}
