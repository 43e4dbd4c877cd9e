/* test_catalog_scales.c - a checkpoint of F8_E4M3 weights: each has its scales, or is refused. */
#include "common/model/catalog.h"

#include "tests/unit/common/model/model_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char shard1[] = "model-00001-of-00002.safetensors";
static const char shard2[] = "model-00002-of-00002.safetensors";
static const char index_file[] = "model.safetensors.index.json";
static const char q_a[] = "model.layers.0.self_attn.q_a_proj.weight";
static const char q_a_scales[] = "model.layers.0.self_attn.q_a_proj.weight_scale_inv";

static struct catalog *open_or_fail(const char *directory)
{
    struct error err = {0};
    struct catalog *catalog = catalog_open(directory, &err);

    if (catalog == NULL) {
        fail_msg("%s", err.message);
    }
    return catalog;
}

static void every_scaled_tensor_has_its_scales(void **state)
{
    (void)state;
    struct catalog *catalog = open_or_fail(SHOAL_TEST_DATA "/deepseek_v3-fp8/model");
    uint32_t scaled = 0;
    uint64_t bytes = 0;

    assert_int_equal(catalog->unused_count, 0);
    for (uint32_t i = 0; i < catalog->tensor_count; i++) {
        const struct tensor *tensor = &catalog->tensors[i];
        uint64_t blocks =
            (uint64_t)scale_block_count(tensor->rows) * scale_block_count(tensor->columns);

        bytes += tensor->bytes + tensor->scales.bytes;
        if (tensor->type == WEIGHT_F8_E4M3) {
            scaled++;
            assert_int_equal(tensor->bytes, (uint64_t)tensor->rows * tensor->columns);
            assert_int_equal(tensor->scales.bytes, blocks * sizeof(float));
            assert_true(tensor->scales.offset + tensor->scales.bytes <=
                        catalog->files[tensor->scales.file].bytes);
        } else {
            assert_int_equal(tensor->scales.bytes, 0);
        }
    }
    assert_int_equal(scaled, 60);
    assert_int_equal(bytes, catalog->total_bytes);
    catalog_close(catalog);
}

static void blocks_of_scales_are_rounded_up(void **state)
{
    (void)state;
    assert_int_equal(scale_block_count(1), 1);
    assert_int_equal(scale_block_count(128), 1);
    assert_int_equal(scale_block_count(129), 2);
    assert_int_equal(scale_block_count(576), 5);
    assert_int_equal(scale_block_count(UINT32_MAX), 1u << 25);
}

/* The q_a projection's scales, with a field of their entry changed to the JSON `value`. */
static void expect_changed_scales_refused(const char *field, const char *value,
                                          const char *const *words)
{
    struct model_copy copy;
    json_t *header;

    model_copy_open_fp8(&copy);
    header = model_copy_header(&copy, shard2);
    assert_non_null(json_object_get(header, q_a_scales));
    json_object_set_new(json_object_get(header, q_a_scales), field,
                        json_loads(value, JSON_DECODE_ANY, NULL));
    model_copy_set_header(&copy, shard2, header);
    json_decref(header);
    model_copy_expect_error(&copy, words);
    model_copy_close(&copy);
}

static void scales_of_another_shape_or_type_are_refused(void **state)
{
    (void)state;
    static const char *const shape[] = {shard2, q_a_scales, "ask for [", NULL};
    static const char *const type[] = {shard2, q_a_scales, "has type I32; scales are F32", NULL};
    struct catalog *catalog = open_or_fail(SHOAL_TEST_DATA "/deepseek_v3-fp8/model");
    const struct tensor *tensor = catalog_find(catalog, ROLE_Q_A, 0, CATALOG_NO_EXPERT);
    char flat[64], turned[64];

    snprintf(flat, sizeof(flat), "[%d]", (int)(tensor->scales.bytes / 4));
    snprintf(turned, sizeof(turned), "[%u, %u, 1]", scale_block_count(tensor->rows),
             scale_block_count(tensor->columns));
    expect_changed_scales_refused("shape", flat, shape);
    expect_changed_scales_refused("shape", turned, shape);
    expect_changed_scales_refused("dtype", "\"I32\"", type);
    catalog_close(catalog);
}

/* Renames an entry in its header and strikes it from the index; the shape as JSON. */
static void rename_entry(struct model_copy *copy, const char *shard, const char *from,
                         const char *to, const char *shape)
{
    json_t *header = model_copy_header(copy, shard);
    json_t *index = json_load_file(model_copy_path(copy, index_file), 0, NULL);
    json_t *entry = json_object_get(header, from);

    assert_non_null(entry);
    json_object_set_new(entry, "shape", json_loads(shape, 0, NULL));
    json_object_set(header, to, entry);
    json_object_del(header, from);
    json_object_del(json_object_get(index, "weight_map"), from);
    model_copy_set_header(copy, shard, header);
    model_copy_write_json(copy, index_file, index);
    json_decref(header);
    json_decref(index);
}

static void missing_scales_are_named_with_their_tensor(void **state)
{
    (void)state;
    static const char *const words[] = {q_a, "is F8_E4M3, but", q_a_scales, "is missing", NULL};
    struct model_copy copy;

    model_copy_open_fp8(&copy);
    rename_entry(&copy, shard2, q_a_scales, "other.weight_scale_inv", "[1, 2]");
    model_copy_expect_error(&copy, words);
    model_copy_close(&copy);
}

/* The head is BF16. The draft layer goes, so that its router bias can become the head's scales. */
static void scales_that_nothing_needs_are_unused(void **state)
{
    (void)state;
    struct model_copy copy;
    struct catalog *catalog;
    json_t *config;
    bool listed = false;

    model_copy_open_fp8(&copy);
    config = json_load_file(model_copy_path(&copy, "config.json"), 0, NULL);
    json_object_set_new(config, "num_nextn_predict_layers", json_integer(0));
    model_copy_write_json(&copy, "config.json", config);
    json_decref(config);
    rename_entry(&copy, shard2, "model.layers.2.mlp.gate.e_score_correction_bias",
                 "lm_head.weight_scale_inv", "[3, 2]");
    catalog = open_or_fail(copy.scratch.folder);
    for (uint32_t i = 0; i < catalog->unused_count; i++) {
        listed = listed || strcmp(catalog->unused[i], "lm_head.weight_scale_inv") == 0;
    }
    assert_true(listed);
    catalog_close(catalog);
    model_copy_close(&copy);
}

static void scales_in_two_shards_are_refused_with_both(void **state)
{
    (void)state;
    static const char name[] = "model.layers.0.mlp.gate_proj.weight_scale_inv";
    static const char *const words[] = {name, "is in", shard1, shard2, NULL};
    struct model_copy copy;

    model_copy_open_fp8(&copy);
    rename_entry(&copy, shard1, "model.layers.1.mlp.gate.e_score_correction_bias", name, "[3, 2]");
    model_copy_expect_error(&copy, words);
    model_copy_close(&copy);
}

static void embeddings_are_not_taken_in_f8(void **state)
{
    (void)state;
    static const char *const words[] = {"tensor model.embed_tokens.weight has type F8_E4M3",
                                        "BF16, F16 and F32 can be read here", NULL};
    struct model_copy copy;
    json_t *header;
    json_t *entry;
    json_t *shape;

    model_copy_open_fp8(&copy);
    header = model_copy_header(&copy, shard1);
    entry = json_object_get(header, "model.embed_tokens.weight");
    assert_non_null(entry);
    json_object_set_new(entry, "dtype", json_string("F8_E4M3"));
    shape = json_object_get(entry, "shape"); /* as many bytes as before */
    json_array_set_new(shape, 1, json_integer(2 * json_integer_value(json_array_get(shape, 1))));
    model_copy_set_header(&copy, shard1, header);
    json_decref(header);
    model_copy_expect_error(&copy, words);
    model_copy_close(&copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_scaled_tensor_has_its_scales),
        cmocka_unit_test(blocks_of_scales_are_rounded_up),
        cmocka_unit_test(scales_of_another_shape_or_type_are_refused),
        cmocka_unit_test(missing_scales_are_named_with_their_tensor),
        cmocka_unit_test(scales_that_nothing_needs_are_unused),
        cmocka_unit_test(scales_in_two_shards_are_refused_with_both),
        cmocka_unit_test(embeddings_are_not_taken_in_f8),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
