#ifndef SHOAL_KERNELS_KERNELS_H
#define SHOAL_KERNELS_KERNELS_H

/* The arithmetic of a step, as a table of functions chosen once for the CPU.
 *
 * Canonical arithmetic (deploy/docs/arithmetic.md): every function gives the same bits at every CPU
 * level, for any tiling, row count and thread count. Sums over k are one fma chain per output;
 * reductions inside a row run in 16 lanes (element i in lane i % 16, each lane in rising i), folded
 * 8-4-2-1; exp, sigmoid and SiLU are our own polynomials.
 *
 * The functions are leaves: no state, no threads, no allocation; callers split the work into tiles.
 * All activations come and go as f32. Strides count values. Pointers to activations need no
 * alignment.
 */
#include "common/model/kv_type.h"
#include "common/model/numerics.h"
#include "worker/kernels/cpu.h"
#include "worker/kernels/packed.h"

#include <stddef.h>
#include <stdint.h>

struct rows_view {
    const float *values;
    size_t stride; /* values from row to row */
};
struct rows_out {
    float *values;
    size_t stride;
};

/* Keys and values of up to 64 tokens of one KV block, as the cache stores them: token t's key
 * begins at keys + t * stride, its value at values + t * stride (in kv_type values). */
#define KV_BLOCK_TOKENS 64

struct attend_block_args {
    const float *query; /* [head_count][key_width], heads that share one key */
    uint32_t head_count;
    uint32_t key_width;   /* MLA: kv_lora + rope */
    uint32_t value_width; /* MLA: kv_lora */
    float scale;
    const void *keys; /* of the block's first token */
    const void
        *values;     /* likewise; equal to keys where a value is the beginning of its key (MLA) */
    uint32_t stride; /* cache values from token to token */
    enum kv_type type;
    uint32_t token_count; /* 1 … 64: later ones are causally masked or not there */
    float *max;           /* [head_count] */
    float *sum;           /* [head_count] */
    float *acc;           /* [head_count][value_width] */
    float *scratch;       /* attend_scratch_values() floats, per thread, 64-byte aligned */
};

struct kernels {
    enum cpu_level level;

    /* Weights of a block type take f32 activations in NUMERICS_EXACT, int8 ones in NUMERICS_INT8;
     * float weights always f32.
     * out[r][o] = sum over k of x[r][k] * w[o][k], for o in panels [panel_begin, panel_end).
     * Writes only outputs below w->rows. */
    void (*matmul)(const struct packed_matrix *w, uint32_t panel_begin, uint32_t panel_end,
                   struct rows_view x, uint32_t row_count, struct rows_out out);
    /* out[r][o] = silu(gate·x) * (up·x): both matrices have the same shape, each its own type. Same
     * bits as two matmuls followed by silu_mul. */
    void (*matmul_gate_up)(const struct packed_matrix *gate, const struct packed_matrix *up,
                           uint32_t panel_begin, uint32_t panel_end, struct rows_view x,
                           uint32_t row_count, struct rows_out out);
    /* matmul of NUMERICS_EXACT, for what is never rounded to int8 (W_UK, W_UV, kv_a, the
     * router). */
    void (*matmul_exact)(const struct packed_matrix *w, uint32_t panel_begin, uint32_t panel_end,
                         struct rows_view x, uint32_t row_count, struct rows_out out);
    /* out[i] = x[i] / sqrt(mean(x^2) + eps) * weight[i]. In place allowed. */
    void (*rms_norm)(const float *x, const float *weight, uint32_t count, float eps, float *out);
    /* x[i] += y[i] */
    void (*add)(float *x, const float *y, size_t count);
    /* out[i] = x[i] * scale, rounded to f32. In place allowed. */
    void (*scale)(const float *x, float scale, size_t count, float *out);
    /* x[i] = 1 / (1 + exp(-x[i])) */
    void (*sigmoid)(float *x, size_t count);
    /* softmax of one row, in place: exp(x - max) / sum */
    void (*softmax)(float *x, size_t count);
    /* Rows of logits, for sampling; count is below 2^32. The largest value, of one at least: */
    float (*max)(const float *x, size_t count);
    /* The sum of exp((x[i] - max) * inverse), in double; x[i] <= max, inverse > 0. */
    double (*exp_total)(const float *x, size_t count, float max, double inverse);
    /* x[i] = exp(x[i]) by the same formula; x[i] <= 0. */
    void (*exp_each)(double *x, size_t count);
    /* The first i >= begin with x[i] >= limit; count if there is none. */
    size_t (*find_from)(const float *x, size_t begin, size_t count, float limit);
    /* How many x[i] > limit. */
    size_t (*count_above)(const float *x, size_t count, float limit);
    /* Rotates adjacent pairs (x0,x1), (x2,x3), …: cos_sin holds cos, sin for each pair. */
    void (*rope)(float *x, const float *cos_sin, uint32_t pair_count);
    /* The same on pairs of halves (x0,x[n]), (x1,x[n+1]), …, n = pair_count. */
    void (*rope_halves)(float *x, const float *cos_sin, uint32_t pair_count);
    /* Stores f32 values as the cache's type, nearest even; and back, exactly. */
    void (*kv_store)(void *out, enum kv_type type, const float *values, size_t count);
    void (*kv_load)(float *out, const void *values, enum kv_type type, size_t count);

    /* One key block of attention for one query token and the heads that share its keys. Online
     * softmax: s[h][t] = (q[h] · key[t], one fma chain over the key's dimensions) * scale;
     * m' = max(m, max s); c = exp(m - m'); p = exp(s - m'); l = l * c + sum p; acc = acc * c, then
     * acc[h][r] = fma(p[h][t], value[t][r], acc) in rising t. State of head h: max[h], sum[h],
     * acc[h * value_width …]. A fresh state has max = -inf, sum = 0, acc = 0 (the factor c is then
     * 0, never NaN). */
    void (*attend_block)(const struct attend_block_args *args);
    /* Joins two states over disjoint, rising key ranges: a = a then b. */
    void (*attend_join)(float *max_a, float *sum_a, float *acc_a, float max_b, float sum_b,
                        const float *acc_b, uint32_t value_width);
};

/* width: the larger of key_width and value_width. */
size_t attend_scratch_values(uint32_t width, uint32_t head_count);

/* The table of a level; static. */
const struct kernels *kernels_for(enum cpu_level level, enum numerics numerics);

/* Part of the numerics id: changes whenever any canonical bit may change. */
#define KERNELS_VERSION 1

#endif
