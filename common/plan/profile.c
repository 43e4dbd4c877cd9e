/* profile.c - sums over a profile's records, and what they would take at the machine's limits. */
#include "common/plan/profile.h"

#include <string.h>

double profile_memory_seconds(const struct machine_limits *limits, uint64_t read_bytes)
{
    return limits->read_bytes_per_s > 0 ? (double)read_bytes / limits->read_bytes_per_s : 0;
}

double profile_arithmetic_seconds(const struct machine_limits *limits, uint64_t int8_operations,
                                  uint64_t f32_operations)
{
    double seconds = 0;

    if (limits->int8_operations_per_s > 0) {
        seconds += (double)int8_operations / limits->int8_operations_per_s;
    }
    if (limits->f32_operations_per_s > 0) {
        seconds += (double)f32_operations / limits->f32_operations_per_s;
    }
    return seconds;
}

static void record_add(struct profile_sum *sum, const struct machine_limits *limits,
                       const struct operation_record *record)
{
    const struct operation_work *work = &record->work;
    uint64_t read_bytes = work->weight_bytes + work->cache_bytes;

    sum->calls += record->calls;
    sum->ns += record->ns;
    sum->read_bytes += read_bytes;
    sum->operations += work->int8_operations + work->f32_operations;
    sum->memory_seconds += profile_memory_seconds(limits, read_bytes);
    sum->arithmetic_seconds +=
        profile_arithmetic_seconds(limits, work->int8_operations, work->f32_operations);
}

void profile_sums(const struct profile *profile, struct profile_sum out[PROFILE_SUMS_MAX])
{
    memset(out, 0, PROFILE_SUMS_MAX * sizeof(out[0]));
    for (int i = 0; i < PROFILE_SUMS_MAX; i++) {
        out[i].phase = (enum operation_phase)(i / OPERATION_COUNT);
        out[i].operation = (enum operation)(i % OPERATION_COUNT);
    }
    for (uint32_t w = 0; w < profile->worker_count; w++) {
        const struct profile_worker *worker = &profile->workers[w];

        for (uint32_t i = 0; i < worker->record_count; i++) {
            const struct operation_record *record = &worker->records[i];

            record_add(&out[record->phase * OPERATION_COUNT + record->operation], &worker->limits,
                       record);
        }
    }
}
