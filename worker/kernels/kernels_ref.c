/* kernels_ref.c - the table of level "ref": plain C with fmaf: runs anywhere and defines the bits.
 *
 * All arithmetic is in the headers, written over lanes_ref.h; see deploy/docs/arithmetic.md. */
#include "worker/kernels/lanes_ref.h"

#include "worker/kernels/block_kernel.h"
#include "worker/kernels/float_chain.h"
#include "worker/kernels/levels.h"
#include "worker/kernels/matmul_float.h"
#include "worker/kernels/row_math.h"
#include "worker/kernels/row_scan.h"
#include "worker/kernels/words_ref.h"

static const matmul_tile_fn matmul_tiles[WEIGHT_TYPE_COUNT] = {
    [WEIGHT_F32] = matmul_f32_ref,
    [WEIGHT_F16] = matmul_f16_ref,
    [WEIGHT_BF16] = matmul_bf16_ref,
    [WEIGHT_F8_E4M3] = matmul_f8_ref,
};

#define block_kernels block_kernels_ref

#include "worker/kernels/attend.h"
#include "worker/kernels/matmul_driver.h"
#include "worker/kernels/matrix_widen.h"
#include "worker/kernels/matmul_int8.h"

#include "worker/kernels/matmul_fast.h"

const struct kernels kernels_ref[NUMERICS_COUNT] = KERNELS_OF_LEVEL(CPU_REF);
