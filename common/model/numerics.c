/* numerics.c - names of the ways to compute products. */
#include "common/model/numerics.h"

#include "common/base/check.h"

#include <stdio.h>
#include <string.h>

static const char *const names[NUMERICS_COUNT] = {
    [NUMERICS_EXACT] = "exact",
    [NUMERICS_INT8] = "int8",
    [NUMERICS_FAST_AMX] = "fast-amx",
    [NUMERICS_FAST_BLAS] = "fast-blas",
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

bool numerics_asked(const char *text, enum numerics *out)
{
    if (strcmp(text, "fast") == 0) {
        *out = NUMERICS_FAST;
        return true;
    }
    return numerics_find(text, out);
}

const char *numerics_id_write(enum numerics numerics, enum kv_type kv_type,
                              uint32_t kernels_version, char text[NUMERICS_ID_BYTES])
{
    (void)snprintf(text, NUMERICS_ID_BYTES, "%s/%s/k%u", numerics_name(numerics),
                   kv_type_name(kv_type), kernels_version);
    return text;
}

bool numerics_of_id(const char *id, enum kv_type kv_type, uint32_t kernels_version,
                    enum numerics *out)
{
    for (int i = 0; i < NUMERICS_COUNT; i++) {
        char text[NUMERICS_ID_BYTES];

        numerics_id_write((enum numerics)i, kv_type, kernels_version, text);
        if (strcmp(id, text) == 0) {
            *out = (enum numerics)i;
            return true;
        }
    }
    return false;
}
