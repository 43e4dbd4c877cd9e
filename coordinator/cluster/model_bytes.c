/* model_bytes.c - bytes by layer in kernel layout, for the planner.
 *
 * Mirrors how worker/layers/weights.c gives every tensor its place, from shapes and types alone, so
 * that a plan made here fits there. kv_b_proj is the one matrix that changes its shape: it becomes
 * two small matrices for each head.
 */
#include "coordinator/cluster/model_bytes.h"

#define PANEL_ROWS    16
#define ALIGNMENT     64
#define PROGRAM_BYTES ((uint64_t)48 << 20) /* code, libraries, stacks, transports */

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static uint64_t packed(enum weight_type type, uint64_t rows, uint64_t columns)
{
    uint64_t padded = (rows + PANEL_ROWS - 1) / PANEL_ROWS * PANEL_ROWS;

    return aligned(padded * columns * weight_type_bytes(type));
}

/* One that the model lacks weighs nothing. */
static uint64_t matrix(const struct catalog *catalog, enum tensor_role role, uint32_t layer,
                       uint32_t expert)
{
    const struct tensor *tensor = catalog_find(catalog, role, layer, expert);

    return tensor == NULL ? 0 : packed(tensor->type, tensor->rows, tensor->columns);
}

static uint64_t vector(uint64_t values)
{
    return aligned(values * sizeof(float));
}

static uint64_t kv_b(const struct catalog *catalog, uint32_t layer)
{
    const struct arch *arch = &catalog->arch;
    const struct tensor *tensor = catalog_find(catalog, ROLE_KV_B, layer, CATALOG_NO_EXPERT);

    if (tensor == NULL) {
        return 0;
    }
    return arch->head_count * (packed(tensor->type, arch->kv_lora_rank, arch->qk_nope_dim) +
                               packed(tensor->type, arch->v_head_dim, arch->kv_lora_rank));
}

/* The three matrices of an MLP: gate, up and down are roles in this order. */
static uint64_t mlp(const struct catalog *catalog, enum tensor_role gate, uint32_t layer,
                    uint32_t expert)
{
    uint64_t bytes = 0;

    for (int i = 0; i < 3; i++) {
        bytes += matrix(catalog, (enum tensor_role)(gate + i), layer, expert);
    }
    return bytes;
}

static uint64_t attention(const struct catalog *catalog, uint32_t layer)
{
    static const enum tensor_role matrices[] = {ROLE_Q, ROLE_Q_A, ROLE_Q_B, ROLE_KV_A,
                                                ROLE_ATTENTION_OUT};
    const struct arch *arch = &catalog->arch;
    uint64_t bytes = kv_b(catalog, layer) + vector(arch->kv_lora_rank);

    for (size_t i = 0; i < ARRAY_LENGTH(matrices); i++) {
        bytes += matrix(catalog, matrices[i], layer, CATALOG_NO_EXPERT);
    }
    return arch->q_lora_rank > 0 ? bytes + vector(arch->q_lora_rank) : bytes;
}

void model_bytes_layers(const struct catalog *catalog, struct planner_layer *layers)
{
    const struct arch *arch = &catalog->arch;

    for (uint32_t layer = 0; layer < arch->layer_count; layer++) {
        uint64_t common = attention(catalog, layer) + 2 * vector(arch->hidden);

        layers[layer] = (struct planner_layer){0, 0};
        if (arch_layer_is_moe(arch, layer)) {
            common += matrix(catalog, ROLE_ROUTER, layer, CATALOG_NO_EXPERT) +
                      vector(arch->router.expert_count) +
                      mlp(catalog, ROLE_SHARED_GATE, layer, CATALOG_NO_EXPERT);
            layers[layer].expert_bytes = mlp(catalog, ROLE_EXPERT_GATE, layer, 0);
        } else {
            common += mlp(catalog, ROLE_GATE, layer, CATALOG_NO_EXPERT);
        }
        layers[layer].common_bytes = common;
    }
}

uint64_t model_bytes_embedding(const struct catalog *catalog)
{
    const struct tensor *tensor =
        catalog_find(catalog, ROLE_EMBEDDING, CATALOG_NO_LAYER, CATALOG_NO_EXPERT);

    return tensor == NULL ? 0 : aligned(tensor->bytes);
}

uint64_t model_bytes_head(const struct catalog *catalog)
{
    enum tensor_role role = catalog->arch.tied_embedding ? ROLE_EMBEDDING : ROLE_HEAD;

    return matrix(catalog, role, CATALOG_NO_LAYER, CATALOG_NO_EXPERT) +
           vector(catalog->arch.hidden);
}

uint64_t model_bytes_fixed(const struct arch *arch, uint32_t step_rows_max,
                           uint32_t steps_in_flight_max)
{
    uint64_t heads = arch->head_count;
    /* A row: the stream and its copies, queries in both forms, attended latents, MLP widths. */
    uint64_t row_values =
        6 * (uint64_t)arch->hidden + heads * (arch->qk_nope_dim + arch->qk_rope_dim) +
        2 * heads * (arch->kv_lora_rank + arch->qk_rope_dim) + heads * arch->v_head_dim +
        2 * (uint64_t)arch->dense_width + arch->vocab / 8 +
        (uint64_t)arch->router.chosen_count * (arch->expert_width + arch->hidden);
    uint64_t frame_values = 2 * (uint64_t)arch->hidden * steps_in_flight_max;

    return PROGRAM_BYTES + (row_values + frame_values) * step_rows_max * sizeof(float);
}
