#ifndef SHOAL_KERNELS_LEVELS_H
#define SHOAL_KERNELS_LEVELS_H

/* The levels' tables, and how one is made of the functions that a level's source included. */
#include "worker/kernels/kernels.h"

extern const struct kernels kernels_ref;
extern const struct kernels kernels_avx2;
extern const struct kernels kernels_avx512;

#define KERNELS_OF_LEVEL(this_level)                                                               \
    {                                                                                              \
        .level = (this_level), .matmul = matmul, .matmul_gate_up = matmul_gate_up,                 \
        .rms_norm = row_rms_norm, .add = row_add, .scale = row_scale, .sigmoid = row_sigmoid,      \
        .softmax = row_softmax, .rope = row_rope, .rope_halves = row_rope_halves,                  \
        .kv_store = kv_values_store, .kv_load = kv_values_load, .attend_block = attend_block,      \
        .attend_join = attend_join,                                                                \
    }

#endif
