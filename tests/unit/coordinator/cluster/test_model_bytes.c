/* The planner's byte figures are those of the worker's weights. */
#include "coordinator/cluster/model_bytes.h"

#include "worker/layers/weights.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define LAYERS_MAX 64

static uint64_t worker_bytes(const struct catalog *catalog, struct weights_share share)
{
    struct error err;
    struct weights *weights = weights_plan(catalog, &share, &err);
    uint64_t bytes;

    assert_non_null(weights);
    bytes = weights->memory_bytes;
    weights_destroy(weights);
    return bytes;
}

static uint64_t page_aligned(uint64_t bytes)
{
    return (bytes + 4095) / 4096 * 4096;
}

static void model_compare(const char *path)
{
    struct planner_layer layers[LAYERS_MAX];
    struct error err;
    struct catalog *catalog = catalog_open(path, &err);
    uint32_t experts;

    assert_non_null(catalog);
    assert_true(catalog->arch.layer_count <= LAYERS_MAX);
    experts = catalog->arch.router.expert_count;
    model_bytes_layers(catalog, layers);
    for (uint32_t layer = 0; layer < catalog->arch.layer_count; layer++) {
        struct weights_share share = {.layer_begin = layer, .layer_end = layer + 1};
        uint64_t bytes = layers[layer].common_bytes + experts * layers[layer].expert_bytes;

        assert_int_equal(worker_bytes(catalog, share), page_aligned(bytes));
        share.has_embedding = true;
        bytes += model_bytes_embedding(catalog);
        assert_int_equal(worker_bytes(catalog, share), page_aligned(bytes));
        share.has_head = true;
        bytes += model_bytes_head(catalog);
        assert_int_equal(worker_bytes(catalog, share), page_aligned(bytes));
    }
    catalog_close(catalog);
}

static void the_golden_models_layers_weigh_the_same(void **state)
{
    (void)state;
    model_compare(SHOAL_TEST_DATA "/deepseek_v3-bf16/model");
}

static void the_demo_models_layers_weigh_the_same(void **state)
{
    (void)state;
    model_compare(SHOAL_SOURCE_DIR "/deploy/demo-model");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_golden_models_layers_weigh_the_same),
        cmocka_unit_test(the_demo_models_layers_weigh_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
