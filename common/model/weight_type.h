#ifndef SHOAL_MODEL_WEIGHT_TYPE_H
#define SHOAL_MODEL_WEIGHT_TYPE_H

/* The types that a model's weights are published in, and what a row of each takes.
 *
 * Float types come value by value. F8_E4M3 comes with one f32 scale for each block of 128 × 128
 * values, which multiplies them. Block types are those of quant.h: a row is a whole number of
 * blocks of 32 or 256 values. Pure; any thread.
 */
#include "common/model/quant.h"

#include <stdbool.h>
#include <stdint.h>

enum weight_type {
    WEIGHT_F32,
    WEIGHT_F16,
    WEIGHT_BF16,
    WEIGHT_F8_E4M3,
    WEIGHT_Q4_0, /* the first block type */
    WEIGHT_Q4_1,
    WEIGHT_Q5_0,
    WEIGHT_Q5_1,
    WEIGHT_Q8_0,
    WEIGHT_IQ4_NL,
    WEIGHT_Q2_K,
    WEIGHT_Q3_K,
    WEIGHT_Q4_K,
    WEIGHT_Q5_K,
    WEIGHT_Q6_K,
    WEIGHT_IQ1_S,
    WEIGHT_IQ1_M,
    WEIGHT_IQ2_XXS,
    WEIGHT_IQ2_XS,
    WEIGHT_IQ2_S,
    WEIGHT_IQ3_XXS,
    WEIGHT_IQ3_S,
    WEIGHT_IQ4_XS,
    WEIGHT_TYPE_COUNT
};
#define SCALE_BLOCK 128 /* of F8_E4M3 */

const char *weight_type_name(enum weight_type type); /* "BF16", "Q4_K" */
/* What safetensors headers and reports call a type; false: none of these. */
bool weight_type_find(const char *name, enum weight_type *out);
/* The type of a GGUF tensor; every number that quant_traits knows has one. */
enum weight_type weight_type_of_quant(enum quant_type quant);

bool weight_type_is_blocks(enum weight_type type);
uint32_t weight_type_bytes(enum weight_type type);        /* of one value; no block types */
uint32_t weight_type_block_values(enum weight_type type); /* 1 unless it is a block type */
/* Columns are a multiple of the block (catalogs check that). Scales are not counted. */
uint64_t weight_row_bytes(enum weight_type type, uint32_t columns);
/* Of block types; false when a scale of these rows is NaN or infinite. */
bool weight_scales_are_finite(enum weight_type type, const void *values, uint64_t count);
/* Exactly, `count` values from the beginning of a block; not F8_E4M3, which needs its scales. */
void weight_values_widen(float *out, enum weight_type type, const void *values, uint64_t count);
uint32_t scale_block_count(uint32_t values); /* rows or columns in blocks of 128 */

#endif
