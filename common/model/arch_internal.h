#ifndef SHOAL_MODEL_ARCH_INTERNAL_H
#define SHOAL_MODEL_ARCH_INTERNAL_H

/* Fields of a config.json, each checked with its range when it is read; and its rope. Private to
 * common/model. `config` is a JSON object, borrowed; err names the field. */
#include "common/base/json.h"
#include "common/model/arch.h"

enum presence {
    FIELD_REQUIRED,
    FIELD_OR_ZERO, /* missing or null means 0, which then need not lie in the range */
};

struct u32_field {
    const char *name;
    size_t offset;
    uint32_t min;
    uint32_t max;
    enum presence presence;
};

/* A number in [min, max]; missing or null gives the fallback, and NaN there means required. */
struct number_field {
    const char *name;
    double fallback;
    double min;
    double max;
};

bool config_is_absent(const json_t *object, const char *field); /* or null */
bool config_u32(const json_t *config, const struct u32_field *field, uint32_t *out,
                struct error *err) MUST_CHECK;
bool config_number(const json_t *object, const struct number_field *field, double *out,
                   struct error *err) MUST_CHECK;
/* For a field whose one known value is all that the forward pass computes: that, or missing. */
bool config_require_bool(const json_t *config, const char *field, bool wanted,
                         struct error *err) MUST_CHECK;
bool config_require_u32(const json_t *config, const char *field, uint32_t wanted,
                        struct error *err) MUST_CHECK;

/* rope_theta and rope_scaling, or rope_parameters; all of *out but its style.
 * theta_fallback: NaN where rope_theta is required. */
bool arch_parse_rope(const json_t *config, double theta_fallback, struct rope_config *out,
                     struct error *err) MUST_CHECK;

#endif
