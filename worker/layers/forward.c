/* forward.c - the buffers of a forward pass, its first and its last operation.
 *
 * The layout of the buffers is written once, as a walk with a carver: without memory it measures
 * (the ledger), with memory it hands out. Embedding and logits are here; what lies between them is
 * in attention.c, mlp.c, router.c, experts.c and combine.c; the draft layer's input is in draft.c.
 */
#include "worker/layers/attention.h"

#include "common/base/mem.h"
#include "worker/kernels/rope.h"

#include <inttypes.h>

#define BUFFER_ALIGNMENT    64
#define ROPE_TILE_POSITIONS 64

/* What the buffers depend on. */
struct forward_shape {
    const struct arch *arch;
    uint32_t rows_max;
    uint32_t expert_rows_max;
    uint32_t context_tokens_max;
    uint32_t thread_count;
};

struct carver {
    char *base; /* NULL: only measure */
    uint64_t used;
};

static void *carve(struct carver *carver, uint64_t count, uint64_t size)
{
    char *taken = carver->base == NULL ? NULL : carver->base + carver->used;

    carver->used += (count * size + BUFFER_ALIGNMENT - 1) / BUFFER_ALIGNMENT * BUFFER_ALIGNMENT;
    return taken;
}

static float *carve_floats(struct carver *carver, uint64_t rows, uint64_t columns)
{
    return carve(carver, rows * columns, sizeof(float));
}

static uint32_t rope_table_positions(const struct forward_shape *shape)
{
    uint64_t positions = ((uint64_t)shape->context_tokens_max + KV_BLOCK_TOKENS - 1) /
                         KV_BLOCK_TOKENS * KV_BLOCK_TOKENS;
    uint64_t bytes = positions * shape->arch->qk_rope_dim * sizeof(float);

    return bytes <= ROPE_TABLE_BYTES_MAX ? (uint32_t)positions : 0;
}

static void attention_lay_out(struct carver *carver, const struct forward_shape *shape,
                              struct attention_buffers *out)
{
    const struct arch *arch = shape->arch;
    uint64_t rows = shape->rows_max;
    uint64_t heads = arch->head_count;
    struct attend_shape attend = attend_shape_of(arch);
    uint64_t absorbed_rows = arch->attention == ATTENTION_MLA ? ATTEND_ROWS : 0;
    uint32_t widest = attend.key_width > attend.value_width ? attend.key_width : attend.value_width;
    uint64_t states = (ATTEND_ROWS + ATTEND_PAIRS) * heads;
    uint64_t tile_values =
        ATTEND_QUERIES * ((uint64_t)attend.key_width + 2 * ((uint64_t)attend.value_width + 2));
    uint64_t turned = arch->attention == ATTENTION_MLA
                          ? attend_turned_values(attend.key_width, ATTEND_QUERIES)
                          : 0;

    out->q_a = carve_floats(carver, rows, arch->q_lora_rank);
    out->q = carve_floats(carver, rows, heads * (arch->qk_nope_dim + arch->qk_rope_dim));
    out->entries = carve_floats(carver, rows, arch_kv_values(arch));
    out->cos_sin = carve_floats(carver, rows, arch->qk_rope_dim);
    out->attended = carve_floats(carver, rows, heads * arch->v_head_dim);
    out->out = carve_floats(carver, rows, arch->hidden);
    out->absorbed = carve_floats(carver, absorbed_rows, heads * attend.key_width);
    out->states.max = carve_floats(carver, states, 1);
    out->states.sum = carve_floats(carver, states, 1);
    out->states.acc = carve_floats(carver, states, attend.value_width);
    out->items = carve(carver, ATTEND_ROWS + ATTEND_PAIRS, sizeof(*out->items));
    out->kernel_values = attend_scratch_values(widest, ATTEND_QUERIES);
    out->scratch_values = out->kernel_values + tile_values + turned;
    if (arch->attention == ATTENTION_MLA) {
        uint64_t expanded = attention_expanded_values(arch, shape->rows_max);

        out->earlier_max = carve_floats(carver, rows, heads);
        out->earlier_sum = carve_floats(carver, rows, heads);
        out->expand_items = carve(carver, rows, sizeof(*out->expand_items));
        out->widened_heads = carve(carver, shape->thread_count, sizeof(uint32_t));
        out->scratch_values = expanded > out->scratch_values ? expanded : out->scratch_values;
    }
    out->scratch_values = (out->scratch_values + 15) / 16 * 16; /* keeps each thread's aligned */
    out->scratch = carve_floats(carver, shape->thread_count, out->scratch_values);
}

static void mlp_lay_out(struct carver *carver, const struct forward_shape *shape,
                        struct mlp_buffers *out)
{
    const struct arch *arch = shape->arch;
    uint32_t width =
        arch->dense_width > arch->shared_width ? arch->dense_width : arch->shared_width;

    out->act = carve_floats(carver, shape->rows_max, width);
    out->out = carve_floats(carver, shape->rows_max, arch->hidden);
}

static void draft_lay_out(struct carver *carver, const struct forward_shape *shape,
                          struct draft_buffers *out)
{
    uint64_t rows = shape->arch->draft_layer_count > 0 ? shape->rows_max : 0;

    out->joined = carve_floats(carver, rows, 2 * (uint64_t)shape->arch->hidden);
}

static void router_lay_out(struct carver *carver, const struct forward_shape *shape,
                           struct router_buffers *out)
{
    const struct router_config *router = &shape->arch->router;
    uint64_t scratch = router->expert_count + router->group_count;

    out->scores = carve_floats(carver, shape->rows_max, router->expert_count);
    out->choice = carve_floats(carver, shape->thread_count, scratch);
    out->excluded = carve(carver, shape->thread_count * scratch, 1);
}

static void experts_lay_out(struct carver *carver, const struct forward_shape *shape,
                            struct expert_buffers *out)
{
    const struct arch *arch = shape->arch;
    uint64_t experts = arch->router.expert_count;
    uint64_t jobs = shape->expert_rows_max;
    uint64_t tile_values = EXPERT_ROWS * EXPERT_PANELS * PANEL_ROWS;
    uint64_t input_bytes = int8_rows_bytes(arch->hidden, jobs);
    uint64_t gathered_bytes = jobs * arch->hidden * sizeof(float);

    out->order = carve(carver, jobs, sizeof(uint32_t));
    out->counts = carve(carver, experts + 1, sizeof(uint32_t));
    out->spans = carve(carver, experts, sizeof(*out->spans));
    out->gathered = carve(carver, gathered_bytes > input_bytes ? gathered_bytes : input_bytes, 1);
    out->input = (struct int8_rows){.chunks = (struct int8_chunk *)(void *)out->gathered};
    out->act = carve_floats(carver, jobs, arch->expert_width);
    out->act_codes.chunks = carve(carver, int8_rows_bytes(arch->expert_width, jobs), 1);
    out->rows = carve_floats(carver, shape->thread_count, tile_values);
}

/* Codes of the widest activations that a product reads, or of hidden states in two forms: blocks of
 * 32 and of 256. */
static uint64_t codes_bytes_max(const struct forward_shape *shape)
{
    const struct arch *arch = shape->arch;
    const uint32_t columns[] = {arch->q_lora_rank, arch->head_count * arch->v_head_dim,
                                arch->dense_width, arch->shared_width,
                                arch->draft_layer_count > 0 ? 2 * arch->hidden : 0};
    uint64_t most = 2 * int8_rows_bytes(arch->hidden, shape->rows_max);

    for (size_t i = 0; i < ARRAY_LENGTH(columns); i++) {
        uint64_t bytes = int8_rows_bytes(columns[i], shape->rows_max);

        most = bytes > most ? bytes : most;
    }
    return most;
}

/* Sets every buffer of `out`; returns the bytes of all. */
static uint64_t lay_out(char *base, const struct forward_shape *shape, struct forward *out)
{
    struct carver carver = {base, 0};
    uint64_t common, most;

    out->rope_positions = rope_table_positions(shape);
    out->normed = carve_floats(&carver, shape->rows_max, shape->arch->hidden);
    out->rope_frequencies = carve(&carver, shape->arch->qk_rope_dim / 2, sizeof(double));
    out->rope_table = carve_floats(&carver, out->rope_positions, shape->arch->qk_rope_dim);
    out->codes_bytes = codes_bytes_max(shape);
    out->codes = carve(&carver, out->codes_bytes, 1);
    common = carver.used;
    attention_lay_out(&carver, shape, &out->attention);
    most = carver.used;
    carver.used = common;
    mlp_lay_out(&carver, shape, &out->mlp);
    most = carver.used > most ? carver.used : most;
    carver.used = common;
    draft_lay_out(&carver, shape, &out->draft);
    most = carver.used > most ? carver.used : most;
    carver.used = common;
    router_lay_out(&carver, shape, &out->router);
    most = carver.used > most ? carver.used : most;
    carver.used = common;
    experts_lay_out(&carver, shape, &out->experts);
    return carver.used > most ? carver.used : most;
}

uint64_t forward_bytes(const struct arch *arch, uint32_t rows_max, uint32_t expert_rows_max,
                       uint32_t context_tokens_max, uint32_t thread_count)
{
    struct forward_shape shape = {arch, rows_max, expert_rows_max, context_tokens_max,
                                  thread_count};
    struct forward measured;

    return sizeof(struct forward) + lay_out(NULL, &shape, &measured);
}

static void rope_table_tile(void *context, size_t tile, uint32_t thread)
{
    const struct forward *forward = context;
    uint32_t dim = forward->config.arch->qk_rope_dim;
    uint32_t begin = (uint32_t)tile * ROPE_TILE_POSITIONS;

    (void)thread;
    for (uint32_t p = begin; p < begin + ROPE_TILE_POSITIONS && p < forward->rope_positions; p++) {
        rope_table_row(forward->rope_frequencies, forward->rope_multiplier, dim, p,
                       forward->rope_table + (size_t)p * dim);
    }
}

struct forward *forward_create(const struct forward_config *config, struct error *err)
{
    const struct kv_config *kv = kv_cache_config(config->cache);
    struct forward_shape shape = {
        .arch = config->arch,
        .rows_max = config->rows_max,
        .expert_rows_max = config->expert_rows_max,
        .context_tokens_max = kv->blocks_per_slot_max * KV_BLOCK_TOKENS,
        .thread_count = team_thread_count(config->team),
    };
    struct forward *forward = mem_new(struct forward);

    ASSERT(config->rows_max > 0 &&
           kv->layout.block_bytes == kv_layout_of(config->arch, kv->layout.type).block_bytes);
    ASSERT(kv->layer_begin <= config->weights->layer_begin &&
           kv->layer_end >= config->weights->layer_end);
    forward->config = *config;
    forward->thread_count = shape.thread_count;
    forward->memory_bytes = lay_out(NULL, &shape, forward);
    forward->memory = mem_map_pages(forward->memory_bytes, err);
    if (forward->memory == NULL) {
        error_wrap(err, "buffers of a step of %u rows", config->rows_max);
        forward_destroy(forward);
        return NULL;
    }
    lay_out(forward->memory, &shape, forward);
    rope_frequencies(&config->arch->rope, config->arch->qk_rope_dim, forward->rope_frequencies,
                     &forward->rope_multiplier);
    team_run(config->team, rope_table_tile, forward,
             (forward->rope_positions + ROPE_TILE_POSITIONS - 1) / ROPE_TILE_POSITIONS);
    return forward;
}

void forward_destroy(struct forward *forward)
{
    if (forward == NULL) {
        return;
    }
    mem_unmap_pages(forward->memory, forward->memory_bytes);
    mem_free(forward);
}

void embedding_read(const struct forward *forward, uint32_t token, float *out)
{
    const struct weights *weights = forward->config.weights;
    uint32_t hidden = forward->config.arch->hidden;
    size_t row_bytes = weight_row_bytes(weights->embedding_type, hidden);

    weight_values_widen(out, weights->embedding_type,
                        (const char *)weights->embedding + token * row_bytes, hidden);
}

struct embed_work {
    const struct forward *forward;
    const struct forward_row *rows;
    float *x;
};

static void embed_row(void *context, size_t row, uint32_t thread)
{
    const struct embed_work *work = context;

    (void)thread;
    embedding_read(work->forward, work->rows[row].token,
                   work->x + row * work->forward->config.arch->hidden);
}

void forward_embed(struct forward *forward, const struct forward_row *rows, uint32_t row_count,
                   float *x)
{
    struct embed_work work = {forward, rows, x};

    ASSERT(forward->config.weights->embedding != NULL);
    for (uint32_t r = 0; r < row_count; r++) {
        ASSERT(rows[r].token < forward->config.arch->vocab);
    }
    rows_run(forward, embed_row, &work, row_count);
}

struct final_work {
    const struct forward *forward;
    const float *norm;
    const float *x;
    const uint32_t *row_indexes;
};

static void final_norm_row(void *context, size_t row, uint32_t thread)
{
    const struct final_work *work = context;
    const struct forward_config *config = &work->forward->config;
    size_t hidden = config->arch->hidden;

    (void)thread;
    config->kernels->rms_norm(work->x + work->row_indexes[row] * hidden, work->norm,
                              config->arch->hidden, config->arch->norm_eps,
                              work->forward->normed + row * hidden);
}

static void head_run(struct forward *forward, struct final_work *work, uint32_t count, float *out)
{
    const struct arch *arch = forward->config.arch;
    struct product head = {.w = &forward->config.weights->head,
                           .x = {forward->normed, arch->hidden},
                           .out = {out, arch->vocab}};

    ASSERT(count <= forward->config.rows_max);
    if (count == 0) {
        return;
    }
    rows_run(forward, final_norm_row, work, count);
    product_run(forward, &head, 1, count);
}

void forward_logits(struct forward *forward, const float *x, const uint32_t *row_indexes,
                    uint32_t count, float *out)
{
    struct final_work work = {forward, forward->config.weights->final_norm, x, row_indexes};

    head_run(forward, &work, count, out);
}

void forward_draft_logits(struct forward *forward, const float *x, const uint32_t *row_indexes,
                          uint32_t count, float *out)
{
    struct final_work work = {forward, forward->config.weights->draft.final_norm, x, row_indexes};

    ASSERT(work.norm != NULL);
    head_run(forward, &work, count, out);
}
