/* cpu.c - which instruction sets kernels may use.
 *
 * Decided by CPUID and XGETBV, never by a model's name: hypervisors hide features, and compilers
 * know names that do not match. An instruction set counts only if the system saves its registers.
 */
#include "worker/kernels/cpu.h"

#include "common/base/check.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

static const char *const level_names[CPU_LEVEL_COUNT] = {
    [CPU_REF] = "ref",
    [CPU_AVX2] = "avx2",
    [CPU_AVX512] = "avx512",
    [CPU_VNNI] = "vnni",
};

#if defined(__x86_64__)
/* The builtins ask CPUID and XGETBV once; F16C is asked here, older compilers have no name for it.
 */
static bool has_avx2(void)
{
    unsigned eax, ebx, ecx, edx;

    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C) != 0;
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static bool has_vnni(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512vnni");
}
#else
static bool has_avx2(void)
{
    return false;
}

static bool has_avx512(void)
{
    return false;
}

static bool has_vnni(void)
{
    return false;
}
#endif

bool cpu_level_available(enum cpu_level level)
{
    switch (level) {
    case CPU_REF:
        return true;
    case CPU_AVX2:
        return has_avx2();
    case CPU_AVX512:
        return has_avx512();
    case CPU_VNNI:
        return has_vnni();
    case CPU_LEVEL_COUNT:
        break;
    }
    return false;
}

const char *cpu_level_name(enum cpu_level level)
{
    ASSERT(level < CPU_LEVEL_COUNT);
    return level_names[level];
}

static bool level_by_name(const char *name, enum cpu_level *out)
{
    for (int level = 0; level < CPU_LEVEL_COUNT; level++) {
        if (strcmp(name, level_names[level]) == 0) {
            *out = (enum cpu_level)level;
            return true;
        }
    }
    return false;
}

static enum cpu_level best_level(void)
{
    enum cpu_level level = CPU_LEVEL_COUNT - 1;

    while (!cpu_level_available(level)) {
        level--;
    }
    return level;
}

bool cpu_level_choose(enum cpu_level *out, struct error *err)
{
    const char *wanted = getenv("SHOAL_CPU");
    enum cpu_level level;

    if (wanted == NULL || *wanted == '\0') {
        *out = best_level();
        return true;
    }
    if (!level_by_name(wanted, &level)) {
        return error_set(err, ERROR_USAGE, "SHOAL_CPU=%s: must be ref, avx2, avx512 or vnni",
                         wanted);
    }
    if (!cpu_level_available(level)) {
        return error_set(err, ERROR_USAGE, "SHOAL_CPU=%s: this machine has no more than %s", wanted,
                         level_names[best_level()]);
    }
    *out = level;
    return true;
}
