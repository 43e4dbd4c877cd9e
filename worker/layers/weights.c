/* weights.c - which tensors a share of the model needs, and where each goes.
 *
 * Planning walks the share in the order in which a step reads it and gives every tensor the next
 * bytes of one region, which parts divide at pages. Pointers cannot be known yet, so each one is
 * noted as a binding (where the pointer lives, which offset it gets); weights_bind fills them in.
 * Of several draft layers a share has the first. Reading files is the loader's business
 * (worker/stage).
 *
 * kv_b_proj holds, per head, the rows [nope | value] over the latent. Absorbed attention needs the
 * nope rows transposed (query into latent) and the value rows as they are, so it becomes two small
 * matrices per head: all of W_UK, then all of W_UV. A head's rows may begin inside a block of
 * F8_E4M3 scales, so these matrices become f32, four times the bytes of kv_b_proj; blocks of
 * quantised types run along the latent, across the transpose, so W_UK becomes f32 of them too.
 * GGUF files since 2025 have both matrices apart, W_UK transposed already: those stay as they are.
 */
#include "worker/layers/weights.h"

#include "common/base/arena.h"
#include "common/base/mem.h"
#include "common/model/tensor_role.h"
#include "worker/layers/weights_internal.h"

#define REGION_ALIGNMENT 4096
#define PIECE_ALIGNMENT  64

static uint64_t align_up(uint64_t value, uint64_t alignment)
{
    return (value + alignment - 1) / alignment * alignment;
}

/* What is planned from here on belongs to this part, until part_end. */
static void part_begin(struct plan *plan, enum part_kind kind, uint32_t layer, uint32_t expert)
{
    struct weights *weights = plan->weights;

    ASSERT(weights->part_count < plan->part_max);
    weights->parts[weights->part_count] = (struct weights_part){
        .kind = kind, .layer = layer, .expert = expert, .offset = weights->memory_bytes};
}

static void part_end(struct plan *plan)
{
    struct weights *weights = plan->weights;
    struct weights_part *part = &weights->parts[weights->part_count++];

    weights->memory_bytes = align_up(weights->memory_bytes, REGION_ALIGNMENT);
    part->bytes = weights->memory_bytes - part->offset;
}

/* The next bytes of the region become what *binding.pointer points to; its offset is set here. */
static uint64_t region_take(struct plan *plan, struct binding binding)
{
    struct weights *weights = plan->weights;
    uint64_t offset = weights->memory_bytes;

    ASSERT(plan->binding_count < plan->binding_max);
    binding.offset = offset;
    binding.part = weights->part_count;
    plan->bindings[plan->binding_count++] = binding;
    weights->memory_bytes += align_up(binding.bytes, PIECE_ALIGNMENT);
    return offset;
}

static void piece_add(struct plan *plan, enum piece_kind kind, const struct tensor *tensor,
                      uint64_t destination, uint64_t bytes)
{
    struct weights *weights = plan->weights;

    ASSERT(weights->piece_count < plan->piece_max);
    weights->pieces[weights->piece_count++] =
        (struct weights_piece){kind, tensor, destination, bytes, weights->part_count};
    weights->parts[weights->part_count].file_bytes += tensor->bytes + tensor->scales.bytes;
    weights->file_bytes += tensor->bytes + tensor->scales.bytes;
}

static const struct tensor *tensor_need(struct plan *plan, enum tensor_role role, uint32_t layer,
                                        uint32_t expert)
{
    const struct tensor *tensor = catalog_find(plan->catalog, role, layer, expert);

    if (tensor != NULL) {
        return tensor;
    }
    if (layer == CATALOG_NO_LAYER) {
        error_set(plan->err, ERROR_INPUT, "tensor %s is missing", tensor_role_name(role));
    } else if (expert == CATALOG_NO_EXPERT) {
        error_set(plan->err, ERROR_INPUT, "layer %u: tensor %s is missing", layer,
                  tensor_role_name(role));
    } else {
        error_set(plan->err, ERROR_INPUT, "layer %u, expert %u: tensor %s is missing", layer,
                  expert, tensor_role_name(role));
    }
    return NULL;
}

/* A tensor's place in the model. */
struct place {
    enum tensor_role role;
    uint32_t layer;
    uint32_t expert;
};

static bool matrix_plan(struct plan *plan, struct place place, struct packed_matrix *out)
{
    const struct tensor *tensor = tensor_need(plan, place.role, place.layer, place.expert);
    uint64_t bytes;

    if (tensor == NULL) {
        return false;
    }
    bytes = packed_bytes(tensor->type, tensor->rows, tensor->columns);
    *out = (struct packed_matrix){tensor->type, tensor->rows, tensor->columns, NULL};
    piece_add(plan, PIECE_PACK, tensor,
              region_take(plan, (struct binding){.pointer = (void **)&out->data,
                                                 .bytes = bytes,
                                                 .tensor = tensor,
                                                 .matrix = out}),
              bytes);
    return true;
}

static bool vector_plan(struct plan *plan, enum tensor_role role, uint32_t layer, float **out)
{
    const struct tensor *tensor = tensor_need(plan, role, layer, CATALOG_NO_EXPERT);
    uint64_t bytes;

    if (tensor == NULL) {
        return false;
    }
    bytes = (uint64_t)tensor->rows * tensor->columns * sizeof(float);
    piece_add(
        plan, PIECE_WIDEN, tensor,
        region_take(plan,
                    (struct binding){.pointer = (void **)out, .bytes = bytes, .tensor = tensor}),
        bytes);
    return true;
}

/* gate, up and down are three roles in this order. */
static bool mlp_plan(struct plan *plan, struct place gate, struct mlp_weights *out)
{
    struct place up = {gate.role + 1, gate.layer, gate.expert};
    struct place down = {gate.role + 2, gate.layer, gate.expert};

    return matrix_plan(plan, gate, &out->gate) && matrix_plan(plan, up, &out->up) &&
           matrix_plan(plan, down, &out->down);
}

/* One matrix for each head, one after the other; returns where the first lies. The tensor becomes
 * matrices [tensor_part, tensor_part + heads). */
static uint64_t heads_plan(struct plan *plan, const struct tensor *tensor, uint32_t tensor_part,
                           struct packed_matrix shape, struct packed_matrix **out)
{
    uint32_t head_count = plan->weights->arch.head_count;
    uint64_t bytes = packed_bytes(shape.type, shape.rows, shape.columns), destination = 0;

    *out = arena_new_array(&plan->arena, struct packed_matrix, head_count);
    for (uint32_t h = 0; h < head_count; h++) {
        struct packed_matrix *matrix = &(*out)[h];
        uint64_t offset = region_take(plan, (struct binding){.pointer = (void **)&matrix->data,
                                                             .bytes = bytes,
                                                             .tensor = tensor,
                                                             .matrix = matrix,
                                                             .tensor_part = tensor_part + h});

        *matrix = shape;
        destination = h == 0 ? offset : destination;
    }
    return destination;
}

static bool kv_b_joined_plan(struct plan *plan, uint32_t layer, struct attention_weights *out)
{
    const struct arch *arch = &plan->weights->arch;
    const struct tensor *tensor = tensor_need(plan, ROLE_KV_B, layer, CATALOG_NO_EXPERT);
    struct packed_matrix uk = {.rows = arch->kv_lora_rank, .columns = arch->qk_nope_dim};
    struct packed_matrix uv = {.rows = arch->v_head_dim, .columns = arch->kv_lora_rank};
    uint64_t destination, bytes;

    if (tensor == NULL) {
        return false;
    }
    uk.type = weights_uk_type(tensor);
    uv.type = weights_uv_type(tensor);
    bytes = arch->head_count * (packed_bytes(uk.type, uk.rows, uk.columns) +
                                packed_bytes(uv.type, uv.rows, uv.columns));
    destination = heads_plan(plan, tensor, 0, uk, &out->w_uk);
    heads_plan(plan, tensor, arch->head_count, uv, &out->w_uv);
    piece_add(plan, PIECE_KV_B, tensor, destination, bytes);
    return true;
}

/* Heads whose rows are one of the two matrices already. */
static bool kv_b_half_plan(struct plan *plan, struct place place, struct packed_matrix **out)
{
    uint32_t head_count = plan->weights->arch.head_count;
    const struct tensor *tensor = tensor_need(plan, place.role, place.layer, place.expert);
    struct packed_matrix shape = {0};

    if (tensor == NULL) {
        return false;
    }
    shape.type = tensor->type;
    shape.rows = tensor->rows / head_count;
    shape.columns = tensor->columns;
    piece_add(plan, PIECE_HEADS, tensor, heads_plan(plan, tensor, 0, shape, out),
              head_count * packed_bytes(shape.type, shape.rows, shape.columns));
    return true;
}

static bool kv_b_plan(struct plan *plan, uint32_t layer, struct attention_weights *out)
{
    struct place k_b = {ROLE_K_B, layer, CATALOG_NO_EXPERT};
    struct place v_b = {ROLE_V_B, layer, CATALOG_NO_EXPERT};

    if (plan->weights->arch.kv_b_layout == KV_B_JOINED) {
        return kv_b_joined_plan(plan, layer, out);
    }
    return kv_b_half_plan(plan, k_b, &out->w_uk) && kv_b_half_plan(plan, v_b, &out->w_uv);
}

/* One that the architecture lacks stays NULL. */
static bool vector_plan_if_any(struct plan *plan, enum tensor_role role, uint32_t layer,
                               float **out)
{
    return tensor_role_count(&plan->weights->arch, role, layer) == 0 ||
           vector_plan(plan, role, layer, out);
}

static bool grouped_plan(struct plan *plan, uint32_t layer, struct attention_weights *out)
{
    struct place q = {ROLE_Q, layer, CATALOG_NO_EXPERT};
    struct place k = {ROLE_K, layer, CATALOG_NO_EXPERT};
    struct place v = {ROLE_V, layer, CATALOG_NO_EXPERT};
    struct place o = {ROLE_ATTENTION_OUT, layer, CATALOG_NO_EXPERT};

    return matrix_plan(plan, q, &out->q) && matrix_plan(plan, k, &out->k) &&
           matrix_plan(plan, v, &out->v) &&
           vector_plan_if_any(plan, ROLE_Q_BIAS, layer, &out->q_bias) &&
           vector_plan_if_any(plan, ROLE_K_BIAS, layer, &out->k_bias) &&
           vector_plan_if_any(plan, ROLE_V_BIAS, layer, &out->v_bias) &&
           vector_plan_if_any(plan, ROLE_Q_NORM, layer, &out->q_norm) &&
           vector_plan_if_any(plan, ROLE_K_NORM, layer, &out->k_norm) &&
           matrix_plan(plan, o, &out->out) &&
           vector_plan_if_any(plan, ROLE_OUT_BIAS, layer, &out->out_bias);
}

static bool latent_plan(struct plan *plan, uint32_t layer, struct attention_weights *out)
{
    struct place q_a = {ROLE_Q_A, layer, CATALOG_NO_EXPERT};
    struct place q_b = {ROLE_Q_B, layer, CATALOG_NO_EXPERT};
    struct place kv_a = {ROLE_KV_A, layer, CATALOG_NO_EXPERT};
    struct place o = {ROLE_ATTENTION_OUT, layer, CATALOG_NO_EXPERT};

    if (plan->weights->arch.q_lora_rank == 0) {
        q_b.role = ROLE_Q;
    } else if (!matrix_plan(plan, q_a, &out->q_a) ||
               !vector_plan(plan, ROLE_Q_A_NORM, layer, &out->q_a_norm)) {
        return false;
    }
    return matrix_plan(plan, kv_a, &out->kv_a) &&
           vector_plan(plan, ROLE_KV_A_NORM, layer, &out->kv_a_norm) &&
           matrix_plan(plan, q_b, &out->q_b) && kv_b_plan(plan, layer, out) &&
           matrix_plan(plan, o, &out->out);
}

static bool attention_plan(struct plan *plan, uint32_t layer, struct attention_weights *out)
{
    switch (plan->weights->arch.attention) {
    case ATTENTION_MLA:
        return latent_plan(plan, layer, out);
    case ATTENTION_GQA:
        return grouped_plan(plan, layer, out);
    }
    return false;
}

static bool expert_is_owned(const struct plan *plan, uint32_t layer, uint32_t expert)
{
    const struct weights_share *share = plan->share;
    size_t row = layer - share->layer_begin;

    return share->owned_experts == NULL ||
           share->owned_experts[row * plan->weights->arch.router.expert_count + expert] != 0;
}

/* All of a layer of experts but them. */
static bool moe_plan(struct plan *plan, uint32_t layer, struct layer_weights *out)
{
    const struct arch *arch = &plan->weights->arch;
    uint32_t expert_count = arch->router.expert_count;
    struct place router = {ROLE_ROUTER, layer, CATALOG_NO_EXPERT};
    struct place shared = {ROLE_SHARED_GATE, layer, CATALOG_NO_EXPERT};

    if (!matrix_plan(plan, router, &out->router)) {
        return false;
    }
    if (catalog_find(plan->catalog, ROLE_ROUTER_BIAS, layer, CATALOG_NO_EXPERT) == NULL &&
        arch->router.method != ROUTER_NOAUX_TC) {
        region_take(plan, (struct binding){.pointer = (void **)&out->router_bias,
                                           .bytes = expert_count * sizeof(float)});
    } else if (!vector_plan(plan, ROLE_ROUTER_BIAS, layer, &out->router_bias)) {
        return false;
    }
    return arch->shared_width == 0 || mlp_plan(plan, shared, &out->shared);
}

static bool experts_plan(struct plan *plan, uint32_t layer, struct layer_weights *out)
{
    uint32_t expert_count = plan->weights->arch.router.expert_count;

    out->experts = arena_new_array(&plan->arena, struct mlp_weights, expert_count);
    for (uint32_t e = 0; e < expert_count; e++) {
        struct place expert = {ROLE_EXPERT_GATE, layer, e};

        if (!expert_is_owned(plan, layer, e)) {
            continue;
        }
        part_begin(plan, PART_EXPERT, layer, e);
        if (!mlp_plan(plan, expert, &out->experts[e])) {
            return false;
        }
        part_end(plan);
    }
    return true;
}

static bool layer_plan(struct plan *plan, uint32_t layer, struct layer_weights *out)
{
    struct place dense = {ROLE_GATE, layer, CATALOG_NO_EXPERT};
    bool is_moe = arch_layer_is_moe(&plan->weights->arch, layer);

    part_begin(plan, PART_LAYER, layer, 0);
    if (!vector_plan(plan, ROLE_INPUT_NORM, layer, &out->input_norm) ||
        !attention_plan(plan, layer, &out->attention) ||
        !vector_plan(plan, ROLE_POST_NORM, layer, &out->post_norm) ||
        !(is_moe ? moe_plan(plan, layer, out) : mlp_plan(plan, dense, &out->dense))) {
        return false;
    }
    part_end(plan);
    return !is_moe || experts_plan(plan, layer, out);
}

static bool embedding_plan(struct plan *plan)
{
    struct weights *weights = plan->weights;
    const struct tensor *tensor =
        tensor_need(plan, ROLE_EMBEDDING, CATALOG_NO_LAYER, CATALOG_NO_EXPERT);

    if (tensor == NULL) {
        return false;
    }
    weights->embedding_type = tensor->type;
    part_begin(plan, PART_EMBEDDING, 0, 0);
    piece_add(plan, PIECE_COPY, tensor,
              region_take(plan, (struct binding){.pointer = (void **)&weights->embedding,
                                                 .bytes = tensor->bytes,
                                                 .tensor = tensor}),
              tensor->bytes);
    part_end(plan);
    return true;
}

static bool head_plan(struct plan *plan)
{
    struct weights *weights = plan->weights;
    enum tensor_role role = weights->arch.tied_embedding ? ROLE_EMBEDDING : ROLE_HEAD;
    struct place head = {role, CATALOG_NO_LAYER, CATALOG_NO_EXPERT};

    part_begin(plan, PART_HEAD, 0, 0);
    if (!vector_plan(plan, ROLE_FINAL_NORM, CATALOG_NO_LAYER, &weights->final_norm) ||
        !matrix_plan(plan, head, &weights->head)) {
        return false;
    }
    part_end(plan);
    return true;
}

static bool draft_plan(struct plan *plan, uint32_t layer, struct draft_weights *out)
{
    struct place projection = {ROLE_DRAFT_PROJECTION, layer, CATALOG_NO_EXPERT};

    part_begin(plan, PART_DRAFT, layer, 0);
    if (!vector_plan(plan, ROLE_DRAFT_TOKEN_NORM, layer, &out->token_norm) ||
        !vector_plan(plan, ROLE_DRAFT_HIDDEN_NORM, layer, &out->hidden_norm) ||
        !matrix_plan(plan, projection, &out->projection) ||
        !vector_plan(plan, ROLE_DRAFT_FINAL_NORM, layer, &out->final_norm)) {
        return false;
    }
    part_end(plan);
    return true;
}

static bool share_plan(struct plan *plan)
{
    const struct weights_share *share = plan->share;
    struct weights *weights = plan->weights;

    if (share->has_embedding && !embedding_plan(plan)) {
        return false;
    }
    for (uint32_t layer = weights->layer_begin; layer < weights->layer_end; layer++) {
        if (!layer_plan(plan, layer, &weights->layers[layer - weights->layer_begin])) {
            return false;
        }
    }
    if (share->has_draft && !draft_plan(plan, share->layer_end, &weights->draft)) {
        return false;
    }
    return !share->has_head || head_plan(plan);
}

/* Room for the most that a share can need: every tensor once, a head tied to the embedding once
 * more; bindings also for each head's two matrices and for absent router biases. */
static void room_make(struct plan *plan)
{
    const struct arch *arch = &plan->catalog->arch;
    uint32_t layer_end = plan->share->layer_end + (plan->share->has_draft ? 1 : 0);
    uint32_t layer_count = layer_end - plan->share->layer_begin;
    struct weights *weights = arena_new(&plan->arena, struct weights);

    plan->weights = weights;
    plan->piece_max = plan->catalog->tensor_count + 1;
    plan->binding_max = plan->piece_max + layer_count * (2 * arch->head_count + 1);
    plan->part_max = 3 + layer_count * (1 + arch->router.expert_count);
    plan->bindings = arena_new_array(&plan->arena, struct binding, plan->binding_max);
    weights->arch = *arch;
    weights->layer_begin = plan->share->layer_begin;
    weights->layer_end = layer_end;
    weights->layers = arena_new_array(&plan->arena, struct layer_weights, layer_count);
    weights->pieces = arena_new_array(&plan->arena, struct weights_piece, plan->piece_max);
    weights->parts = arena_new_array(&plan->arena, struct weights_part, plan->part_max);
    weights->plan_memory = plan;
}

struct weights *weights_plan(const struct catalog *catalog, const struct weights_share *share,
                             struct error *err)
{
    struct plan *plan = mem_new(struct plan);

    ASSERT(share->layer_begin < share->layer_end);
    ASSERT(share->layer_end <= catalog->arch.layer_count);
    ASSERT(!share->has_draft ||
           (share->layer_end == catalog->arch.layer_count && catalog->arch.draft_layer_count > 0));
    arena_init(&plan->arena, (size_t)1 << 16);
    plan->catalog = catalog;
    plan->share = share;
    plan->err = err;
    room_make(plan);
    if (!share_plan(plan)) {
        weights_destroy(plan->weights);
        return NULL;
    }
    plan->share = NULL; /* borrowed for this call only */
    plan->err = NULL;
    return plan->weights;
}

void weights_bind(struct weights *weights, void *memory)
{
    for (uint32_t i = 0; i < weights->part_count; i++) {
        weights->parts[i].memory = (char *)memory + weights->parts[i].offset;
    }
    weights_bind_parts(weights);
}

void weights_bind_parts(struct weights *weights)
{
    const struct plan *plan = weights->plan_memory;

    for (uint32_t i = 0; i < plan->binding_count; i++) {
        const struct binding *binding = &plan->bindings[i];
        const struct weights_part *part = &weights->parts[binding->part];

        ASSERT((uintptr_t)part->memory % PIECE_ALIGNMENT == 0);
        *binding->pointer = part->memory + (binding->offset - part->offset);
    }
}

void weights_destroy(struct weights *weights)
{
    struct plan *plan;

    if (weights == NULL) {
        return;
    }
    plan = weights->plan_memory;
    arena_deinit(&plan->arena); /* the weights lie in it */
    mem_free(plan);
}
