#ifndef SHOAL_MODEL_NUMERICS_H
#define SHOAL_MODEL_NUMERICS_H

/* How products are computed (--numerics). exact and int8 are canonical: the same bits on every
 * machine. The two fast ones need equal workers: their bits depend on the CPU.
 *
 * With the KV type and the kernels' version they make the numerics id, "int8/f16/k1", which every
 * result carries: equal ids and equal requests give equal tokens. Pure; any thread.
 */
#include "common/model/kv_type.h"

#include <stdbool.h>
#include <stdint.h>

enum numerics {
    NUMERICS_EXACT, /* f32 activations; weights of every type widened exactly */
    NUMERICS_INT8,  /* int8 activations for weights of block types, f32 ones for the others, and for
                       MLA's latent (kv_a, W_UK, W_UV) and the router */
    NUMERICS_FAST_AMX,  /* bf16 activations on AMX tiles for weights in bf16 and e4m3; as int8 for
                           the others */
    NUMERICS_FAST_BLAS, /* OpenBLAS for float weights and many rows; as int8 for the others */
    NUMERICS_COUNT,
    NUMERICS_FAST = NUMERICS_COUNT /* what the first worker calls fast: may be asked for, is none */
};

const char *numerics_name(enum numerics numerics); /* "exact", "int8", "fast-amx", "fast-blas" */
bool numerics_find(const char *name, enum numerics *out);
/* A name, or "fast" for NUMERICS_FAST. */
bool numerics_asked(const char *text, enum numerics *out);

#define NUMERICS_ID_BYTES 32
const char *numerics_id_write(enum numerics numerics, enum kv_type kv_type,
                              uint32_t kernels_version, char text[NUMERICS_ID_BYTES]);
/* Which numerics an id names, if it has this KV type and version. */
bool numerics_of_id(const char *id, enum kv_type kv_type, uint32_t kernels_version,
                    enum numerics *out);

#endif
