/* kernels.c - the table of each CPU level, by number. */
#include "worker/kernels/kernels.h"

#include "common/base/check.h"
#include "worker/kernels/amx.h"
#include "worker/kernels/block_kernel.h"
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

uint64_t int8_rows_bytes(uint32_t columns, size_t stride)
{
    return int8_chunk_count(columns) * stride * sizeof(struct int8_chunk);
}

bool kernels_available(enum cpu_level level, enum numerics numerics)
{
    return cpu_level_available(level) &&
           (numerics != NUMERICS_FAST_AMX || (level >= CPU_AVX512 && amx_available()));
}

enum numerics kernels_fast(enum cpu_level level)
{
    return kernels_available(level, NUMERICS_FAST_AMX) ? NUMERICS_FAST_AMX : NUMERICS_INT8;
}

static size_t padded(size_t count, size_t multiple)
{
    return (count + multiple - 1) / multiple * multiple;
}

/* Two tiles of the block, widths in whole lanes, and the scores of all queries twice (attend.h). */
size_t attend_scratch_values(uint32_t width, uint32_t query_count)
{
    const size_t queries = padded(query_count, PANEL_ROWS);

    return 2 * (padded(width, PANEL_ROWS) + queries) * KV_BLOCK_TOKENS + 3 * queries;
}

size_t attend_turned_values(uint32_t width, uint32_t query_count)
{
    return padded(width, 8) * padded(query_count, PANEL_ROWS);
}
