#ifndef SHOAL_KERNELS_LEAF_READS_H
#define SHOAL_KERNELS_LEAF_READS_H

/* What a leaf reads, said to the sanitizers. Leaves (matmul_<type>_<level>.c and blocks_<level>.c)
 * are compiled without them, but for plain C ones without the thread sanitizer only, since they
 * would look at every lane of every multiplication; their drivers say once for a tile which weights
 * and activations it reads, so that a thread that still writes them, and a read beyond their end,
 * are found as before. What a leaf writes is its driver's stack. */
#include <stddef.h>

#if defined(__SANITIZE_THREAD__)

void __tsan_read_range(void *begin, unsigned long bytes); /* libtsan's */

static inline void leaf_reads(const void *begin, size_t bytes)
{
    __tsan_read_range((void *)begin, bytes);
}

#elif defined(__SANITIZE_ADDRESS__)

#include <sanitizer/asan_interface.h>

static inline void leaf_reads(const void *begin, size_t bytes)
{
    const volatile char *wrong = __asan_region_is_poisoned((void *)begin, bytes);

    if (wrong != NULL) {
        (void)*wrong; /* reports it */
    }
}

#else

static inline void leaf_reads(const void *begin, size_t bytes)
{
    (void)begin;
    (void)bytes;
}

#endif

#endif
