/* profile_json.c - profiles to JSON and back.
 *
 * The reader is strict: a planner that reads a misspelt or misplaced number as zero plans nonsense.
 * Every field must be there, of its type and within its bounds, and there are no others. One table
 * of the counters serves both directions.
 */
#include "common/base/json.h"
#include "common/plan/profile.h"

#include <string.h>

#define FORMAT      "shoal-profile"
#define WORKERS_MAX 65536
#define RECORDS_MAX ((size_t)1 << 20)
#define LAYERS_MAX  4096
#define FIELDS_MAX  16

/* --- counters of a record --- */

struct counter {
    const char *name;
    size_t offset;
};
static const struct counter counters[] = {
    {"calls", offsetof(struct operation_record, calls)},
    {"rows", offsetof(struct operation_record, rows)},
    {"ns", offsetof(struct operation_record, ns)},
    {"weight_bytes", offsetof(struct operation_record, work.weight_bytes)},
    {"cache_bytes", offsetof(struct operation_record, work.cache_bytes)},
    {"activation_bytes", offsetof(struct operation_record, work.activation_bytes)},
    {"int8_operations", offsetof(struct operation_record, work.int8_operations)},
    {"f32_operations", offsetof(struct operation_record, work.f32_operations)},
    {"experts", offsetof(struct operation_record, work.experts)},
};

static uint64_t *counter_of(const struct operation_record *record, size_t index)
{
    return (uint64_t *)(void *)((char *)(uintptr_t)record + counters[index].offset);
}

/* --- writing --- */

static json_t *integer(uint64_t value)
{
    return json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value);
}

/* Paths and names of hosts may be no UTF-8. */
static json_t *text_json(const char *text)
{
    json_t *string = json_string(text);

    return string != NULL ? string : json_string("(not UTF-8)");
}

static json_t *limits_json(const struct machine_limits *limits)
{
    json_t *object = json_pack(
        "{s:f,s:f,s:f,s:s,s:s}", "read_bytes_per_s", limits->read_bytes_per_s,
        "int8_operations_per_s", limits->int8_operations_per_s, "f32_operations_per_s",
        limits->f32_operations_per_s, "int8_unit", limits->int8_unit, "f32_unit", limits->f32_unit);

    ASSERT(object != NULL);
    return object;
}

static json_t *record_json(const struct operation_record *record)
{
    json_t *object = json_object();

    json_object_set_new(object, "layer",
                        record->layer == OPERATION_NO_LAYER ? json_null()
                                                            : json_integer(record->layer));
    json_object_set_new(object, "operation", json_string(operation_name(record->operation)));
    json_object_set_new(object, "phase", json_string(operation_phase_name(record->phase)));
    json_object_set_new(object, "step_rows_max",
                        json_integer(operation_class_rows(record->row_class)));
    for (size_t i = 0; i < ARRAY_LENGTH(counters); i++) {
        json_object_set_new(object, counters[i].name, integer(*counter_of(record, i)));
    }
    return object;
}

static json_t *worker_json(const struct profile_worker *worker)
{
    json_t *records = json_array();
    json_t *object;

    for (uint32_t i = 0; i < worker->record_count; i++) {
        json_array_append_new(records, record_json(&worker->records[i]));
    }
    object = json_pack("{s:I,s:o,s:o,s:I,s:I,s:I,s:[I,I],s:o,s:o,s:o,s:o,s:o,s:o}", "worker",
                       (json_int_t)worker->worker, "host", text_json(worker->host), "cpu",
                       text_json(worker->cpu), "threads", (json_int_t)worker->thread_count, "stage",
                       (json_int_t)worker->stage, "member", (json_int_t)worker->member, "layers",
                       (json_int_t)worker->layer_begin, (json_int_t)worker->layer_end,
                       "memory_bytes", integer(worker->memory_bytes), "ledger_bytes",
                       integer(worker->ledger_bytes), "weight_bytes", integer(worker->weight_bytes),
                       "kv_bytes", integer(worker->kv_bytes), "limits",
                       limits_json(&worker->limits), "records", records);
    ASSERT(object != NULL);
    return object;
}

json_t *profile_json(const struct profile *profile)
{
    json_t *workers = json_array();
    json_t *object;

    for (uint32_t i = 0; i < profile->worker_count; i++) {
        json_array_append_new(workers, worker_json(&profile->workers[i]));
    }
    object = json_pack(
        "{s:s,s:i,s:o,s:s,s:s,s:I,s:I,s:s,s:o}", "format", FORMAT, "version", PROFILE_VERSION,
        "model", text_json(profile->model), "model_hash", profile->model_hash, "architecture",
        profile->architecture, "layers", (json_int_t)profile->layer_count, "experts",
        (json_int_t)profile->expert_count, "numerics_id", profile->numerics_id, "workers", workers);
    ASSERT(object != NULL);
    return object;
}

/* --- reading --- */

/* What is read, into which arena, and how many records all workers have had so far. */
struct reader {
    struct arena *arena;
    uint32_t layer_count;
    size_t record_count;
};

static bool fields_check(const json_t *object, const char *const *names, struct error *err)
{
    const char *field;
    json_t *value;

    if (!json_is_object(object)) {
        return error_set(err, ERROR_INPUT, "must be an object, got %s", json_type_word(object));
    }
    json_object_foreach((json_t *)(uintptr_t)object, field, value)
    {
        size_t i = 0;

        while (names[i] != NULL && strcmp(names[i], field) != 0) {
            i++;
        }
        if (names[i] == NULL) {
            return error_set(err, ERROR_INPUT, "field \"%.60s\" is unknown", field);
        }
    }
    return true;
}

static bool integer_check(const char *field, const json_t *value, uint64_t most, uint64_t *out,
                          struct error *err)
{
    if (!json_is_integer(value)) {
        return error_set(err, ERROR_INPUT, "field \"%s\" must be an integer, got %s", field,
                         json_type_word(value));
    }
    if (json_integer_value(value) < 0 || (uint64_t)json_integer_value(value) > most) {
        return error_set(err, ERROR_INPUT, "field \"%s\": %lld is not from 0 to %llu", field,
                         (long long)json_integer_value(value), (unsigned long long)most);
    }
    *out = (uint64_t)json_integer_value(value);
    return true;
}

static bool u64_get(const json_t *object, const char *field, uint64_t *out, struct error *err)
{
    return integer_check(field, json_object_get(object, field), INT64_MAX, out, err);
}

static bool u32_get(const json_t *object, const char *field, uint32_t most, uint32_t *out,
                    struct error *err)
{
    uint64_t value;

    if (!integer_check(field, json_object_get(object, field), most, &value, err)) {
        return false;
    }
    *out = (uint32_t)value;
    return true;
}

static bool text_get(struct reader *reader, const json_t *object, const char *field,
                     const char **out, struct error *err)
{
    const char *text;

    if (!json_get_string(object, field, &text, err)) {
        return false;
    }
    *out = arena_strdup(reader->arena, text);
    return true;
}

static bool array_get(const json_t *object, const char *field, size_t count_max, json_t **out,
                      struct error *err)
{
    if (!json_get_array_or_null(object, field, out, err)) {
        return false;
    }
    if (*out == NULL) {
        return error_set(err, ERROR_INPUT, "field \"%s\" is missing", field);
    }
    return json_array_size(*out) <= count_max ||
           error_set(err, ERROR_LIMIT, "field \"%s\" has %zu entries, at most %zu", field,
                     json_array_size(*out), count_max);
}

static bool unit_get(const json_t *object, const char *field, char *out, struct error *err)
{
    const char *text;

    if (!json_get_string(object, field, &text, err)) {
        return false;
    }
    if (strlen(text) >= OPERATION_UNIT_BYTES) {
        return error_set(err, ERROR_INPUT, "field \"%s\" has more than %d letters", field,
                         OPERATION_UNIT_BYTES - 1);
    }
    memcpy(out, text, strlen(text) + 1);
    return true;
}

static bool rate_get(const json_t *object, const char *field, double *out, struct error *err)
{
    const json_t *value = json_object_get(object, field);

    if (!json_is_number(value) || json_number_value(value) < 0) {
        return error_set(err, ERROR_INPUT, "field \"%s\" must be a number from 0, got %s", field,
                         json_type_word(value));
    }
    *out = json_number_value(value);
    return true;
}

static bool limits_read(const json_t *object, struct machine_limits *out, struct error *err)
{
    static const char *const fields[] = {"read_bytes_per_s",
                                         "int8_operations_per_s",
                                         "f32_operations_per_s",
                                         "int8_unit",
                                         "f32_unit",
                                         NULL};

    return fields_check(object, fields, err) &&
           rate_get(object, "read_bytes_per_s", &out->read_bytes_per_s, err) &&
           rate_get(object, "int8_operations_per_s", &out->int8_operations_per_s, err) &&
           rate_get(object, "f32_operations_per_s", &out->f32_operations_per_s, err) &&
           unit_get(object, "int8_unit", out->int8_unit, err) &&
           unit_get(object, "f32_unit", out->f32_unit, err);
}

static bool layer_read(const struct reader *reader, const json_t *object, uint32_t *out,
                       struct error *err)
{
    const json_t *value = json_object_get(object, "layer");

    if (value != NULL && json_is_null(value)) {
        *out = OPERATION_NO_LAYER;
        return true;
    }
    return u32_get(object, "layer", reader->layer_count, out, err);
}

static bool class_read(const json_t *object, uint32_t *out, struct error *err)
{
    uint32_t rows;

    if (!u32_get(object, "step_rows_max", UINT32_MAX, &rows, err)) {
        return false;
    }
    for (*out = 0; *out < OPERATION_CLASS_COUNT; (*out)++) {
        if (operation_class_rows(*out) == rows) {
            return true;
        }
    }
    return error_set(err, ERROR_INPUT, "field \"step_rows_max\": %u is no class of steps", rows);
}

static bool words_read(const json_t *object, struct operation_record *out, struct error *err)
{
    const char *operation, *phase;

    if (!json_get_string(object, "operation", &operation, err) ||
        !json_get_string(object, "phase", &phase, err)) {
        return false;
    }
    if (!operation_find(operation, &out->operation)) {
        return error_set(err, ERROR_INPUT, "field \"operation\": \"%.40s\" is unknown", operation);
    }
    return operation_phase_find(phase, &out->phase) ||
           error_set(err, ERROR_INPUT, "field \"phase\": \"%.40s\" is unknown", phase);
}

static bool record_read(const struct reader *reader, const json_t *object,
                        struct operation_record *out, struct error *err)
{
    const char *fields[FIELDS_MAX] = {"layer", "operation", "phase", "step_rows_max"};

    for (size_t i = 0; i < ARRAY_LENGTH(counters); i++) {
        fields[4 + i] = counters[i].name;
    }
    if (!fields_check(object, fields, err) || !layer_read(reader, object, &out->layer, err) ||
        !words_read(object, out, err) || !class_read(object, &out->row_class, err)) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(counters); i++) {
        if (!u64_get(object, counters[i].name, counter_of(out, i), err)) {
            return false;
        }
    }
    return true;
}

static bool records_read(struct reader *reader, const json_t *object, struct profile_worker *out,
                         struct error *err)
{
    json_t *array;

    if (!array_get(object, "records", RECORDS_MAX - reader->record_count, &array, err)) {
        return false;
    }
    out->record_count = (uint32_t)json_array_size(array);
    reader->record_count += out->record_count;
    out->records = arena_new_array(reader->arena, struct operation_record, out->record_count);
    for (uint32_t i = 0; i < out->record_count; i++) {
        if (!record_read(reader, json_array_get(array, i), &out->records[i], err)) {
            return error_wrap(err, "records[%u]", i);
        }
    }
    return true;
}

static bool layers_read(const struct reader *reader, const json_t *object,
                        struct profile_worker *out, struct error *err)
{
    json_t *array;
    uint64_t begin, end;

    if (!array_get(object, "layers", 2, &array, err)) {
        return false;
    }
    if (json_array_size(array) != 2) {
        return error_set(err, ERROR_INPUT, "field \"layers\" must be [begin, end]");
    }
    if (!integer_check("layers", json_array_get(array, 1), reader->layer_count, &end, err) ||
        !integer_check("layers", json_array_get(array, 0), end, &begin, err)) {
        return false;
    }
    out->layer_begin = (uint32_t)begin;
    out->layer_end = (uint32_t)end;
    return true;
}

static bool worker_read(struct reader *reader, const json_t *object, struct profile_worker *out,
                        struct error *err)
{
    static const char *const fields[] = {
        "worker",       "host",         "cpu",          "threads",  "stage",  "member",  "layers",
        "memory_bytes", "ledger_bytes", "weight_bytes", "kv_bytes", "limits", "records", NULL};

    if (!fields_check(object, fields, err) ||
        !u32_get(object, "worker", UINT32_MAX, &out->worker, err) ||
        !text_get(reader, object, "host", &out->host, err) ||
        !text_get(reader, object, "cpu", &out->cpu, err) ||
        !u32_get(object, "threads", WORKERS_MAX, &out->thread_count, err) ||
        !u32_get(object, "stage", LAYERS_MAX, &out->stage, err) ||
        !u32_get(object, "member", WORKERS_MAX, &out->member, err) ||
        !layers_read(reader, object, out, err) ||
        !u64_get(object, "memory_bytes", &out->memory_bytes, err) ||
        !u64_get(object, "ledger_bytes", &out->ledger_bytes, err) ||
        !u64_get(object, "weight_bytes", &out->weight_bytes, err) ||
        !u64_get(object, "kv_bytes", &out->kv_bytes, err)) {
        return false;
    }
    if (!limits_read(json_object_get(object, "limits"), &out->limits, err)) {
        return error_wrap(err, "limits");
    }
    return records_read(reader, object, out, err);
}

static bool head_read(struct reader *reader, const json_t *root, struct profile *out,
                      struct error *err)
{
    static const char *const fields[] = {"format",       "version", "model",   "model_hash",
                                         "architecture", "layers",  "experts", "numerics_id",
                                         "workers",      NULL};
    const char *format;
    uint32_t version;

    if (!json_get_string(root, "format", &format, err) ||
        !u32_get(root, "version", UINT32_MAX, &version, err)) {
        return false;
    }
    if (strcmp(format, FORMAT) != 0) {
        return error_set(err, ERROR_INPUT, "field \"format\" is \"%.40s\", not \"" FORMAT "\"",
                         format);
    }
    if (version != PROFILE_VERSION) {
        return error_set(err, ERROR_INPUT, "field \"version\": %u, this program reads version %d",
                         version, PROFILE_VERSION);
    }
    return fields_check(root, fields, err) && text_get(reader, root, "model", &out->model, err) &&
           text_get(reader, root, "model_hash", &out->model_hash, err) &&
           text_get(reader, root, "architecture", &out->architecture, err) &&
           u32_get(root, "layers", LAYERS_MAX, &out->layer_count, err) &&
           u32_get(root, "experts", UINT16_MAX, &out->expert_count, err) &&
           text_get(reader, root, "numerics_id", &out->numerics_id, err);
}

static bool root_read(struct reader *reader, const json_t *root, struct profile *out,
                      struct error *err)
{
    json_t *workers;

    if (!json_is_object(root)) {
        return error_set(err, ERROR_INPUT, "must be an object, got %s", json_type_word(root));
    }
    if (!head_read(reader, root, out, err) ||
        !array_get(root, "workers", WORKERS_MAX, &workers, err)) {
        return false;
    }
    reader->layer_count = out->layer_count;
    out->worker_count = (uint32_t)json_array_size(workers);
    out->workers = arena_new_array(reader->arena, struct profile_worker, out->worker_count);
    for (uint32_t i = 0; i < out->worker_count; i++) {
        if (!worker_read(reader, json_array_get(workers, i), &out->workers[i], err)) {
            return error_wrap(err, "workers[%u]", i);
        }
    }
    return true;
}

struct profile *profile_parse(const char *text, size_t length, const char *name,
                              struct arena *arena, struct error *err)
{
    json_t *root = json_parse(text, length, name, err);
    struct reader reader = {.arena = arena};
    struct profile *profile = arena_new(arena, struct profile);
    bool good;

    if (root == NULL) {
        return NULL;
    }
    good = root_read(&reader, root, profile, err);
    json_decref(root);
    if (!good) {
        error_wrap(err, "%s", name);
        return NULL;
    }
    return profile;
}
