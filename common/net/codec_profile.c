/* codec_profile.c - what workers say about where their time went, and what their machines can do.
 *
 * A profile has thousands of records of a dozen numbers: each number is a packed array.
 */
#include "common/net/codec.h"

#include <stdio.h>
#include <string.h>

Shoal__Limits *codec_limits_encode(const struct machine_limits *in, struct arena *arena)
{
    Shoal__Limits *out = arena_new(arena, Shoal__Limits);

    shoal__limits__init(out);
    out->read_bytes_per_s = in->read_bytes_per_s;
    out->int8_operations_per_s = in->int8_operations_per_s;
    out->f32_operations_per_s = in->f32_operations_per_s;
    out->int8_unit = codec_text(in->int8_unit);
    out->f32_unit = codec_text(in->f32_unit);
    return out;
}

static bool unit_decode(const char *field, const char *in, char *out, struct error *err)
{
    if (!codec_check_count(field, strnlen(in, OPERATION_UNIT_BYTES), OPERATION_UNIT_BYTES - 1,
                           err)) {
        return false;
    }
    (void)snprintf(out, OPERATION_UNIT_BYTES, "%s", in);
    return true;
}

bool codec_limits_decode(const Shoal__Limits *in, struct machine_limits *out, struct error *err)
{
    *out = (struct machine_limits){0};
    if (in == NULL) {
        return true;
    }
    if (!codec_check_amount("read_bytes_per_s", in->read_bytes_per_s, err) ||
        !codec_check_amount("int8_operations_per_s", in->int8_operations_per_s, err) ||
        !codec_check_amount("f32_operations_per_s", in->f32_operations_per_s, err)) {
        return false;
    }
    out->read_bytes_per_s = in->read_bytes_per_s;
    out->int8_operations_per_s = in->int8_operations_per_s;
    out->f32_operations_per_s = in->f32_operations_per_s;
    return unit_decode("int8_unit", in->int8_unit, out->int8_unit, err) &&
           unit_decode("f32_unit", in->f32_unit, out->f32_unit, err);
}

/* --- records --- */

static void kinds_encode(const struct profile_message *in, struct arena *arena, Shoal__Profile *out)
{
    size_t count = in->record_count;

    out->n_layer = count;
    out->n_operation = count;
    out->n_phase = count;
    out->n_row_class = count;
    out->layer = arena_new_array(arena, uint32_t, count);
    out->operation = arena_new_array(arena, uint32_t, count);
    out->phase = arena_new_array(arena, uint32_t, count);
    out->row_class = arena_new_array(arena, uint32_t, count);
    for (size_t i = 0; i < count; i++) {
        out->layer[i] = in->records[i].layer + 1; /* none becomes 0 */
        out->operation[i] = in->records[i].operation;
        out->phase[i] = in->records[i].phase;
        out->row_class[i] = in->records[i].row_class;
    }
}

/* The sums of a record and where the message has them, in one order. */
#define SUM_COUNT 9

static void sums_of(const struct operation_record *record, uint64_t out[SUM_COUNT])
{
    const struct operation_work *work = &record->work;

    out[0] = record->calls;
    out[1] = record->rows;
    out[2] = record->ns;
    out[3] = work->weight_bytes;
    out[4] = work->cache_bytes;
    out[5] = work->activation_bytes;
    out[6] = work->int8_operations;
    out[7] = work->f32_operations;
    out[8] = work->experts;
}

struct column {
    const char *field;
    size_t *count;
    uint64_t **values;
};

static void columns_of(Shoal__Profile *profile, struct column out[SUM_COUNT])
{
    const struct column columns[SUM_COUNT] = {
        {"calls", &profile->n_calls, &profile->calls},
        {"rows", &profile->n_rows, &profile->rows},
        {"ns", &profile->n_ns, &profile->ns},
        {"weight_bytes", &profile->n_weight_bytes, &profile->weight_bytes},
        {"cache_bytes", &profile->n_cache_bytes, &profile->cache_bytes},
        {"activation_bytes", &profile->n_activation_bytes, &profile->activation_bytes},
        {"int8_operations", &profile->n_int8_operations, &profile->int8_operations},
        {"f32_operations", &profile->n_f32_operations, &profile->f32_operations},
        {"experts", &profile->n_experts, &profile->experts},
    };

    memcpy(out, columns, sizeof(columns));
}

void codec_profile_encode(const struct profile_message *in, struct arena *arena,
                          Shoal__Profile *out)
{
    struct column columns[SUM_COUNT];

    shoal__profile__init(out);
    out->epoch = in->epoch;
    kinds_encode(in, arena, out);
    columns_of(out, columns);
    for (size_t c = 0; c < SUM_COUNT; c++) {
        *columns[c].count = in->record_count;
        *columns[c].values = arena_new_array(arena, uint64_t, in->record_count);
    }
    for (size_t i = 0; i < in->record_count; i++) {
        uint64_t sums[SUM_COUNT];

        sums_of(&in->records[i], sums);
        for (size_t c = 0; c < SUM_COUNT; c++) {
            (*columns[c].values)[i] = sums[c];
        }
    }
}

static bool column_check(const char *field, size_t values, size_t records, struct error *err)
{
    return values == records ||
           error_set(err, ERROR_INPUT, "%s: %zu values for %zu records", field, values, records);
}

static bool lengths_check(const Shoal__Profile *in, const struct column *columns, struct error *err)
{
    if (!codec_check_count("records", in->n_layer, CODEC_RECORDS_MAX, err) ||
        !column_check("operation", in->n_operation, in->n_layer, err) ||
        !column_check("phase", in->n_phase, in->n_layer, err) ||
        !column_check("row_class", in->n_row_class, in->n_layer, err)) {
        return false;
    }
    for (size_t c = 0; c < SUM_COUNT; c++) {
        if (!column_check(columns[c].field, *columns[c].count, in->n_layer, err)) {
            return false;
        }
    }
    return true;
}

static bool kind_decode(const Shoal__Profile *in, size_t i, struct operation_record *out,
                        struct error *err)
{
    if (in->operation[i] >= OPERATION_COUNT || in->phase[i] >= OPERATION_PHASE_COUNT ||
        in->row_class[i] >= OPERATION_CLASS_COUNT || in->layer[i] > CODEC_LAYERS_MAX) {
        return error_set(err, ERROR_INPUT,
                         "record %zu: unknown layer %u, operation %u, phase %u or row_class %u", i,
                         in->layer[i], in->operation[i], in->phase[i], in->row_class[i]);
    }
    out->layer = in->layer[i] - 1;
    out->operation = (enum operation)in->operation[i];
    out->phase = (enum operation_phase)in->phase[i];
    out->row_class = in->row_class[i];
    return true;
}

bool codec_profile_decode(const Shoal__Profile *in, struct arena *arena,
                          struct profile_message *out, struct error *err)
{
    struct column columns[SUM_COUNT];
    Shoal__Profile view = *in;

    columns_of(&view, columns);
    if (!lengths_check(in, columns, err)) {
        return false;
    }
    *out = (struct profile_message){.epoch = in->epoch, .record_count = (uint32_t)in->n_layer};
    out->records = arena_new_array(arena, struct operation_record, in->n_layer);
    for (size_t i = 0; i < in->n_layer; i++) {
        struct operation_record *record = &out->records[i];

        if (!kind_decode(in, i, record, err)) {
            return false;
        }
        record->calls = in->calls[i];
        record->rows = in->rows[i];
        record->ns = in->ns[i];
        record->work = (struct operation_work){.weight_bytes = in->weight_bytes[i],
                                               .cache_bytes = in->cache_bytes[i],
                                               .activation_bytes = in->activation_bytes[i],
                                               .int8_operations = in->int8_operations[i],
                                               .f32_operations = in->f32_operations[i],
                                               .experts = in->experts[i]};
    }
    return true;
}
