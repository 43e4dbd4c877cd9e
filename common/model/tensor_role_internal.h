#ifndef SHOAL_MODEL_TENSOR_ROLE_INTERNAL_H
#define SHOAL_MODEL_TENSOR_ROLE_INTERNAL_H

/* Between tensor_role.c and tensor_role_gguf.c: the beginnings of names. */
#include "common/model/tensor_role.h"

/* Moves *text behind `prefix`. */
bool tensor_name_take_prefix(const char **text, const char *prefix);
/* Decimal without leading zeros, at most six digits, then a dot; moves *text behind it. */
bool tensor_name_take_index(const char **text, uint32_t *index);

#endif
