#ifndef SHOAL_API_SAMPLING_DEFAULTS_H
#define SHOAL_API_SAMPLING_DEFAULTS_H

/* What a request that names no sampling parameter gets: the model's generation_config.json, as
 * other servers do, else temperature 1 without truncation. */
#include "common/base/error.h"
#include "coordinator/cluster/cluster.h"

/* <directory>/generation_config.json: temperature, top_p, top_k, min_p,
 * repetition_penalty; "do_sample": false means temperature 0. A missing file gives the plain
 * defaults; one that is there must be well-formed. seed and choice are 0. */
bool sampling_defaults_read(const char *directory, struct sampling_params *out,
                            struct error *err) MUST_CHECK;
/* Ranges: temperature 0…100, top_p in (0, 1], min_p in [0, 1], repetition_penalty in (0, 10],
 * presence_penalty and frequency_penalty -2…2; err names the parameter. */
bool sampling_params_check(const struct sampling_params *params, struct error *err) MUST_CHECK;

#endif
