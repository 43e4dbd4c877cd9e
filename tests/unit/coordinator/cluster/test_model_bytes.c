/* The planner's byte figures are those of the worker's weights. */
#include "coordinator/cluster/model_bytes.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/layers/weights.h"
#include "worker/stage/compute.h"
#include "worker/stage/seat.h"
#include "worker/stage/stage.h"

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
        if (layer + 1 == catalog->arch.layer_count && catalog->arch.draft_layer_count > 0) {
            struct planner_layer draft = model_bytes_draft(catalog);

            share.has_draft = true;
            bytes += draft.common_bytes + experts * draft.expert_bytes;
            assert_true(draft.expert_bytes > 0);
            assert_int_equal(worker_bytes(catalog, share), page_aligned(bytes));
        }
    }
    catalog_close(catalog);
}

static void the_golden_models_layers_weigh_the_same(void **state)
{
    (void)state;
    model_compare(SHOAL_TEST_DATA "/deepseek_v3-bf16/model");
    model_compare(SHOAL_TEST_DATA "/deepseek_v3-fp8/model");
}

static void grouped_models_layers_weigh_the_same(void **state)
{
    (void)state;
    model_compare(SHOAL_TEST_DATA "/llama-bf16/model");
    model_compare(SHOAL_TEST_DATA "/llama-tied/model");
    model_compare(SHOAL_TEST_DATA "/qwen2-untied/model");
    model_compare(SHOAL_TEST_DATA "/qwen3_moe-bf16/model");
}

static void the_demo_models_layers_weigh_the_same(void **state)
{
    (void)state;
    model_compare(SHOAL_SOURCE_DIR "/deploy/demo-model");
}

/* The published shape of DeepSeek-R1. */
static const char r1_config[] =
    "{\"model_type\": \"deepseek_v3\", \"hidden_size\": 7168, \"intermediate_size\": 18432, "
    "\"moe_intermediate_size\": 2048, \"num_hidden_layers\": 61, "
    "\"num_attention_heads\": 128, \"num_key_value_heads\": 128, \"n_shared_experts\": 1, "
    "\"n_routed_experts\": 256, \"routed_scaling_factor\": 2.5, \"kv_lora_rank\": 512, "
    "\"q_lora_rank\": 1536, \"qk_rope_head_dim\": 64, \"v_head_dim\": 128, "
    "\"qk_nope_head_dim\": 128, \"n_group\": 8, \"topk_group\": 4, "
    "\"num_experts_per_tok\": 8, \"first_k_dense_replace\": 3, \"moe_layer_freq\": 1, "
    "\"norm_topk_prob\": true, \"scoring_func\": \"sigmoid\", \"topk_method\": \"noaux_tc\", "
    "\"hidden_act\": \"silu\", \"max_position_embeddings\": 163840, \"rms_norm_eps\": 1e-06, "
    "\"bos_token_id\": 0, \"eos_token_id\": 1, \"num_nextn_predict_layers\": 1, "
    "\"tie_word_embeddings\": false, \"rope_theta\": 10000, "
    "\"rope_scaling\": {\"beta_fast\": 32, \"beta_slow\": 1, \"factor\": 40, \"mscale\": 1.0, "
    "\"mscale_all_dim\": 1.0, \"original_max_position_embeddings\": 4096, "
    "\"type\": \"yarn\"}, \"vocab_size\": 129280, \"attention_bias\": false}";

static void config_read(const char *name, struct arch *out)
{
    char *path = mem_printf("%s/configs/%s.json", SHOAL_TEST_DATA, name);
    char *text = NULL;
    size_t length;
    struct error err;

    assert_true(file_read(path, 1 << 20, &text, &length, &err));
    assert_true(arch_parse(text, length, path, out, &err));
    mem_free(text);
    mem_free(path);
}

#define WORKER_PROGRAM_BYTES ((uint64_t)48 << 20) /* what its ledger calls fixed, with staging */

enum sharing {
    SHARING_WHOLE,   /* of router groups, where there are enough */
    SHARING_DIVIDED, /* single experts, more to the first member */
};

struct layout {
    uint32_t stages, group;
    enum sharing sharing;
};

static struct placement *plan(const struct arch *arch, struct layout layout,
                              struct planner_request *request, struct arena *arena)
{
    uint32_t stages = layout.stages, group = layout.group;
    struct planner_layer *layers = arena_new_array(arena, struct planner_layer, arch->layer_count);
    struct planner_worker *workers = arena_new_array(arena, struct planner_worker, stages * group);
    struct placement *placement;
    struct error err;

    for (uint32_t i = 0; i < arch->layer_count; i++) {
        layers[i] = (struct planner_layer){1000, i < arch->dense_layer_count ? 0 : 10};
    }
    for (uint32_t i = 0; i < stages * group; i++) {
        workers[i] = (struct planner_worker){
            .id = i, .memory_bytes = UINT64_C(1) << 44, .read_bytes_per_s = 1e9};
        if (layout.sharing == SHARING_DIVIDED && i % group == 0) {
            workers[i].read_bytes_per_s = 1.3e9;
        }
    }
    *request = (struct planner_request){
        .epoch = 1,
        .numerics_id = "exact/f16/k1",
        .layer_count = arch->layer_count,
        .layers = layers,
        .dense_layer_count = arch->dense_layer_count,
        .draft_layer_count = arch->draft_layer_count > 0 ? 1 : 0,
        .draft = {1000, 10},
        .expert_count = arch->router.expert_count,
        .expert_group_count = layout.sharing == SHARING_WHOLE ? arch_combine_group_count(arch) : 1,
        .kv_entry_bytes = (uint64_t)arch_kv_values(arch) * 2,
        .kv_token_bytes = sizeof(uint32_t),
        .kv_type = KV_F16,
        .context_tokens_max = arch->context_tokens_max,
        .worker_count = stages * group,
        .workers = workers,
        .stage_count = stages,
        .group_size = group,
    };
    placement = planner_make(request, arena, &err);
    if (placement == NULL) {
        fail_msg("%s", err.message);
    }
    return placement;
}

static void estimate_compare(const struct arch *arch, struct layout layout)
{
    struct planner_request request;
    struct arena arena;
    struct placement *placement;

    arena_init(&arena, 4096);
    placement = plan(arch, layout, &request, &arena);
    for (uint32_t worker = 0; worker < layout.stages * layout.group; worker++) {
        const uint32_t threads = 64;
        struct seat *seat = seat_create(placement, worker, &arena);
        struct stage_bytes stage = stage_bytes(seat, arch, threads);
        struct planner_share share = planner_share_of(&request, placement, worker);
        struct traffic traffic = {0};
        struct model_fixed_bytes fixed = model_bytes_fixed(
            arch, &(struct model_step_shape){.rows_max = placement->step_rows_max,
                                             .steps_in_flight_max = placement->steps_in_flight_max,
                                             .group_size = layout.group,
                                             .context_tokens_max = placement->context_tokens_max,
                                             .slot_count = placement->slot_count,
                                             .thread_count = threads});
        uint64_t estimate = fixed.buffer_bytes + fixed.frame_bytes + fixed.program_bytes +
                            (layout.sharing == SHARING_DIVIDED ? fixed.divided_bytes : 0);
        uint64_t needed;

        traffic_plan(seat, arch, &arena, &traffic);
        needed = WORKER_PROGRAM_BYTES + stage.buffers + (stage.cache - share.kv_bytes) +
                 traffic_bytes(&traffic) + compute_bytes(2 * placement->steps_in_flight_max + 2);
        if (needed > estimate) {
            fail_msg("%ux%u (%d) worker %u: needed %llu (buffers %llu, tables %llu, frames %llu), "
                     "estimated %llu",
                     layout.stages, layout.group, (int)layout.sharing, worker,
                     (unsigned long long)needed, (unsigned long long)stage.buffers,
                     (unsigned long long)(stage.cache - share.kv_bytes),
                     (unsigned long long)traffic_bytes(&traffic), (unsigned long long)estimate);
        }
    }
    arena_deinit(&arena);
}

static void estimates_compare(const struct arch *arch)
{
    static const struct layout layouts[] = {
        {1, 1, SHARING_WHOLE},   {2, 1, SHARING_WHOLE}, {2, 2, SHARING_WHOLE},
        {1, 4, SHARING_WHOLE},   {4, 1, SHARING_WHOLE}, {2, 2, SHARING_DIVIDED},
        {1, 4, SHARING_DIVIDED},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(layouts); i++) {
        if (layouts[i].stages <= arch->layer_count) {
            estimate_compare(arch, layouts[i]);
        }
    }
}

static void the_estimate_covers_what_a_worker_adds(void **state)
{
    struct arch arch;
    struct error err;

    (void)state;
    assert_true(arch_read(SHOAL_SOURCE_DIR "/deploy/demo-model", &arch, &err));
    estimates_compare(&arch);
    assert_true(arch_read(SHOAL_TEST_DATA "/llama-bf16/model", &arch, &err));
    estimates_compare(&arch);
    assert_true(arch_read(SHOAL_TEST_DATA "/qwen3_moe-bf16/model", &arch, &err));
    estimates_compare(&arch);
    config_read("DeepSeek-R1-Distill-Llama-70B", &arch);
    estimates_compare(&arch);
    config_read("Qwen2.5-72B-Instruct", &arch);
    estimates_compare(&arch);
    assert_true(arch_parse(r1_config, strlen(r1_config), "R1", &arch, &err));
    estimates_compare(&arch);
    estimate_compare(&arch, (struct layout){16, 1, SHARING_WHOLE});
    estimate_compare(&arch, (struct layout){8, 8, SHARING_WHOLE});
    estimate_compare(&arch, (struct layout){8, 2, SHARING_DIVIDED});
    estimate_compare(&arch, (struct layout){8, 8, SHARING_DIVIDED});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_golden_models_layers_weigh_the_same),
        cmocka_unit_test(grouped_models_layers_weigh_the_same),
        cmocka_unit_test(the_demo_models_layers_weigh_the_same),
        cmocka_unit_test(the_estimate_covers_what_a_worker_adds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
