#ifndef SHOAL_KERNELS_AMX_H
#define SHOAL_KERNELS_AMX_H

/* Products on AMX tiles with bf16 weights or e4m3 codes (--numerics fast-amx): activations rounded
 * to bf16, sums in f32. The order of a sum depends on k alone, so neither the number of rows nor a
 * row's place among them changes its bits; other CPUs may have other bits. */
#include "worker/kernels/kernels.h"

#define AMX_ROWS   64 /* at most, of one call */
#define AMX_PANELS 16

/* One tile of a product, or of two that share their activations. */
struct amx_task {
    const struct packed_matrix *w, *up; /* BF16 or F8_E4M3; up: NULL, or of w's shape */
    uint32_t panel;                     /* first */
    uint32_t panel_count;               /* 1 … AMX_PANELS */
    struct rows_view x;
    uint32_t row_count; /* 1 … AMX_ROWS */
};
/* [panel][row][16]: padding rows of w included, rows rounded up to 16. */
struct amx_sums {
    _Alignas(64) float values[AMX_PANELS][AMX_ROWS][PANEL_ROWS];
};

/* Whether this machine and its system have AMX with bf16 and AVX-512 BF16. Asks the system once for
 * leave to use tiles. Any thread. */
bool amx_available(void);
/* Whether amx_multiply takes such weights. */
bool amx_takes(enum weight_type type);
/* Only where amx_available(). up_sums: NULL without up. */
void amx_multiply(const struct amx_task *task, struct amx_sums *sums, struct amx_sums *up_sums);

#endif
