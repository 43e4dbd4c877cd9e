#ifndef SHOAL_KERNELS_FLOAT_CHAIN_H
#define SHOAL_KERNELS_FLOAT_CHAIN_H

/* The chain of all float products: sum = fma(x[k], w[k], sum) in rising k, lanes across outputs.
 *
 * Written over a lanes header, which the including source chooses. A block of rows × panels keeps
 * its sums in registers; sums begin as what the tile holds and go back there, so a product may be
 * cut along k at will (a float in memory is the same float) without changing a bit.
 */
#include <stddef.h>

#define CHAIN_INLINE static inline __attribute__((always_inline))
/* How far ahead of a chain its weights are asked for where the caller does not say: the hardware
 * prefetchers follow few streams and stop at pages. */
#define CHAIN_AHEAD_BYTES 2048

typedef struct lanes (*lanes_load_fn)(const void *values);

/* How 16 weights of one k are read. Two steps of k make a pair, which may be interleaved. */
struct chain_loads {
    lanes_load_fn even, odd;
    size_t odd_bytes; /* from where `even` reads to where `odd` does */
};

struct chain {
    const char *w;      /* weights of output 0 at k = 0 */
    size_t panel_bytes; /* from one panel of 16 outputs to the next */
    size_t step_bytes;  /* from k to k + 1 on average: half a pair */
    const float *x;     /* [row][k] */
    size_t x_stride;
    size_t k_count;
    float *sums; /* [row][16 * panel], read and written */
    size_t sums_stride;
    const char *ahead; /* what is read next from memory; asked for as the chain goes */
    size_t ahead_panel_bytes;
    size_t ahead_step_bytes;
};

CHAIN_INLINE void chain_load(size_t rows, size_t panels, const struct chain *c,
                             struct lanes (*sum)[CHAIN_PANELS_SINGLE])
{
#pragma GCC unroll 16
    for (size_t row = 0; row < rows; row++) {
#pragma GCC unroll 4
        for (size_t panel = 0; panel < panels; panel++) {
            sum[row][panel] = lanes_load(c->sums + row * c->sums_stride + panel * LANE_COUNT);
        }
    }
}

CHAIN_INLINE void chain_store(size_t rows, size_t panels, const struct chain *c,
                              struct lanes (*sum)[CHAIN_PANELS_SINGLE])
{
#pragma GCC unroll 16
    for (size_t row = 0; row < rows; row++) {
#pragma GCC unroll 4
        for (size_t panel = 0; panel < panels; panel++) {
            lanes_store(c->sums + row * c->sums_stride + panel * LANE_COUNT, sum[row][panel]);
        }
    }
}

CHAIN_INLINE void chain_step(size_t rows, size_t panels, lanes_load_fn load, const struct chain *c,
                             const char *weights, size_t k,
                             struct lanes (*sum)[CHAIN_PANELS_SINGLE])
{
    struct lanes w[CHAIN_PANELS_SINGLE];

#pragma GCC unroll 4
    for (size_t panel = 0; panel < panels; panel++) {
        w[panel] = load(weights + panel * c->panel_bytes);
    }
#pragma GCC unroll 16
    for (size_t row = 0; row < rows; row++) {
        struct lanes x = lanes_set(c->x[row * c->x_stride + k]);
#pragma GCC unroll 4
        for (size_t panel = 0; panel < panels; panel++) {
            sum[row][panel] = lanes_fma(x, w[panel], sum[row][panel]);
        }
    }
}

/* Asks for what pair k / 2 of each panel will read. */
CHAIN_INLINE void chain_ahead(size_t panels, const struct chain *c, size_t k)
{
    const char *at = c->ahead + k * c->ahead_step_bytes;

#pragma GCC unroll 4
    for (size_t panel = 0; panel < panels; panel++) {
        __builtin_prefetch(at + panel * c->ahead_panel_bytes);
        if (2 * c->ahead_step_bytes > 64) {
            __builtin_prefetch(at + panel * c->ahead_panel_bytes + 64);
        }
    }
}

/* rows, panels and loads are constants at each call, so that everything below unrolls. */
CHAIN_INLINE void chain_block(size_t rows, size_t panels, const struct chain_loads *loads,
                              const struct chain *c)
{
    struct lanes sum[CHAIN_ROWS_SINGLE][CHAIN_PANELS_SINGLE];
    const char *weights = c->w;
    size_t k = 0;

    chain_load(rows, panels, c, sum);
    for (; k + 2 <= c->k_count; k += 2) {
        chain_ahead(panels, c, k);
        chain_step(rows, panels, loads->even, c, weights, k, sum);
        chain_step(rows, panels, loads->odd, c, weights + loads->odd_bytes, k + 1, sum);
        weights += 2 * c->step_bytes;
    }
    if (k < c->k_count) {
        chain_step(rows, panels, loads->even, c, weights, k, sum);
    }
    chain_store(rows, panels, c, sum);
}

/* rows is 1 … CHAIN_ROWS at run time; each gets a block of its own. */
CHAIN_INLINE void chain_rows(size_t rows, size_t panels, const struct chain_loads *loads,
                             const struct chain *c)
{
    switch (rows) {
    case 1:
        chain_block(1, panels, loads, c);
        break;
#if CHAIN_ROWS == 6
    case 2:
        chain_block(2, panels, loads, c);
        break;
    case 3:
        chain_block(3, panels, loads, c);
        break;
    case 4:
        chain_block(4, panels, loads, c);
        break;
    case 5:
        chain_block(5, panels, loads, c);
        break;
    case 6:
        chain_block(6, panels, loads, c);
        break;
#endif
    default:
        break;
    }
}

/* rows is CHAIN_ROWS + 1 … CHAIN_ROWS_TALL: fewer panels, so that the sums still fit. */
CHAIN_INLINE void chain_rows_tall(size_t rows, size_t panels, const struct chain_loads *loads,
                                  const struct chain *c)
{
    switch (rows) {
#if CHAIN_ROWS_TALL == 12
    case 7:
        chain_block(7, panels, loads, c);
        break;
    case 8:
        chain_block(8, panels, loads, c);
        break;
    case 9:
        chain_block(9, panels, loads, c);
        break;
    case 10:
        chain_block(10, panels, loads, c);
        break;
    case 11:
        chain_block(11, panels, loads, c);
        break;
    case 12:
        chain_block(12, panels, loads, c);
        break;
#endif
    default: /* a level that has none */
        (void)panels, (void)loads, (void)c;
        break;
    }
}

CHAIN_INLINE void chain_next_panels(struct chain *c, size_t panels)
{
    c->w += panels * c->panel_bytes;
    c->ahead += panels * c->ahead_panel_bytes;
    c->sums += panels * LANE_COUNT;
}

/* One group of at most CHAIN_ROWS rows over any number of panels. */
CHAIN_INLINE void chain_row_group(size_t rows, size_t panel_count, const struct chain_loads *loads,
                                  struct chain c)
{
    size_t panel = 0;

    for (; rows == 1 && panel + CHAIN_PANELS_SINGLE <= panel_count; panel += CHAIN_PANELS_SINGLE) {
        chain_block(1, CHAIN_PANELS_SINGLE, loads, &c);
        chain_next_panels(&c, CHAIN_PANELS_SINGLE);
    }
    for (; CHAIN_PANELS > 1 && panel + CHAIN_PANELS <= panel_count; panel += CHAIN_PANELS) {
        chain_rows(rows, CHAIN_PANELS, loads, &c);
        chain_next_panels(&c, CHAIN_PANELS);
    }
    for (; panel < panel_count; panel++) {
        chain_rows(rows, 1, loads, &c);
        chain_next_panels(&c, 1);
    }
}

/* At most CHAIN_ROWS_TALL rows over any number of panels, each weight read once. */
CHAIN_INLINE void chain_run_once(size_t rows, size_t panel_count, const struct chain_loads *loads,
                                 struct chain c)
{
    if (rows <= CHAIN_ROWS) {
        chain_row_group(rows, panel_count, loads, c);
        return;
    }
    for (; panel_count >= 2; panel_count -= 2) {
        chain_rows_tall(rows, 2, loads, &c);
        chain_next_panels(&c, 2);
    }
    if (panel_count > 0) {
        chain_rows_tall(rows, 1, loads, &c);
    }
}

/* All rows over all panels, in row groups of nearly the same size: a lone row would wait for its
 * own sums. The caller sees to it that x and w of one call fit the cache. */
CHAIN_INLINE void chain_run(size_t row_count, size_t panel_count, const struct chain_loads *loads,
                            struct chain c)
{
    size_t groups = (row_count + CHAIN_ROWS - 1) / CHAIN_ROWS;

    for (; groups > 0; groups--) {
        size_t rows = (row_count + groups - 1) / groups;

        chain_run_once(rows, panel_count, loads, c);
        c.x += rows * c.x_stride;
        c.sums += rows * c.sums_stride;
        row_count -= rows;
    }
}

CHAIN_INLINE struct chain chain_asking_ahead(struct chain c)
{
    c.ahead = c.w + CHAIN_AHEAD_BYTES;
    c.ahead_panel_bytes = c.panel_bytes;
    c.ahead_step_bytes = c.step_bytes;
    return c;
}

/* chain_run over weights that lie plainly, 16 of k beside 16 of k + 1. */
CHAIN_INLINE void chain_product(size_t row_count, size_t panel_count, lanes_load_fn load,
                                struct chain c)
{
    const struct chain_loads loads = {load, load, c.step_bytes};

    chain_run(row_count, panel_count, &loads, chain_asking_ahead(c));
}

/* All rows over one panel: a taller block keeps as many sums going as several panels would. */
CHAIN_INLINE void chain_single_panel(size_t row_count, lanes_load_fn load, struct chain c)
{
    const struct chain_loads loads = {load, load, c.step_bytes};

    c = chain_asking_ahead(c);
    for (; row_count >= CHAIN_ROWS_SINGLE; row_count -= CHAIN_ROWS_SINGLE) {
        chain_block(CHAIN_ROWS_SINGLE, 1, &loads, &c);
        c.x += CHAIN_ROWS_SINGLE * c.x_stride;
        c.sums += CHAIN_ROWS_SINGLE * c.sums_stride;
    }
    for (size_t rows; row_count > 0; row_count -= rows) {
        rows = row_count < CHAIN_ROWS ? row_count : CHAIN_ROWS;
        chain_rows(rows, 1, &loads, &c);
        c.x += rows * c.x_stride;
        c.sums += rows * c.sums_stride;
    }
}

#endif
