#ifndef SHOAL_KERNELS_MATMUL_H
#define SHOAL_KERNELS_MATMUL_H

/* Between the products of a level (matmul_driver.h) and its leaves, one for each weight type and
 * instruction set (matmul_<type>_<level>.c). */
#include "worker/kernels/kernels.h"

#define TILE_ROWS    48 /* a multiple of every level's register rows: x of a k block stays in L2 */
#define TILE_PANELS  4
#define TILE_OUTPUTS (TILE_PANELS * PANEL_ROWS)

struct matmul_tile {
    const struct packed_matrix *w;
    uint32_t panel;       /* first */
    uint32_t panel_count; /* 1 … TILE_PANELS */
    struct rows_view x;
    uint32_t row_count; /* 1 … TILE_ROWS */
    float *out;         /* [row][TILE_OUTPUTS]: the products, padding rows of w included */
};
typedef void (*matmul_tile_fn)(const struct matmul_tile *tile);

void matmul_f32_ref(const struct matmul_tile *tile);
void matmul_f16_ref(const struct matmul_tile *tile);
void matmul_bf16_ref(const struct matmul_tile *tile);
void matmul_f8_ref(const struct matmul_tile *tile);
void matmul_f32_avx2(const struct matmul_tile *tile);
void matmul_f16_avx2(const struct matmul_tile *tile);
void matmul_bf16_avx2(const struct matmul_tile *tile);
void matmul_f8_avx2(const struct matmul_tile *tile);
void matmul_f32_avx512(const struct matmul_tile *tile);
void matmul_f16_avx512(const struct matmul_tile *tile);
void matmul_bf16_avx512(const struct matmul_tile *tile);
void matmul_f8_avx512(const struct matmul_tile *tile);

#endif
