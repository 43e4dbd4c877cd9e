#ifndef SHOAL_MODEL_TENSOR_ROLE_H
#define SHOAL_MODEL_TENSOR_ROLE_H

/* Published names, shapes and necessity of each tensor role: one table for the catalog, the
 * summary and whatever writes checkpoints. Pure; any thread. */
#include "common/model/arch.h"
#include "common/model/catalog.h"

#include <stddef.h>

#define TENSOR_NAME_BYTES_MAX 96 /* of the longest published name, NUL included */

struct tensor_shape {
    uint32_t rows; /* 1 for vectors */
    uint32_t columns;
    uint32_t dimension_count; /* 1 for vectors, which have `columns` values; else 2 */
};

/* How many tensors of this role the layer has (expert_count, 1 or 0), draft layers included;
 * CATALOG_NO_LAYER asks for those outside the layers. */
uint32_t tensor_role_count(const struct arch *arch, enum tensor_role role, uint32_t layer);

struct tensor_shape tensor_role_shape(const struct arch *arch, enum tensor_role role);

/* False when the architecture has no tensor of that name. */
bool tensor_role_of_name(const struct arch *arch, const char *name, enum tensor_role *role,
                         uint32_t *layer, uint32_t *expert);

/* The inverse: writes the name, at most TENSOR_NAME_BYTES_MAX, and returns it. K_B and V_B have
 * none. */
const char *tensor_role_write_name(enum tensor_role role, uint32_t layer, uint32_t expert,
                                   char name[TENSOR_NAME_BYTES_MAX]);

/* The names in GGUF files, where the experts of a layer share one. */
bool tensor_role_of_gguf_name(const struct arch *arch, const char *name, enum tensor_role *role,
                              uint32_t *layer);
const char *tensor_role_write_gguf_name(enum tensor_role role, uint32_t layer,
                                        char name[TENSOR_NAME_BYTES_MAX]);

bool tensor_role_is_expert(enum tensor_role role); /* one tensor for each routed expert */

/* A draft layer may leave out its copies of the main embedding and head. */
bool tensor_role_is_optional(enum tensor_role role);

#endif
