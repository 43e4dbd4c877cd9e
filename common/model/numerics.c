/* numerics.c - names of the ways to compute products. */
#include "common/model/numerics.h"

#include "common/base/check.h"

#include <string.h>

static const char *const names[NUMERICS_COUNT] = {
    [NUMERICS_EXACT] = "exact",
    [NUMERICS_INT8] = "int8",
};

const char *numerics_name(enum numerics numerics)
{
    ASSERT(numerics < NUMERICS_COUNT);
    return names[numerics];
}

bool numerics_find(const char *name, enum numerics *out)
{
    for (int i = 0; i < NUMERICS_COUNT; i++) {
        if (strcmp(names[i], name) == 0) {
            *out = (enum numerics)i;
            return true;
        }
    }
    return false;
}
