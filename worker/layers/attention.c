/* attention.c - attention over the paged cache, as both kinds of it share it.
 *
 * The heads are cut into groups that read the same keys: all heads of latent attention, those of
 * one key head of grouped attention. Where queries, cache entries and values come from is in
 * attention_latent.c and attention_grouped.c.
 *
 * A row's keys are cut at absolute multiples of ATTENTION_SPLIT_TOKENS, whatever the number of
 * threads: every split has its own softmax state, and the states are joined in rising order. A
 * row's state starts as split 0; later splits of all rows form batches of items, attended at once
 * over (item, heads) and then joined. Inside a split, blocks of 64 keys follow in order.
 */
#include "worker/layers/attention.h"

#include "worker/kernels/rope.h"

#include <math.h>
#include <string.h>

static const struct attention_form *const forms[] = {
    [ATTENTION_MLA] = &attention_latent,
    [ATTENTION_GQA] = &attention_grouped,
};

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

struct attend_shape attend_shape_of(const struct arch *arch)
{
    if (arch->attention == ATTENTION_GQA) {
        return (struct attend_shape){
            .group_count = arch->kv_head_count,
            .group_heads = arch->head_count / arch->kv_head_count,
            .key_width = arch->qk_rope_dim,
            .value_width = arch->v_head_dim,
            .value_offset = arch->kv_head_count * arch->qk_rope_dim,
        };
    }
    return (struct attend_shape){
        .group_count = 1,
        .group_heads = arch->head_count,
        .key_width = arch->kv_lora_rank + arch->qk_rope_dim,
        .value_width = arch->kv_lora_rank,
        .value_offset = 0,
    };
}

void attention_cos_sin(const struct forward *forward, uint32_t position, float *out)
{
    uint32_t dim = forward->config.arch->qk_rope_dim;

    if (position < forward->rope_positions) {
        memcpy(out, forward->rope_table + (size_t)position * dim, dim * sizeof(float));
        return;
    }
    rope_table_row(forward->rope_frequencies, forward->rope_multiplier, dim, position, out);
}

void attention_rotate(const struct forward *forward, float *x, const float *cos_sin)
{
    const struct kernels *kernels = forward->config.kernels;
    uint32_t pair_count = forward->config.arch->qk_rope_dim / 2;

    if (forward->config.arch->rope.style == ROPE_HALVES) {
        kernels->rope_halves(x, cos_sin, pair_count);
    } else {
        kernels->rope(x, cos_sin, pair_count);
    }
}

/* Index of head 0 of an item's state: the row itself holds split 0. */
static size_t item_state(const struct attention_work *work, uint32_t item)
{
    const struct attend_item *at = &work->forward->attention.items[item];
    size_t state = at->split == 0 ? at->row : ATTEND_ROWS + item;

    return state * work->forward->config.arch->head_count;
}

/* The tiles of an item: each group's heads, heads_per_tile at a time. */
static uint32_t tiles_per_group(const struct attention_work *work)
{
    return (work->shape.group_heads + work->heads_per_tile - 1) / work->heads_per_tile;
}

/* Fresh states for the block's heads. */
static void states_clear(const struct attend_block_args *args)
{
    for (uint32_t h = 0; h < args->head_count; h++) {
        args->max[h] = -INFINITY;
        args->sum[h] = 0.0f;
    }
    memset(args->acc, 0, (size_t)args->head_count * args->value_width * sizeof(float));
}

/* One (row, split) and some heads of a group: a fresh state over the split's key blocks. */
static void attend_tile(void *context, size_t tile, uint32_t thread)
{
    const struct attention_work *work = context;
    const struct attend_shape *shape = &work->shape;
    const struct forward_config *config = &work->forward->config;
    const struct kv_config *kv = kv_cache_config(config->cache);
    const struct attention_buffers *buffers = &work->forward->attention;
    uint32_t per_group = tiles_per_group(work);
    uint32_t item = (uint32_t)(tile / ((size_t)per_group * shape->group_count));
    uint32_t group = (uint32_t)(tile / per_group % shape->group_count);
    uint32_t in_group = (uint32_t)(tile % per_group) * work->heads_per_tile;
    uint32_t head = group * shape->group_heads + in_group;
    const struct attend_item *at = &buffers->items[item];
    const struct forward_row *row = &work->rows[work->row_begin + at->row];
    uint32_t begin = at->split * ATTENTION_SPLIT_TOKENS;
    uint32_t end = begin + min_u32(ATTENTION_SPLIT_TOKENS, row->position + 1 - begin);
    size_t value_bytes = kv_type_bytes(kv->type);
    size_t key_at = (size_t)group * shape->key_width * value_bytes;
    size_t value_at = (shape->value_offset + (size_t)group * shape->value_width) * value_bytes;
    size_t state = item_state(work, item) + head;
    struct attend_block_args args = {
        .query =
            work->query + ((size_t)at->row * config->arch->head_count + head) * shape->key_width,
        .head_count = min_u32(work->heads_per_tile, shape->group_heads - in_group),
        .key_width = shape->key_width,
        .value_width = shape->value_width,
        .stride = kv->entry_values,
        .scale = work->softmax_scale,
        .type = kv->type,
        .max = buffers->states.max + state,
        .sum = buffers->states.sum + state,
        .acc = buffers->states.acc + state * shape->value_width,
        .scratch = buffers->scratch + thread * buffers->scratch_values,
    };

    states_clear(&args);
    for (uint32_t key = begin; key < end; key += KV_BLOCK_TOKENS) {
        const char *entries = kv_cache_entry(config->cache, work->layer, row->lane, row->slot, key);

        args.keys = entries + key_at;
        args.values = entries + value_at;
        args.token_count = min_u32(KV_BLOCK_TOKENS, end - key);
        config->kernels->attend_block(&args);
    }
}

/* One head: joins the batch's later splits to their rows, in order. */
static void join_tile(void *context, size_t head, uint32_t thread)
{
    const struct attention_work *work = context;
    const struct forward *forward = work->forward;
    const struct arch *arch = forward->config.arch;
    const struct attend_states *states = &forward->attention.states;
    uint32_t width = work->shape.value_width;

    (void)thread;
    for (uint32_t i = 0; i < work->item_count; i++) {
        const struct attend_item *item = &forward->attention.items[i];
        size_t a = (size_t)item->row * arch->head_count + head;
        size_t b = item_state(work, i) + head;

        if (item->split > 0) {
            forward->config.kernels->attend_join(&states->max[a], &states->sum[a],
                                                 states->acc + a * width, states->max[b],
                                                 states->sum[b], states->acc + b * width, width);
        }
    }
}

/* As many heads as share a block's keys well, but enough tiles for the team. */
static uint32_t heads_per_tile(const struct attention_work *work)
{
    uint32_t group_heads = work->shape.group_heads;
    uint32_t heads = min_u32(ATTEND_HEADS, group_heads);
    size_t groups = (size_t)work->item_count * work->shape.group_count;

    while (heads > 1 && groups * (group_heads / heads) < 2 * work->forward->thread_count) {
        heads = (heads + 1) / 2;
    }
    return heads;
}

static void items_attend(struct attention_work *work)
{
    struct forward *forward = work->forward;
    bool later_splits = false;

    for (uint32_t i = 0; i < work->item_count; i++) {
        later_splits = later_splits || forward->attention.items[i].split > 0;
    }
    work->heads_per_tile = heads_per_tile(work);
    team_run(forward->config.team, attend_tile, work,
             (size_t)work->item_count * work->shape.group_count * tiles_per_group(work));
    if (later_splits) {
        team_run(forward->config.team, join_tile, work, forward->config.arch->head_count);
    }
}

/* All (row, split) pairs of the chunk, rows in order, splits rising, in batches. */
static void chunk_attend(struct attention_work *work)
{
    struct attend_item *items = work->forward->attention.items;
    struct attend_item next = {0, 0};

    while (next.row < work->row_count) {
        work->item_count = 0;
        while (next.row < work->row_count && work->item_count < ATTEND_ITEMS) {
            uint32_t position = work->rows[work->row_begin + next.row].position;

            items[work->item_count++] = next;
            next.split++;
            if (next.split > position / ATTENTION_SPLIT_TOKENS) {
                next = (struct attend_item){next.row + 1, 0};
            }
        }
        items_attend(work);
    }
}

static void bias_row(void *context, size_t row, uint32_t thread)
{
    const struct attention_work *work = context;
    const struct forward *forward = work->forward;
    uint32_t hidden = forward->config.arch->hidden;

    (void)thread;
    forward->config.kernels->add(forward->attention.out + row * hidden, work->weights->out_bias,
                                 hidden);
}

void forward_store(struct forward *forward, uint32_t layer, const struct forward_row *rows,
                   uint32_t row_count, const float *x)
{
    const struct layer_weights *weights = forward_layer(forward, layer);
    struct attention_work work = {
        .forward = forward, .weights = &weights->attention, .rows = rows, .layer = layer};

    ASSERT(row_count <= forward->config.rows_max);
    ASSERT(forward->config.arch->attention == ATTENTION_MLA);
    if (row_count == 0) {
        return;
    }
    rows_norm(forward, x, weights->input_norm, row_count, forward->normed);
    attention_latent_store(&work, row_count);
}

void forward_attention(struct forward *forward, uint32_t layer, const struct forward_row *rows,
                       uint32_t row_count, float *x)
{
    const struct arch *arch = forward->config.arch;
    const struct attention_form *form = forms[arch->attention];
    const struct layer_weights *weights = forward_layer(forward, layer);
    struct attention_buffers *buffers = &forward->attention;
    uint32_t value_count = arch->head_count * arch->v_head_dim;
    struct product out = {.w = &weights->attention.out,
                          .x = {buffers->attended, value_count},
                          .out = {buffers->out, arch->hidden}};
    struct attention_work work = {
        .forward = forward,
        .weights = &weights->attention,
        .rows = rows,
        .layer = layer,
        .softmax_scale = arch_softmax_scale(arch),
        .shape = attend_shape_of(arch),
    };

    ASSERT(row_count <= forward->config.rows_max);
    if (row_count == 0) {
        return;
    }
    rows_norm(forward, x, weights->input_norm, row_count, forward->normed);
    form->project(&work, row_count);
    for (uint32_t begin = 0; begin < row_count; begin += ATTEND_ROWS) {
        work.row_begin = begin;
        work.row_count = min_u32(ATTEND_ROWS, row_count - begin);
        form->queries(&work);
        chunk_attend(&work);
        form->values(&work);
    }
    product_run(forward, &out, 1, row_count);
    if ((arch->attention_bias & BIAS_OUT) != 0) {
        rows_run(forward, bias_row, &work, row_count);
    }
    rows_add(forward, x, buffers->out, row_count);
}
