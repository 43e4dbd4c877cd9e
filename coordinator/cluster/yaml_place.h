#ifndef SHOAL_CLUSTER_YAML_PLACE_H
#define SHOAL_CLUSTER_YAML_PLACE_H

/* Where in a YAML text something stands, for messages about it. */
#include <stddef.h>
#include <stdint.h>

/* Lines and columns count from 1; line 0: not found. */
struct yaml_place {
    uint32_t line, column;
};

/* The value of `field` in entry `index` of the list `list` of the text's mapping, or, with `list`
 * NULL, of the mapping itself; `inner` is a field of that value, or NULL. */
struct yaml_path {
    const char *list;
    size_t index;
    const char *field;
    const char *inner;
};
struct yaml_place yaml_place_of_value(const char *text, size_t length,
                                      const struct yaml_path *path);
/* The first key `name`, of whatever mapping, behind `after`. */
struct yaml_place yaml_place_of_key(const char *text, size_t length, const char *name,
                                    struct yaml_place after);

#endif
