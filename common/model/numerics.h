#ifndef SHOAL_MODEL_NUMERICS_H
#define SHOAL_MODEL_NUMERICS_H

/* How products are computed (--numerics). Both are canonical: the same bits on every machine. */
#include <stdbool.h>

enum numerics {
    NUMERICS_EXACT, /* f32 activations; weights of every type widened exactly */
    NUMERICS_INT8,  /* int8 activations for weights of block types, f32 ones for the others */
    NUMERICS_COUNT
};

const char *numerics_name(enum numerics numerics); /* "exact", "int8" */
bool numerics_find(const char *name, enum numerics *out);

#endif
