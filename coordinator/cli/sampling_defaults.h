#ifndef SHOAL_CLI_SAMPLING_DEFAULTS_H
#define SHOAL_CLI_SAMPLING_DEFAULTS_H

/* The sampling that a model's publisher recommends: temperature, top_p, top_k and min_p of
 * generation_config.json, as vLLM takes them. Used wherever the user says nothing. Without the
 * file, or without a field: temperature 1, top_p 1, the others off; "do_sample": false means
 * temperature 0.
 */
#include "common/base/error.h"
#include "common/plan/step.h"

/* `directory`: the model. A file that is there must be well-formed. seed and choice are 0. */
bool sampling_defaults_read(const char *directory, struct sampling_params *out,
                            struct error *err) MUST_CHECK;

#endif
