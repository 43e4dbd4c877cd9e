#ifndef SHOAL_KERNELS_PACKED_BLOCKS_H
#define SHOAL_KERNELS_PACKED_BLOCKS_H

/* pack_rows for block types: the layout is block_kernel.h's. */
#include "worker/kernels/packed.h"

void pack_block_rows(char *packed, uint32_t columns, uint32_t row_begin, uint32_t row_count,
                     const struct pack_source *source);

#endif
