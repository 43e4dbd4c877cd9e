#ifndef SHOAL_API_OPENAI_FIELDS_H
#define SHOAL_API_OPENAI_FIELDS_H

/* Readers of the fields of a completion request, for openai_params.c. Private to coordinator/api.
 */
#include "coordinator/api/openai_params.h"

/* Reads its field into `out`, or sets `err` with a message that names the field. */
typedef bool (*openai_read_fn)(const struct api_config *config, const json_t *body,
                               struct openai_params *out, struct error *err);
struct openai_field {
    const char *name;    /* NULL ends a table */
    openai_read_fn read; /* NULL: refused unless it asks for nothing */
};

/* openai_sampling.c; `stream` has been read before. */
extern const struct openai_field openai_sampling_fields[];

/* openai_prompt.c */
bool openai_read_messages(const struct api_config *config, const json_t *body,
                          struct openai_params *out, struct error *err) MUST_CHECK;
bool openai_read_prompt(const struct api_config *config, const json_t *body,
                        struct openai_params *out, struct error *err) MUST_CHECK;

#endif
