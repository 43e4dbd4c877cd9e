/* test_catalog_dummy.c - a catalog from a config.json alone. */
#include "common/model/catalog.h"
#include "common/model/model_hash.h"

#include "tests/unit/common/model/model_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct catalog *open_dummy(const char *path, uint64_t seed)
{
    struct weights_choice weights = {.source = WEIGHTS_DUMMY, .seed = seed};
    struct error err = {0};
    struct catalog *catalog = catalog_open_weights(path, &weights, &err);

    if (catalog == NULL) {
        fail_msg("%s", err.message);
    }
    return catalog;
}

static enum weight_type type_at(const struct catalog *catalog, enum tensor_role role,
                                uint32_t layer)
{
    const struct tensor *tensor = catalog_find(catalog, role, layer, CATALOG_NO_EXPERT);

    assert_non_null(tensor);
    return tensor->type;
}

static void deepseek_r1_has_the_published_types(void **state)
{
    (void)state;
    struct catalog *catalog = open_dummy(SHOAL_TEST_DATA "/configs/DeepSeek-R1.json", 0);
    const struct tensor *down = catalog_find(catalog, ROLE_EXPERT_DOWN, 60, 255);

    assert_int_equal(catalog->file_count, 0);
    assert_int_equal(catalog->arch.draft_layer_count, 1);
    assert_true(catalog->total_bytes > UINT64_C(685000000000));
    assert_true(catalog->total_bytes < UINT64_C(690000000000));
    assert_int_equal(type_at(catalog, ROLE_EMBEDDING, CATALOG_NO_LAYER), WEIGHT_BF16);
    assert_int_equal(type_at(catalog, ROLE_HEAD, CATALOG_NO_LAYER), WEIGHT_BF16);
    assert_int_equal(type_at(catalog, ROLE_KV_B, 0), WEIGHT_F8_E4M3);
    assert_int_equal(type_at(catalog, ROLE_ROUTER, 3), WEIGHT_BF16);
    assert_int_equal(type_at(catalog, ROLE_ROUTER_BIAS, 3), WEIGHT_F32);
    assert_int_equal(type_at(catalog, ROLE_INPUT_NORM, 3), WEIGHT_BF16);
    assert_non_null(down);
    assert_string_equal(down->name, "model.layers.60.mlp.experts.255.down_proj.weight");
    assert_int_equal(down->type, WEIGHT_F8_E4M3);
    assert_int_equal(down->bytes, 7168 * 2048);
    assert_int_equal(down->scales.bytes, 56 * 16 * 4);
    catalog_close(catalog);
}

/* Same tensors, types and shapes, in the same order. */
static void a_real_checkpoint_has_the_same_tensors(void **state)
{
    (void)state;
    static const char *const models[] = {
        "deepseek_v3-fp8", "deepseek_v3-bf16", "deepseek_v2-lite-bf16", "llama-bf16",
        "llama-tied",      "qwen2-bf16",       "qwen3_moe-bf16"};

    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
        char path[512];
        struct error err = {0};
        struct catalog *real, *dummy;

        (void)snprintf(path, sizeof(path), "%s/%s/model", SHOAL_TEST_DATA, models[i]);
        real = catalog_open(path, &err);
        assert_non_null(real);
        dummy = open_dummy(path, 0);
        for (uint32_t t = 0, u = 0; t < real->tensor_count; t++, u++) {
            while (u < dummy->tensor_count && dummy->tensors[u].layer >= dummy->arch.layer_count &&
                   strcmp(dummy->tensors[u].name, real->tensors[t].name) != 0) {
                u++; /* draft layers may lack some, or all */
            }
            assert_true(u < dummy->tensor_count);
            assert_string_equal(dummy->tensors[u].name, real->tensors[t].name);
            assert_int_equal(dummy->tensors[u].rows, real->tensors[t].rows);
            assert_int_equal(dummy->tensors[u].columns, real->tensors[t].columns);
            assert_int_equal(dummy->tensors[u].bytes, real->tensors[t].bytes);
            assert_int_equal(dummy->tensors[u].scales.bytes, real->tensors[t].scales.bytes);
        }
        catalog_close(dummy);
        catalog_close(real);
    }
}

static void the_hash_covers_the_seed(void **state)
{
    (void)state;
    const char *path = SHOAL_TEST_DATA "/llama-bf16/model/config.json";
    struct catalog *first = open_dummy(path, 1), *second = open_dummy(path, 2);
    struct catalog *again = open_dummy(path, 1);
    char hashes[3][MODEL_HASH_BYTES];

    model_hash(first, hashes[0]);
    model_hash(second, hashes[1]);
    model_hash(again, hashes[2]);
    assert_string_not_equal(hashes[0], hashes[1]);
    assert_string_equal(hashes[0], hashes[2]);
    catalog_close(first);
    catalog_close(second);
    catalog_close(again);
}

static void a_choice_is_read_as_it_is_written(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "dummy:", "dummy:-1", "dummy:1x", "dummy:18446744073709551616",
        "Dummy",  "dummyx",   " ",        "dumm"};
    struct weights_choice choice;
    struct error err = {0};
    char text[WEIGHTS_CHOICE_BYTES];

    assert_true(weights_choice_parse("", &choice, &err));
    assert_int_equal(choice.source, WEIGHTS_PUBLISHED);
    assert_string_equal(weights_choice_write(&choice, text), "");
    assert_true(weights_choice_parse("dummy", &choice, &err));
    assert_int_equal(choice.source, WEIGHTS_DUMMY);
    assert_string_equal(weights_choice_write(&choice, text), "dummy:0");
    assert_true(weights_choice_parse("dummy:18446744073709551615", &choice, &err));
    assert_true(choice.seed == UINT64_MAX);
    assert_string_equal(weights_choice_write(&choice, text), "dummy:18446744073709551615");
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_false(weights_choice_parse(wrong[i], &choice, &err));
    }
}

static void a_missing_config_is_named(void **state)
{
    (void)state;
    struct weights_choice weights = {.source = WEIGHTS_DUMMY};
    struct error err = {0};

    assert_null(catalog_open_weights(SHOAL_TEST_DATA "/nowhere.json", &weights, &err));
    assert_non_null(strstr(err.message, "nowhere.json"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deepseek_r1_has_the_published_types),
        cmocka_unit_test(a_real_checkpoint_has_the_same_tensors),
        cmocka_unit_test(the_hash_covers_the_seed),
        cmocka_unit_test(a_choice_is_read_as_it_is_written),
        cmocka_unit_test(a_missing_config_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
