#ifndef SHOAL_KERNELS_ATTEND_CHAIN_H
#define SHOAL_KERNELS_ATTEND_CHAIN_H

/* The chain of attention's two products: sum = fma(x[k], w[k], sum) in rising k, lanes across
 * outputs, rows × panels sums in registers. What it multiplies lies in the first caches; meanwhile
 * it asks memory for what comes next. Written over a lanes header, which the including source
 * chooses.
 */
#include <stddef.h>

#define ATTEND_INLINE static inline __attribute__((always_inline))
#define ATTEND_LINE   64 /* bytes that are asked for at once */
#define ATTEND_LINES  2  /* so many at a step of a product of the cache */

typedef struct lanes (*attend_load_fn)(const void *values);

enum attend_begin {
    BEGIN_ZERO,   /* whatever `sums` holds */
    BEGIN_SUMS,   /* with what it holds */
    BEGIN_SCALED, /* with that times the row's factor, rounded */
};

struct attend_chain {
    const char *w;      /* of output 0 at k = 0 */
    size_t panel_bytes; /* from one panel of 16 outputs to the next */
    size_t step_bytes;  /* from k to k + 1 */
    const float *x;     /* [row][k] */
    size_t x_stride;
    size_t k_count;
    float *sums; /* [row][16 * panel] */
    size_t sums_stride;
    enum attend_begin begin;
    const float *factors; /* [row] */
    const char *ahead;    /* `lines` of it at every step */
};

ATTEND_INLINE void attend_chain_begin(size_t rows, size_t panels, const struct attend_chain *c,
                                      struct lanes (*sum)[CHAIN_PANELS_SINGLE])
{
    for (size_t row = 0; row < rows; row++) {
#pragma GCC unroll 4
        for (size_t panel = 0; panel < panels; panel++) {
            if (c->begin == BEGIN_ZERO) {
                sum[row][panel] = lanes_set(0.0f);
                continue;
            }
            sum[row][panel] = lanes_load(c->sums + row * c->sums_stride + panel * LANE_COUNT);
            if (c->begin == BEGIN_SCALED) {
                sum[row][panel] = lanes_mul(sum[row][panel], lanes_set(c->factors[row]));
            }
        }
    }
}

/* rows, panels, load and lines are constants at each call, so that everything below unrolls. */
ATTEND_INLINE void attend_chain_block(size_t rows, size_t panels, attend_load_fn load, size_t lines,
                                      const struct attend_chain *c)
{
    struct lanes sum[CHAIN_ROWS_SINGLE][CHAIN_PANELS_SINGLE];
    struct lanes w[CHAIN_PANELS_SINGLE];
    const char *weights = c->w;
    const char *ahead = c->ahead;

    attend_chain_begin(rows, panels, c, sum);
    for (size_t k = 0; k < c->k_count; k++) {
        for (size_t line = 0; line < lines; line++) {
            __builtin_prefetch(ahead);
            ahead += ATTEND_LINE;
        }
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
        weights += c->step_bytes;
    }
#pragma GCC unroll 16
    for (size_t row = 0; row < rows; row++) {
#pragma GCC unroll 4
        for (size_t panel = 0; panel < panels; panel++) {
            lanes_store(c->sums + row * c->sums_stride + panel * LANE_COUNT, sum[row][panel]);
        }
    }
}

/* rows is 1 … CHAIN_ROWS at run time; each gets a block of its own. */
ATTEND_INLINE void attend_chain_rows(size_t rows, size_t panels, attend_load_fn load, size_t lines,
                                     const struct attend_chain *c)
{
    switch (rows) {
#if CHAIN_ROWS == 6
    case 2:
        attend_chain_block(2, panels, load, lines, c);
        break;
    case 3:
        attend_chain_block(3, panels, load, lines, c);
        break;
    case 4:
        attend_chain_block(4, panels, load, lines, c);
        break;
    case 5:
        attend_chain_block(5, panels, load, lines, c);
        break;
    case 6:
        attend_chain_block(6, panels, load, lines, c);
        break;
#endif
    default:
        attend_chain_block(1, panels, load, lines, c);
        break;
    }
}

/* At most CHAIN_ROWS rows over at most four panels. */
ATTEND_INLINE void attend_chain_group(size_t rows, size_t panels, attend_load_fn load, size_t lines,
                                      struct attend_chain c)
{
    if (rows == 1 && panels == CHAIN_PANELS_SINGLE) {
        attend_chain_block(1, CHAIN_PANELS_SINGLE, load, lines, &c);
        return;
    }
    if (CHAIN_PANELS > 1 && panels == CHAIN_PANELS) {
        attend_chain_rows(rows, CHAIN_PANELS, load, lines, &c);
        return;
    }
    for (size_t panel = 0; panel < panels; panel++) {
        attend_chain_rows(rows, 1, load, lines, &c);
        c.w += c.panel_bytes;
        c.sums += LANE_COUNT;
        c.ahead = c.w;
    }
}

#endif
