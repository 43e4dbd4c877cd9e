#ifndef SHOAL_KERNELS_KERNELS_H
#define SHOAL_KERNELS_KERNELS_H

/* The arithmetic of a step, as a table of functions chosen once for the CPU.
 *
 * Canonical arithmetic (deploy/docs/arithmetic.md), that is all but the products of the two fast
 * numerics: every function gives the same bits at every CPU
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

/* Rows of activations as int8 codes, in the form that a level's products read; int8_rows_bytes says
 * how many bytes they take. */
struct int8_chunk;
struct int8_rows {
    struct int8_chunk *chunks; /* [256 columns][stride], 64-byte aligned */
    size_t stride;
    size_t row; /* the first of the rows that are meant */
};
uint64_t int8_rows_bytes(uint32_t columns, size_t stride);

/* The keys and values of one KV block that some heads share, as the cache stores them
 * (common/model/kv_type.h), and queries of several rows that meet them. */
struct attend_block_args {
    /* Grouped: [row_count][head_count][key_width]; MLA: as attend_turn makes them. */
    const float *query;
    uint32_t row_count;
    uint32_t head_count; /* of a row */
    /* [row_count]: how many of the block's tokens a row sees, 0 … 64; later ones are causally
     * masked or not there. 0: the row's states stay as they are. */
    const uint32_t *token_counts;
    uint32_t key_width;   /* MLA: kv_lora + rope */
    uint32_t value_width; /* MLA: kv_lora */
    float scale;
    enum kv_type type;
    const void *keys;          /* grouped: [key_width][64]; MLA: [64][key_width] */
    const void *values;        /* grouped: [64][value_width]; MLA: NULL */
    const void *next_keys;     /* NULL, or those of the block to follow: memory is asked for them */
    const float *key_scales;   /* q8: [64]; of MLA those of the latent */
    const float *value_scales; /* q8: [64]; of MLA those of the rotated key */
    float *max;                /* [row_count][head_count] */
    float *sum;                /* likewise */
    float *acc;                /* [row_count][head_count][value_width] */
    float *scratch;            /* attend_scratch_values() floats, per thread, 64-byte aligned */
};

struct kernels {
    enum cpu_level level;

    /* Weights of a block type take f32 activations in NUMERICS_EXACT, int8 ones in the others;
     * float weights f32, but for bf16 and e4m3 in NUMERICS_FAST_AMX, which rounds to bf16.
     * out[r][o] = sum over k of x[r][k] * w[o][k], for o in panels [panel_begin, panel_end).
     * Writes only outputs below w->rows. */
    void (*matmul)(const struct packed_matrix *w, uint32_t panel_begin, uint32_t panel_end,
                   struct rows_view x, uint32_t row_count, struct rows_out out);
    /* out[r][o] = silu(gate·x) * (up·x): both matrices have the same shape, each its own type. Same
     * bits as two matmuls followed by silu_mul. */
    void (*matmul_gate_up)(const struct packed_matrix *gate, const struct packed_matrix *up,
                           uint32_t panel_begin, uint32_t panel_end, struct rows_view x,
                           uint32_t row_count, struct rows_out out);
    /* In NUMERICS_INT8, else NULL: rows become codes once, for all weights whose type has blocks of
     * the same length as `type`, a block type. A chunk of the last columns may have a rest. */
    void (*code_rows)(enum weight_type type, uint32_t columns, struct rows_view x,
                      uint32_t row_count, struct int8_rows out);
    /* matmul, or matmul_gate_up where `up` is not NULL, of block types with rows of codes. The
     * types of both have blocks of the same length. */
    void (*matmul_codes)(const struct packed_matrix *w, const struct packed_matrix *up,
                         uint32_t panel_begin, uint32_t panel_end, struct int8_rows x,
                         uint32_t row_count, struct rows_out out);
    /* matmul of NUMERICS_EXACT, for what is never rounded to int8 (W_UK, W_UV, kv_a, the
     * router). */
    void (*matmul_exact)(const struct packed_matrix *w, uint32_t panel_begin, uint32_t panel_end,
                         struct rows_view x, uint32_t row_count, struct rows_out out);
    /* The exact values of a matrix of any type but F8_E4M3, packed as f32: itself, and its
     * transpose. Of `w` with rows and columns, `scratch` takes 16 floats for each column. */
    void (*widen)(const struct packed_matrix *w, float *out);
    void (*widen_transposed)(const struct packed_matrix *w, float *scratch, float *out);
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
    /* Stores f32 values as the cache's type, nearest even; and back, exactly. Not for q8. */
    void (*kv_store)(void *out, enum kv_type type, const float *values, size_t count);
    void (*kv_load)(float *out, const void *values, enum kv_type type, size_t count);
    /* The codes of one part of a token in q8 (common/model/kv_type.h); returns its scale. */
    float (*kv_store_q8)(const float *values, size_t count, int8_t *codes);
    /* out[i] = codes[i] * scale, rounded to f32 */
    void (*kv_load_q8)(float *out, const int8_t *codes, float scale, size_t count);

    /* One key block of attention. Online softmax of each row's head over the tokens it sees:
     * s[t] = (q · key[t], one fma chain over the key's dimensions) * scale;
     * m' = max(m, max s); c = exp(m - m'); p = exp(s - m'); l = l * c + sum p; acc = acc * c, then
     * acc[r] = fma(p[t], value[t][r], acc) in rising t. A fresh state has max = -inf, sum = 0,
     * acc = 0 (the factor c is then 0, never NaN). Rows and heads beside it never show. */
    void (*attend_block)(const struct attend_block_args *args);
    /* Queries of MLA, [count][width], as attend_block takes them: out[k][q], rows of count rounded
     * up to 16 values, the width rounded up to 8; zeros behind both. */
    void (*attend_turn)(const float *queries, size_t count, size_t width, float *out);
    /* Joins two states over disjoint, rising key ranges: a = a then b. */
    void (*attend_join)(float *max_a, float *sum_a, float *acc_a, float max_b, float sum_b,
                        const float *acc_b, uint32_t value_width);
};

/* width: the larger of key_width and value_width; query_count: rows times heads. */
size_t attend_scratch_values(uint32_t width, uint32_t query_count);
/* Of attend_turn's output. */
size_t attend_turned_values(uint32_t width, uint32_t query_count);

/* Whether this machine can compute so. */
bool kernels_available(enum cpu_level level, enum numerics numerics);
/* Which numerics `fast` means here: AMX tiles, or without them int8, whose float products are
 * faster than OpenBLAS's. */
enum numerics kernels_fast(enum cpu_level level);
/* The table of a level; static. */
const struct kernels *kernels_for(enum cpu_level level, enum numerics numerics);

/* Part of the numerics id: changes whenever any canonical bit may change. */
#define KERNELS_VERSION 2

#endif
