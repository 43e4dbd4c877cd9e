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
/* How far ahead of the chain its weights are asked for: the hardware prefetchers follow few
 * streams and stop at pages. */
#define CHAIN_PREFETCH_BYTES 2048

typedef struct lanes (*lanes_load_fn)(const void *values);

struct chain {
    const char *w;      /* weights of output 0 at k = 0 */
    size_t panel_bytes; /* from one panel of 16 outputs to the next */
    size_t step_bytes;  /* from k to k + 1 */
    const float *x;     /* [row][k] */
    size_t x_stride;
    size_t k_count;
    float *sums; /* [row][16 * panel], read and written */
    size_t sums_stride;
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

/* rows, panels and load are constants at each call, so that everything below unrolls. */
CHAIN_INLINE void chain_block(size_t rows, size_t panels, lanes_load_fn load, const struct chain *c)
{
    struct lanes sum[CHAIN_ROWS_SINGLE][CHAIN_PANELS_SINGLE];
    struct lanes w[CHAIN_PANELS_SINGLE];
    const char *weights = c->w;

    chain_load(rows, panels, c, sum);
    for (size_t k = 0; k < c->k_count; k++) {
#pragma GCC unroll 4
        for (size_t panel = 0; panel < panels; panel++) {
            w[panel] = load(weights + panel * c->panel_bytes);
            __builtin_prefetch(weights + panel * c->panel_bytes + CHAIN_PREFETCH_BYTES);
        }
#pragma GCC unroll 16
        for (size_t row = 0; row < rows; row++) {
            struct lanes x = lanes_set(c->x[row * c->x_stride + k]);
#pragma GCC unroll 4
            for (size_t panel = 0; panel < panels; panel++) {
                sum[row][panel] = lanes_fma(x, w[panel], sum[row][panel]);
            }
        }
        weights += c->step_bytes;
    }
    chain_store(rows, panels, c, sum);
}

/* rows is 1 … CHAIN_ROWS at run time; each gets a block of its own. */
CHAIN_INLINE void chain_rows(size_t rows, size_t panels, lanes_load_fn load, const struct chain *c)
{
    switch (rows) {
    case 1:
        chain_block(1, panels, load, c);
        break;
#if CHAIN_ROWS == 6
    case 2:
        chain_block(2, panels, load, c);
        break;
    case 3:
        chain_block(3, panels, load, c);
        break;
    case 4:
        chain_block(4, panels, load, c);
        break;
    case 5:
        chain_block(5, panels, load, c);
        break;
    case 6:
        chain_block(6, panels, load, c);
        break;
#endif
    default:
        break;
    }
}

/* All rows over one panel: a taller block keeps as many sums going as several panels would. */
CHAIN_INLINE void chain_single_panel(size_t row_count, lanes_load_fn load, struct chain c)
{
    for (; row_count >= CHAIN_ROWS_SINGLE; row_count -= CHAIN_ROWS_SINGLE) {
        chain_block(CHAIN_ROWS_SINGLE, 1, load, &c);
        c.x += CHAIN_ROWS_SINGLE * c.x_stride;
        c.sums += CHAIN_ROWS_SINGLE * c.sums_stride;
    }
    for (size_t rows; row_count > 0; row_count -= rows) {
        rows = row_count < CHAIN_ROWS ? row_count : CHAIN_ROWS;
        chain_rows(rows, 1, load, &c);
        c.x += rows * c.x_stride;
        c.sums += rows * c.sums_stride;
    }
}

/* One group of at most CHAIN_ROWS rows over any number of panels. */
CHAIN_INLINE void chain_row_group(size_t rows, size_t panel_count, lanes_load_fn load,
                                  struct chain c)
{
    size_t panel = 0;

    for (; rows == 1 && panel + CHAIN_PANELS_SINGLE <= panel_count; panel += CHAIN_PANELS_SINGLE) {
        chain_block(1, CHAIN_PANELS_SINGLE, load, &c);
        c.w += CHAIN_PANELS_SINGLE * c.panel_bytes;
        c.sums += CHAIN_PANELS_SINGLE * LANE_COUNT;
    }
    for (; CHAIN_PANELS > 1 && panel + CHAIN_PANELS <= panel_count; panel += CHAIN_PANELS) {
        chain_rows(rows, CHAIN_PANELS, load, &c);
        c.w += CHAIN_PANELS * c.panel_bytes;
        c.sums += CHAIN_PANELS * LANE_COUNT;
    }
    for (; panel < panel_count; panel++) {
        chain_rows(rows, 1, load, &c);
        c.w += c.panel_bytes;
        c.sums += LANE_COUNT;
    }
}

/* All rows over all panels; the caller sees to it that x and w of one call fit the cache. */
CHAIN_INLINE void chain_product(size_t row_count, size_t panel_count, lanes_load_fn load,
                                struct chain c)
{
    while (row_count > 0) {
        size_t rows = row_count < CHAIN_ROWS ? row_count : CHAIN_ROWS;

        chain_row_group(rows, panel_count, load, c);
        c.x += rows * c.x_stride;
        c.sums += rows * c.sums_stride;
        row_count -= rows;
    }
}

#endif
