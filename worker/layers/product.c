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

struct product_work {
    const struct kernels *kernels;
    const struct product *products;
    uint32_t product_count;
    uint32_t row_count;
    uint32_t row_blocks;
    uint32_t panels_per_tile;
    size_t tile_begin[PRODUCTS_MAX + 1];
};

static void product_tile(void *context, size_t tile, uint32_t thread)
{
    const struct product_work *work = context;
    const struct product *product = work->products;
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
    row = (uint32_t)(tile % work->row_blocks) * PRODUCT_ROWS;
    rows = work->row_count - row < PRODUCT_ROWS ? work->row_count - row : PRODUCT_ROWS;
    x = (struct rows_view){product->x.values + row * product->x.stride, product->x.stride};
    out = (struct rows_out){product->out.values + row * product->out.stride, product->out.stride};
    if (product->up != NULL) {
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

void product_run(struct forward *forward, const struct product *products, uint32_t product_count,
                 uint32_t row_count)
{
    struct product_work work = {
        .kernels = forward->config.kernels,
        .products = products,
        .product_count = product_count,
        .row_count = row_count,
        .row_blocks = (row_count + PRODUCT_ROWS - 1) / PRODUCT_ROWS,
    };

    ASSERT(product_count <= PRODUCTS_MAX);
    work.panels_per_tile = panels_per_tile(&work, forward->thread_count);
    for (uint32_t i = 0; i < product_count; i++) {
        uint32_t panels = packed_panel_count(products[i].w->rows);
        size_t chunks = (panels + work.panels_per_tile - 1) / work.panels_per_tile;

        ASSERT(products[i].w->data != NULL);
        work.tile_begin[i + 1] = work.tile_begin[i] + chunks * work.row_blocks;
    }
    team_run(forward->config.team, product_tile, &work, work.tile_begin[product_count]);
    products_count(forward, products, product_count, row_count);
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
