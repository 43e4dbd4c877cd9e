/* kernels.c - the table of each CPU level, by number. */
#include "worker/kernels/kernels.h"

#include "common/base/check.h"
#include "worker/kernels/grids.h"
#include "worker/kernels/levels.h"

const struct kernels *kernels_for(enum cpu_level level, enum numerics numerics)
{
    static const struct kernels *const tables[CPU_LEVEL_COUNT] = {
        [CPU_REF] = kernels_ref,
        [CPU_AVX2] = kernels_avx2,
        [CPU_AVX512] = kernels_avx512,
        [CPU_VNNI] = kernels_vnni,
    };

    ASSERT(level < CPU_LEVEL_COUNT && numerics < NUMERICS_COUNT);
    grids_expand();
    return &tables[level][numerics];
}

/* Two tiles of the block, widths in whole lanes, and a score for each head and token (attend.h). */
size_t attend_scratch_values(uint32_t width, uint32_t head_count)
{
    const size_t padded = ((size_t)width + PANEL_ROWS - 1) / PANEL_ROWS * PANEL_ROWS;

    return (2 * padded + head_count) * KV_BLOCK_TOKENS;
}
