/* amx.c - whether this machine has AMX tiles for bf16, and leave to use them.
 *
 * The instructions are only there if CPUID says so and the system saves the tiles (XGETBV); Linux
 * moreover wants to be asked, once for the process, before it makes room for them. */
#include "worker/kernels/amx.h"

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>

#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_XTILEDATA  18
#define XCR0_TILES          0x60000u   /* XTILECFG, XTILEDATA */
#define EDX_AMX_BF16        (1u << 22) /* leaf 7.0 */
#define EDX_AMX_TILE        (1u << 24)
#define EAX_AVX512_BF16     (1u << 5) /* leaf 7.1 */

static bool system_saves_tiles(void)
{
    unsigned eax, ebx, ecx, edx;

    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || (ecx & bit_OSXSAVE) == 0) {
        return false;
    }
    __asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
    return (eax & XCR0_TILES) == XCR0_TILES;
}

static bool has_instructions(void)
{
    unsigned eax, ebx, ecx, edx;
    const unsigned wanted = EDX_AMX_BF16 | EDX_AMX_TILE;

    return cpu_level_available(CPU_AVX512) && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) &&
           (edx & wanted) == wanted && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) &&
           (eax & EAX_AVX512_BF16) != 0;
}

static bool ask(void)
{
    return has_instructions() && system_saves_tiles() &&
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#else
static bool ask(void)
{
    return false;
}
#endif

static pthread_once_t asked = PTHREAD_ONCE_INIT;
static bool available;

static void ask_once(void)
{
    available = ask();
}

bool amx_available(void)
{
    pthread_once(&asked, ask_once);
    return available;
}

bool amx_takes(enum weight_type type)
{
    return type == WEIGHT_BF16 || type == WEIGHT_F8_E4M3;
}
