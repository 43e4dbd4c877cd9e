/* Which tensors a share takes, and where their values go. */
#include "common/base/mem.h"
#include "tests/unit/worker/layers/model_fixture.h"

#include "common/base/file.h"
#include "common/model/quant.h"
#include "worker/kernels/kernels.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const v3 = "deepseek_v3-bf16";

static bool is_draft(const struct catalog *catalog, const struct tensor *tensor)
{
    return tensor->layer != CATALOG_NO_LAYER && tensor->layer >= catalog->arch.layer_count;
}

static void every_main_tensor_is_read_once(const char *name)
{
    struct test_model model = test_model_open(name, NULL);
    uint32_t count = 0;
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < model.catalog->tensor_count; i++) {
        if (!is_draft(model.catalog, &model.catalog->tensors[i])) {
            count++;
            bytes += model.catalog->tensors[i].bytes;
        }
    }
    assert_int_equal(model.weights->piece_count, count);
    assert_int_equal(model.weights->file_bytes, bytes);
    assert_int_equal(model.weights->memory_bytes % 4096, 0);
    for (uint32_t i = 0; i < count; i++) {
        const struct weights_piece *piece = &model.weights->pieces[i];

        assert_false(is_draft(model.catalog, piece->tensor));
        assert_int_equal(piece->destination % 64, 0);
        assert_true(piece->destination + piece->destination_bytes <= model.weights->memory_bytes);
        for (uint32_t k = 0; k < i; k++) {
            const struct weights_piece *other = &model.weights->pieces[k];

            assert_true(other->destination + other->destination_bytes <= piece->destination ||
                        piece->destination + piece->destination_bytes <= other->destination);
        }
    }
    test_model_close(&model);
}

static void a_whole_model_reads_every_main_tensor_once(void **state)
{
    (void)state;
    every_main_tensor_is_read_once(v3);
    every_main_tensor_is_read_once("qwen2-untied");
    every_main_tensor_is_read_once("qwen3_moe-bf16");
    every_main_tensor_is_read_once("gguf/deepseek_v3/Q4_K_M");
    every_main_tensor_is_read_once("gguf/llama/Q8_0");
}

static void a_middle_stage_has_neither_embedding_nor_head(void **state)
{
    struct weights_share share = {1, 3, false, false, false, NULL};
    struct test_model model = test_model_open(v3, &share);

    (void)state;
    assert_null(model.weights->embedding);
    assert_null(model.weights->head.data);
    assert_null(model.weights->final_norm);
    for (uint32_t i = 0; i < model.weights->piece_count; i++) {
        assert_in_range(model.weights->pieces[i].tensor->layer, 1, 2);
    }
    assert_non_null(model.weights->layers[1].router.data);
    test_model_close(&model);
}

static bool is_of_draft_layer(const struct tensor *tensor)
{
    return tensor->layer == 4;
}

static void the_draft_layer_reads_all_but_its_copies(void **state)
{
    struct weights_share share = {3, 4, true, true, true, NULL};
    struct test_model model = test_model_open(v3, &share);
    const struct weights *weights = model.weights;
    uint32_t found = 0, wanted = 0;

    (void)state;
    assert_int_equal(weights->layer_end, 5);
    assert_non_null(weights->layers[1].experts[15].down.data);
    assert_non_null(weights->embedding);
    assert_non_null(weights->draft.token_norm);
    assert_non_null(weights->draft.hidden_norm);
    assert_non_null(weights->draft.final_norm);
    assert_int_equal(weights->draft.projection.rows, 96);
    assert_int_equal(weights->draft.projection.columns, 192);
    for (uint32_t i = 0; i < weights->piece_count; i++) {
        const struct tensor *tensor = weights->pieces[i].tensor;

        assert_true(tensor->role != ROLE_DRAFT_EMBEDDING && tensor->role != ROLE_DRAFT_HEAD);
        found += is_of_draft_layer(tensor) ? 1 : 0;
    }
    for (uint32_t i = 0; i < model.catalog->tensor_count; i++) {
        wanted += is_of_draft_layer(&model.catalog->tensors[i]) ? 1 : 0;
    }
    assert_int_equal(found, wanted - 2);
    test_model_close(&model);
}

static void experts_of_others_take_no_memory(void **state)
{
    uint8_t owned[2 * 16] = {0};
    struct weights_share all = {2, 4, false, false, false, NULL};
    struct weights_share some = {2, 4, false, false, false, owned};
    struct test_model whole = test_model_open(v3, &all);
    struct test_model part;
    const struct mlp_weights *expert = &whole.weights->layers[0].experts[0];
    uint64_t expert_bytes = 2 * packed_bytes(WEIGHT_BF16, expert->gate.rows, expert->gate.columns) +
                            packed_bytes(WEIGHT_BF16, expert->down.rows, expert->down.columns);

    (void)state;
    owned[3] = 1;       /* layer 2, expert 3 */
    owned[16 + 15] = 1; /* layer 3, expert 15 */
    part = test_model_open(v3, &some);
    for (uint32_t e = 0; e < 16; e++) {
        assert_int_equal(part.weights->layers[0].experts[e].gate.data != NULL, e == 3);
        assert_int_equal(part.weights->layers[1].experts[e].down.data != NULL, e == 15);
    }
    assert_true(whole.weights->memory_bytes - part.weights->memory_bytes >=
                30 * expert_bytes - 4096);
    test_model_close(&part);
    test_model_close(&whole);
}

/* Bits of one bf16 element of a packed matrix. */
static uint16_t packed_bits(const struct packed_matrix *w, uint32_t row, uint32_t column)
{
    const uint16_t *values = w->data;
    size_t panel = (size_t)(row / PANEL_ROWS) * w->columns;

    return values[(panel + column / 2 * 2) * PANEL_ROWS + row % PANEL_ROWS * 2 + column % 2];
}

static uint16_t *tensor_bits(const struct test_model *model, const struct tensor *tensor)
{
    const char *path = model->catalog->files[tensor->file].path;
    uint16_t *bits = mem_alloc_zeroed(1, tensor->bytes);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct error err;

    assert_true(file_pread(fd, bits, tensor->bytes, tensor->offset, path, &err));
    close(fd);
    return bits;
}

static void kv_b_becomes_two_matrices_per_head(void **state)
{
    struct test_model model = test_model_open(v3, NULL);
    const struct arch *arch = &model.weights->arch;
    const struct attention_weights *attention = &model.weights->layers[2].attention;
    const struct tensor *tensor = catalog_find(model.catalog, ROLE_KV_B, 2, CATALOG_NO_EXPERT);
    uint16_t *bits = tensor_bits(&model, tensor);
    uint32_t head_rows = arch->qk_nope_dim + arch->v_head_dim;

    (void)state;
    for (uint32_t h = 0; h < arch->head_count; h++) {
        assert_int_equal(attention->w_uk[h].rows, arch->kv_lora_rank);
        assert_int_equal(attention->w_uk[h].columns, arch->qk_nope_dim);
        for (uint32_t r = 0; r < head_rows; r++) {
            for (uint32_t c = 0; c < arch->kv_lora_rank; c++) {
                uint16_t expected = bits[((size_t)h * head_rows + r) * tensor->columns + c];
                uint16_t got = r < arch->qk_nope_dim
                                   ? packed_bits(&attention->w_uk[h], c, r)
                                   : packed_bits(&attention->w_uv[h], r - arch->qk_nope_dim, c);

                assert_int_equal(got, expected);
            }
        }
    }
    mem_free(bits);
    test_model_close(&model);
}

static float packed_float(const struct packed_matrix *w, uint32_t row, uint32_t column)
{
    const float *values = w->data;

    return values[((size_t)(row / PANEL_ROWS) * w->columns + column) * PANEL_ROWS +
                  row % PANEL_ROWS];
}

/* Column `k` of a packed matrix, by the product with a unit vector: a chain that is exact. */
static void packed_column(const struct packed_matrix *w, uint32_t k, float *out)
{
    float *x = mem_new_array(float, w->columns);

    x[k] = 1.0f;
    kernels_for(CPU_REF, NUMERICS_EXACT)
        ->matmul_exact(w, 0, packed_panel_count(w->rows), (struct rows_view){x, w->columns}, 1,
                       (struct rows_out){out, w->rows});
    mem_free(x);
}

/* In some columns, one of them in each 4 bytes of codes. */
#define COLUMN_STEP 5
static void expect_same_matrix(const struct packed_matrix *w, const float *rows)
{
    float *column = mem_new_array(float, w->rows);

    for (uint32_t k = 0; k < w->columns; k += COLUMN_STEP) {
        packed_column(w, k, column);
        for (uint32_t row = 0; row < w->rows; row++) {
            assert_true(column[row] == rows[(size_t)row * w->columns + k]);
        }
    }
    mem_free(column);
}

static float *tensor_values(const struct test_model *model, const struct tensor *tensor)
{
    void *bytes = tensor_bits(model, tensor);
    float *values = mem_new_array(float, (size_t)tensor->rows * tensor->columns);

    weight_values_widen(values, tensor->type, bytes, (uint64_t)tensor->rows * tensor->columns);
    mem_free(bytes);
    return values;
}

static void split_kv_b_stays_as_it_is(void **state)
{
    struct test_model model = test_model_open("gguf/deepseek_v3/Q4_K_M", NULL);
    const struct attention_weights *attention = &model.weights->layers[1].attention;
    const struct tensor *k_b = catalog_find(model.catalog, ROLE_K_B, 1, CATALOG_NO_EXPERT);
    const struct tensor *v_b = catalog_find(model.catalog, ROLE_V_B, 1, CATALOG_NO_EXPERT);
    float *keys = tensor_values(&model, k_b), *values = tensor_values(&model, v_b);

    (void)state;
    assert_int_equal(attention->w_uk[0].type, k_b->type);
    for (uint32_t h = 0; h < model.weights->arch.head_count; h++) {
        const struct packed_matrix *uk = &attention->w_uk[h], *uv = &attention->w_uv[h];

        expect_same_matrix(uk, keys + (size_t)h * uk->rows * uk->columns);
        expect_same_matrix(uv, values + (size_t)h * uv->rows * uv->columns);
    }
    mem_free(keys);
    mem_free(values);
    test_model_close(&model);
}

/* Blocks run along the latent: W_UK, its transpose, is f32, W_UV keeps its blocks. */
static void joined_kv_b_of_blocks_is_widened_for_keys(void **state)
{
    struct test_model model = test_model_open("gguf/deepseek_v3/Q4_K_M", NULL);
    struct arch *arch = &model.weights->arch;
    uint32_t head_rows = arch->qk_nope_dim + arch->v_head_dim;
    uint32_t rows = arch->head_count * head_rows;
    struct tensor kv_b = {.type = WEIGHT_Q6_K, .rows = rows, .columns = arch->kv_lora_rank};
    struct weights_piece piece = {PIECE_KV_B, &kv_b, 0, 0, 0};
    struct packed_matrix uk = {WEIGHT_F32, arch->kv_lora_rank, arch->qk_nope_dim, NULL};
    struct packed_matrix uv = {WEIGHT_Q6_K, arch->v_head_dim, arch->kv_lora_rank, NULL};
    const struct tensor *source = /* some real blocks */
        catalog_find(model.catalog, ROLE_HEAD, CATALOG_NO_LAYER, CATALOG_NO_EXPERT);
    void *blocks = tensor_bits(&model, source);
    float *wide = tensor_values(&model, source);
    uint64_t uk_bytes = packed_bytes(uk.type, uk.rows, uk.columns);
    uint64_t uv_bytes = packed_bytes(uv.type, uv.rows, uv.columns);
    struct weights_part part = {.kind = PART_LAYER};
    struct weights filled = {.arch = *arch, .part_count = 1, .parts = &part};
    struct weights_rows all = {0, rows, blocks, NULL};
    struct error err;

    (void)state;
    assert_int_equal(source->type, WEIGHT_Q6_K);
    assert_true(source->rows >= rows && source->columns == arch->kv_lora_rank);
    part.memory = mem_alloc_zeroed(arch->head_count * (uk_bytes + uv_bytes), 1);
    assert_true(weights_fill(&filled, &piece, &all, &err));
    for (uint32_t h = 0; h < arch->head_count; h++) {
        const float *head = wide + (size_t)h * head_rows * kv_b.columns;
        float *column = mem_new_array(float, uk.rows);

        uk.data = part.memory + h * uk_bytes;
        uv.data = part.memory + arch->head_count * uk_bytes + h * uv_bytes;
        expect_same_matrix(&uv, head + (size_t)arch->qk_nope_dim * kv_b.columns);
        for (uint32_t k = 0; k < uk.columns; k += COLUMN_STEP) {
            packed_column(&uk, k, column);
            for (uint32_t c = 0; c < kv_b.columns; c++) {
                assert_true(column[c] == head[(size_t)k * kv_b.columns + c]);
            }
        }
        mem_free(column);
    }
    mem_free(part.memory);
    mem_free(blocks);
    mem_free(wide);
    test_model_close(&model);
}

static void a_scale_that_is_no_number_is_named(void **state)
{
    struct test_model model = test_model_open("gguf/llama/Q8_0", NULL);
    const struct weights_piece *piece = NULL;
    struct weights_rows rows = {16, 32, NULL, NULL};
    struct error err;
    uint8_t *values;

    (void)state;
    for (uint32_t i = 0; piece == NULL; i++) {
        if (model.weights->pieces[i].kind == PIECE_PACK) {
            piece = &model.weights->pieces[i];
        }
    }
    values = mem_alloc_zeroed(16, weight_row_bytes(WEIGHT_Q8_0, piece->tensor->columns));
    values[34 * 5 + 1] = 0x7e; /* NaN */
    rows.values = values;
    assert_false(weights_fill(model.weights, piece, &rows, &err));
    assert_int_equal(err.code, ERROR_INPUT);
    assert_non_null(strstr(err.message, piece->tensor->name));
    assert_non_null(strstr(err.message, "rows 16 to 31"));
    mem_free(values);
    test_model_close(&model);
}

/* A head's rows begin inside a block of scales: 64 rows a head. */
static void kv_b_of_f8_is_scaled_by_its_global_row(void **state)
{
    struct test_model model = test_model_open("deepseek_v3-fp8", NULL);
    const struct arch *arch = &model.weights->arch;
    const struct attention_weights *attention = &model.weights->layers[1].attention;
    const struct tensor *tensor = catalog_find(model.catalog, ROLE_KV_B, 1, CATALOG_NO_EXPERT);
    struct tensor scale_tensor = {.file = tensor->scales.file,
                                  .offset = tensor->scales.offset,
                                  .bytes = tensor->scales.bytes};
    uint8_t *codes = (void *)tensor_bits(&model, tensor);
    float *scales = (void *)tensor_bits(&model, &scale_tensor);
    uint32_t head_rows = arch->qk_nope_dim + arch->v_head_dim;

    (void)state;
    assert_int_not_equal(head_rows % SCALE_BLOCK, 0);
    for (uint32_t row = 0; row < tensor->rows; row++) {
        const struct packed_matrix *uk = &attention->w_uk[row / head_rows];
        const struct packed_matrix *uv = &attention->w_uv[row / head_rows];
        uint32_t r = row % head_rows;

        assert_int_equal(uk->type, WEIGHT_F32);
        for (uint32_t c = 0; c < tensor->columns; c++) {
            float scale = scales[row / 128 * scale_block_count(tensor->columns) + c / 128];
            float expected = quant_decode_f8(codes[(size_t)row * tensor->columns + c]) * scale;
            float got = r < arch->qk_nope_dim ? packed_float(uk, c, r)
                                              : packed_float(uv, r - arch->qk_nope_dim, c);

            assert_memory_equal(&got, &expected, sizeof(got));
        }
    }
    mem_free(codes);
    mem_free(scales);
    test_model_close(&model);
}

static void parts_give_the_whole(const char *name)
{
    struct test_model model = test_model_open(name, NULL);
    uint64_t bytes = model.weights->memory_bytes;
    struct error err;
    char *memory = mem_map_pages(bytes, &err);

    weights_bind(model.weights, memory);
    for (uint32_t i = 0; i < model.weights->piece_count; i++) {
        const struct weights_piece *piece = &model.weights->pieces[i];

        test_model_load_piece(&model, piece, weights_piece_granularity(model.weights, piece));
    }
    assert_memory_equal(memory, model.memory, bytes);
    mem_unmap_pages(memory, bytes);
    test_model_close(&model);
}

static void pieces_may_be_filled_in_parts(void **state)
{
    (void)state;
    parts_give_the_whole(v3);
    parts_give_the_whole("deepseek_v3-fp8");
    parts_give_the_whole("llama-tied");
    parts_give_the_whole("qwen2-bf16");
}

/* The catalog without its tensor `index`, or with an index beyond: as it is. */
static struct catalog catalog_without(const struct catalog *catalog, uint32_t index,
                                      struct tensor *tensors)
{
    struct catalog out = *catalog;

    out.tensor_count = 0;
    out.tensors = tensors;
    for (uint32_t i = 0; i < catalog->tensor_count; i++) {
        if (i != index) {
            tensors[out.tensor_count++] = catalog->tensors[i];
        }
    }
    return out;
}

static void missing_tensors_are_named(const char *name)
{
    struct test_model model = test_model_open(name, NULL);
    const struct catalog *catalog = model.catalog;
    struct weights_share share = {0, catalog->arch.layer_count, true, true, false, NULL};
    struct tensor *tensors = mem_new_array(struct tensor, catalog->tensor_count);

    for (uint32_t i = 0; i < catalog->tensor_count; i++) {
        struct catalog partial = catalog_without(catalog, i, tensors);
        const struct tensor *tensor = &catalog->tensors[i];
        struct error err = {ERROR_NONE, ""};
        struct weights *weights = weights_plan(&partial, &share, &err);

        if (is_draft(catalog, tensor)) {
            assert_non_null(weights);
        } else {
            assert_null(weights);
            assert_int_equal(err.code, ERROR_INPUT);
            assert_non_null(strstr(err.message, tensor_role_name(tensor->role)));
        }
        weights_destroy(weights);
    }
    mem_free(tensors);
    test_model_close(&model);
}

static void every_missing_tensor_is_named(void **state)
{
    (void)state;
    missing_tensors_are_named(v3);
    missing_tensors_are_named("qwen2-untied");
    missing_tensors_are_named("qwen3-random");
}

static void gate_and_up_may_have_different_types(void **state)
{
    struct test_model model = test_model_open(v3, NULL);
    const struct catalog *catalog = model.catalog;
    struct weights_share share = {0, 1, false, false, false, NULL};
    struct tensor *tensors = mem_new_array(struct tensor, catalog->tensor_count);
    struct catalog changed = catalog_without(catalog, UINT32_MAX, tensors);
    struct weights *weights;
    struct error err;

    (void)state;
    for (uint32_t i = 0; i < changed.tensor_count; i++) {
        if (tensors[i].role == ROLE_UP) {
            tensors[i].type = WEIGHT_F32;
        }
    }
    weights = weights_plan(&changed, &share, &err);
    assert_non_null(weights);
    assert_int_equal(weights->layers[0].dense.gate.type, WEIGHT_BF16);
    assert_int_equal(weights->layers[0].dense.up.type, WEIGHT_F32);
    weights_destroy(weights);
    mem_free(tensors);
    test_model_close(&model);
}

static void a_tied_head_is_packed_from_the_embedding(void **state)
{
    struct test_model model = test_model_open(v3, NULL);
    struct catalog tied = *model.catalog;
    struct weights_share share = {3, 4, false, true, false, NULL};
    const struct weights_piece *piece;
    struct weights *weights;
    struct error err;

    (void)state;
    tied.arch.tied_embedding = true;
    weights = weights_plan(&tied, &share, &err);
    assert_non_null(weights);
    piece = &weights->pieces[weights->piece_count - 1];
    assert_int_equal(piece->tensor->role, ROLE_EMBEDDING);
    assert_int_equal(piece->kind, PIECE_PACK);
    assert_int_equal(weights->head.rows, tied.arch.vocab);
    assert_null(weights->embedding);
    weights_destroy(weights);
    test_model_close(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_model_reads_every_main_tensor_once),
        cmocka_unit_test(a_middle_stage_has_neither_embedding_nor_head),
        cmocka_unit_test(the_draft_layer_reads_all_but_its_copies),
        cmocka_unit_test(experts_of_others_take_no_memory),
        cmocka_unit_test(kv_b_becomes_two_matrices_per_head),
        cmocka_unit_test(kv_b_of_f8_is_scaled_by_its_global_row),
        cmocka_unit_test(split_kv_b_stays_as_it_is),
        cmocka_unit_test(joined_kv_b_of_blocks_is_widened_for_keys),
        cmocka_unit_test(a_scale_that_is_no_number_is_named),
        cmocka_unit_test(pieces_may_be_filled_in_parts),
        cmocka_unit_test(every_missing_tensor_is_named),
        cmocka_unit_test(gate_and_up_may_have_different_types),
        cmocka_unit_test(a_tied_head_is_packed_from_the_embedding),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
