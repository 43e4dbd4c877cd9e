/* test_tensor_role.c - published names and what they stand for. */
#include "common/model/tensor_role.h"

#include "tests/unit/common/model/model_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void names_and_roles_are_inverse(void **state)
{
    (void)state;
    struct arch arch = fixture_arch("DeepSeek-R1");
    uint32_t layers[] = {0, 2, 3, 60, 61, CATALOG_NO_LAYER};
    char name[TENSOR_NAME_BYTES_MAX];
    uint32_t seen = 0;

    for (size_t i = 0; i < ARRAY_LENGTH(layers); i++) {
        for (enum tensor_role role = 0; role < ROLE_COUNT; role++) {
            uint32_t count = tensor_role_count(&arch, role, layers[i]);

            for (uint32_t j = 0; j < count; j++) {
                uint32_t expert = tensor_role_is_expert(role) ? j : CATALOG_NO_EXPERT;
                enum tensor_role found_role;
                uint32_t found_layer, found_expert;

                tensor_role_write_name(role, layers[i], expert, name);
                assert_true(
                    tensor_role_of_name(&arch, name, &found_role, &found_layer, &found_expert));
                assert_int_equal(found_role, role);
                assert_int_equal(found_layer, layers[i]);
                assert_int_equal(found_expert, expert);
                seen++;
            }
        }
    }
    /* 9 of attention and norms each, 3 dense, 5 + 768 MoE, 6 of the draft, 3 outside */
    assert_int_equal(seen, 5 * 9 + 2 * 3 + 3 * (5 + 768) + 6 + 3);
}

static void gguf_names_and_roles_are_inverse(void **state)
{
    (void)state;
    struct arch arch = fixture_arch("DeepSeek-R1");
    uint32_t layers[] = {0, 3, 61, CATALOG_NO_LAYER}, seen = 0;
    char name[TENSOR_NAME_BYTES_MAX];

    arch.kv_b_layout = KV_B_SPLIT;
    for (size_t i = 0; i < ARRAY_LENGTH(layers); i++) {
        for (enum tensor_role role = 0; role < ROLE_COUNT; role++) {
            enum tensor_role found_role;
            uint32_t found_layer;

            if (tensor_role_count(&arch, role, layers[i]) == 0) {
                continue;
            }
            tensor_role_write_gguf_name(role, layers[i], name);
            assert_true(tensor_role_of_gguf_name(&arch, name, &found_role, &found_layer));
            assert_int_equal(found_role, role);
            assert_int_equal(found_layer, layers[i]);
            seen++;
        }
    }
    /* 10 of attention and norms each, 3 dense, 8 MoE, 6 of the draft, 3 outside */
    assert_int_equal(seen, 3 * 10 + 3 + 2 * 8 + 6 + 3);
}

static void grouped_attention_has_its_own_roles(void **state)
{
    (void)state;
    struct arch llama = fixture_arch("Llama-3.1-8B");
    struct arch qwen = fixture_arch("Qwen2.5-72B-Instruct");
    enum tensor_role role;
    uint32_t layer, expert;

    assert_true(tensor_role_of_name(&llama, "model.layers.31.self_attn.k_proj.weight", &role,
                                    &layer, &expert));
    assert_int_equal(role, ROLE_K);
    assert_int_equal(tensor_role_shape(&llama, role).rows, 1024);
    assert_int_equal(tensor_role_shape(&llama, ROLE_Q).rows, 4096);
    assert_int_equal(tensor_role_count(&llama, ROLE_KV_A, 0), 0);
    assert_int_equal(tensor_role_count(&llama, ROLE_Q_NORM, 0), 0);
    assert_false(tensor_role_of_name(&llama, "model.layers.0.self_attn.q_proj.bias", &role, &layer,
                                     &expert));
    assert_true(tensor_role_of_name(&qwen, "model.layers.79.self_attn.v_proj.bias", &role, &layer,
                                    &expert));
    assert_int_equal(role, ROLE_V_BIAS);
    assert_int_equal(tensor_role_shape(&qwen, role).columns, 1024);
    assert_int_equal(tensor_role_shape(&qwen, role).dimension_count, 1);
    assert_int_equal(tensor_role_count(&qwen, ROLE_OUT_BIAS, 0), 0);
}

static void a_split_kv_b_is_as_large_as_a_joined_one(void **state)
{
    (void)state;
    struct arch arch = fixture_arch("DeepSeek-R1");
    struct tensor_shape joined = tensor_role_shape(&arch, ROLE_KV_B), k, v;

    assert_int_equal(tensor_role_count(&arch, ROLE_KV_B, 61), 1);
    assert_int_equal(tensor_role_count(&arch, ROLE_K_B, 61), 0);
    assert_int_equal(tensor_role_count(&arch, ROLE_V_B, 61), 0);
    arch.kv_b_layout = KV_B_SPLIT;
    k = tensor_role_shape(&arch, ROLE_K_B);
    v = tensor_role_shape(&arch, ROLE_V_B);
    assert_int_equal(tensor_role_count(&arch, ROLE_KV_B, 0), 0);
    assert_int_equal(tensor_role_count(&arch, ROLE_K_B, 0), 1);
    assert_int_equal(tensor_role_count(&arch, ROLE_V_B, 61), 1);
    assert_int_equal(k.rows, 128 * 512);
    assert_int_equal(k.columns, 128);
    assert_int_equal(v.rows, 128 * 128);
    assert_int_equal(v.columns, 512);
    assert_int_equal(k.rows * k.columns + v.rows * v.columns, joined.rows * joined.columns);
}

static void all_layers_of_deepseek_r1_have_46_183_tensors(void **state)
{
    (void)state;
    struct arch arch = fixture_arch("DeepSeek-R1");
    uint32_t count = 0;

    for (uint32_t layer = 0; layer <= 62; layer++) {
        for (enum tensor_role role = 0; role < ROLE_COUNT; role++) {
            count += tensor_role_count(&arch, role, layer == 62 ? CATALOG_NO_LAYER : layer);
        }
    }
    assert_int_equal(count, 46183);
}

static void names_that_only_look_right_are_nobodys(void **state)
{
    (void)state;
    static const char *const names[] = {
        "",
        "model",
        "model.layers.",
        "model.layers.0",
        "model.layers.0.",
        "model.layers..input_layernorm.weight",
        "model.layers.00.input_layernorm.weight",
        "model.layers.-1.input_layernorm.weight",
        "model.layers.62.input_layernorm.weight",
        "model.layers.9999999.input_layernorm.weight",
        "model.layers.4294967296.input_layernorm.weight",
        "model.layers.0.input_layernorm.weight2",
        "model.layers.0.mlp.gate.weight",      /* a dense layer has no router */
        "model.layers.3.mlp.gate_proj.weight", /* a MoE layer no dense MLP */
        "model.layers.3.mlp.experts.256.up_proj.weight",
        "model.layers.3.mlp.experts.1.down_proj.bias",
        "model.layers.3.mlp.experts.x.down_proj.weight",
        "model.layers.3.mlp.experts.down_proj.weight",
        "model.layers.3.up_proj.weight",
        "model.layers.3.eh_proj.weight", /* not a draft layer */
        "model.layers.3.model.norm.weight",
        "model.layers.3.self_attn.q_proj.weight", /* there is a query rank */
        "model.layers.3.self_attn.rotary_emb.inv_freq",
        "input_layernorm.weight",
    };
    struct arch arch = fixture_arch("DeepSeek-R1");

    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        enum tensor_role role;
        uint32_t layer, expert;

        if (tensor_role_of_name(&arch, names[i], &role, &layer, &expert)) {
            fail_msg("%s is claimed by %s", names[i], tensor_role_name(role));
        }
    }
}

static void switches_of_the_config_change_the_set(void **state)
{
    (void)state;
    struct arch arch = fixture_arch("DeepSeek-V2-Lite");

    assert_int_equal(tensor_role_count(&arch, ROLE_Q, 0), 1);
    assert_int_equal(tensor_role_count(&arch, ROLE_Q_A, 0), 0);
    assert_int_equal(tensor_role_count(&arch, ROLE_ROUTER_BIAS, 1), 0);
    assert_int_equal(tensor_role_count(&arch, ROLE_HEAD, CATALOG_NO_LAYER), 1);
    arch.tied_embedding = true;
    arch.shared_width = 0;
    assert_int_equal(tensor_role_count(&arch, ROLE_HEAD, CATALOG_NO_LAYER), 0);
    assert_int_equal(tensor_role_count(&arch, ROLE_SHARED_UP, 1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_roles_are_inverse),
        cmocka_unit_test(gguf_names_and_roles_are_inverse),
        cmocka_unit_test(grouped_attention_has_its_own_roles),
        cmocka_unit_test(a_split_kv_b_is_as_large_as_a_joined_one),
        cmocka_unit_test(all_layers_of_deepseek_r1_have_46_183_tensors),
        cmocka_unit_test(names_that_only_look_right_are_nobodys),
        cmocka_unit_test(switches_of_the_config_change_the_set),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
