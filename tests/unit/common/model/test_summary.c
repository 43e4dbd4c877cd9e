/* test_summary.c - published figures, and a catalog against its config. */
#include "common/model/summary.h"

#include "tests/unit/common/model/model_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void deepseek_r1_has_its_published_size(void **state)
{
    (void)state;
    struct arch arch = fixture_arch("DeepSeek-R1");
    struct parameter_counts counts = arch_param_counts(&arch);

    assert_int_equal(counts.total, UINT64_C(671026419200)); /* 671 B, without the draft layer */
    assert_in_range(counts.active, UINT64_C(36500000000), UINT64_C(36700000000));
    assert_int_equal(counts.expert, 3 * 7168 * 2048);
    assert_int_equal(counts.shared, counts.expert);
    assert_int_equal(counts.embedding, 129280 * 7168);
    assert_int_equal(counts.head, counts.embedding);
    assert_int_equal(counts.router, 256 * 7168 + 256);
    assert_int_equal(counts.dense_mlp, 3 * 7168 * 18432);
    assert_int_equal(counts.draft - counts.draft_unique, 2 * counts.embedding);
    /* one MoE layer of 11.5 B and the projection */
    assert_in_range(counts.draft_unique, UINT64_C(11500000000), UINT64_C(11650000000));
}

static void deepseek_v2_has_its_published_sizes(void **state)
{
    (void)state;
    struct arch v2 = fixture_arch("DeepSeek-V2");
    struct arch lite = fixture_arch("DeepSeek-V2-Lite");
    struct parameter_counts counts = arch_param_counts(&v2);
    struct parameter_counts lite_counts = arch_param_counts(&lite);

    assert_in_range(counts.total, UINT64_C(235500000000), UINT64_C(236500000000));
    assert_in_range(counts.active, UINT64_C(20500000000), UINT64_C(21500000000));
    assert_in_range(lite_counts.total, UINT64_C(15600000000), UINT64_C(15800000000));
    assert_in_range(lite_counts.active, UINT64_C(2300000000), UINT64_C(2700000000));
    assert_int_equal(counts.draft, 0);
}

static void dense_models_have_their_published_sizes(void **state)
{
    (void)state;
    struct arch small = fixture_arch("Llama-3.1-8B");
    struct arch large = fixture_arch("DeepSeek-R1-Distill-Llama-70B");
    struct arch qwen = fixture_arch("Qwen2.5-72B-Instruct");
    struct parameter_counts counts = arch_param_counts(&small);

    assert_int_equal(counts.total, UINT64_C(8030261248));
    assert_int_equal(counts.active, counts.total - counts.embedding + small.hidden);
    assert_int_equal(counts.expert, 0);
    assert_int_equal(counts.router, 0);
    assert_int_equal(arch_param_counts(&large).total, UINT64_C(70553706496));
    assert_int_equal(arch_param_counts(&qwen).total, UINT64_C(72706203648));
}

static void a_summary_accounts_for_every_byte(void **state)
{
    (void)state;
    struct error err = {0};
    struct catalog *catalog = catalog_open(SHOAL_TEST_DATA "/deepseek_v3-bf16/model", &err);
    struct summary *summary;
    uint64_t by_part = 0, by_layer = 0, by_type = 0;

    assert_non_null(catalog);
    summary = summary_create(catalog);
    assert_int_equal(summary->total_bytes, catalog->total_bytes);
    for (int i = 0; i < PART_COUNT; i++) {
        by_part += summary->bytes_of_part[i];
    }
    for (uint32_t i = 0; i < summary->layer_count; i++) {
        by_layer += summary->layers[i].total_bytes;
    }
    for (int i = 0; i < WEIGHT_TYPE_COUNT; i++) {
        by_type += summary->bytes_of_type[i];
    }
    assert_int_equal(by_part, catalog->total_bytes);
    assert_int_equal(by_type, catalog->total_bytes);
    assert_int_equal(by_layer + 2 * 384 * 96 * 2 + 96 * 2, catalog->total_bytes);
    assert_int_equal(summary->layer_count, 5);
    assert_int_equal(summary->expert_bytes_min, 3 * 96 * 32 * 2);
    assert_int_equal(summary->expert_bytes_max, 3 * 96 * 32 * 2);
    assert_int_equal(summary->layers[1].bytes[PART_EXPERTS], 16 * 3 * 96 * 32 * 2);
    assert_int_equal(summary->layers[0].bytes[PART_DENSE], 3 * 96 * 208 * 2);
    assert_int_equal(summary->layers[0].bytes[PART_EXPERTS], 0);
    assert_int_equal(summary->kv_values_token_layer, 64);
    assert_int_equal(summary->kv_bytes_token[KV_F16], 64 * 4 * 2);
    assert_int_equal(summary->kv_bytes_token[KV_F32], 64 * 4 * 4);
    /* MLA: a scale for the latent, one for the rotated key */
    assert_int_equal(summary->kv_bytes_token[KV_Q8], (64 + 2 * 4) * 4);
    summary_destroy(summary);
    catalog_close(catalog);
}

/* Two bytes a value but for the four float32 biases. */
static void bytes_and_parameters_agree(void **state)
{
    (void)state;
    struct error err = {0};
    struct catalog *catalog = catalog_open(SHOAL_TEST_DATA "/deepseek_v3-bf16/model", &err);
    struct summary *summary;
    uint64_t bias_values = 16;

    assert_non_null(catalog);
    summary = summary_create(catalog);
    assert_int_equal(summary->total_bytes,
                     2 * (summary->parameters.total + summary->parameters.draft) +
                         4 * 2 * bias_values);
    assert_int_equal(summary->active_bytes, 2 * summary->parameters.active + 3 * 2 * bias_values);
    assert_int_equal(summary->tensors_of_type[WEIGHT_F32], 4);
    assert_string_equal(summary_part_name(PART_SHARED), "shared");
    summary_destroy(summary);
    summary_destroy(NULL);
    catalog_close(catalog);
}

/* One byte a value and four for each block of 128 × 128. */
static void scales_count_as_f32(void **state)
{
    (void)state;
    struct error err = {0};
    struct catalog *catalog = catalog_open(SHOAL_TEST_DATA "/deepseek_v3-fp8/model", &err);
    struct summary *summary;

    assert_non_null(catalog);
    summary = summary_create(catalog);
    assert_int_equal(summary->total_bytes, catalog->total_bytes);
    assert_int_equal(summary->tensors_of_type[WEIGHT_F8_E4M3], 60);
    assert_int_equal(summary->tensors_of_type[WEIGHT_F32], 60 + 2); /* and two router biases */
    assert_int_equal(summary->bytes_of_type[WEIGHT_F8_E4M3] + summary->bytes_of_type[WEIGHT_F32] +
                         summary->bytes_of_type[WEIGHT_BF16],
                     catalog->total_bytes);
    /* experts of 136 × 160 and back: two by two blocks */
    assert_int_equal(summary->expert_bytes_min, 3 * (136 * 160 + 4 * 4));
    summary_destroy(summary);
    catalog_close(catalog);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deepseek_r1_has_its_published_size),
        cmocka_unit_test(deepseek_v2_has_its_published_sizes),
        cmocka_unit_test(dense_models_have_their_published_sizes),
        cmocka_unit_test(a_summary_accounts_for_every_byte),
        cmocka_unit_test(bytes_and_parameters_agree),
        cmocka_unit_test(scales_count_as_f32),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
