/* kernels_avx2.c - the table of level "avx2": AVX2, FMA and F16C.
 *
 * All arithmetic is in the headers, written over lanes_avx2.h; see deploy/docs/arithmetic.md. */
#include "worker/kernels/lanes_avx2.h"

#include "worker/kernels/block_kernel.h"
#include "worker/kernels/float_chain.h"
#include "worker/kernels/levels.h"
#include "worker/kernels/matmul_float.h"
#include "worker/kernels/row_math.h"
#include "worker/kernels/row_scan.h"
#include "worker/kernels/words_avx2.h"

static const matmul_tile_fn matmul_tiles[WEIGHT_TYPE_COUNT] = {
    [WEIGHT_F32] = matmul_f32_avx2,
    [WEIGHT_F16] = matmul_f16_avx2,
    [WEIGHT_BF16] = matmul_bf16_avx2,
    [WEIGHT_F8_E4M3] = matmul_f8_avx2,
};

#define block_kernels block_kernels_avx2

#include "worker/kernels/attend.h"
#include "worker/kernels/matmul_driver.h"
#include "worker/kernels/matrix_widen.h"
#include "worker/kernels/matmul_int8.h"

#include "worker/kernels/matmul_fast.h"

const struct kernels kernels_avx2[NUMERICS_COUNT] = KERNELS_OF_LEVEL(CPU_AVX2);
