/* arch_fields.c - single fields of a config.json, with their ranges. */
#include "common/model/arch_internal.h"

#include <math.h>

bool config_is_absent(const json_t *object, const char *field)
{
    const json_t *value = json_object_get(object, field);

    return value == NULL || json_is_null(value);
}

bool config_u32(const json_t *config, const struct u32_field *field, uint32_t *out,
                struct error *err)
{
    if (field->presence == FIELD_OR_ZERO && config_is_absent(config, field->name)) {
        *out = 0;
        return true;
    }
    if (!json_get_u32(config, field->name, out, err)) {
        return false;
    }
    if (*out < field->min || *out > field->max) {
        return error_set(err, ERROR_INPUT, "field \"%s\" is %u; %u to %u can be used", field->name,
                         *out, field->min, field->max);
    }
    return true;
}

bool config_number(const json_t *object, const struct number_field *field, double *out,
                   struct error *err)
{
    if (isnan(field->fallback) && config_is_absent(object, field->name)) {
        return error_set(err, ERROR_INPUT, "field \"%s\" is missing; it must be a number",
                         field->name);
    }
    if (!json_get_number_or(object, field->name, field->fallback, out, err)) {
        return false;
    }
    if (!(*out >= field->min && *out <= field->max)) {
        return error_set(err, ERROR_INPUT, "field \"%s\" is %g; %g to %g can be used", field->name,
                         *out, field->min, field->max);
    }
    return true;
}

bool config_require_bool(const json_t *config, const char *field, bool wanted, struct error *err)
{
    bool value;

    if (!json_get_bool_or(config, field, wanted, &value, err)) {
        return false;
    }
    return value == wanted ||
           error_set(err, ERROR_INPUT, "field \"%s\" is %s; only %s is supported", field,
                     value ? "true" : "false", wanted ? "true" : "false");
}

bool config_require_u32(const json_t *config, const char *field, uint32_t wanted, struct error *err)
{
    uint32_t value;

    if (!json_get_u32_or(config, field, wanted, &value, err)) {
        return false;
    }
    return value == wanted ||
           error_set(err, ERROR_INPUT, "field \"%s\" is %u; only %u is supported", field, value,
                     wanted);
}
