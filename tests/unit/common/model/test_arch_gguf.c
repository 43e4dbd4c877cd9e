/* test_arch_gguf.c - architectures out of GGUF metadata: golden files, published shapes, lies. */
#include "tests/unit/common/model/gguf_fixture.h"

#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/model/arch_gguf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Metadata in the making: a list of values, then a header of them without tensors. */
struct metadata {
    struct buffer values;
    uint32_t count;
    struct buffer file;
    struct gguf_file files[1];
    struct gguf gguf;
};

static void put_string(struct metadata *metadata, const char *key, const char *value)
{
    gguf_put_key(&metadata->values, key, GGUF_STRING);
    gguf_put_string(&metadata->values, value);
    metadata->count++;
}

static void put_u32(struct metadata *metadata, const char *key, uint32_t value)
{
    gguf_put_key(&metadata->values, key, GGUF_U32);
    gguf_put_u32(&metadata->values, value);
    metadata->count++;
}

static void put_f32(struct metadata *metadata, const char *key, float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    gguf_put_key(&metadata->values, key, GGUF_F32);
    gguf_put_u32(&metadata->values, bits);
    metadata->count++;
}

static void metadata_end(struct metadata *metadata)
{
    struct error err = {0};

    buffer_append_text(&metadata->file, "GGUF");
    gguf_put_u32(&metadata->file, 3);
    gguf_put_u64(&metadata->file, 0);
    gguf_put_u64(&metadata->file, metadata->count);
    buffer_append(&metadata->file, metadata->values.data, metadata->values.length);
    assert_int_equal(gguf_header_init(&metadata->gguf.header, metadata->file.data,
                                      metadata->file.length, metadata->file.length, &err),
                     GGUF_PARSED);
    metadata->files[0] = (struct gguf_file){.path = "m.gguf"};
    metadata->gguf.files = metadata->files;
    metadata->gguf.file_count = 1;
}

static void metadata_close(struct metadata *metadata)
{
    gguf_header_deinit(&metadata->gguf.header);
    buffer_deinit(&metadata->file);
    buffer_deinit(&metadata->values);
    *metadata = (struct metadata){0};
}

struct pair {
    const char *key;
    uint32_t value;
};

/* DeepSeek-R1 as converted before expert groups and latent lengths had keys. */
static const struct pair r1_pairs[] = {
    {"deepseek2.block_count", 61},
    {"deepseek2.context_length", 163840},
    {"deepseek2.embedding_length", 7168},
    {"deepseek2.feed_forward_length", 18432},
    {"deepseek2.attention.head_count", 128},
    {"deepseek2.attention.head_count_kv", 128},
    {"deepseek2.attention.q_lora_rank", 1536},
    {"deepseek2.attention.kv_lora_rank", 512},
    {"deepseek2.attention.key_length", 192},
    {"deepseek2.attention.value_length", 128},
    {"deepseek2.rope.dimension_count", 64},
    {"deepseek2.rope.scaling.original_context_length", 4096},
    {"deepseek2.leading_dense_block_count", 3},
    {"deepseek2.expert_count", 256},
    {"deepseek2.expert_used_count", 8},
    {"deepseek2.expert_shared_count", 1},
    {"deepseek2.expert_feed_forward_length", 2048},
    {"deepseek2.expert_gating_func", 2},
    {"deepseek2.vocab_size", 129280},
    {"tokenizer.ggml.bos_token_id", 0},
    {"tokenizer.ggml.eos_token_id", 1},
};

/* R1's metadata; the values of `changed` replace those of the same key, or come in addition. */
static struct metadata r1_begin(const struct pair *changed, size_t changed_count)
{
    struct metadata metadata = {0};

    put_string(&metadata, "general.architecture", "deepseek2");
    for (size_t i = 0; i < ARRAY_LENGTH(r1_pairs); i++) {
        bool is_changed = false;

        for (size_t j = 0; j < changed_count; j++) {
            is_changed = is_changed || strcmp(changed[j].key, r1_pairs[i].key) == 0;
        }
        if (!is_changed) {
            put_u32(&metadata, r1_pairs[i].key, r1_pairs[i].value);
        }
    }
    for (size_t j = 0; j < changed_count; j++) {
        put_u32(&metadata, changed[j].key, changed[j].value);
    }
    put_f32(&metadata, "deepseek2.attention.layer_norm_rms_epsilon", 1e-6f);
    put_f32(&metadata, "deepseek2.expert_weights_scale", 2.5f);
    put_f32(&metadata, "deepseek2.rope.freq_base", 10000);
    put_f32(&metadata, "deepseek2.rope.scaling.factor", 40);
    gguf_put_key(&metadata.values, "deepseek2.expert_weights_norm", GGUF_BOOL);
    buffer_append_char(&metadata.values, 1);
    metadata.count++;
    return metadata;
}

static void expect_arch(struct metadata *metadata, struct arch *arch)
{
    struct error err = {0};

    if (!arch_read_gguf(&metadata->gguf, arch, &err)) {
        fail_msg("%s", err.message);
    }
}

static struct arch arch_of_config(const char *name)
{
    char *path = mem_printf("%s/%s", SHOAL_TEST_DATA, name);
    struct error err = {0};
    struct arch arch = {0};
    json_t *config = json_read_file(path, 1 << 20, &err);
    char *text;

    assert_non_null(config);
    json_object_del(config, "quantization_config");
    text = json_dumps(config, 0);
    if (!arch_parse(text, strlen(text), name, &arch, &err)) {
        fail_msg("%s", err.message);
    }
    free(text);
    json_decref(config);
    mem_free(path);
    return arch;
}

static void a_golden_file_gives_what_its_config_gives(void **state)
{
    (void)state;
    char *path = mem_printf("%s/gguf/deepseek_v3/Q4_K_M/model.gguf", SHOAL_TEST_DATA);
    struct arch wanted = arch_of_config("gguf/deepseek_v3/config.json");
    struct error err = {0};
    struct gguf *gguf = gguf_open(path, &err);
    struct arch arch;

    assert_non_null(gguf);
    memset(&arch, 0, sizeof(arch));
    if (!arch_read_gguf(gguf, &arch, &err)) {
        fail_msg("%s", err.message);
    }
    wanted.kv_b_layout = KV_B_SPLIT; /* which a config does not say */
    assert_memory_equal(&arch, &wanted, sizeof(arch));
    gguf_close(gguf);
    mem_free(path);
}

static void an_old_file_of_r1_is_the_published_r1(void **state)
{
    (void)state;
    struct arch wanted = arch_of_config("configs/DeepSeek-R1.json");
    struct metadata metadata = r1_begin(NULL, 0);
    struct arch arch;

    put_string(&metadata, "deepseek2.rope.scaling.type", "yarn");
    put_f32(&metadata, "deepseek2.rope.scaling.yarn_log_multiplier", 0.1f);
    metadata_end(&metadata);
    expect_arch(&metadata, &arch);
    wanted.draft_layer_count = 0;                /* such files go without it */
    arch.tied_embedding = wanted.tied_embedding; /* no tensors here */
    assert_memory_equal(&arch, &wanted, sizeof(arch));
    metadata_close(&metadata);
}

static void latent_lengths_and_draft_layers_are_understood(void **state)
{
    (void)state;
    static const struct pair changed[] = {
        {"deepseek2.block_count", 62},
        {"deepseek2.nextn_predict_layers", 1},
        {"deepseek2.attention.head_count_kv", 1},
        {"deepseek2.attention.key_length", 576},
        {"deepseek2.attention.value_length", 512},
        {"deepseek2.attention.key_length_mla", 192},
        {"deepseek2.attention.value_length_mla", 128},
        {"deepseek2.expert_group_count", 4},
        {"deepseek2.expert_group_used_count", 2},
        {"tokenizer.ggml.eot_token_id", 7},
    };
    struct metadata metadata = r1_begin(changed, ARRAY_LENGTH(changed));
    struct arch arch;

    metadata_end(&metadata);
    expect_arch(&metadata, &arch);
    assert_int_equal(arch.layer_count, 61);
    assert_int_equal(arch.draft_layer_count, 1);
    assert_int_equal(arch.qk_nope_dim, 128);
    assert_int_equal(arch.v_head_dim, 128);
    assert_int_equal(arch.router.group_count, 4);
    assert_int_equal(arch.router.group_chosen_count, 2);
    assert_int_equal(arch.rope.scaling, ROPE_PLAIN);
    assert_int_equal(arch.eos_count, 2);
    assert_true(arch_is_eos(&arch, 7));
    metadata_close(&metadata);
}

static void softmax_gating_is_deepseek_v2(void **state)
{
    (void)state;
    static const struct pair v2[] = {
        {"deepseek2.embedding_length", 5120},
        {"deepseek2.expert_count", 160},
        {"deepseek2.expert_used_count", 6},
        {"deepseek2.expert_gating_func", 1},
    };
    static const struct pair lite[] = {
        {"deepseek2.expert_count", 64},
        {"deepseek2.expert_gating_func", 1},
    };
    struct metadata metadata = r1_begin(v2, ARRAY_LENGTH(v2));
    struct arch arch;

    put_string(&metadata, "deepseek2.rope.scaling.type", "yarn");
    put_f32(&metadata, "deepseek2.rope.scaling.yarn_log_multiplier", 0.0707f);
    metadata_end(&metadata);
    expect_arch(&metadata, &arch);
    assert_string_equal(arch.name, "deepseek_v2");
    assert_int_equal(arch.router.method, ROUTER_GROUP_LIMITED_GREEDY);
    assert_int_equal(arch.router.group_count, 8);
    assert_int_equal(arch.router.group_chosen_count, 3);
    assert_true(arch.rope.mscale_all_dim == 0.707);
    metadata_close(&metadata);
    metadata = r1_begin(lite, ARRAY_LENGTH(lite));
    metadata_end(&metadata);
    expect_arch(&metadata, &arch);
    assert_int_equal(arch.router.method, ROUTER_GREEDY);
    assert_int_equal(arch.router.group_count, 1);
    metadata_close(&metadata);
}

static void expect_refused(struct metadata *metadata, const char *words)
{
    struct error err = {0};
    struct arch arch;

    metadata_end(metadata);
    assert_false(arch_read_gguf(&metadata->gguf, &arch, &err));
    if (strstr(err.message, words) == NULL || strncmp(err.message, "m.gguf: ", 8) != 0) {
        fail_msg("wanted \"%s\", got \"%s\"", words, err.message);
    }
    metadata_close(metadata);
}

static void what_does_not_fit_together_is_refused(void **state)
{
    (void)state;
    static const struct {
        struct pair pair;
        const char *words;
    } cases[] = {
        {{"deepseek2.expert_gating_func", 3}, "expert_gating_func\" is 3; 1 (softmax) and 2"},
        {{"deepseek2.nextn_predict_layers", 62}, "block_count\" is 61, with 62 draft layers"},
        {{"deepseek2.attention.key_length", 64}, "keys of 64 values have no room for 64 rotary"},
        {{"deepseek2.attention.head_count_kv", 4}, "head_count_kv is 4, with 128 heads"},
        {{"deepseek2.attention.key_length_mla", 192}, "do not belong to latents of 512"},
        {{"deepseek2.block_count", 0}, "field \"num_hidden_layers\" is 0"},
        {{"deepseek2.expert_group_count", 7},
         "n_routed_experts 256 is not a multiple of n_group 7"},
        {{"tokenizer.ggml.eos_token_id", 129280}, "field \"eos_token_id\" is 129280"},
        {{"deepseek2.rope.scaling.attn_factor", 2}, "attn_factor\" is 2; only 1 is supported"},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct metadata metadata = r1_begin(&cases[i].pair, 1);

        expect_refused(&metadata, cases[i].words);
    }
}

static void wrong_types_and_missing_keys_are_named(void **state)
{
    (void)state;
    struct metadata metadata = r1_begin(NULL, 0);

    put_u32(&metadata, "deepseek2.rope.scaling.type", 1);
    expect_refused(&metadata, "key \"deepseek2.rope.scaling.type\" must be a string, got u32");
    metadata = r1_begin(NULL, 0);
    put_string(&metadata, "deepseek2.rope.scaling.type", "longrope");
    expect_refused(&metadata, "is none of: none, linear, yarn");
    put_string(&metadata, "general.architecture", "deepseek2");
    expect_refused(&metadata, "key \"deepseek2.block_count\" is missing; it must be an integer");
    put_string(&metadata, "general.name", "x");
    expect_refused(&metadata, "key \"general.architecture\" is missing");
    put_string(&metadata, "general.architecture", "mam\nba");
    expect_refused(&metadata, "architecture \"mam?ba\" is not supported; supported: deepseek2, ");
}

/* The fields of the config that a test asks for, as compact JSON. */
static void expect_config(struct metadata *metadata, const char *field, const char *wanted)
{
    struct error err = {0};
    char *text = arch_gguf_config(&metadata->gguf, &err);
    json_t *config = text != NULL ? json_parse(text, strlen(text), "config", &err) : NULL;
    char *got;

    if (config == NULL) {
        fail_msg("%s", err.message);
    }
    got = json_dumps(json_object_get(config, field), JSON_ENCODE_ANY | JSON_SORT_KEYS);
    assert_string_equal(got != NULL ? got : "nothing", wanted);
    free(got);
    json_decref(config);
    mem_free(text);
}

static struct metadata dense_begin(const char *name)
{
    static const struct pair pairs[] = {
        {"block_count", 2},           {"context_length", 2048},    {"embedding_length", 256},
        {"feed_forward_length", 64},  {"attention.head_count", 4}, {"attention.head_count_kv", 2},
        {"attention.key_length", 64},
    };
    struct metadata metadata = {0};
    char key[64];

    put_string(&metadata, "general.architecture", name);
    for (size_t i = 0; i < ARRAY_LENGTH(pairs); i++) {
        (void)snprintf(key, sizeof(key), "%s.%s", name, pairs[i].key);
        put_u32(&metadata, key, pairs[i].value);
    }
    (void)snprintf(key, sizeof(key), "%s.attention.layer_norm_rms_epsilon", name);
    put_f32(&metadata, key, 0.015625f);
    (void)snprintf(key, sizeof(key), "%s.rope.freq_base", name);
    put_f32(&metadata, key, 500000);
    gguf_put_key(&metadata.values, "tokenizer.ggml.tokens", GGUF_ARRAY);
    gguf_put_u32(&metadata.values, GGUF_STRING);
    gguf_put_u64(&metadata.values, 2);
    gguf_put_string(&metadata.values, "a");
    gguf_put_string(&metadata.values, "b");
    metadata.count++;
    return metadata;
}

static void dense_families_are_translated(void **state)
{
    (void)state;
    static const char *const names[] = {"llama", "qwen2", "qwen3"};

    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        struct metadata metadata = dense_begin(names[i]);
        char type[16];

        metadata_end(&metadata);
        (void)snprintf(type, sizeof(type), "\"%s\"", names[i]);
        expect_config(&metadata, "model_type", type);
        expect_config(&metadata, "num_hidden_layers", "2");
        expect_config(&metadata, "num_key_value_heads", "2");
        expect_config(&metadata, "head_dim", "64");
        expect_config(&metadata, "vocab_size", "2");
        expect_config(&metadata, "rms_norm_eps", "0.015625");
        expect_config(&metadata, "tie_word_embeddings", "true");
        expect_config(&metadata, "rope_scaling", "nothing");
        metadata_close(&metadata);
    }
}

static void rotary_pairs_are_where_the_converter_put_them(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum rope_style style;
    } cases[] = {{"llama", ROPE_ADJACENT}, {"qwen2", ROPE_HALVES}, {"qwen3", ROPE_HALVES}};

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct metadata metadata = dense_begin(cases[i].name);
        struct arch arch;

        metadata_end(&metadata);
        expect_arch(&metadata, &arch);
        assert_int_equal(arch.rope.style, cases[i].style);
        assert_int_equal(arch.attention, ATTENTION_GQA);
        assert_int_equal(arch.kv_head_count, 2);
        metadata_close(&metadata);
    }
}

static void linear_scaling_and_experts_of_qwen3_are_translated(void **state)
{
    (void)state;
    struct metadata metadata = dense_begin("qwen3moe");
    struct arch arch;

    put_string(&metadata, "qwen3moe.rope.scaling.type", "linear");
    put_f32(&metadata, "qwen3moe.rope.scaling.factor", 4);
    put_u32(&metadata, "qwen3moe.expert_count", 12);
    put_u32(&metadata, "qwen3moe.expert_used_count", 3);
    put_u32(&metadata, "qwen3moe.expert_feed_forward_length", 48);
    metadata_end(&metadata);
    expect_config(&metadata, "model_type", "\"qwen3_moe\"");
    expect_config(&metadata, "num_experts", "12");
    expect_config(&metadata, "moe_intermediate_size", "48");
    expect_config(&metadata, "norm_topk_prob", "true");
    expect_config(&metadata, "rope_scaling", "{\"factor\": 4.0, \"rope_type\": \"linear\"}");
    expect_arch(&metadata, &arch);
    assert_int_equal(arch.router.expert_count, 12);
    assert_true(arch.router.normalise && arch.qk_norm);
    assert_int_equal(arch.rope.scaling, ROPE_LINEAR);
    metadata_close(&metadata);
    metadata = dense_begin("llama");
    put_u32(&metadata, "llama.expert_count", 8);
    expect_refused(&metadata, "key \"llama.expert_count\" is 8; llama with experts");
}

/* Llama 3's scaling of the golden config, as its converter writes it: f32 divisors. */
static void frequency_divisors_are_read_from_their_tensor(void **state)
{
    (void)state;
    char *path = mem_printf("%s/gguf/llama/Q8_0/model.gguf", SHOAL_TEST_DATA);
    struct arch config = arch_of_config("gguf/llama/config.json"), arch;
    struct error err = {0};
    struct metadata golden = {0};
    struct gguf *gguf = gguf_open(path, &err);
    bool seen_kept = false, seen_stretched = false;

    assert_non_null(gguf);
    golden.gguf = *gguf;
    expect_config(&golden, "rope_scaling", "nothing");
    expect_arch(&golden, &arch);
    assert_int_equal(config.rope.scaling, ROPE_LLAMA3);
    assert_int_equal(arch.rope.scaling, ROPE_DIVISORS);
    for (uint32_t i = 0; i < 32; i++) {
        assert_true(i == 0 || arch.rope.divisors[i] >= arch.rope.divisors[i - 1]);
        seen_kept = seen_kept || arch.rope.divisors[i] == 1;
        seen_stretched = seen_stretched || arch.rope.divisors[i] == (float)config.rope.factor;
    }
    assert_true(seen_kept && seen_stretched);
    assert_true(arch.rope.divisors[32] == 0);
    expect_config(&golden, "tie_word_embeddings", "false");
    expect_config(&golden, "vocab_size", "384");
    expect_config(&golden, "eos_token_id", "[377]");
    gguf_close(gguf);
    mem_free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_golden_file_gives_what_its_config_gives),
        cmocka_unit_test(an_old_file_of_r1_is_the_published_r1),
        cmocka_unit_test(latent_lengths_and_draft_layers_are_understood),
        cmocka_unit_test(softmax_gating_is_deepseek_v2),
        cmocka_unit_test(what_does_not_fit_together_is_refused),
        cmocka_unit_test(wrong_types_and_missing_keys_are_named),
        cmocka_unit_test(dense_families_are_translated),
        cmocka_unit_test(rotary_pairs_are_where_the_converter_put_them),
        cmocka_unit_test(linear_scaling_and_experts_of_qwen3_are_translated),
        cmocka_unit_test(frequency_divisors_are_read_from_their_tensor),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
