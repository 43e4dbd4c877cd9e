/* test_arch_config.c - configs, published ones and damaged ones. */
#include "tests/unit/common/model/model_fixture.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char small_config[] = "deepseek_v3-bf16/model/config.json";
static const char llama_config[] = "llama-bf16/model/config.json";
static const char qwen3_config[] = "qwen3_moe-bf16/model/config.json";

struct change_case {
    const char *path;
    const char *value; /* NULL: the field is deleted */
    const char *expected;
};

static void expect_config_refused(const char *config, const struct change_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct arch arch;
        struct error err = {0};
        const char *value = cases[i].value == NULL ? "nothing" : cases[i].value;

        memset(&arch, 0x5a, sizeof(arch));
        if (fixture_parse_changed(config, cases[i].path, cases[i].value, &arch, &err)) {
            fail_msg("%s = %s was accepted", cases[i].path, value);
        }
        if (strstr(err.message, cases[i].expected) == NULL ||
            strncmp(err.message, "config: ", 8) != 0) {
            fail_msg("%s = %s: %s", cases[i].path, value, err.message);
        }
        assert_int_equal(((unsigned char *)&arch)[0], 0x5a); /* written on success only */
    }
}

static void expect_refused(const struct change_case *cases, size_t count)
{
    expect_config_refused(small_config, cases, count);
}

static void deepseek_r1_is_read_whole(void **state)
{
    (void)state;
    struct arch arch = fixture_arch("DeepSeek-R1");

    assert_string_equal(arch.name, "deepseek_v3");
    assert_int_equal(arch.layer_count, 61);
    assert_int_equal(arch.draft_layer_count, 1);
    assert_int_equal(arch.dense_layer_count, 3);
    assert_int_equal(arch.hidden, 7168);
    assert_int_equal(arch.vocab, 129280);
    assert_int_equal(arch.context_tokens_max, 163840);
    assert_int_equal(arch.head_count, 128);
    assert_int_equal(arch.q_lora_rank, 1536);
    assert_int_equal(arch.kv_lora_rank, 512);
    assert_int_equal(arch.qk_nope_dim, 128);
    assert_int_equal(arch.qk_rope_dim, 64);
    assert_int_equal(arch.v_head_dim, 128);
    assert_int_equal(arch.dense_width, 18432);
    assert_int_equal(arch.expert_width, 2048);
    assert_int_equal(arch.shared_width, 2048);
    assert_true(arch.norm_eps == 1e-6f && arch.latent_norm_eps == 1e-6f);
    assert_int_equal(arch.router.expert_count, 256);
    assert_int_equal(arch.router.chosen_count, 8);
    assert_int_equal(arch.router.group_count, 8);
    assert_int_equal(arch.router.group_chosen_count, 4);
    assert_int_equal(arch.router.scoring, ROUTER_SIGMOID);
    assert_int_equal(arch.router.method, ROUTER_NOAUX_TC);
    assert_true(arch.router.normalise && arch.router.scale == 2.5f);
    assert_int_equal(arch.rope.scaling, ROPE_YARN);
    assert_true(arch.rope.theta == 10000 && arch.rope.factor == 40 && arch.rope.mscale == 1);
    assert_true(arch.rope.beta_fast == 32 && arch.rope.beta_slow == 1);
    assert_true(arch.rope.mscale_all_dim == 1);
    assert_int_equal(arch.rope.original_context, 4096);
    assert_false(arch.tied_embedding);
    assert_int_equal(arch.bos_id, 0);
    assert_int_equal(arch.eos_count, 1);
    assert_int_equal(arch.eos_ids[0], 1);
}

static void deepseek_v2_has_softmax_and_groups_by_maximum(void **state)
{
    (void)state;
    struct arch v2 = fixture_arch("DeepSeek-V2");
    struct arch lite = fixture_arch("DeepSeek-V2-Lite");

    assert_string_equal(v2.name, "deepseek_v2");
    assert_int_equal(v2.router.scoring, ROUTER_SOFTMAX);
    assert_int_equal(v2.router.method, ROUTER_GROUP_LIMITED_GREEDY);
    assert_int_equal(v2.router.group_chosen_count, 3);
    assert_int_equal(v2.draft_layer_count, 0);
    assert_int_equal(v2.shared_width, 3072);
    assert_false(v2.router.normalise);
    assert_int_equal(lite.router.method, ROUTER_GREEDY);
    assert_int_equal(lite.router.group_count, 1);
    assert_int_equal(lite.router.group_chosen_count, 1);
    assert_int_equal(lite.q_lora_rank, 0);
}

static void llama_has_grouped_heads_and_no_experts(void **state)
{
    (void)state;
    struct arch small = fixture_arch("Llama-3.1-8B");
    struct arch large = fixture_arch("DeepSeek-R1-Distill-Llama-70B");

    assert_string_equal(small.name, "llama");
    assert_int_equal(small.attention, ATTENTION_GQA);
    assert_int_equal(small.head_count, 32);
    assert_int_equal(small.kv_head_count, 8);
    assert_int_equal(small.qk_nope_dim, 0);
    assert_int_equal(small.qk_rope_dim, 128);
    assert_int_equal(small.v_head_dim, 128);
    assert_int_equal(arch_kv_values(&small), 2048);
    assert_true(arch_softmax_scale(&small) == (float)(1.0 / sqrt(128.0)));
    assert_int_equal(small.rope.scaling, ROPE_LLAMA3);
    assert_int_equal(small.rope.style, ROPE_HALVES);
    assert_true(small.rope.theta == 500000 && small.rope.factor == 8);
    assert_true(small.rope.low_freq_factor == 1 && small.rope.high_freq_factor == 4);
    assert_int_equal(small.rope.original_context, 8192);
    assert_int_equal(small.attention_bias, 0);
    assert_false(small.qk_norm);
    assert_int_equal(small.router.expert_count, 0);
    assert_int_equal(small.dense_layer_count, 32);
    assert_false(arch_layer_is_moe(&small, 31));
    assert_int_equal(large.head_count, 64);
    assert_int_equal(large.layer_count, 80);
}

static void qwen_has_biases_or_head_norms(void **state)
{
    (void)state;
    struct arch qwen2 = fixture_arch("Qwen2.5-72B-Instruct");
    struct arch qwen3;
    struct error err;

    assert_string_equal(qwen2.name, "qwen2");
    assert_int_equal(qwen2.attention_bias, BIAS_QKV);
    assert_int_equal(qwen2.qk_rope_dim, 128);
    assert_int_equal(qwen2.rope.scaling, ROPE_PLAIN);
    assert_true(fixture_parse_changed(qwen3_config, "model_type", "\"qwen3_moe\"", &qwen3, &err));
    assert_true(qwen3.qk_norm);
    assert_int_equal(qwen3.attention_bias, 0);
    assert_int_equal(qwen3.qk_rope_dim, 32);
    assert_int_equal(qwen3.hidden, 80);
    assert_int_equal(qwen3.router.expert_count, 12);
    assert_int_equal(qwen3.router.chosen_count, 3);
    assert_int_equal(qwen3.router.scoring, ROUTER_SOFTMAX);
    assert_int_equal(qwen3.router.method, ROUTER_GREEDY);
    assert_true(qwen3.router.normalise && qwen3.router.scale == 1.0f);
    assert_int_equal(qwen3.shared_width, 0);
    assert_int_equal(qwen3.dense_layer_count, 0);
    assert_true(fixture_parse_changed(qwen3_config, "norm_topk_prob", NULL, &qwen3, &err));
    assert_false(qwen3.router.normalise);
    assert_true(fixture_parse_changed(qwen3_config, "mlp_only_layers", "[0, 1]", &qwen3, &err));
    assert_int_equal(qwen3.dense_layer_count, 2);
    assert_true(fixture_parse_changed(qwen3_config, "attention_bias", "true", &qwen3, &err));
    assert_int_equal(qwen3.attention_bias, BIAS_QKV | BIAS_OUT);
    assert_true(fixture_parse_changed(qwen3_config, "model_type", "\"qwen3\"", &qwen3, &err));
    assert_true(qwen3.qk_norm);
    assert_int_equal(qwen3.router.expert_count, 0);
}

static void grouped_configs_that_compute_something_else_are_refused(void **state)
{
    (void)state;
    static const struct change_case qwen3[] = {
        {"head_dim", NULL, "\"head_dim\""},
        {"head_dim", "7", "heads of 7 dimensions are not supported"},
        {"head_dim", "5000", "field \"head_dim\" is 5000"},
        {"num_key_value_heads", "3", "num_attention_heads 8 is not a multiple of num_key_value"},
        {"decoder_sparse_step", "2", "\"decoder_sparse_step\" is 2; only 1"},
        {"mlp_only_layers", "[1]", "\"mlp_only_layers\": only the first layers"},
        {"mlp_only_layers", "[0, 1, 2, 3]", "\"mlp_only_layers\": only the first layers"},
        {"mlp_only_layers", "[\"a\"]", "\"mlp_only_layers\": only the first layers"},
        {"mlp_only_layers", "3", "mlp_only_layers"},
        {"num_experts_per_tok", "13", "num_experts_per_tok 13 exceeds num_experts 12"},
        {"num_experts", "0", "field \"num_experts\" is 0"},
        {"use_sliding_window", "true", "\"use_sliding_window\" is true; only false"},
    };
    static const struct change_case llama[] = {
        {"mlp_bias", "true", "\"mlp_bias\" is true; only false"},
        {"partial_rotary_factor", "0.5", "\"partial_rotary_factor\" is 0.5"},
        {"rope_scaling.high_freq_factor", "1", "low_freq_factor 1 is not below high_freq_factor 1"},
        {"rope_scaling.high_freq_factor", NULL, "\"high_freq_factor\""},
        {"rope_scaling.original_max_position_embeddings", NULL, "original_max_position_embeddings"},
        {"num_attention_heads", "7", "hidden_size 128 is not a multiple of num_attention_heads 7"},
        {"num_attention_heads", "128", "heads of 1 dimensions are not supported"},
    };

    expect_config_refused(qwen3_config, qwen3, ARRAY_LENGTH(qwen3));
    expect_config_refused(llama_config, llama, ARRAY_LENGTH(llama));
}

static void grouped_configs_may_leave_fields_out(void **state)
{
    (void)state;
    struct arch arch;
    struct error err;

    assert_true(fixture_parse_changed(llama_config, "num_key_value_heads", NULL, &arch, &err));
    assert_int_equal(arch.kv_head_count, arch.head_count);
    assert_true(fixture_parse_changed(llama_config, "rope_theta", NULL, &arch, &err));
    assert_true(arch.rope.theta == 10000);
    assert_true(fixture_parse_changed(llama_config, "rope_scaling", NULL, &arch, &err));
    assert_int_equal(arch.rope.scaling, ROPE_PLAIN);
    assert_true(fixture_parse_changed(llama_config, "rope_scaling",
                                      "{\"type\": \"linear\", \"factor\": 4}", &arch, &err));
    assert_int_equal(arch.rope.scaling, ROPE_LINEAR);
    assert_true(arch.rope.factor == 4);
    assert_true(fixture_parse_changed(llama_config, "attention_bias", "true", &arch, &err));
    assert_int_equal(arch.attention_bias, BIAS_QKV | BIAS_OUT);
    assert_true(fixture_parse_changed(llama_config, "head_dim", "32", &arch, &err));
    assert_int_equal(arch.v_head_dim, 32);
}

static void each_required_field_is_missed_by_name(void **state)
{
    (void)state;
    static const char *const fields[] = {
        "num_hidden_layers",   "first_k_dense_replace",
        "hidden_size",         "vocab_size",
        "num_attention_heads", "max_position_embeddings",
        "kv_lora_rank",        "qk_nope_head_dim",
        "qk_rope_head_dim",    "v_head_dim",
        "intermediate_size",   "moe_intermediate_size",
        "n_routed_experts",    "num_experts_per_tok",
        "rms_norm_eps",        "rope_theta",
        "model_type",          "routed_scaling_factor",
        "rope_scaling.factor", "rope_scaling.original_max_position_embeddings",
        "rope_scaling.type",
    };

    for (size_t i = 0; i < ARRAY_LENGTH(fields); i++) {
        const char *dot = strchr(fields[i], '.');
        char expected[80];
        struct change_case missing = {fields[i], NULL, expected};
        struct change_case wrong = {fields[i], "[]", expected};

        snprintf(expected, sizeof(expected), "\"%s\"", dot == NULL ? fields[i] : dot + 1);
        expect_refused(&missing, 1);
        expect_refused(&wrong, 1);
    }
}

static void zero_and_absurd_sizes_are_refused_with_their_range(void **state)
{
    (void)state;
    static const struct change_case cases[] = {
        {"hidden_size", "0", "field \"hidden_size\" is 0; 1 to 131072"},
        {"hidden_size", "4294967295", "field \"hidden_size\" is 4294967295"},
        {"hidden_size", "99999999999", "hidden_size"},
        {"hidden_size", "1e24", "hidden_size"},
        {"hidden_size", "-1", "hidden_size"},
        {"hidden_size", "96.5", "hidden_size"},
        {"hidden_size", "\"96\"", "hidden_size"},
        {"vocab_size", "0", "vocab_size"},
        {"vocab_size", "100000000", "vocab_size"},
        {"num_hidden_layers", "0", "num_hidden_layers"},
        {"num_hidden_layers", "513", "num_hidden_layers"},
        {"num_nextn_predict_layers", "17", "num_nextn_predict_layers"},
        {"n_routed_experts", "0", "n_routed_experts"},
        {"n_routed_experts", "5000", "n_routed_experts"},
        {"n_shared_experts", "65", "n_shared_experts"},
        {"n_group", "0", "n_group"},
        {"q_lora_rank", "0", "q_lora_rank"},
        {"rms_norm_eps", "0", "rms_norm_eps"},
        {"rms_norm_eps", "1", "rms_norm_eps"},
        {"rope_theta", "1", "rope_theta"},
        {"rope_theta", "1e300", "rope_theta"},
        {"routed_scaling_factor", "0", "routed_scaling_factor"},
        {"rope_scaling.factor", "0.5", "rope_scaling: field \"factor\""},
        {"rope_scaling.original_max_position_embeddings", "0", "rope_scaling: field \"original_"},
        {"rope_scaling.beta_fast", "0", "beta_fast"},
        {"max_position_embeddings", "0", "max_position_embeddings"},
    };

    expect_refused(cases, ARRAY_LENGTH(cases));
}

static void fields_that_contradict_each_other_are_refused(void **state)
{
    (void)state;
    static const struct change_case cases[] = {
        {"n_group", "5", "n_routed_experts 16 is not a multiple of n_group 5"},
        {"topk_group", "5", "topk_group 5 exceeds n_group 4"},
        {"num_experts_per_tok", "9", "num_experts_per_tok 9 exceeds the 8 experts of topk_group 2"},
        {"n_group", "16", "n_group 16 leaves one expert in a group"},
        {"first_k_dense_replace", "5", "first_k_dense_replace 5 exceeds num_hidden_layers 4"},
        {"qk_rope_head_dim", "15", "it must be even"},
        {"num_key_value_heads", "2", "\"num_key_value_heads\" is 2; only 4"},
        {"scoring_func", "\"softmax\"", "scoring_func \"softmax\" with topk_method \"noaux_tc\""},
        {"topk_method", "\"best\"", "topk_method \"best\""},
        {"eos_token_id", "384", "\"eos_token_id\" is 384; vocab_size 384 allows 0 to 383"},
        {"eos_token_id", "-1", "\"eos_token_id\" is -1"},
        {"eos_token_id", "[1, \"2\"]", "\"eos_token_id\" must be an integer or a list"},
        {"eos_token_id", "[1,2,3,4,5,6,7,8,9]", "more than 8 values"},
        {"bos_token_id", "384", "\"bos_token_id\" is 384"},
        {"rope_parameters", "{}", "both \"rope_scaling\" and \"rope_parameters\""},
    };

    expect_refused(cases, ARRAY_LENGTH(cases));
}

static void what_would_compute_something_else_is_refused_by_name(void **state)
{
    (void)state;
    static const struct change_case cases[] = {
        {"hidden_act", "\"gelu\"", "hidden_act \"gelu\" is not supported"},
        {"attention_bias", "true", "\"attention_bias\" is true; only false"},
        {"moe_layer_freq", "2", "\"moe_layer_freq\" is 2; only 1"},
        {"rope_interleave", "false", "\"rope_interleave\" is false"},
        {"rope_scaling.type", "\"dynamic\"", "rope_scaling: type \"dynamic\" is not supported"},
        {"rope_scaling.rope_type", "\"longrope\"", "rope_type \"longrope\" is not supported"},
        {"rope_scaling.rope_type", "\"llama3\"", "rope_scaling: field \"low_freq_factor\""},
        {"rope_scaling.attention_factor", "1", "\"attention_factor\" is not supported"},
        {"rope_scaling.truncate", "false", "\"truncate\" is false; only true"},
        {"model_type", "\"mamba\"",
         "model_type \"mamba\" is not supported; supported: deepseek_v3, deepseek_v2"},
        {"quantization_config", "{\"quant_method\": \"fp8\"}",
         "quantization_config: weight_block_size must be [128, 128]"},
        {"quantization_config", "{\"quant_method\": \"fp8\", \"weight_block_size\": [128, 64]}",
         "weight_block_size must be [128, 128]"},
        {"quantization_config", "{\"quant_method\": \"fp8\", \"weight_block_size\": 128}",
         "\"weight_block_size\" must be an array"},
        {"quantization_config", "{\"quant_method\": \"fp8\", \"fmt\": \"e5m2\"}",
         "quantization_config: fmt \"e5m2\" is not supported; only \"e4m3\" is"},
        {"quantization_config", "{\"quant_method\": \"fp8\", \"activation_scheme\": \"static\"}",
         "activation_scheme \"static\" is not supported"},
        {"quantization_config", "{\"quant_method\": \"gptq\"}", "quant_method \"gptq\""},
        {"quantization_config", "{}", "quant_method \"unnamed\""},
    };

    expect_refused(cases, ARRAY_LENGTH(cases));
}

static void silence_means_the_published_defaults(void **state)
{
    (void)state;
    static const char *const optional[] = {
        "num_nextn_predict_layers",
        "n_shared_experts",
        "n_group",
        "topk_method",
        "scoring_func",
        "norm_topk_prob",
        "attention_bias",
        "moe_layer_freq",
        "hidden_act",
        "tie_word_embeddings",
        "num_key_value_heads",
        "rope_scaling",
        "eos_token_id",
        "bos_token_id",
        "q_lora_rank",
        "rope_scaling.beta_fast",
        "rope_scaling.mscale",
        "rope_scaling.mscale_all_dim",
    };
    struct error err = {0};
    struct arch arch;

    for (size_t i = 0; i < ARRAY_LENGTH(optional); i++) {
        bool of_groups = strcmp(optional[i], "n_group") == 0;

        if (of_groups) { /* topk_group 2 of one group would contradict it */
            continue;
        }
        if (!fixture_parse_changed(small_config, optional[i], NULL, &arch, &err) ||
            !fixture_parse_changed(small_config, optional[i], "null", &arch, &err)) {
            fail_msg("%s: %s", optional[i], err.message);
        }
    }
    assert_true(fixture_parse_changed(small_config, "rope_scaling", "null", &arch, &err));
    assert_int_equal(arch.rope.scaling, ROPE_PLAIN);
    assert_true(fixture_parse_changed(small_config, "bos_token_id", "null", &arch, &err));
    assert_int_equal(arch.bos_id, ARCH_NO_TOKEN);
    assert_true(fixture_parse_changed(small_config, "topk_group", "null", &arch, &err));
    assert_int_equal(arch.router.group_chosen_count, arch.router.group_count);
    assert_true(fixture_parse_changed(small_config, "n_shared_experts", "0", &arch, &err));
    assert_int_equal(arch.shared_width, 0);
}

static void newer_configs_keep_the_rope_in_rope_parameters(void **state)
{
    (void)state;
    json_t *config = fixture_json(small_config);
    json_t *rope = json_object_get(config, "rope_scaling");
    struct error err = {0};
    struct arch arch;
    char *text;

    json_incref(rope);
    json_object_del(config, "rope_scaling");
    json_object_del(config, "rope_theta");
    json_object_del(rope, "type");
    json_object_set_new(rope, "rope_type", json_string("yarn"));
    json_object_set_new(rope, "rope_theta", json_real(50000));
    json_object_set_new(config, "rope_parameters", rope);
    text = json_dumps(config, 0);
    assert_true(arch_parse(text, strlen(text), "config", &arch, &err));
    assert_int_equal(arch.rope.scaling, ROPE_YARN);
    assert_true(arch.rope.theta == 50000 && arch.rope.factor == 40);
    free(text);
    json_decref(config);
}

static void what_is_no_json_object_is_refused_with_its_place(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "", "{", "[]", "3", "{\"model_type\": 3}", "{\"a\": 1, \"a\": 2}", "{}\xff"};

    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        struct error err = {0};
        struct arch arch;

        assert_false(arch_parse(texts[i], strlen(texts[i]), "some.json", &arch, &err));
        assert_int_equal(err.code, ERROR_INPUT);
        assert_memory_equal(err.message, "some.json: ", 11);
    }
}

static void a_config_cut_anywhere_is_refused(void **state)
{
    (void)state;
    json_t *config = fixture_json(small_config);
    char *text = json_dumps(config, JSON_COMPACT);
    size_t length = strlen(text);
    struct arch arch;

    for (size_t i = 0; i < length; i++) {
        struct error err = {0};
        char *cut = mem_strndup(text, i); /* its own block, so that a sanitizer sees its end */

        assert_false(arch_parse(cut, i, "config", &arch, &err));
        mem_free(cut);
    }
    free(text);
    json_decref(config);
}

static void eos_ids_of_both_files_are_joined(void **state)
{
    (void)state;
    static const char generation[] = "{\"eos_token_id\": [5, 1, 7]}";
    struct model_copy copy;
    struct error err = {0};
    struct arch arch;

    model_copy_open(&copy);
    model_copy_write(&copy, "generation_config.json", generation, strlen(generation));
    assert_true(arch_read(copy.scratch.folder, &arch, &err));
    assert_int_equal(arch.eos_count, 3);
    assert_true(arch_is_eos(&arch, 1) && arch_is_eos(&arch, 5) && arch_is_eos(&arch, 7));
    assert_false(arch_is_eos(&arch, 0));
    model_copy_close(&copy);
}

static void a_damaged_generation_config_is_named(void **state)
{
    (void)state;
    static const char *const texts[] = {"{\"eos_token_id\": \"x\"}", "[1]", "{",
                                        "{\"eos_token_id\": 100000}"};
    struct model_copy copy;
    struct arch arch;

    model_copy_open(&copy);
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        struct error err = {0};

        model_copy_write(&copy, "generation_config.json", texts[i], strlen(texts[i]));
        assert_false(arch_read(copy.scratch.folder, &arch, &err));
        assert_non_null(strstr(err.message, "generation_config.json: "));
    }
    model_copy_close(&copy);
}

static void a_directory_without_config_is_an_error(void **state)
{
    (void)state;
    struct scratch scratch;
    struct error err = {0};
    struct arch arch;

    scratch_open(&scratch);
    assert_false(arch_read(scratch.folder, &arch, &err));
    assert_non_null(strstr(err.message, "config.json"));
    scratch_close(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deepseek_r1_is_read_whole),
        cmocka_unit_test(deepseek_v2_has_softmax_and_groups_by_maximum),
        cmocka_unit_test(llama_has_grouped_heads_and_no_experts),
        cmocka_unit_test(qwen_has_biases_or_head_norms),
        cmocka_unit_test(grouped_configs_that_compute_something_else_are_refused),
        cmocka_unit_test(grouped_configs_may_leave_fields_out),
        cmocka_unit_test(each_required_field_is_missed_by_name),
        cmocka_unit_test(zero_and_absurd_sizes_are_refused_with_their_range),
        cmocka_unit_test(fields_that_contradict_each_other_are_refused),
        cmocka_unit_test(what_would_compute_something_else_is_refused_by_name),
        cmocka_unit_test(silence_means_the_published_defaults),
        cmocka_unit_test(newer_configs_keep_the_rope_in_rope_parameters),
        cmocka_unit_test(what_is_no_json_object_is_refused_with_its_place),
        cmocka_unit_test(a_config_cut_anywhere_is_refused),
        cmocka_unit_test(eos_ids_of_both_files_are_joined),
        cmocka_unit_test(a_damaged_generation_config_is_named),
        cmocka_unit_test(a_directory_without_config_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
