/* attention.c - attention over the paged cache, as both kinds of it share it.
 *
 * The heads are cut into groups that read the same keys: all heads of latent attention, those of
 * one key head of grouped attention. Where queries, cache entries and values come from is in
 * attention_latent.c and attention_grouped.c.
 *
 * A row's keys are cut at absolute multiples of ATTENTION_SPLIT_TOKENS, whatever the number of
 * threads: every split has its own softmax state, and the states are joined in rising order. Where
 * there are rows enough for the team, a tile goes through all splits of its rows and joins them as
 * it goes. Otherwise the team shares the splits: a row's state starts as split 0, later splits wait
 * beside it, as many as there is room for, and are then joined. Inside a split, blocks of 64 keys
 * follow in order. Neighbouring rows of a sequence and the heads of a group go through a block
 * together: that is where prompts gain most.
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

static void states_clear(struct attend_block_args *args, size_t query_count)
{
    for (size_t i = 0; i < query_count; i++) {
        args->max[i] = -INFINITY;
        args->sum[i] = 0.0f;
    }
    memset(args->acc, 0, query_count * args->value_width * sizeof(float));
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
    states_clear(args, at->query_count);
    if (work->forward->config.arch->attention == ATTENTION_MLA) {
        float *turned = args->sum + at->query_count * (work->shape.value_width + 3);

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

/* How many keys a row meets here: its own segment is the form's, if it has one for prompts. Inside
 * a sequence it never falls from row to row. */
static uint32_t keys_seen(const struct attention_work *work, const struct forward_row *row)
{
    if (work->form->segments != NULL && row->token_class == TOKEN_PROMPT) {
        return row->position / ATTENTION_SEGMENT_TOKENS * ATTENTION_SEGMENT_TOKENS;
    }
    return row->position + 1;
}

/* Of a row of the chunk. */
static uint32_t chunk_keys_seen(const struct attention_work *work, uint32_t row)
{
    return keys_seen(work, &work->rows[work->row_begin + row]);
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
    const char *next = NULL;

    if (key + KV_BLOCK_TOKENS < chunk_keys_seen(work, at->item->row + at->item->row_count - 1)) {
        next = kv_cache_block(cache, work->layer, row->lane, row->slot, key + KV_BLOCK_TOKENS);
        next += at->group * layout->key_width * head_bytes;
    }
    args->next_keys = next;
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

/* The split's blocks, as far as any row sees them, in the given state. */
static void split_attend(const struct attention_work *work, const struct attend_tile *at,
                         uint32_t split, const struct attend_block_args *state)
{
    uint32_t token_counts[ATTEND_QUERIES];
    struct attend_block_args args = *state;
    uint32_t last_seen = chunk_keys_seen(work, at->item->row + at->item->row_count - 1);
    uint32_t begin = split * ATTENTION_SPLIT_TOKENS;
    uint32_t end = begin + min_u32(ATTENTION_SPLIT_TOKENS, last_seen - begin);

    args.token_counts = token_counts;
    for (uint32_t key = begin; key < end; key += KV_BLOCK_TOKENS) {
        for (uint32_t r = 0; r < at->item->row_count; r++) {
            uint32_t seen = chunk_keys_seen(work, at->item->row + r);

            token_counts[r] = seen > key ? min_u32(KV_BLOCK_TOKENS, seen - key) : 0;
        }
        block_find(work, at, key, &args);
        work->forward->config.kernels->attend_block(&args);
    }
}

/* The split's state behind the tile's, for the rows that reach it. */
static void split_join(const struct attention_work *work, const struct attend_tile *at,
                       uint32_t split, const struct attend_block_args *tile,
                       const struct attend_block_args *part)
{
    size_t width = work->shape.value_width;

    for (size_t query = 0; query < at->query_count; query++) {
        uint32_t row = at->item->row + (uint32_t)(query / at->head_count);

        if (chunk_keys_seen(work, row) > split * ATTENTION_SPLIT_TOKENS) {
            work->forward->config.kernels->attend_join(
                &tile->max[query], &tile->sum[query], tile->acc + query * width, part->max[query],
                part->sum[query], part->acc + query * width, (uint32_t)width);
        }
    }
}

static void attend_run(void *context, size_t tile, uint32_t thread)
{
    const struct attention_work *work = context;
    struct attend_tile at = attend_tile_of(work, tile);
    struct attend_block_args args = {
        .row_count = at.item->row_count,
        .head_count = at.head_count,
        .key_width = work->shape.key_width,
        .value_width = work->shape.value_width,
        .scale = work->softmax_scale,
        .type = kv_cache_config(work->forward->config.cache)->layout.type,
    };
    struct attend_block_args part;

    tile_begin(work, &at, thread, &args);
    split_attend(work, &at, at.item->split_begin, &args);
    part = args;
    part.acc = args.sum + at.query_count;
    part.max = part.acc + at.query_count * args.value_width;
    part.sum = part.max + at.query_count;
    for (uint32_t split = at.item->split_begin + 1; split < at.item->split_end; split++) {
        states_clear(&part, at.query_count);
        split_attend(work, &at, split, &part);
        split_join(work, &at, split, &args, &part);
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

        for (uint32_t r = 0; item->split_begin > 0 && r < item->row_count; r++) {
            size_t a = (size_t)(item->row + r) * arch->head_count + head;
            size_t b = (size_t)(item->state + r) * arch->head_count + head;

            forward->config.kernels->attend_join(&states->max[a], &states->sum[a],
                                                 states->acc + a * width, states->max[b],
                                                 states->sum[b], states->acc + b * width, width);
        }
    }
}

/* As many heads as share a block's keys well, but enough tiles for the team. A kernel of latent
 * attention takes as long for one query as for sixteen. */
static uint32_t heads_per_tile(const struct attention_work *work)
{
    uint32_t group_heads = work->shape.group_heads;
    uint32_t heads = min_u32(ATTEND_QUERIES, group_heads);
    uint32_t least = work->forward->config.arch->attention == ATTENTION_MLA ? PANEL_ROWS : 1;
    size_t groups = (size_t)work->item_count * work->shape.group_count;

    while (heads > least && groups * (group_heads / heads) < 2 * work->forward->thread_count) {
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

/* Tiles of `rows` rows of the chunk, its splits apart. */
static size_t row_tiles(const struct attention_work *work, uint32_t rows)
{
    const struct attend_shape *shape = &work->shape;
    uint32_t heads = min_u32(ATTEND_QUERIES, shape->group_heads);
    size_t tiles_of_item = (size_t)shape->group_count * ((shape->group_heads + heads - 1) / heads);

    return (work->row_count + rows - 1) / rows * tiles_of_item;
}

/* As many rows as share a block's keys well; fewer if then there are tiles for the team with all
 * splits of a row in one tile. */
static uint32_t rows_per_item(const struct attention_work *work)
{
    uint32_t most = ATTEND_QUERIES / min_u32(ATTEND_QUERIES, work->shape.group_heads);
    uint32_t rows = most;

    while (rows > 1 && row_tiles(work, rows) < 2 * work->forward->thread_count) {
        rows /= 2;
    }
    return row_tiles(work, rows) < 2 * work->forward->thread_count ? most : rows;
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

/* Splits of the rows [row, row + count); attends first if there is no room. */
static void splits_add(struct attention_work *work, uint32_t row, uint32_t count, uint32_t begin,
                       uint32_t end)
{
    struct attend_item *items = work->forward->attention.items;

    if (begin > 0 && work->pair_count + count > ATTEND_PAIRS) {
        items_attend(work);
    }
    items[work->item_count] = (struct attend_item){
        .row = row,
        .row_count = count,
        .split_begin = begin,
        .split_end = end,
        .state = begin == 0 ? row : ATTEND_ROWS + work->pair_count,
    };
    work->item_count++;
    work->pair_count += begin == 0 ? 0 : count;
}

/* Each split of the rows [row, row + count) by itself, with the rows that reach it. */
static void splits_spread(struct attention_work *work, uint32_t row, uint32_t count)
{
    uint32_t seen = chunk_keys_seen(work, row + count - 1);

    for (uint32_t split = 0; split * ATTENTION_SPLIT_TOKENS < seen; split++) {
        while (chunk_keys_seen(work, row) <= split * ATTENTION_SPLIT_TOKENS) {
            row++;
            count--;
        }
        splits_add(work, row, count, split, split + 1);
    }
}

/* All rows of the chunk in order. */
static void chunk_attend(struct attention_work *work)
{
    uint32_t rows_max = rows_per_item(work);
    bool is_spread = row_tiles(work, rows_max) < 2 * work->forward->thread_count;
    uint32_t count;

    for (uint32_t row = 0; row < work->row_count; row += count) {
        count = run_length(work, row, rows_max);
        if (is_spread) {
            splits_spread(work, row, count);
        } else {
            uint32_t seen = chunk_keys_seen(work, row + count - 1);

            splits_add(work, row, count, 0,
                       (seen + ATTENTION_SPLIT_TOKENS - 1) / ATTENTION_SPLIT_TOKENS);
        }
    }
    items_attend(work);
}

/* The next rows that meet keys here, at most ATTEND_ROWS, become the chunk. */
static bool chunk_next(struct attention_work *work, uint32_t row_count)
{
    uint32_t row = work->row_begin + work->row_count;
    uint32_t end;

    while (row < row_count && keys_seen(work, &work->rows[row]) == 0) {
        row++;
    }
    for (end = row; end < row_count && end - row < ATTEND_ROWS; end++) {
        if (keys_seen(work, &work->rows[end]) == 0) {
            break;
        }
    }
    work->row_begin = row;
    work->row_count = end - row;
    return work->row_count > 0;
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
        .form = form,
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
    while (chunk_next(&work, row_count)) {
        form->queries(&work);
        chunk_attend(&work);
        form->values(&work);
    }
    if (form->segments != NULL) {
        form->segments(&work, row_count);
    }
    product_run(forward, &out, 1, row_count);
    if ((arch->attention_bias & BIAS_OUT) != 0) {
        rows_run(forward, bias_row, &work, row_count);
    }
    rows_add(forward, x, buffers->out, row_count);
}
