#ifndef SHOAL_KERNELS_LEVELS_H
#define SHOAL_KERNELS_LEVELS_H

/* The levels' tables, and how one is made of the functions that a level's source included. */
#include "worker/kernels/kernels.h"

extern const struct kernels kernels_ref[NUMERICS_COUNT];
extern const struct kernels kernels_avx2[NUMERICS_COUNT];
extern const struct kernels kernels_avx512[NUMERICS_COUNT];
extern const struct kernels kernels_vnni[NUMERICS_COUNT];

#define KERNELS_OF_LEVEL(this_level)                                                               \
    {                                                                                              \
        [NUMERICS_EXACT] = KERNELS_OF(this_level, matmul, matmul_gate_up, NULL, NULL),             \
        [NUMERICS_INT8] = KERNELS_OF(this_level, matmul_int8, matmul_gate_up_int8, int8_rows_make, \
                                     matmul_codes),                                                \
        [NUMERICS_FAST_AMX] =                                                                      \
            KERNELS_OF(this_level, matmul_fast_amx, matmul_gate_up_fast_amx, NULL, NULL),          \
        [NUMERICS_FAST_BLAS] =                                                                     \
            KERNELS_OF(this_level, matmul_fast_blas, matmul_gate_up_fast_blas, NULL, NULL),        \
    }
#define KERNELS_OF(this_level, product, gate_up, codes_make, product_codes)                        \
    {                                                                                              \
        .level = (this_level), .matmul = product, .matmul_gate_up = gate_up,                       \
        .code_rows = codes_make, .matmul_codes = product_codes, .matmul_exact = matmul,            \
        .widen = matrix_widen, .widen_transposed = matrix_widen_transposed,                        \
        .rms_norm = row_rms_norm, .add = row_add, .scale = row_scale, .sigmoid = row_sigmoid,      \
        .softmax = row_softmax, .max = row_max, .exp_total = row_exp_total,                        \
        .exp_each = row_exp_each, .find_from = row_find_from, .count_above = row_count_above,      \
        .rope = row_rope, .rope_halves = row_rope_halves, .kv_store = kv_values_store,             \
        .kv_load = kv_values_load, .kv_store_q8 = int8_codes, .kv_load_q8 = kv_codes_load,         \
        .attend_block = attend_block, .attend_turn = attend_turn, .attend_join = attend_join,      \
    }

#endif
