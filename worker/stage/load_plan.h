#ifndef SHOAL_STAGE_LOAD_PLAN_H
#define SHOAL_STAGE_LOAD_PLAN_H

/* What a load reads, cut into parts; from shapes alone.
 *
 *   unit   a run of whole rows of one piece, about LOAD_CHUNK_BYTES: what a thread takes at a time
 *   chunk  a range of one file, at most LOAD_CHUNK_BYTES: what is fetched, checksummed and cached
 *
 * A unit is made of its own chunks: first those of its values, then those of their scales. The cut
 * depends on the tensor alone, so that every share which contains a tensor has the same chunks.
 * Scales of neighbouring units may overlap by a row of blocks. Immutable; any thread.
 */
#include "worker/layers/weights.h"

#include <stdint.h>

#define LOAD_CHUNK_BYTES ((uint64_t)4 << 20)

struct load_chunk {
    uint64_t offset; /* from the start of the file */
    uint32_t bytes;
    uint32_t file;               /* index into catalog->files */
    const struct tensor *tensor; /* whose values or scales it holds */
};
struct load_unit {
    const struct weights_piece *piece;
    uint32_t row_begin, row_end;
    uint32_t chunk_begin, scale_chunk_begin, chunk_end; /* values [begin, scale), then scales */
};
struct load_plan {
    uint32_t unit_count;
    struct load_unit *units; /* in the order in which they are taken */
    uint32_t chunk_count;
    struct load_chunk *chunks; /* in the units' order */
    uint64_t file_bytes;       /* of all chunks, common rows of scales once */
    uint64_t block_bytes_max;  /* values that are read and packed at a time */
    uint64_t scale_bytes_max;  /* scales of a unit */
};

/* Of the parts that are not filled. Borrows the weights and their catalog. */
struct load_plan *load_plan_create(const struct weights *weights);
void load_plan_destroy(struct load_plan *plan); /* NULL is legal */

uint64_t load_row_bytes(const struct tensor *tensor);
/* How many rows of a piece are read and packed at a time: so few that they are still in a core's
 * own cache when they are packed. */
uint32_t load_block_rows(const struct weights *weights, const struct weights_piece *piece);

#endif
