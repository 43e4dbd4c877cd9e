/* test_catalog_gguf.c - GGUF models as catalogs: every role, both layouts of kv_b, splits, lies. */
#include "common/model/catalog.h"

#include "common/base/mem.h"
#include "common/model/model_hash.h"
#include "tests/unit/common/model/gguf_model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define NO_LAYER  CATALOG_NO_LAYER
#define NO_EXPERT CATALOG_NO_EXPERT

static struct catalog *open_or_fail(const char *path)
{
    struct error err = {0};
    struct catalog *catalog = catalog_open(path, &err);

    if (catalog == NULL) {
        fail_msg("%s", err.message);
    }
    return catalog;
}

/* Saves it, opens it, closes the model. */
static struct catalog *open_model(struct gguf_model *model)
{
    struct catalog *catalog = open_or_fail(gguf_model_save(model));

    gguf_model_close(model);
    return catalog;
}

static struct gguf_model tiny(enum gguf_model_kv_b kv_b)
{
    struct gguf_model_shape shape = gguf_model_tiny(kv_b);
    struct gguf_model model;

    gguf_model_open_deepseek(&model, &shape);
    return model;
}

struct wanted {
    const char *name;
    enum tensor_role role;
    uint32_t layer, expert, rows, columns;
};

static void expect_tensors(const struct catalog *catalog, const struct wanted *wanted, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct tensor *tensor =
            catalog_find(catalog, wanted[i].role, wanted[i].layer, wanted[i].expert);

        if (tensor == NULL) {
            fail_msg("nothing for %s", wanted[i].name);
        }
        assert_string_equal(tensor->name, wanted[i].name);
        assert_int_equal(tensor->rows, wanted[i].rows);
        assert_int_equal(tensor->columns, wanted[i].columns);
        assert_int_equal(tensor->bytes,
                         wanted[i].rows * weight_row_bytes(tensor->type, wanted[i].columns));
        assert_int_equal(tensor->scales.bytes, 0);
    }
}

static void every_name_of_deepseek_has_its_role(void **state)
{
    (void)state;
    static const struct wanted wanted[] = {
        {"token_embd.weight", ROLE_EMBEDDING, NO_LAYER, NO_EXPERT, 40, 32},
        {"output_norm.weight", ROLE_FINAL_NORM, NO_LAYER, NO_EXPERT, 1, 32},
        {"output.weight", ROLE_HEAD, NO_LAYER, NO_EXPERT, 40, 32},
        {"blk.0.attn_norm.weight", ROLE_INPUT_NORM, 0, NO_EXPERT, 1, 32},
        {"blk.0.ffn_norm.weight", ROLE_POST_NORM, 0, NO_EXPERT, 1, 32},
        {"blk.1.attn_q_a.weight", ROLE_Q_A, 1, NO_EXPERT, 24, 32},
        {"blk.1.attn_q_a_norm.weight", ROLE_Q_A_NORM, 1, NO_EXPERT, 1, 24},
        {"blk.1.attn_q_b.weight", ROLE_Q_B, 1, NO_EXPERT, 32, 24},
        {"blk.1.attn_kv_a_mqa.weight", ROLE_KV_A, 1, NO_EXPERT, 20, 32},
        {"blk.1.attn_kv_a_norm.weight", ROLE_KV_A_NORM, 1, NO_EXPERT, 1, 16},
        {"blk.1.attn_kv_b.weight", ROLE_KV_B, 1, NO_EXPERT, 64, 16},
        {"blk.1.attn_output.weight", ROLE_ATTENTION_OUT, 1, NO_EXPERT, 32, 40},
        {"blk.0.ffn_gate.weight", ROLE_GATE, 0, NO_EXPERT, 48, 32},
        {"blk.0.ffn_up.weight", ROLE_UP, 0, NO_EXPERT, 48, 32},
        {"blk.0.ffn_down.weight", ROLE_DOWN, 0, NO_EXPERT, 32, 48},
        {"blk.1.ffn_gate_inp.weight", ROLE_ROUTER, 1, NO_EXPERT, 8, 32},
        {"blk.1.exp_probs_b.bias", ROLE_ROUTER_BIAS, 1, NO_EXPERT, 1, 8},
        {"blk.1.ffn_gate_exps.weight[0]", ROLE_EXPERT_GATE, 1, 0, 28, 32},
        {"blk.1.ffn_up_exps.weight[7]", ROLE_EXPERT_UP, 1, 7, 28, 32},
        {"blk.2.ffn_down_exps.weight[3]", ROLE_EXPERT_DOWN, 2, 3, 32, 28},
        {"blk.1.ffn_gate_shexp.weight", ROLE_SHARED_GATE, 1, NO_EXPERT, 28, 32},
        {"blk.1.ffn_up_shexp.weight", ROLE_SHARED_UP, 1, NO_EXPERT, 28, 32},
        {"blk.1.ffn_down_shexp.weight", ROLE_SHARED_DOWN, 1, NO_EXPERT, 32, 28},
        {"blk.2.nextn.eh_proj.weight", ROLE_DRAFT_PROJECTION, 2, NO_EXPERT, 32, 64},
        {"blk.2.nextn.embed_tokens.weight", ROLE_DRAFT_EMBEDDING, 2, NO_EXPERT, 40, 32},
        {"blk.2.nextn.enorm.weight", ROLE_DRAFT_TOKEN_NORM, 2, NO_EXPERT, 1, 32},
        {"blk.2.nextn.hnorm.weight", ROLE_DRAFT_HIDDEN_NORM, 2, NO_EXPERT, 1, 32},
        {"blk.2.nextn.shared_head_head.weight", ROLE_DRAFT_HEAD, 2, NO_EXPERT, 40, 32},
        {"blk.2.nextn.shared_head_norm.weight", ROLE_DRAFT_FINAL_NORM, 2, NO_EXPERT, 1, 32},
    };
    struct gguf_model model = tiny(GGUF_MODEL_JOINED);
    struct catalog *catalog = open_model(&model);

    expect_tensors(catalog, wanted, ARRAY_LENGTH(wanted));
    assert_int_equal(catalog->format, MODEL_GGUF);
    assert_int_equal(catalog->unused_count, 0);
    assert_int_equal(catalog->arch.draft_layer_count, 1);
    assert_int_equal(catalog->arch.kv_b_layout, KV_B_JOINED);
    /* 3 outside, 9 of attention and norms in 3 layers, 3 dense, 5 and 3 * 8 in 2 MoE, 6 draft */
    assert_int_equal(catalog->tensor_count, 3 + 3 * 9 + 3 + 2 * (5 + 24) + 6);
    catalog_close(catalog);
}

static void a_split_kv_b_has_its_own_roles(void **state)
{
    (void)state;
    static const struct wanted wanted[] = {
        {"blk.1.attn_k_b.weight", ROLE_K_B, 1, NO_EXPERT, 2 * 16, 12},
        {"blk.2.attn_v_b.weight", ROLE_V_B, 2, NO_EXPERT, 2 * 20, 16},
    };
    struct gguf_model model = tiny(GGUF_MODEL_SPLIT);
    struct catalog *catalog = open_model(&model);

    expect_tensors(catalog, wanted, ARRAY_LENGTH(wanted));
    assert_int_equal(catalog->arch.kv_b_layout, KV_B_SPLIT);
    assert_null(catalog_find(catalog, ROLE_KV_B, 1, NO_EXPERT));
    assert_int_equal(catalog->unused_count, 0);
    assert_int_equal(catalog->tensor_count, 3 + 3 * 10 + 3 + 2 * (5 + 24) + 6);
    catalog_close(catalog);
}

static void of_both_layouts_the_published_one_is_used(void **state)
{
    (void)state;
    struct gguf_model model = tiny(GGUF_MODEL_BOTH);
    struct catalog *catalog = open_model(&model);

    assert_non_null(catalog_find(catalog, ROLE_KV_B, 2, NO_EXPERT));
    assert_null(catalog_find(catalog, ROLE_K_B, 2, NO_EXPERT));
    assert_int_equal(catalog->unused_count, 6);
    assert_string_equal(catalog->unused[0], "blk.0.attn_k_b.weight");
    catalog_close(catalog);
}

static void stacked_experts_lie_one_after_the_other(void **state)
{
    (void)state;
    struct gguf_model model = tiny(GGUF_MODEL_JOINED);
    struct error err = {0};
    const char *path = gguf_model_save(&model);
    struct gguf *gguf = gguf_open(path, &err);
    struct catalog *catalog = open_or_fail(path);
    const struct gguf_tensor *stack = gguf_find_tensor(gguf, "blk.2.ffn_up_exps.weight");

    for (uint32_t i = 0; i < 8; i++) {
        const struct tensor *tensor = catalog_find(catalog, ROLE_EXPERT_UP, 2, i);

        assert_int_equal(tensor->bytes, stack->bytes / 8);
        assert_int_equal(tensor->offset, stack->offset + i * tensor->bytes);
    }
    gguf_close(gguf);
    catalog_close(catalog);
    gguf_model_close(&model);
}

static void golden_files_are_complete(void **state)
{
    (void)state;
    static const char *const paths[] = {SHOAL_TEST_DATA "/gguf/deepseek_v3/Q4_K_M/model.gguf",
                                        SHOAL_TEST_DATA "/gguf/llama/Q8_0/model.gguf"};
    static const uint64_t rope_freqs_bytes[] = {0, 32 * sizeof(float)};

    for (size_t i = 0; i < ARRAY_LENGTH(paths); i++) {
        struct error err = {0};
        struct gguf *gguf = gguf_open(paths[i], &err);
        struct catalog *catalog = open_or_fail(paths[i]);
        uint64_t bytes = 0;

        for (uint32_t j = 0; j < gguf->tensor_count; j++) {
            bytes += gguf->tensors[j].bytes;
        }
        assert_int_equal(catalog->unused_count, 0);
        assert_int_equal(catalog->total_bytes, bytes - rope_freqs_bytes[i]);
        if (i == 0) {
            assert_int_equal(catalog_find(catalog, ROLE_EXPERT_DOWN, 1, 3)->type, WEIGHT_Q6_K);
            assert_int_equal(catalog_find(catalog, ROLE_K_B, 0, NO_EXPERT)->type, WEIGHT_Q5_0);
            assert_int_equal(catalog_find(catalog, ROLE_ROUTER, 1, NO_EXPERT)->type, WEIGHT_F32);
        } else {
            assert_int_equal(catalog->arch.rope.scaling, ROPE_DIVISORS);
        }
        gguf_close(gguf);
        catalog_close(catalog);
    }
}

static void splits_have_the_tensors_of_one_file(void **state)
{
    (void)state;
    struct gguf_model model = tiny(GGUF_MODEL_SPLIT);
    struct catalog *whole = open_or_fail(gguf_model_save(&model));
    struct catalog *split = open_or_fail(gguf_model_save_splits(&model, 3));

    assert_int_equal(split->file_count, 3);
    assert_int_equal(split->tensor_count, whole->tensor_count);
    assert_int_equal(split->total_bytes, whole->total_bytes);
    for (uint32_t i = 0; i < whole->tensor_count; i++) {
        const struct tensor *a = &whole->tensors[i], *b = &split->tensors[i];

        assert_string_equal(a->name, b->name);
        assert_int_equal(a->bytes, b->bytes);
        assert_true(b->offset + b->bytes <= split->files[b->file].bytes);
    }
    assert_non_null(strstr(split->files[2].path, "m-00003-of-00003.gguf"));
    catalog_close(whole);
    catalog_close(split);
    gguf_model_close(&model);
}

static void draft_layers_may_be_missing_as_a_whole(void **state)
{
    (void)state;
    struct gguf_model model = tiny(GGUF_MODEL_JOINED);
    struct catalog *catalog;

    for (uint32_t i = 0; i < model.tensor_count;) {
        if (strncmp(model.tensors[i].name, "blk.2.", 6) == 0) {
            gguf_model_remove(&model, model.tensors[i].name);
        } else {
            i++;
        }
    }
    catalog = open_model(&model);
    assert_int_equal(catalog->arch.draft_layer_count, 0);
    assert_int_equal(catalog->arch.layer_count, 2);
    catalog_close(catalog);
    model = tiny(GGUF_MODEL_JOINED);
    gguf_model_remove(&model, "blk.2.nextn.embed_tokens.weight");
    gguf_model_remove(&model, "blk.2.nextn.shared_head_head.weight");
    catalog = open_model(&model);
    assert_int_equal(catalog->arch.draft_layer_count, 1);
    catalog_close(catalog);
}

static void dense_families_have_what_their_files_have(void **state)
{
    (void)state;
    static const struct wanted biases[] = {
        {"blk.0.attn_q.bias", ROLE_Q_BIAS, 0, NO_EXPERT, 1, 64},
        {"blk.0.attn_k.bias", ROLE_K_BIAS, 0, NO_EXPERT, 1, 32},
        {"blk.0.attn_v.bias", ROLE_V_BIAS, 0, NO_EXPERT, 1, 32},
        {"blk.0.attn_output.bias", ROLE_OUT_BIAS, 0, NO_EXPERT, 1, 64},
    };
    static const struct wanted norms[] = {
        {"blk.0.attn_q_norm.weight", ROLE_Q_NORM, 0, NO_EXPERT, 1, 16},
        {"blk.0.attn_k_norm.weight", ROLE_K_NORM, 0, NO_EXPERT, 1, 16},
        {"blk.0.attn_k.weight", ROLE_K, 0, NO_EXPERT, 32, 64},
    };
    struct gguf_model model;
    struct catalog *catalog;

    gguf_model_open_dense(&model, "qwen3");
    catalog = open_model(&model);
    expect_tensors(catalog, norms, ARRAY_LENGTH(norms));
    assert_true(catalog->arch.tied_embedding);
    assert_int_equal(catalog->arch.attention_bias, 0);
    assert_null(catalog_find(catalog, ROLE_HEAD, NO_LAYER, NO_EXPERT));
    catalog_close(catalog);
    gguf_model_open_dense(&model, "llama");
    for (size_t i = 0; i < ARRAY_LENGTH(biases); i++) {
        struct gguf_model_tensor bias = {.type = QUANT_F32, .dimensions = {biases[i].columns}};

        (void)snprintf(bias.name, sizeof(bias.name), "%s", biases[i].name);
        gguf_model_add(&model, bias);
    }
    catalog = open_model(&model);
    expect_tensors(catalog, biases, ARRAY_LENGTH(biases));
    assert_int_equal(catalog->arch.attention_bias, BIAS_QKV | BIAS_OUT);
    catalog_close(catalog);
}

static void unknown_names_are_unused(void **state)
{
    (void)state;
    static const char *const names[] = {"blk.0.attn_rot_embd.weight", "blk.1.ffn_gate.0.weight",
                                        "blk.3.attn_norm.weight", "blk.01.attn_norm.weight",
                                        "blk.0.attn_q.weight"};
    struct gguf_model model = tiny(GGUF_MODEL_JOINED);
    struct catalog *catalog;

    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        struct gguf_model_tensor tensor = {.type = QUANT_F32, .dimensions = {2, 3, 4, 5}};

        (void)snprintf(tensor.name, sizeof(tensor.name), "%s", names[i]);
        gguf_model_add(&model, tensor);
    }
    catalog = open_model(&model);
    assert_int_equal(catalog->unused_count, ARRAY_LENGTH(names));
    assert_string_equal(catalog->unused[0], "blk.0.attn_q.weight");
    catalog_close(catalog);
}

/* --- refusals --- */

static void expect_words(const char *path, const char *const words[4])
{
    struct error err = {0};

    assert_null(catalog_open(path, &err));
    for (size_t i = 0; i < 4 && words[i] != NULL; i++) {
        if (strstr(err.message, words[i]) == NULL) {
            fail_msg("\"%s\" is not in: %s", words[i], err.message);
        }
    }
}

/* Saves the model in one file, expects the words, closes it. */
static void expect_refused(struct gguf_model *model, const char *const words[4])
{
    expect_words(gguf_model_save(model), words);
    gguf_model_close(model);
}

struct changed {
    const char *tensor;
    enum quant_type type;
    uint64_t dimensions[4];
    const char *words[4];
};

static void wrong_dimensions_and_types_name_tensor_and_reason(void **state)
{
    (void)state;
    static const struct changed cases[] = {
        {"blk.1.attn_q_a.weight",
         QUANT_F32,
         {24, 32},
         {"m.gguf: tensor blk.1.attn_q_a.weight has dimensions [24, 32]; the metadata ask for "
          "[32, 24]"}},
        {"blk.0.attn_norm.weight", QUANT_F32, {32, 2}, {"blk.0.attn_norm", "[32, 2]", "for [32]"}},
        {"blk.1.ffn_up_exps.weight",
         QUANT_F32,
         {32, 28, 7},
         {"ffn_up_exps.weight has dimensions [32, 28, 7]", "for [32, 28, 8]"}},
        {"blk.1.ffn_up_exps.weight", QUANT_F32, {32, 28 * 8}, {"[32, 224]", "for [32, 28, 8]"}},
        {"token_embd.weight", QUANT_F32, {32, 41}, {"token_embd.weight", "for [32, 40]"}},
        {"blk.0.attn_norm.weight",
         QUANT_Q8_0,
         {32},
         {"m.gguf: tensor blk.0.attn_norm.weight has type Q8_0; vectors can be read from F32, "
          "F16"}},
        {"blk.1.attn_q_b.weight",
         QUANT_Q8_0,
         {24, 32},
         {"tensor blk.1.attn_q_b.weight", "has rows of 24 values, no multiple of the 32"}},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct gguf_model model = tiny(GGUF_MODEL_JOINED);
        struct gguf_model_tensor *tensor = gguf_model_find(&model, cases[i].tensor);

        tensor->type = cases[i].type;
        memcpy(tensor->dimensions, cases[i].dimensions, sizeof(tensor->dimensions));
        expect_refused(&model, cases[i].words);
    }
}

static void heads_of_a_split_kv_b_are_a_dimension(void **state)
{
    (void)state;
    static const char *const words[4] = {"attn_k_b.weight has dimensions [12, 32]",
                                         "for [12, 16, 2]"};
    struct gguf_model model = tiny(GGUF_MODEL_SPLIT);

    memcpy(gguf_model_find(&model, "blk.0.attn_k_b.weight")->dimensions, (uint64_t[4]){12, 32},
           sizeof(uint64_t[4]));
    expect_refused(&model, words);
}

static void missing_tensors_are_named_as_in_the_file(void **state)
{
    (void)state;
    static const struct {
        enum gguf_model_kv_b kv_b;
        const char *name;
        const char *words[4];
    } cases[] = {
        {GGUF_MODEL_JOINED,
         "blk.1.attn_kv_b.weight",
         {"m.gguf: 1 tensors of the model are missing, the first is blk.1.attn_kv_b.weight"}},
        {GGUF_MODEL_SPLIT, "blk.1.attn_v_b.weight", {"the first is blk.1.attn_v_b.weight"}},
        {GGUF_MODEL_JOINED,
         "blk.1.ffn_up_exps.weight",
         {"8 tensors", "the first is blk.1.ffn_up_exps.weight"}},
        {GGUF_MODEL_JOINED, "output_norm.weight", {"the first is output_norm.weight"}},
        {GGUF_MODEL_JOINED,
         "blk.2.nextn.enorm.weight",
         {"1 tensors of the draft layers are missing, the first is blk.2.nextn.enorm.weight"}},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct gguf_model model = tiny(cases[i].kv_b);

        gguf_model_remove(&model, cases[i].name);
        expect_refused(&model, cases[i].words);
    }
}

/* As files from before experts were stacked have them; no architecture of ours does. */
static void experts_in_tensors_of_their_own_are_missing(void **state)
{
    (void)state;
    static const char *const words[4] = {"8 tensors", "the first is blk.1.ffn_gate_exps.weight"};
    struct gguf_model model = tiny(GGUF_MODEL_JOINED);

    gguf_model_remove(&model, "blk.1.ffn_gate_exps.weight");
    for (int i = 0; i < 8; i++) {
        struct gguf_model_tensor tensor = {.type = QUANT_F32, .dimensions = {32, 28}};

        (void)snprintf(tensor.name, sizeof(tensor.name), "blk.1.ffn_gate.%d.weight", i);
        gguf_model_add(&model, tensor);
    }
    expect_refused(&model, words);
}

static void metadata_that_do_not_fit_are_named(void **state)
{
    (void)state;
    static const struct {
        struct gguf_model_value value;
        const char *words[4];
    } cases[] = {
        {{"deepseek2.block_count", GGUF_STRING, .text = "61"},
         {"m.gguf: key \"deepseek2.block_count\" must be an integer, got string"}},
        {{"deepseek2.expert_count", GGUF_F32, .number = 8},
         {"key \"deepseek2.expert_count\" must be an integer, got f32"}},
        {{"deepseek2.rope.freq_base", GGUF_U32, .integer = 0}, {"m.gguf", "rope_theta"}},
        {{"general.architecture", GGUF_STRING, .text = "bert"},
         {"m.gguf", "architecture \"bert\" is not supported"}},
        {{"deepseek2.expert_count", GGUF_U32, .integer = 16},
         {"[8]; the metadata ask for [16]"}},
        {{"split.count", GGUF_U32, .integer = 3}, {"m.gguf", "its name does not end in -00001-of"}},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct gguf_model model = tiny(GGUF_MODEL_JOINED);

        gguf_model_put(&model, cases[i].value);
        expect_refused(&model, cases[i].words);
    }
}

static void splits_that_do_not_belong_together_are_named(void **state)
{
    (void)state;
    static const char *const missing[4] = {"m-00003-of-00003.gguf: is missing: split 3 of 3"};
    static const char *const second[4] = {"m-00002-of-00003.gguf", "is split 2 of 3"};
    static const char *const twice[4] = {"tensor token_embd.weight is in ",
                                         "m-00001-of-00003.gguf and in ", "m-00003-of-00003.gguf"};
    static const char *const mixed[4] = {"m-00002-of-00003.gguf: says split 2 of 3 with 58 tensors",
                                         "split 2 of 3 with 55 belongs here"};
    struct gguf_model model = tiny(GGUF_MODEL_JOINED), other = tiny(GGUF_MODEL_SPLIT);
    char *second_path;

    gguf_model_save_splits(&model, 3);
    second_path = mem_strdup(scratch_path(&model.scratch, "m-00002-of-00003.gguf"));
    expect_words(second_path, second);
    gguf_model_save_splits(&other, 3);
    assert_int_equal(rename(scratch_path(&other.scratch, "m-00002-of-00003.gguf"), second_path), 0);
    expect_words(scratch_path(&model.scratch, "m-00001-of-00003.gguf"), mixed);
    gguf_model_save_splits(&model, 3);
    assert_int_equal(unlink(scratch_path(&model.scratch, "m-00003-of-00003.gguf")), 0);
    expect_words(scratch_path(&model.scratch, "m-00001-of-00003.gguf"), missing);
    gguf_model_add(&model, *gguf_model_find(&model, "token_embd.weight"));
    expect_words(gguf_model_save_splits(&model, 3), twice);
    mem_free(second_path);
    gguf_model_close(&model);
    gguf_model_close(&other);
}

static void divisors_must_be_divisors(void **state)
{
    (void)state;
    static const struct {
        enum quant_type type;
        uint64_t count;
        float value;
        const char *words[4];
    } cases[] = {
        {QUANT_F16, 8, 1, {"m.gguf: tensor rope_freqs.weight: has type F16; only F32"}},
        {QUANT_F32, 16, 1, {"m.gguf: tensor rope_freqs.weight: has 16 values for 8 frequencies"}},
        {QUANT_F32, 8, 0, {"rope_freqs.weight: value 0 is 0; divisors are finite and above 0"}},
        {QUANT_F32, 8, NAN, {"rope_freqs.weight: value 0 is ", "nan; divisors are finite"}},
        {QUANT_F32, 8, INFINITY, {"rope_freqs.weight: value 0 is inf; divisors are finite"}},
        {QUANT_F32, 8, -2, {"rope_freqs.weight: value 0 is -2; divisors are finite"}},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct gguf_model model;

        gguf_model_open_dense(&model, "llama");
        gguf_model_add(&model, (struct gguf_model_tensor){
                                   "rope_freqs.weight", cases[i].type, {cases[i].count}});
        model.divisor = cases[i].value;
        expect_refused(&model, cases[i].words);
    }
}

static void two_scalings_or_partial_rotation_are_refused(void **state)
{
    (void)state;
    static const char *const two[4] = {"llama.rope.scaling.type\" is linear",
                                       "and there is a tensor rope_freqs.weight"};
    static const char *const part[4] = {"key \"llama.rope.dimension_count\" is 8",
                                        "only whole heads of 16"};
    struct gguf_model model;

    gguf_model_open_dense(&model, "llama");
    gguf_model_add(&model, (struct gguf_model_tensor){"rope_freqs.weight", QUANT_F32, {8}});
    gguf_model_put(&model, (struct gguf_model_value){"llama.rope.scaling.type", GGUF_STRING,
                                                     .text = "linear"});
    expect_refused(&model, two);
    gguf_model_open_dense(&model, "llama");
    gguf_model_put(&model,
                   (struct gguf_model_value){"llama.rope.dimension_count", GGUF_U32, .integer = 8});
    expect_refused(&model, part);
}

static void the_hash_covers_divisors(void **state)
{
    (void)state;
    char hashes[3][MODEL_HASH_BYTES];

    for (int i = 0; i < 3; i++) {
        struct gguf_model model;
        struct catalog *catalog;

        gguf_model_open_dense(&model, "llama");
        gguf_model_add(&model, (struct gguf_model_tensor){"rope_freqs.weight", QUANT_F32, {8}});
        model.divisor = i < 2 ? 1.5f : 2.5f;
        catalog = open_model(&model); /* each in a folder of its own */
        assert_true(catalog->arch.rope.divisors[7] == (i < 2 ? 1.5f : 2.5f));
        assert_int_equal(catalog->unused_count, 0);
        model_hash(catalog, hashes[i]);
        catalog_close(catalog);
    }
    assert_string_equal(hashes[0], hashes[1]);
    assert_string_not_equal(hashes[0], hashes[2]);
}

/* --- size --- */

static double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void deepseek_r1_is_opened_at_once(void **state)
{
    (void)state;
    static const struct {
        enum gguf_model_kv_b kv_b;
        uint32_t stored, listed;
    } cases[] = {{GGUF_MODEL_JOINED, 1025, 1025 + 58 * 3 * 255},
                 {GGUF_MODEL_SPLIT, 1086, 1086 + 58 * 3 * 255},
                 {GGUF_MODEL_BOTH, 1147, 1025 + 58 * 3 * 255}};

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct gguf_model_shape shape = gguf_model_r1(cases[i].kv_b);
        struct gguf_model model;
        struct catalog *catalog;
        const char *path;
        double begin;

        gguf_model_open_deepseek(&model, &shape);
        assert_int_equal(model.tensor_count, cases[i].stored);
        path = gguf_model_save_splits(&model, 9);
        begin = seconds_now();
        catalog = open_or_fail(path);
        print_message("%u tensors, %.1f GB: %.0f ms\n", catalog->tensor_count,
                      (double)catalog->total_bytes * 1e-9, 1e3 * (seconds_now() - begin));
        assert_int_equal(catalog->tensor_count, cases[i].listed);
        assert_true(catalog->total_bytes > UINT64_C(370000000000));
        catalog_close(catalog);
        gguf_model_close(&model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_name_of_deepseek_has_its_role),
        cmocka_unit_test(a_split_kv_b_has_its_own_roles),
        cmocka_unit_test(of_both_layouts_the_published_one_is_used),
        cmocka_unit_test(stacked_experts_lie_one_after_the_other),
        cmocka_unit_test(golden_files_are_complete),
        cmocka_unit_test(splits_have_the_tensors_of_one_file),
        cmocka_unit_test(draft_layers_may_be_missing_as_a_whole),
        cmocka_unit_test(dense_families_have_what_their_files_have),
        cmocka_unit_test(unknown_names_are_unused),
        cmocka_unit_test(wrong_dimensions_and_types_name_tensor_and_reason),
        cmocka_unit_test(heads_of_a_split_kv_b_are_a_dimension),
        cmocka_unit_test(missing_tensors_are_named_as_in_the_file),
        cmocka_unit_test(experts_in_tensors_of_their_own_are_missing),
        cmocka_unit_test(metadata_that_do_not_fit_are_named),
        cmocka_unit_test(splits_that_do_not_belong_together_are_named),
        cmocka_unit_test(divisors_must_be_divisors),
        cmocka_unit_test(two_scalings_or_partial_rotation_are_refused),
        cmocka_unit_test(the_hash_covers_divisors),
        cmocka_unit_test(deepseek_r1_is_opened_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
