/* sampling_defaults.c - temperature and truncation where the user names none. */
#include "coordinator/api/sampling_defaults.h"

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"

#include <math.h>

#define CONFIG_BYTES_MAX (1 << 20)

bool sampling_params_check(const struct sampling_params *params, struct error *err)
{
    if (!(params->temperature >= 0 && params->temperature <= 100)) {
        return error_set(err, ERROR_USAGE, "temperature must be between 0 and 100, got %g",
                         (double)params->temperature);
    }
    if (!(params->top_p > 0 && params->top_p <= 1)) {
        return error_set(err, ERROR_USAGE, "top_p must be above 0 and at most 1, got %g",
                         (double)params->top_p);
    }
    if (!(params->min_p >= 0 && params->min_p <= 1)) {
        return error_set(err, ERROR_USAGE, "min_p must be between 0 and 1, got %g",
                         (double)params->min_p);
    }
    if (!(params->repetition_penalty > 0 && params->repetition_penalty <= 10)) {
        return error_set(err, ERROR_USAGE,
                         "repetition_penalty must be above 0 and at most 10 (1: off), got %g",
                         (double)params->repetition_penalty);
    }
    if (!(params->presence_penalty >= -2 && params->presence_penalty <= 2)) {
        return error_set(err, ERROR_USAGE, "presence_penalty must be between -2 and 2, got %g",
                         (double)params->presence_penalty);
    }
    if (!(params->frequency_penalty >= -2 && params->frequency_penalty <= 2)) {
        return error_set(err, ERROR_USAGE, "frequency_penalty must be between -2 and 2, got %g",
                         (double)params->frequency_penalty);
    }
    return true;
}

static bool read_values(const json_t *config, struct sampling_params *params, struct error *err)
{
    double temperature;
    double top_p;
    double min_p;
    double repetition_penalty;
    bool sample;

    if (!json_get_number_or(config, "temperature", 1, &temperature, err) ||
        !json_get_number_or(config, "top_p", 1, &top_p, err) ||
        !json_get_number_or(config, "min_p", 0, &min_p, err) ||
        !json_get_number_or(config, "repetition_penalty", 1, &repetition_penalty, err) ||
        !json_get_bool_or(config, "do_sample", true, &sample, err) ||
        !json_get_u32_or(config, "top_k", 0, &params->top_k, err)) {
        return false;
    }
    params->temperature = sample ? (float)temperature : 0;
    params->top_p = (float)top_p;
    params->min_p = (float)min_p;
    params->repetition_penalty = (float)repetition_penalty;
    return sampling_params_check(params, err);
}

bool sampling_defaults_read(const char *directory, struct sampling_params *out, struct error *err)
{
    struct sampling_params defaults = {.temperature = 1, .top_p = 1, .repetition_penalty = 1};
    char *path = mem_printf("%s/generation_config.json", directory);
    bool fine = true;

    if (file_exists(path)) {
        json_t *config = json_read_file(path, CONFIG_BYTES_MAX, err);

        fine = config && (read_values(config, &defaults, err) || error_wrap(err, "%s", path));
        json_decref(config);
    }
    mem_free(path);
    if (fine) {
        *out = defaults;
    }
    return fine;
}
