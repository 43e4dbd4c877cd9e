#ifndef SHOAL_MODEL_MODEL_HASH_H
#define SHOAL_MODEL_MODEL_HASH_H

/* A name for a model's content, from its description and headers alone: what the architecture
 * computes, and every tensor's name, type, shape, file (without its folder), offset and size. Two
 * programs that open the same checkpoint under different paths get the same text; a worker refuses
 * an assignment whose hash is not that of its own files. Not for adversaries. Pure; any thread.
 */
#include "common/model/catalog.h"

#define MODEL_HASH_BYTES 17 /* 16 hexadecimal digits and the NUL */

void model_hash(const struct catalog *catalog, char out[MODEL_HASH_BYTES]);

#endif
