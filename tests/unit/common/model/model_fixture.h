#ifndef SHOAL_TESTS_MODEL_FIXTURE_H
#define SHOAL_TESTS_MODEL_FIXTURE_H

/* What the tests of common/model share: configs with one field changed, and copies of the small
 * golden checkpoint whose headers and files can be damaged. Failures fail the test at once. */
#include "common/model/arch.h"
#include "tests/support/scratch.h"

#include <jansson.h>
#include <stddef.h>

/* Parses tests/data/<name>; json_decref it. */
json_t *fixture_json(const char *name);
/* Parses the config with `path` ("rope_scaling.factor") set to the JSON `value`; NULL deletes. */
bool fixture_parse_changed(const char *config, const char *path, const char *value,
                           struct arch *out, struct error *err);
/* tests/data/configs/<name>.json as published; must parse. */
struct arch fixture_arch(const char *name);

/* A copy of tests/data/deepseek_v3-bf16/model in a scratch directory. */
struct model_copy {
    struct scratch scratch;
};
void model_copy_open(struct model_copy *copy);
void model_copy_open_fp8(struct model_copy *copy); /* of deepseek_v3-fp8 */
void model_copy_close(struct model_copy *copy);
/* The path of a file inside; lent until the next call. */
const char *model_copy_path(struct model_copy *copy, const char *name);
void model_copy_write(struct model_copy *copy, const char *name, const void *bytes, size_t length);
void model_copy_write_json(struct model_copy *copy, const char *name, const json_t *value);
void model_copy_cut(struct model_copy *copy, const char *name, size_t length);
/* The header of a shard as JSON (json_decref), and back: the data behind it stay. */
json_t *model_copy_header(struct model_copy *copy, const char *name);
void model_copy_set_header(struct model_copy *copy, const char *name, const json_t *header);
/* catalog_open must fail, and its message have each of the words (NULL ends the list). */
void model_copy_expect_error(struct model_copy *copy, const char *const *words);

#endif
