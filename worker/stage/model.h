#ifndef SHOAL_STAGE_MODEL_H
#define SHOAL_STAGE_MODEL_H

/* A model that a worker has opened, with the parts of it that are in memory; it outlives the epochs
 * that use it.
 *
 * Whether the model of a new assignment is the one that is held: its hash decides, which covers
 * everything but values; beside it, so that a file which was replaced by one of the same headers is
 * noticed, local files must be the same ones as before (device, inode, size, time of change), and
 * fetched ones must have the same content id.
 */
#include "common/model/model_hash.h"
#include "worker/stage/model_source.h"
#include "worker/stage/part_store.h"

struct file_stamp;
struct model {
    char *path; /* as the assignment or --model says */
    struct catalog *catalog;
    char hash[MODEL_HASH_BYTES];
    char *fetch_id;            /* of what is in the cache */
    struct model_cache *cache; /* that the files lie in; NULL: the machine's own */
    struct file_stamp *stamps; /* [catalog->file_count] */
    struct part_store *store;
};

/* Reads headers only; may fetch them. */
struct model *model_open(const struct model_source *source, const struct weights_choice *weights,
                         struct error *err) MUST_CHECK;
/* Only when no weights hold its parts; NULL is legal. */
void model_destroy(struct model *model);
/* True: opening it again would give the same model. `hash`: the wanted one; "": any. */
bool model_is_current(const struct model *model, const struct model_source *source,
                      const struct weights_choice *weights, const char *hash);
/* True: what is held of one is good for the other, which may lie under another path. */
bool model_is_same(const struct model *model, const struct model *other);

#endif
