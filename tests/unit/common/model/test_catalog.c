/* test_catalog.c - the small golden checkpoint, whole and with tensors changed. */
#include "common/model/catalog.h"

#include "common/base/mem.h"
#include "tests/unit/common/model/model_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char shard1[] = "model-00001-of-00003.safetensors";
static const char shard3[] = "model-00003-of-00003.safetensors";
static const char golden[] = SHOAL_TEST_DATA "/deepseek_v3-bf16/model";

static struct catalog *open_or_fail(const char *directory)
{
    struct error err = {0};
    struct catalog *catalog = catalog_open(directory, &err);

    if (catalog == NULL) {
        fail_msg("%s", err.message);
    }
    return catalog;
}

static void the_golden_checkpoint_is_complete(void **state)
{
    (void)state;
    struct catalog *catalog = open_or_fail(golden);
    const struct tensor *tensor;

    assert_int_equal(catalog->tensor_count, 269);
    assert_int_equal(catalog->unused_count, 0);
    assert_int_equal(catalog->file_count, 3);
    assert_int_equal(catalog->total_bytes, 2212832);
    assert_int_equal(catalog->arch.draft_layer_count, 1);
    tensor = catalog_find(catalog, ROLE_EXPERT_DOWN, 3, 15);
    assert_string_equal(tensor->name, "model.layers.3.mlp.experts.15.down_proj.weight");
    assert_int_equal(tensor->rows, 96);
    assert_int_equal(tensor->columns, 32);
    assert_int_equal(tensor->type, WEIGHT_BF16);
    assert_int_equal(tensor->bytes, 96 * 32 * 2);
    tensor = catalog_find(catalog, ROLE_ROUTER_BIAS, 1, CATALOG_NO_EXPERT);
    assert_int_equal(tensor->type, WEIGHT_F32);
    assert_int_equal(tensor->rows, 1);
    assert_int_equal(tensor->columns, 16);
    assert_non_null(catalog_find(catalog, ROLE_EMBEDDING, CATALOG_NO_LAYER, CATALOG_NO_EXPERT));
    assert_non_null(catalog_find(catalog, ROLE_DRAFT_PROJECTION, 4, CATALOG_NO_EXPERT));
    assert_null(catalog_find(catalog, ROLE_ROUTER, 0, CATALOG_NO_EXPERT));
    assert_null(catalog_find(catalog, ROLE_EXPERT_UP, 1, 16));
    assert_null(catalog_find(catalog, ROLE_INPUT_NORM, 5, CATALOG_NO_EXPERT));
    catalog_close(catalog);
    catalog_close(NULL);
}

static void tensors_are_sorted_and_inside_their_files(void **state)
{
    (void)state;
    struct catalog *catalog = open_or_fail(golden);

    for (uint32_t i = 0; i < catalog->tensor_count; i++) {
        const struct tensor *tensor = &catalog->tensors[i];

        assert_true(tensor->file < catalog->file_count);
        assert_true(tensor->offset + tensor->bytes <= catalog->files[tensor->file].bytes);
        assert_int_equal(tensor->bytes, (uint64_t)tensor->rows * tensor->columns *
                                            weight_type_bytes(tensor->type));
        assert_ptr_equal(catalog_find(catalog, tensor->role, tensor->layer, tensor->expert),
                         tensor);
        assert_true(i == 0 || tensor[-1].layer <= tensor->layer);
    }
    assert_int_equal(catalog->tensors[catalog->tensor_count - 1].layer, CATALOG_NO_LAYER);
    catalog_close(catalog);
}

/* Edits one tensor's entry in a shard's header. */
static void set_entry(struct model_copy *copy, const char *shard, const char *tensor,
                      const char *field, const char *value)
{
    json_t *header = model_copy_header(copy, shard);
    json_t *entry = json_object_get(header, tensor);

    assert_non_null(entry);
    json_object_set_new(entry, field, json_loads(value, JSON_DECODE_ANY, NULL));
    model_copy_set_header(copy, shard, header);
    json_decref(header);
}

static void a_wrong_shape_is_refused_with_both_shapes(void **state)
{
    (void)state;
    static const char *const words[] = {shard1, "tensor model.layers.0.mlp.down_proj.weight",
                                        "[208, 96]", "asks for [96, 208]", NULL};
    struct model_copy copy;

    model_copy_open(&copy);
    set_entry(&copy, shard1, "model.layers.0.mlp.down_proj.weight", "shape", "[208,96]");
    model_copy_expect_error(&copy, words);
    model_copy_close(&copy);
}

static void a_vector_with_two_dimensions_is_refused(void **state)
{
    (void)state;
    static const char *const words[] = {"input_layernorm", "[1, 96]", "asks for [96]", NULL};
    struct model_copy copy;

    model_copy_open(&copy);
    set_entry(&copy, shard1, "model.layers.0.input_layernorm.weight", "shape", "[1,96]");
    model_copy_expect_error(&copy, words);
    model_copy_close(&copy);
}

static void a_type_that_cannot_be_read_is_refused_by_name(void **state)
{
    (void)state;
    static const char *const words[] = {shard1, "tensor model.layers.0.mlp.down_proj.weight",
                                        "has type F8_E5M2; F8_E4M3, BF16, F16 and F32", NULL};
    struct model_copy copy;

    model_copy_open(&copy);
    set_entry(&copy, shard1, "model.layers.0.mlp.down_proj.weight", "dtype", "\"F8_E5M2\"");
    set_entry(&copy, shard1, "model.layers.0.mlp.down_proj.weight", "shape", "[96,416]");
    model_copy_expect_error(&copy, words);
    model_copy_close(&copy);
}

/* Renames a tensor in its header, and in the index. */
static void rename_tensor(struct model_copy *copy, const char *shard, const char *from,
                          const char *to)
{
    json_t *header = model_copy_header(copy, shard);
    json_t *index = json_load_file(model_copy_path(copy, "model.safetensors.index.json"), 0, NULL);
    json_t *map = json_object_get(index, "weight_map");

    assert_non_null(json_object_get(header, from));
    json_object_set(header, to, json_object_get(header, from));
    json_object_del(header, from);
    json_object_set(map, to, json_object_get(map, from));
    json_object_del(map, from);
    model_copy_set_header(copy, shard, header);
    model_copy_write_json(copy, "model.safetensors.index.json", index);
    json_decref(header);
    json_decref(index);
}

static void missing_tensors_are_counted_and_the_first_is_named(void **state)
{
    (void)state;
    static const char *const words[] = {
        "2 tensors of the model are missing, the first is model.layers.0.mlp.up_proj.weight", NULL};
    struct model_copy copy;

    model_copy_open(&copy);
    rename_tensor(&copy, shard1, "model.layers.1.mlp.experts.3.up_proj.weight", "other.weight");
    rename_tensor(&copy, shard1, "model.layers.0.mlp.up_proj.weight", "another.weight");
    model_copy_expect_error(&copy, words);
    model_copy_close(&copy);
}

static void an_unknown_tensor_is_listed_as_unused(void **state)
{
    (void)state;
    struct model_copy copy;
    struct catalog *catalog;

    model_copy_open(&copy);
    rename_tensor(&copy, shard3, "model.layers.4.embed_tokens.weight", "model.extra.weight");
    catalog = open_or_fail(copy.scratch.folder);
    assert_int_equal(catalog->unused_count, 1);
    assert_string_equal(catalog->unused[0], "model.extra.weight");
    assert_int_equal(catalog->tensor_count, 268); /* the draft's embedding may be left out */
    assert_int_equal(catalog->arch.draft_layer_count, 1);
    catalog_close(catalog);
    model_copy_close(&copy);
}

static void an_incomplete_draft_layer_is_reported(void **state)
{
    (void)state;
    static const char *const words[] = {"1 tensors of the draft layers",
                                        "the first is model.layers.4.eh_proj.weight", NULL};
    struct model_copy copy;

    model_copy_open(&copy);
    rename_tensor(&copy, shard3, "model.layers.4.eh_proj.weight", "model.extra.weight");
    model_copy_expect_error(&copy, words);
    model_copy_close(&copy);
}

/* Makes the draft layer's tensors invisible by renaming them all. */
static void a_checkpoint_without_draft_layers_is_complete(void **state)
{
    (void)state;
    static const char index[] =
        "{\"weight_map\": {\"lm_head.weight\": \"model-00003-of-00003.safetensors\","
        "\"model.embed_tokens.weight\": \"model-00001-of-00003.safetensors\","
        "\"model.layers.3.input_layernorm.weight\": \"model-00002-of-00003.safetensors\"}}";
    struct model_copy copy;
    struct catalog *catalog;

    model_copy_open(&copy);
    for (int i = 1; i <= 3; i++) {
        char shard[64];
        json_t *header;
        json_t *renamed = json_object();
        const char *name;
        json_t *entry;

        snprintf(shard, sizeof(shard), "model-%05d-of-00003.safetensors", i);
        header = model_copy_header(&copy, shard);
        json_object_foreach(header, name, entry)
        {
            char other[128];

            snprintf(other, sizeof(other), "%s%s",
                     strncmp(name, "model.layers.4.", 15) == 0 ? "draft." : "", name);
            json_object_set(renamed, other, entry);
        }
        model_copy_set_header(&copy, shard, renamed);
        json_decref(header);
        json_decref(renamed);
    }
    model_copy_write(&copy, "model.safetensors.index.json", index, strlen(index));
    catalog = open_or_fail(copy.scratch.folder);
    assert_int_equal(catalog->arch.draft_layer_count, 0);
    assert_int_equal(catalog->unused_count, 68);
    assert_null(catalog_find(catalog, ROLE_DRAFT_HEAD, 4, CATALOG_NO_EXPERT));
    catalog_close(catalog);
    model_copy_close(&copy);
}

static void a_tied_model_needs_no_head(void **state)
{
    (void)state;
    struct model_copy copy;
    struct catalog *catalog;
    json_t *config;

    model_copy_open(&copy);
    config = json_load_file(model_copy_path(&copy, "config.json"), 0, NULL);
    json_object_set_new(config, "tie_word_embeddings", json_true());
    model_copy_write_json(&copy, "config.json", config);
    json_decref(config);
    catalog = open_or_fail(copy.scratch.folder);
    assert_null(catalog_find(catalog, ROLE_HEAD, CATALOG_NO_LAYER, CATALOG_NO_EXPERT));
    assert_int_equal(catalog->unused_count, 1);
    assert_string_equal(catalog->unused[0], "lm_head.weight");
    catalog_close(catalog);
    model_copy_close(&copy);
}

static void a_tensor_in_two_shards_is_refused_with_both(void **state)
{
    (void)state;
    static const char *const words[] = {"tensor model.layers.0.input_layernorm.weight is in",
                                        shard1, shard3, NULL};
    struct model_copy copy;
    json_t *header;

    model_copy_open(&copy);
    header = model_copy_header(&copy, shard3); /* both are vectors of 96 */
    json_object_set(header, "model.layers.0.input_layernorm.weight",
                    json_object_get(header, "model.layers.4.enorm.weight"));
    json_object_del(header, "model.layers.4.enorm.weight");
    model_copy_set_header(&copy, shard3, header);
    json_decref(header);
    header = json_load_file(model_copy_path(&copy, "model.safetensors.index.json"), 0, NULL);
    json_object_del(json_object_get(header, "weight_map"), "model.layers.4.enorm.weight");
    model_copy_write_json(&copy, "model.safetensors.index.json", header);
    json_decref(header);
    model_copy_expect_error(&copy, words);
    model_copy_close(&copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_golden_checkpoint_is_complete),
        cmocka_unit_test(tensors_are_sorted_and_inside_their_files),
        cmocka_unit_test(a_wrong_shape_is_refused_with_both_shapes),
        cmocka_unit_test(a_vector_with_two_dimensions_is_refused),
        cmocka_unit_test(a_type_that_cannot_be_read_is_refused_by_name),
        cmocka_unit_test(missing_tensors_are_counted_and_the_first_is_named),
        cmocka_unit_test(an_unknown_tensor_is_listed_as_unused),
        cmocka_unit_test(an_incomplete_draft_layer_is_reported),
        cmocka_unit_test(a_checkpoint_without_draft_layers_is_complete),
        cmocka_unit_test(a_tied_model_needs_no_head),
        cmocka_unit_test(a_tensor_in_two_shards_is_refused_with_both),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
