/* model_bytes.c - bytes by layer in kernel layout, for the planner.
 *
 * Mirrors how worker/layers/weights.c gives every tensor its place, from shapes and types alone, so
 * that a plan made here fits there. kv_b_proj is the one matrix that changes its shape: it becomes
 * two small matrices for each head; of F8_E4M3 both become f32, of block types the keys' one.
 */
#include "coordinator/cluster/model_bytes.h"

#define PANEL_ROWS 16
#define ALIGNMENT  64
#define PAGE_BYTES 4096
/* Beside the shapes: as in worker/layers/forward_state.h, worker/stage/{answer,load,prepare}.c. */
#define PROGRAM_BYTES         ((uint64_t)48 << 20) /* code, libraries, stacks, transports */
#define STAGING_BYTES_MAX     ((uint64_t)33 << 18) /* read buffer of a thread, scales included */
#define ATTENTION_ROWS        64
#define EXPERT_TILE_VALUES    (48 * 16 * 16)
#define SAMPLED_ROWS_MAX      64
#define ROPE_TABLE_VALUES_MAX ((uint64_t)16 << 20)

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Of what a worker keeps or gives up as one: a layer without its experts, an expert, a head. */
static uint64_t pages(uint64_t bytes)
{
    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

static uint64_t packed(enum weight_type type, uint64_t rows, uint64_t columns)
{
    uint64_t panels = (rows + PANEL_ROWS - 1) / PANEL_ROWS;
    uint64_t panel_bytes = PANEL_ROWS * weight_row_bytes(type, (uint32_t)columns);

    if (type == WEIGHT_F8_E4M3) {
        panel_bytes = aligned(panel_bytes + scale_block_count((uint32_t)columns) * sizeof(float));
    } else if (weight_type_is_blocks(type)) {
        panel_bytes = aligned(panel_bytes);
    }
    return aligned(panels * panel_bytes);
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

static uint64_t vector_of(const struct catalog *catalog, enum tensor_role role, uint32_t layer)
{
    const struct tensor *tensor = catalog_find(catalog, role, layer, CATALOG_NO_EXPERT);

    return tensor == NULL ? 0 : vector((uint64_t)tensor->rows * tensor->columns);
}

/* A matrix for each head. */
static uint64_t heads(const struct catalog *catalog, enum tensor_role role, uint32_t layer)
{
    const struct tensor *tensor = catalog_find(catalog, role, layer, CATALOG_NO_EXPERT);
    uint64_t head_count = catalog->arch.head_count;

    return tensor == NULL
               ? 0
               : head_count * packed(tensor->type, tensor->rows / head_count, tensor->columns);
}

static uint64_t kv_b(const struct catalog *catalog, uint32_t layer)
{
    const struct arch *arch = &catalog->arch;
    const struct tensor *tensor = catalog_find(catalog, ROLE_KV_B, layer, CATALOG_NO_EXPERT);
    enum weight_type uk, uv;

    if (tensor == NULL) {
        return heads(catalog, ROLE_K_B, layer) + heads(catalog, ROLE_V_B, layer);
    }
    uv = tensor->type == WEIGHT_F8_E4M3 ? WEIGHT_F32 : tensor->type;
    uk = weight_type_is_blocks(tensor->type) ? WEIGHT_F32 : uv;
    return arch->head_count * (packed(uk, arch->kv_lora_rank, arch->qk_nope_dim) +
                               packed(uv, arch->v_head_dim, arch->kv_lora_rank));
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
    static const enum tensor_role matrices[] = {ROLE_Q, ROLE_Q_A, ROLE_Q_B,          ROLE_KV_A,
                                                ROLE_K, ROLE_V,   ROLE_ATTENTION_OUT};
    static const enum tensor_role vectors[] = {ROLE_Q_A_NORM, ROLE_KV_A_NORM, ROLE_Q_BIAS,
                                               ROLE_K_BIAS,   ROLE_V_BIAS,    ROLE_OUT_BIAS,
                                               ROLE_Q_NORM,   ROLE_K_NORM};
    uint64_t bytes = kv_b(catalog, layer);

    for (size_t i = 0; i < ARRAY_LENGTH(matrices); i++) {
        bytes += matrix(catalog, matrices[i], layer, CATALOG_NO_EXPERT);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(vectors); i++) {
        bytes += vector_of(catalog, vectors[i], layer);
    }
    return bytes;
}

static struct planner_layer layer_bytes(const struct catalog *catalog, uint32_t layer)
{
    const struct arch *arch = &catalog->arch;
    uint64_t common = attention(catalog, layer) + 2 * vector(arch->hidden);

    if (!arch_layer_is_moe(arch, layer)) {
        common += mlp(catalog, ROLE_GATE, layer, CATALOG_NO_EXPERT);
        return (struct planner_layer){.common_bytes = pages(common)};
    }
    common += matrix(catalog, ROLE_ROUTER, layer, CATALOG_NO_EXPERT) +
              vector(arch->router.expert_count) +
              mlp(catalog, ROLE_SHARED_GATE, layer, CATALOG_NO_EXPERT);
    return (struct planner_layer){.common_bytes = pages(common),
                                  .expert_bytes = pages(mlp(catalog, ROLE_EXPERT_GATE, layer, 0))};
}

void model_bytes_layers(const struct catalog *catalog, struct planner_layer *layers)
{
    for (uint32_t layer = 0; layer < catalog->arch.layer_count; layer++) {
        layers[layer] = layer_bytes(catalog, layer);
    }
}

struct planner_layer model_bytes_draft(const struct catalog *catalog)
{
    const struct arch *arch = &catalog->arch;
    struct planner_layer draft;

    if (arch->draft_layer_count == 0) {
        return (struct planner_layer){0, 0};
    }
    draft = layer_bytes(catalog, arch->layer_count);
    draft.common_bytes +=
        pages(matrix(catalog, ROLE_DRAFT_PROJECTION, arch->layer_count, CATALOG_NO_EXPERT) +
              3 * vector(arch->hidden));
    return draft;
}

uint64_t model_bytes_embedding(const struct catalog *catalog)
{
    const struct tensor *tensor =
        catalog_find(catalog, ROLE_EMBEDDING, CATALOG_NO_LAYER, CATALOG_NO_EXPERT);

    return tensor == NULL ? 0 : pages(tensor->bytes);
}

uint64_t model_bytes_head(const struct catalog *catalog)
{
    enum tensor_role role = catalog->arch.tied_embedding ? ROLE_EMBEDDING : ROLE_HEAD;

    return pages(matrix(catalog, role, CATALOG_NO_LAYER, CATALOG_NO_EXPERT) +
                 vector(catalog->arch.hidden));
}

/* The buffers of one forward pass; parts that are used after each other share their memory. */
static uint64_t forward_values(const struct arch *arch, const struct model_step_shape *shape)
{
    uint64_t rows = shape->rows_max, heads = arch->head_count;
    bool latent = arch->attention == ATTENTION_MLA;
    uint64_t width = latent ? arch_kv_values(arch) : arch->qk_rope_dim;
    uint64_t value_width = latent ? arch->kv_lora_rank : arch->v_head_dim;
    uint64_t attention =
        rows *
            (arch->q_lora_rank + heads * (arch->qk_nope_dim + arch->qk_rope_dim) +
             arch_kv_values(arch) + arch->qk_rope_dim + heads * arch->v_head_dim + arch->hidden) +
        ATTENTION_ROWS * heads * (width + 2 * value_width + 16) +
        (uint64_t)shape->thread_count * 5 * ATTENTION_ROWS * (width + 32);
    uint64_t mlp = rows * ((uint64_t)arch->dense_width + arch->shared_width + arch->hidden);
    uint64_t experts = rows * arch->router.chosen_count * (arch->hidden + arch->expert_width + 8) +
                       (uint64_t)shape->thread_count * EXPERT_TILE_VALUES;
    uint64_t draft = arch->draft_layer_count > 0 ? 2 * rows * arch->hidden : 0;
    uint64_t most = attention > mlp ? attention : mlp;

    most = draft > most ? draft : most;
    return 2 * rows * arch->hidden + (experts > most ? experts : most);
}

/* Outputs of routed experts and of the shared one, until they are added. */
static uint64_t outputs_bytes(const struct arch *arch, uint64_t rows)
{
    return arch->router.expert_count == 0 ? 0
                                          : rows * (arch->router.chosen_count + (uint64_t)1) *
                                                ((uint64_t)arch->hidden * sizeof(float) + 128);
}

/* What members of a stage send each other: rows, and for each the parts of its sum. */
static uint64_t exchange_bytes(const struct arch *arch, const struct model_step_shape *shape,
                               uint64_t parts)
{
    uint64_t rows = shape->rows_max;
    uint64_t row_bytes = (uint64_t)arch->hidden * sizeof(float);
    uint64_t others = shape->group_size - 1;
    uint64_t dispatch = rows * (row_bytes + 16 * (uint64_t)arch->router.chosen_count + 64);
    uint64_t combine = rows * parts * row_bytes;

    if (arch->router.expert_count == 0 || others == 0) {
        return 0;
    }
    return 2 * others * (dispatch + 2 * combine) + 2 * dispatch;
}

/* Parts of a row at one owner: its experts, or its router groups where owners hold whole ones. */
static uint64_t parts_whole(const struct arch *arch)
{
    uint64_t chosen = arch->router.chosen_count;

    return arch->router.group_count > 1 && arch->router.group_chosen_count < chosen
               ? arch->router.group_chosen_count
               : chosen;
}

struct model_fixed_bytes model_bytes_fixed(const struct arch *arch,
                                           const struct model_step_shape *shape)
{
    uint64_t rows = shape->rows_max;
    uint64_t blocks_per_slot = shape->context_tokens_max / 64 + 2;
    uint64_t sampled = rows < SAMPLED_ROWS_MAX ? rows : SAMPLED_ROWS_MAX;
    uint64_t frames = (2 * (uint64_t)shape->steps_in_flight_max + 1) * rows * arch->hidden;
    uint64_t logits = (sampled + 2 * (uint64_t)shape->thread_count) * arch->vocab;
    uint64_t rope = (uint64_t)shape->context_tokens_max * arch->qk_rope_dim;
    uint64_t whole = exchange_bytes(arch, shape, parts_whole(arch));
    uint64_t staging =
        (uint64_t)arch->vocab * arch->hidden * sizeof(float); /* the largest tensor */

    staging = staging < STAGING_BYTES_MAX ? staging : STAGING_BYTES_MAX;
    rope = rope < ROPE_TABLE_VALUES_MAX ? rope + 64 * arch->qk_rope_dim : 0;
    return (struct model_fixed_bytes){
        .buffer_bytes = shape->slot_count * blocks_per_slot * sizeof(uint32_t) + rows * 256 +
                        outputs_bytes(arch, rows) +
                        (forward_values(arch, shape) + logits + rope) * sizeof(float),
        .frame_bytes = whole + frames * sizeof(float),
        .divided_bytes = exchange_bytes(arch, shape, arch->router.chosen_count) - whole,
        .program_bytes = PROGRAM_BYTES + shape->thread_count * staging,
    };
}
