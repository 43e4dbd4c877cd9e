/* attention.c - attention over the paged cache, as both kinds of it share it.
 *
 * The heads are cut into groups that read the same keys: all heads of latent attention, those of
 * one key head of grouped attention. Where queries, cache entries and values come from is in
 * attention_latent.c and attention_grouped.c.
 *
 * A row's keys are cut at absolute multiples of ATTENTION_SPLIT_TOKENS, whatever the number of
 * threads: every split has its own softmax state, and the states are joined in rising order. A
 * row's state starts as split 0; later splits wait beside it, as many as there is room for, and are
 * then joined. Inside a split, blocks of 64 keys follow in order. Neighbouring rows of a sequence
 * and the heads of a group go through a block together: that is where prompts gain most.
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
        };
    }
    return (struct attend_shape){
        .group_count = 1,
        .group_heads = arch->head_count,
        .key_width = arch->kv_lora_rank + arch->qk_rope_dim,
        .value_width = arch->kv_lora_rank,
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

/* The tiles of an item: each group's heads, heads_per_tile at a time. */
static uint32_t tiles_per_group(const struct attention_work *work)
{
    return (work->shape.group_heads + work->heads_per_tile - 1) / work->heads_per_tile;
}

/* An item's rows with some heads of one group. */
struct attend_tile {
    const struct attend_item *item;
    uint32_t group;
    uint32_t head; /* the first, of all heads */
    uint32_t head_count;
    size_t query_count; /* rows times heads */
};

static struct attend_tile attend_tile_of(const struct attention_work *work, size_t tile)
{
    const struct attend_shape *shape = &work->shape;
    uint32_t per_group = tiles_per_group(work);
    uint32_t in_group = (uint32_t)(tile % per_group) * work->heads_per_tile;
    uint32_t group = (uint32_t)(tile / per_group % shape->group_count);
    struct attend_tile at = {
        .item = &work->forward->attention.items[tile / ((size_t)per_group * shape->group_count)],
        .group = group,
        .head = group * shape->group_heads + in_group,
        .head_count = min_u32(work->heads_per_tile, shape->group_heads - in_group),
    };

    at.query_count = (size_t)at.item->row_count * at.head_count;
    return at;
}

/* Queries and fresh states, side by side in the thread's scratch. */
static void tile_begin(const struct attention_work *work, const struct attend_tile *at,
                       uint32_t thread, struct attend_block_args *args)
{
    const struct attention_buffers *buffers = &work->forward->attention;
    size_t key_width = work->shape.key_width;
    size_t row_values = work->forward->config.arch->head_count * key_width;
    const float *from = work->query + at->item->row * row_values + at->head * key_width;
    float *query;

    args->scratch = buffers->scratch + thread * buffers->scratch_values;
    query = args->scratch + buffers->kernel_values;
    args->query = query;
    args->acc = query + at->query_count * key_width;
    args->max = args->acc + at->query_count * work->shape.value_width;
    args->sum = args->max + at->query_count;
    for (uint32_t r = 0; r < at->item->row_count; r++) {
        memcpy(query + r * at->head_count * key_width, from + r * row_values,
               at->head_count * key_width * sizeof(float));
    }
    for (size_t i = 0; i < at->query_count; i++) {
        args->max[i] = -INFINITY;
        args->sum[i] = 0.0f;
    }
    memset(args->acc, 0, at->query_count * work->shape.value_width * sizeof(float));
    if (work->forward->config.arch->attention == ATTENTION_MLA) {
        float *turned = args->sum + at->query_count;

        work->forward->config.kernels->attend_turn(query, at->query_count, key_width, turned);
        args->query = turned;
    }
}

/* The states go where joins and values look for them. */
static void tile_end(const struct attention_work *work, const struct attend_tile *at,
                     const struct attend_block_args *args)
{
    const struct attend_states *states = &work->forward->attention.states;
    size_t width = work->shape.value_width;

    for (uint32_t r = 0; r < at->item->row_count; r++) {
        size_t from = (size_t)r * at->head_count;
        size_t to =
            (size_t)(at->item->state + r) * work->forward->config.arch->head_count + at->head;

        memcpy(states->max + to, args->max + from, at->head_count * sizeof(float));
        memcpy(states->sum + to, args->sum + from, at->head_count * sizeof(float));
        memcpy(states->acc + to * width, args->acc + from * width,
               at->head_count * width * sizeof(float));
    }
}

/* Where the group's keys and values are in the block that begins at position `key`. */
static void block_find(const struct attention_work *work, const struct attend_tile *at,
                       uint32_t key, struct attend_block_args *args)
{
    const struct kv_cache *cache = work->forward->config.cache;
    const struct kv_layout *layout = &kv_cache_config(cache)->layout;
    const struct forward_row *row = &work->rows[work->row_begin + at->item->row];
    const char *block = kv_cache_block(cache, work->layer, row->lane, row->slot, key);
    size_t head_bytes = (size_t)KV_BLOCK_TOKENS * kv_type_bytes(layout->type);

    args->keys = block + at->group * layout->key_width * head_bytes;
    if (!layout->latent) {
        args->values = block + layout->value_begin + at->group * layout->value_width * head_bytes;
    }
    if (layout->scale_count > 0) {
        const float *scales = (const void *)(block + layout->scale_begin);

        args->key_scales = scales + (size_t)at->group * KV_BLOCK_TOKENS;
        args->value_scales = scales + (size_t)(layout->head_count + at->group) * KV_BLOCK_TOKENS;
    }
}

/* The last key of the split that any row sees, plus one. */
static uint32_t split_end(const struct attention_work *work, const struct attend_item *item)
{
    uint32_t last = work->rows[work->row_begin + item->row + item->row_count - 1].position;
    uint32_t begin = item->split * ATTENTION_SPLIT_TOKENS;

    return begin + min_u32(ATTENTION_SPLIT_TOKENS, last + 1 - begin);
}

static void attend_run(void *context, size_t tile, uint32_t thread)
{
    const struct attention_work *work = context;
    struct attend_tile at = attend_tile_of(work, tile);
    const struct forward_row *rows = &work->rows[work->row_begin + at.item->row];
    uint32_t token_counts[ATTEND_QUERIES];
    uint32_t end = split_end(work, at.item);
    struct attend_block_args args = {
        .row_count = at.item->row_count,
        .head_count = at.head_count,
        .token_counts = token_counts,
        .key_width = work->shape.key_width,
        .value_width = work->shape.value_width,
        .scale = work->softmax_scale,
        .type = kv_cache_config(work->forward->config.cache)->layout.type,
    };

    tile_begin(work, &at, thread, &args);
    for (uint32_t key = at.item->split * ATTENTION_SPLIT_TOKENS; key < end;
         key += KV_BLOCK_TOKENS) {
        for (uint32_t r = 0; r < at.item->row_count; r++) {
            uint32_t seen = rows[r].position + 1;

            token_counts[r] = seen > key ? min_u32(KV_BLOCK_TOKENS, seen - key) : 0;
        }
        block_find(work, &at, key, &args);
        work->forward->config.kernels->attend_block(&args);
    }
    tile_end(work, &at, &args);
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

        for (uint32_t r = 0; item->split > 0 && r < item->row_count; r++) {
            size_t a = (size_t)(item->row + r) * arch->head_count + head;
            size_t b = (size_t)(item->state + r) * arch->head_count + head;

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
    uint32_t heads = min_u32(ATTEND_QUERIES, group_heads);
    size_t groups = (size_t)work->item_count * work->shape.group_count;

    while (heads > 1 && groups * (group_heads / heads) < 2 * work->forward->thread_count) {
        heads = (heads + 1) / 2;
    }
    return heads;
}

static void items_attend(struct attention_work *work)
{
    struct forward *forward = work->forward;

    work->heads_per_tile = heads_per_tile(work);
    team_run(forward->config.team, attend_run, work,
             (size_t)work->item_count * work->shape.group_count * tiles_per_group(work));
    if (work->pair_count > 0) {
        team_run(forward->config.team, join_tile, work, forward->config.arch->head_count);
    }
    work->item_count = 0;
    work->pair_count = 0;
}

/* As many rows as share a block's keys well, but enough tiles for the team. */
static uint32_t rows_per_item(const struct attention_work *work)
{
    const struct attend_shape *shape = &work->shape;
    uint32_t heads = min_u32(ATTEND_QUERIES, shape->group_heads);
    size_t tiles_of_item = (size_t)shape->group_count * ((shape->group_heads + heads - 1) / heads);
    uint32_t last = work->rows[work->row_begin + work->row_count - 1].position;
    uint32_t rows = ATTEND_QUERIES / heads;

    while (rows > 1) {
        size_t items = (size_t)(work->row_count + rows - 1) / rows;

        items *= last / ATTENTION_SPLIT_TOKENS + 1;
        items = items < ATTEND_PAIRS / rows ? items : ATTEND_PAIRS / rows;
        if (items * tiles_of_item >= 2 * work->forward->thread_count) {
            break;
        }
        rows /= 2;
    }
    return rows;
}

/* How many rows from `row` on, at most `most`, are of its sequence. */
static uint32_t run_length(const struct attention_work *work, uint32_t row, uint32_t most)
{
    const struct forward_row *first = &work->rows[work->row_begin + row];
    uint32_t count = 1;

    most = min_u32(most, work->row_count - row);
    while (count < most && first[count].lane == first->lane && first[count].slot == first->slot) {
        DEBUG_ASSERT(first[count].position > first[count - 1].position);
        count++;
    }
    return count;
}

/* One split of the rows [row, row + count) that reach it; attends first if there is no room. */
static void split_add(struct attention_work *work, uint32_t row, uint32_t count, uint32_t split)
{
    struct attend_item *items = work->forward->attention.items;

    while (work->rows[work->row_begin + row].position / ATTENTION_SPLIT_TOKENS < split) {
        row++;
        count--;
    }
    if (split > 0 && work->pair_count + count > ATTEND_PAIRS) {
        items_attend(work);
    }
    items[work->item_count] = (struct attend_item){
        .row = row,
        .row_count = count,
        .split = split,
        .state = split == 0 ? row : ATTEND_ROWS + work->pair_count,
    };
    work->item_count++;
    work->pair_count += split == 0 ? 0 : count;
}

/* All rows of the chunk in order, their splits rising, in batches. */
static void chunk_attend(struct attention_work *work)
{
    uint32_t rows_max = rows_per_item(work);
    uint32_t count;

    for (uint32_t row = 0; row < work->row_count; row += count) {
        uint32_t last;

        count = run_length(work, row, rows_max);
        last = work->rows[work->row_begin + row + count - 1].position;
        for (uint32_t split = 0; split <= last / ATTENTION_SPLIT_TOKENS; split++) {
            split_add(work, row, count, split);
        }
    }
    items_attend(work);
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
    forward_lap(forward, layer, OPERATION_ATTENTION_NORM, row_count);
    form->project(&work, row_count);
    for (uint32_t begin = 0; begin < row_count; begin += ATTEND_ROWS) {
        work.row_begin = begin;
        work.row_count = min_u32(ATTEND_ROWS, row_count - begin);
        form->queries(&work);
        chunk_attend(&work);
        attention_count(forward, rows + begin, work.row_count);
        forward_lap(forward, layer, OPERATION_ATTENTION, work.row_count);
        form->values(&work);
        forward_lap(forward, layer, OPERATION_ATTENTION_VALUES, work.row_count);
    }
    product_run(forward, &out, 1, row_count);
    if ((arch->attention_bias & BIAS_OUT) != 0) {
        rows_run(forward, bias_row, &work, row_count);
    }
    rows_add(forward, x, buffers->out, row_count);
    forward_lap(forward, layer, OPERATION_ATTENTION_OUTPUT, row_count);
}
