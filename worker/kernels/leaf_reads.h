#ifndef SHOAL_KERNELS_LEAF_READS_H
#define SHOAL_KERNELS_LEAF_READS_H

/* What a leaf reads, said to the thread sanitizer. Leaves (matmul_<type>_<level>.c and
 * blocks_<level>.c) are compiled without it, since it would look at every lane of every
 * multiplication; their drivers say once for a tile which weights and activations it reads, so that
 * a thread that still writes them is found as before. What a leaf writes is its driver's stack. */
#include <stddef.h>

#if defined(__SANITIZE_THREAD__)

void __tsan_read_range(void *begin, unsigned long bytes); /* libtsan's */

static inline void leaf_reads(const void *begin, size_t bytes)
{
    __tsan_read_range((void *)begin, bytes);
}

#else

static inline void leaf_reads(const void *begin, size_t bytes)
{
    (void)begin;
    (void)bytes;
}

#endif

#endif
