/* product.c - matrix products and row-wise work, spread over the team.
 *
 * A tile is a block of rows times a few panels of outputs. With few rows there are many tiles of
 * panels, each read from memory once; with many, the row blocks of the same panels follow one
 * another, so that the panels are still in a cache. How tiles are cut never shows in the result:
 * an output is one chain over k whatever its neighbours.
 */
#include "worker/layers/forward_state.h"

#define PRODUCTS_MAX     3
#define PRODUCT_ROWS     48 /* the kernels' own tile: more would read the panels again */
#define CODED_ROWS       64 /* the same of int8 kernels */
#define CODE_TILE_ROWS   4
#define CODES_INLINE     16384 /* values that become codes sooner than the team wakes up */
#define PRODUCT_PANELS   16
#define KERNEL_PANELS    4
#define TILES_PER_THREAD 8 /* so that threads finish together */
#define ROWS_INLINE      2 /* waking the team costs more than this many rows */

const struct layer_weights *forward_layer(const struct forward *forward, uint32_t layer)
{
    const struct weights *weights = forward->config.weights;

    ASSERT(layer >= weights->layer_begin && layer < weights->layer_end);
    return &weights->layers[layer - weights->layer_begin];
}

struct codes_work {
    const struct kernels *kernels;
    enum weight_type type;
    uint32_t columns;
    struct rows_view x;
    uint32_t row_count;
    struct int8_rows out;
};

static void codes_tile(void *context, size_t tile, uint32_t thread)
{
    const struct codes_work *work = context;
    const size_t row = tile * CODE_TILE_ROWS;
    const size_t left = work->row_count - row;

    (void)thread;
    work->kernels->code_rows(
        work->type, work->columns,
        (struct rows_view){work->x.values + row * work->x.stride, work->x.stride},
        (uint32_t)(left < CODE_TILE_ROWS ? left : CODE_TILE_ROWS),
        (struct int8_rows){work->out.chunks, work->out.stride, work->out.row + row});
}

void codes_run(struct forward *forward, enum weight_type type, uint32_t columns, struct rows_view x,
               uint32_t row_count, struct int8_rows out)
{
    const struct kernels *kernels = forward->config.kernels;
    struct codes_work work = {kernels, type, columns, x, row_count, out};

    if ((size_t)row_count * columns <= CODES_INLINE) {
        kernels->code_rows(type, columns, x, row_count, out);
        return;
    }
    team_run(forward->config.team, codes_tile, &work,
             (row_count + CODE_TILE_ROWS - 1) / CODE_TILE_ROWS);
}

bool product_is_coded(const struct forward *forward, const struct packed_matrix *w,
                      const struct packed_matrix *up)
{
    return forward->config.kernels->code_rows != NULL && weight_type_is_blocks(w->type) &&
           (up == NULL || weight_type_block_values(up->type) == weight_type_block_values(w->type));
}

struct product_work {
    const struct kernels *kernels;
    const struct product *products;
    uint32_t product_count;
    struct int8_rows codes[PRODUCTS_MAX]; /* chunks NULL: the product reads floats */
    uint32_t row_count;
    uint32_t rows_per_tile;
    uint32_t row_blocks;
    uint32_t panels_per_tile;
    size_t tile_begin[PRODUCTS_MAX + 1];
};

static void product_tile(void *context, size_t tile, uint32_t thread)
{
    const struct product_work *work = context;
    const struct product *product = work->products;
    struct int8_rows codes;
    uint32_t panel_count, panel, panel_end, row, rows;
    struct rows_view x;
    struct rows_out out;

    (void)thread;
    for (uint32_t i = 0; tile >= work->tile_begin[i + 1]; i++) {
        product++;
    }
    tile -= work->tile_begin[product - work->products];
    panel_count = packed_panel_count(product->w->rows);
    panel = (uint32_t)(tile / work->row_blocks) * work->panels_per_tile;
    panel_end =
        panel + work->panels_per_tile < panel_count ? panel + work->panels_per_tile : panel_count;
    row = (uint32_t)(tile % work->row_blocks) * work->rows_per_tile;
    rows =
        work->row_count - row < work->rows_per_tile ? work->row_count - row : work->rows_per_tile;
    codes = work->codes[product - work->products];
    codes.row = row;
    x = (struct rows_view){product->x.values + row * product->x.stride, product->x.stride};
    out = (struct rows_out){product->out.values + row * product->out.stride, product->out.stride};
    if (codes.chunks != NULL) {
        work->kernels->matmul_codes(product->w, product->up, panel, panel_end, codes, rows, out);
    } else if (product->up != NULL) {
        work->kernels->matmul_gate_up(product->w, product->up, panel, panel_end, x, rows, out);
    } else if (product->activations == PRODUCT_F32) {
        work->kernels->matmul_exact(product->w, panel, panel_end, x, rows, out);
    } else {
        work->kernels->matmul(product->w, panel, panel_end, x, rows, out);
    }
}

/* Whole multiples of the panels that a kernel takes at a time. */
uint32_t panels_rounded(size_t panels, uint32_t panels_max)
{
    if (panels >= panels_max) {
        return panels_max;
    }
    if (panels >= KERNEL_PANELS) {
        return (uint32_t)(panels / KERNEL_PANELS) * KERNEL_PANELS;
    }
    return panels > 1 ? (uint32_t)panels : 1;
}

static uint32_t panels_per_tile(const struct product_work *work, uint32_t thread_count)
{
    size_t panels = 0, per_tile;

    for (uint32_t i = 0; i < work->product_count; i++) {
        panels += packed_panel_count(work->products[i].w->rows);
    }
    per_tile = panels * work->row_blocks / ((size_t)thread_count * TILES_PER_THREAD);
    return panels_rounded(per_tile, PRODUCT_PANELS);
}

static bool codes_are_shared(const struct product *a, const struct product *b)
{
    return a->x.values == b->x.values && a->x.stride == b->x.stride &&
           a->w->columns == b->w->columns &&
           weight_type_block_values(a->w->type) == weight_type_block_values(b->w->type);
}

/* Makes the codes of every product that reads such, once for those that share them. */
static void products_code(struct forward *forward, struct product_work *work)
{
    uint64_t used = 0;

    work->rows_per_tile = CODED_ROWS;
    for (uint32_t i = 0; i < work->product_count; i++) {
        const struct product *product = &work->products[i];
        struct int8_rows *codes = &work->codes[i];

        if (product->activations == PRODUCT_F32 ||
            !product_is_coded(forward, product->w, product->up)) {
            work->rows_per_tile = PRODUCT_ROWS;
            continue;
        }
        for (uint32_t j = 0; j < i && codes->chunks == NULL; j++) {
            if (work->codes[j].chunks != NULL && codes_are_shared(&work->products[j], product)) {
                *codes = work->codes[j];
            }
        }
        if (codes->chunks == NULL) {
            codes->chunks = (struct int8_chunk *)(void *)(forward->codes + used);
            codes->stride = work->row_count;
            used += int8_rows_bytes(product->w->columns, work->row_count);
            ASSERT(used <= forward->codes_bytes);
            codes_run(forward, product->w->type, product->w->columns, product->x, work->row_count,
                      *codes);
        }
    }
}

void product_run(struct forward *forward, const struct product *products, uint32_t product_count,
                 uint32_t row_count)
{
    struct product_work work = {
        .kernels = forward->config.kernels,
        .products = products,
        .product_count = product_count,
        .row_count = row_count,
    };

    ASSERT(product_count <= PRODUCTS_MAX);
    products_code(forward, &work);
    work.row_blocks = (row_count + work.rows_per_tile - 1) / work.rows_per_tile;
    work.panels_per_tile = panels_per_tile(&work, forward->thread_count);
    for (uint32_t i = 0; i < product_count; i++) {
        uint32_t panels = packed_panel_count(products[i].w->rows);
        size_t chunks = (panels + work.panels_per_tile - 1) / work.panels_per_tile;

        ASSERT(products[i].w->data != NULL);
        work.tile_begin[i + 1] = work.tile_begin[i] + chunks * work.row_blocks;
    }
    team_run(forward->config.team, product_tile, &work, work.tile_begin[product_count]);
}

void rows_run(struct forward *forward, team_fn fn, void *context, uint32_t row_count)
{
    if (row_count > ROWS_INLINE) {
        team_run(forward->config.team, fn, context, row_count);
        return;
    }
    for (uint32_t r = 0; r < row_count; r++) {
        fn(context, r, 0);
    }
}

struct rows_work {
    struct forward *forward;
    const float *x;
    const float *weight;
    float *out;
};

static void norm_row(void *context, size_t row, uint32_t thread)
{
    const struct rows_work *work = context;
    const struct arch *arch = work->forward->config.arch;
    size_t begin = row * arch->hidden;

    (void)thread;
    work->forward->config.kernels->rms_norm(work->x + begin, work->weight, arch->hidden,
                                            arch->norm_eps, work->out + begin);
}

void rows_norm(struct forward *forward, const float *x, const float *weight, uint32_t row_count,
               float *out)
{
    struct rows_work work = {forward, x, weight, out};

    rows_run(forward, norm_row, &work, row_count);
}

static void add_row(void *context, size_t row, uint32_t thread)
{
    const struct rows_work *work = context;
    uint32_t hidden = work->forward->config.arch->hidden;

    (void)thread;
    work->forward->config.kernels->add(work->out + row * hidden, work->x + row * hidden, hidden);
}

void rows_add(struct forward *forward, float *x, const float *y, uint32_t row_count)
{
    struct rows_work work = {forward, y, NULL, x};

    rows_run(forward, add_row, &work, row_count);
}
