#ifndef SHOAL_CLI_OPTIONS_SAMPLING_H
#define SHOAL_CLI_OPTIONS_SAMPLING_H

/* The options that say how an answer's tokens are chosen and where it stops, the same for `run`,
 * which makes sampling_params of them, and `chat`, which sends them. An argp child whose input is a
 * struct sampling_options from sampling_options_init.
 */
#include "common/base/error.h"
#include "common/base/json.h"
#include "coordinator/cluster/cluster.h"

#include <argp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SAMPLING_OPTIONS_BIASES_MAX 1024
#define SAMPLING_OPTIONS_STOP_MAX   16

struct sampling_options {
    /* As given; NaN: not given. */
    double temperature, top_p, min_p;
    double repetition_penalty, presence_penalty, frequency_penalty;
    int64_t top_k; /* -1: not given */
    bool seed_given;
    uint64_t seed;
    struct token_bias biases[SAMPLING_OPTIONS_BIASES_MAX]; /* rising token */
    uint32_t bias_count;
    const char *stop[SAMPLING_OPTIONS_STOP_MAX]; /* lent by argv */
    size_t stop_count;
};

extern const struct argp sampling_options_argp;

void sampling_options_init(struct sampling_options *options);
/* What was given over the model's defaults, with a seed; `out` points into the options. */
bool sampling_options_apply(const struct sampling_options *options, const char *model,
                            struct sampling_params *out, struct error *err) MUST_CHECK;
/* What was given, as fields of a request. */
void sampling_options_request(const struct sampling_options *options, json_t *body);

#endif
