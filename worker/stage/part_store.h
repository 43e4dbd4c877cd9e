#ifndef SHOAL_STAGE_PART_STORE_H
#define SHOAL_STAGE_PART_STORE_H

/* The loaded parts of one model, whatever shares they were loaded for.
 *
 * A share takes its parts from here: those that are held are used where they lie, the rest gets
 * memory and is to be read. Several shares may hold the same part at the same time (the epoch that
 * ends and the one that begins); a part that none holds stays until it is trimmed. Parts of a share
 * that are new lie together in one mapping with huge pages, of which each can be given back alone.
 *
 * Not thread-safe: its owner is the loading thread while there is one, else the main thread.
 */
#include "worker/layers/weights.h"

struct part_store;
struct part_store *part_store_create(const struct arch *arch);
/* Only when no share holds a part; NULL is legal. */
void part_store_destroy(struct part_store *store);

/* What a share finds here, and what trimming for it would give back. */
struct part_sum {
    uint64_t kept_bytes; /* of memory */
    uint64_t kept_file_bytes;
    uint64_t spare_bytes; /* of memory, in parts that nobody needs then */
};
struct part_sum part_store_sum(const struct part_store *store, const struct weights *weights);
/* Gives back the memory of all parts that are neither in these weights nor held by any. */
void part_store_trim(struct part_store *store, const struct weights *weights);
/* Gives every part of the weights its memory, zeroed unless the part is_filled already, and binds
 * them. ERROR_LIMIT: nothing was taken. */
bool part_store_take(struct part_store *store, struct weights *weights,
                     struct error *err) MUST_CHECK;
/* After a load, whole or not: the parts of the weights that are filled now are there for others. */
void part_store_note(struct part_store *store, const struct weights *weights);
/* The weights' parts are held no more. Those that are filled stay here, the others are given back.
 * Legal for weights that took nothing. */
void part_store_release(struct part_store *store, struct weights *weights);
/* Memory of all parts. */
uint64_t part_store_bytes(const struct part_store *store);

#endif
