#ifndef SHOAL_KERNELS_CPU_H
#define SHOAL_KERNELS_CPU_H

/* Which instruction sets kernels may use: found by CPUID and XGETBV once, or forced by SHOAL_CPU.
 */
#include "common/base/error.h"

enum cpu_level {
    CPU_REF,    /* plain C with fmaf: runs anywhere, the tests' oracle */
    CPU_AVX2,   /* AVX2, FMA, F16C */
    CPU_AVX512, /* F, BW, DQ, VL */
    CPU_VNNI,   /* AVX512 and AVX512-VNNI */
    CPU_LEVEL_COUNT
};

/* SHOAL_CPU=ref|avx2|avx512|vnni chooses a level; an unknown word or a level that this machine
 * lacks is ERROR_USAGE. Unset: the best there is. */
bool cpu_level_choose(enum cpu_level *out, struct error *err) MUST_CHECK;
bool cpu_level_available(enum cpu_level level);
const char *cpu_level_name(enum cpu_level level); /* "ref", "avx2", "avx512", "vnni" */

#endif
